"""What lies where on disk: folders of a data set, lists of pictures, and a hint when a name is nearly right.

Folders are listed once and names compared exactly, so that a million pictures cost a thousand calls, and a file system
that ignores case hides nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from PIL import Image

from clip.transfer import is_web_page
from datasets.errors import DatasetError, DatasetLayout, DatasetMissing

PREPARE = "python tools/prepare_data.py"
SHOWN = 5  # paths named in a message that could name thousands


def data_root(root: str | os.PathLike[str]) -> Path:
    """The folder of the data sets, absolute.

    Raises:
        DatasetMissing: it is not named, or no folder.
    """
    path = Path(root).expanduser().absolute()
    if not os.fspath(root) or not path.is_dir():
        raise DatasetMissing(
            f"No data root at {os.fspath(root)!r} (DATASET.ROOT); give the folder of the data sets with --root, or "
            f"make it."
        )
    return path


def dataset_folder(root: Path, name: str, reader: str) -> Path:
    """The folder of a data set below the data root.

    Raises:
        DatasetMissing: there is none; the sentence has the command that fetches it.
        DatasetLayout: there is one with nearly that name; the sentence says what to rename.
    """
    folder = root / name
    if folder.is_dir():
        return folder
    if folder.is_symlink():
        raise DatasetMissing(f"{folder} is a link to {os.readlink(folder)}, where no folder is; mend the link.")
    similar = [entry.name for entry in _folders(root) if _plain(entry.name) == _plain(name)]
    if similar:
        raise DatasetLayout(f"No folder {folder}, but there is {root / similar[0]}; rename it to {name}.")
    raise DatasetMissing(f"No folder {folder}; fetch the data set with: {download_command(reader, root)}.")


def image_folder(folder: Path, name: str, aliases: Iterable[str], reader: str) -> Path:
    """The folder of the pictures inside a data set's folder.

    Args:
        name: of the folder below `folder`; "": `folder` itself.
        aliases: names that archives and other projects give to it.

    Raises:
        DatasetMissing: there is none.
        DatasetLayout: it lies elsewhere; the sentence says what to move.
    """
    images = folder / name
    if images.is_dir():
        return images
    wanted = {_plain(other) for other in (name, *aliases)}
    for above in (folder, *(folder / inner for inner in subfolders(folder))):
        for inner in subfolders(above):
            if _plain(inner) in wanted:
                raise DatasetLayout(f"No folder {images}, but there is {above / inner}; move it to {images}.")
    raise DatasetMissing(f"No folder {images}; fetch the pictures with: {download_command(reader, folder.parent)}.")


def download_command(reader: str, root: Path) -> str:
    """The command that fetches a data set, for messages."""
    return f"{PREPARE} download {reader} --root {root}"


def subfolders(folder: Path) -> list[str]:
    """Visible folders in a folder, sorted; links to folders count."""
    return sorted(entry.name for entry in _folders(folder))


def images_in(folder: Path) -> list[str]:
    """Names of the pictures in a folder, sorted: visible files whose ending is a picture's."""
    endings = Image.registered_extensions()
    return sorted(
        entry.name
        for entry in os.scandir(folder)
        if not entry.name.startswith(".") and os.path.splitext(entry.name)[1].lower() in endings and entry.is_file()
    )


def images_below(folder: Path) -> list[Path]:
    """Paths of the pictures in a folder and in the visible folders below it, at any depth, sorted."""
    return sorted(_images_below(folder), key=lambda path: path.as_posix())


def missing_images(images: Path, paths: Sequence[str]) -> list[str]:
    """Those of the relative paths at which there is no file, in their order."""
    present = {below: _file_names(images / below) for below in {_parent(path) for path in paths}}
    return [path for path in paths if path.rpartition("/")[2] not in present[_parent(path)]]


def check_images(images: Path, paths: Sequence[str], advice: str) -> None:
    """Make sure that all listed pictures are there.

    Args:
        advice: what to do if not, for the message.

    Raises:
        DatasetMissing: some are not; the sentence counts them and names the first.
    """
    absent = missing_images(images, paths)
    if absent:
        shown = ", ".join(absent[:SHOWN]) + (", …" if len(absent) > SHOWN else "")
        raise DatasetMissing(f"{len(absent)} of {len(paths)} listed images are not in {images} ({shown}); {advice}.")


def is_relative(path: str) -> bool:
    """Whether a path stays below the folder it is joined to, and can be one, on every system."""
    parts = PurePosixPath(path).parts
    try:
        path.encode()  # halves of surrogate pairs, which JSON can hold, name no file
    except UnicodeEncodeError:
        return False
    below = bool(parts) and not path.startswith("/") and ".." not in parts
    return below and "\\" not in path and "\0" not in path and ":" not in parts[0]


def read_lines(path: Path, what: str, reader: str) -> list[str]:
    """Lines of a text file of a data set, stripped, empty ones left out.

    Args:
        what: the file in words, for messages.

    Raises:
        DatasetMissing: there is no such file.
        DatasetError: it is empty, no text, or a web page.
    """
    if not path.is_file():
        raise DatasetMissing(f"No {what} at {path}; fetch it with: {download_command(reader, path.parent.parent)}.")
    content = path.read_bytes()
    if is_web_page(content):
        raise DatasetError(f"{path} is a web page, not the {what}: its download failed; delete it and get it again.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DatasetError(f"{path} is not a text file, but should be the {what}; get it again.") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise DatasetError(f"{path} is empty, but should be the {what}; get it again.")
    return lines


def _file_names(folder: Path) -> set[str]:
    try:
        return {entry.name for entry in os.scandir(folder) if entry.is_file()}
    except OSError:  # no such folder, or it may not be read: its pictures count as missing
        return set()


def _images_below(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (folder / name for name in images_in(folder))
        for name in subfolders(folder):
            yield from _images_below(folder / name)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _folders(folder: Path) -> Iterator[os.DirEntry[str]]:
    for entry in os.scandir(folder):
        if not entry.name.startswith(".") and entry.is_dir():
            yield entry


def _plain(name: str) -> str:
    """A name without what people change about it: case, hyphens, underscores."""
    return name.lower().replace("-", "").replace("_", "")
