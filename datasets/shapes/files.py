"""Writes a domain to disk once: PNG files, a split file, and a note of what drew them."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from datasets.shapes import conditions, render
from datasets.shapes.domains import CLASS_NAMES, Domain
from datasets.splits import PARTS, Item, Split, save_split

NOTE = "rendered.json"  # in the folder of a domain: written last, so its presence means that all pictures are there
IMAGES = "images"
_PICTURES_A_JOB = 96


def fingerprint(domain: Domain) -> str:
    """Changes with the renderer's code and with the domain's definition, 16 hex digits."""
    code = b"".join(Path(str(module.__file__)).read_bytes() for module in (render, conditions))
    return hashlib.sha256(code + repr((domain, CLASS_NAMES)).encode()).hexdigest()[:16]


def ensure_rendered(domain: Domain, root: str | os.PathLike[str]) -> Path:
    """The folder of a domain below the data root; pictures are drawn if it is not there or was drawn by other code.

    Everything is drawn into a temporary folder, which is then renamed: a run that is killed leaves nothing that could
    be taken for the data set, and of two that draw at the same time one wins with the same pictures.

    Raises:
        RuntimeError: the root cannot be written, or a folder of that name holds something else.
    """
    root = Path(root)
    folder = root / domain.folder
    if drawn_by(folder) == fingerprint(domain):
        return folder
    if folder.exists() and drawn_by(folder) is None:
        raise RuntimeError(
            f"{folder} exists but was not rendered by this program; move it away, or use another data root."
        )
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{domain.folder}.", dir=root))
        try:
            _render_into(temporary, domain)
            temporary.chmod(0o755)  # mkdtemp's own is 0o700
            _put(temporary, folder, domain)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise RuntimeError(
            f"Cannot render {domain.folder} into {root} ({error.strerror or error}); choose a data root that can be "
            f"written and has 150 MB free."
        ) from error
    return folder


def drawn_by(folder: Path) -> str | None:
    """Fingerprint of what drew a folder; None where there is no valid note."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads((folder / NOTE).read_text())["fingerprint"])
    return None


def _put(temporary: Path, folder: Path, domain: Domain) -> None:
    """Rename into place; an older rendering steps aside first."""
    for attempt in range(3):
        if folder.exists():
            if drawn_by(folder) == fingerprint(domain):
                return  # another process was faster
            aside = temporary.with_name(f"{temporary.name}.old{attempt}")
            with contextlib.suppress(FileNotFoundError):
                folder.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
        with contextlib.suppress(FileExistsError):
            temporary.rename(folder)
            return
        # rename onto a folder with content fails with ENOTEMPTY on Linux, EEXIST elsewhere
    raise OSError(f"{folder} keeps coming back")


def _render_into(folder: Path, domain: Domain) -> None:
    lists: dict[str, list[Item]] = {part: [] for part in PARTS}
    jobs = []
    for part, count in zip(PARTS, domain.counts, strict=True):
        pairs = list(itertools.product(range(len(CLASS_NAMES)), range(count)))
        for label, name in enumerate(CLASS_NAMES if count else ()):
            (folder / IMAGES / part / _class_folder(label, name)).mkdir(parents=True)
        lists[part] = [Item(_path(part, label, index), label, CLASS_NAMES[label]) for label, index in pairs]
        jobs += [(part, pairs[at : at + _PICTURES_A_JOB]) for at in range(0, len(pairs), _PICTURES_A_JOB)]
    bar = tqdm(total=sum(map(len, lists.values())), desc=f"Rendering {domain.folder}", unit=" pictures", disable=None)

    def work(job: tuple[str, list[tuple[int, int]]]) -> int:
        part, pairs = job
        labels, index = np.array(pairs).T
        for (label, number), picture in zip(pairs, domain.pictures(part, labels, index), strict=True):
            Image.fromarray(picture).save(folder / IMAGES / _path(part, label, number), compress_level=1)
        return len(pairs)

    # Threads suffice: NumPy and the PNG encoder release the interpreter lock.
    with bar, ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for done in pool.map(work, jobs):
            bar.update(done)
    save_split(Split(lists["train"], lists["val"], lists["test"]), folder / domain.split_file)
    (folder / NOTE).write_text(json.dumps({"fingerprint": fingerprint(domain), "domain": domain.folder}) + "\n")


def _class_folder(label: int, name: str) -> str:
    return f"{label:03d}_{name.replace(' ', '_')}"


def _path(part: str, label: int, index: int) -> str:
    return f"{part}/{_class_folder(label, CLASS_NAMES[label])}/{index:03d}.png"
