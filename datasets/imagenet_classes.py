"""ImageNet's 1,000 classes, and the folders that are named after them.

The names are those that the field's `classnames.txt` holds. The libraries that open_clip brings know them and their
identifiers, so the file can be made anywhere and need not be downloaded; one on disk is checked against them.
"""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from datasets.errors import DatasetError, DatasetLayout, DatasetMissing
from datasets.layout import download_command, images_in, read_lines, subfolders

CLASSNAMES = "classnames.txt"
_IDENTIFIER = re.compile(r"n\d{8}")


@cache
def imagenet_classes() -> dict[str, str]:
    """WordNet identifier -> class name of the 1,000 classes, sorted by identifier, which is the order of labels."""
    from open_clip import IMAGENET_CLASSNAMES  # seconds of import, needed by ImageNet's readers only

    return dict(zip(synsets("imagenet"), IMAGENET_CLASSNAMES, strict=True))


@cache
def synsets(subset: str) -> tuple[str, ...]:
    """Sorted identifiers of the classes of "imagenet", "imagenet_a" or "imagenet_r"."""
    text = (importlib.resources.files("timm.data") / "_info" / f"{subset}_synsets.txt").read_text(encoding="utf-8")
    return tuple(sorted(text.split()))


def classnames_text() -> str:
    """The content of `classnames.txt`: a line "identifier name" a class."""
    return "".join(f"{identifier} {name}\n" for identifier, name in imagenet_classes().items())


def read_classnames(folder: Path, reader: str) -> dict[str, str]:
    """Identifier -> name from `classnames.txt` in a folder, or the known ones where there is no such file.

    A file with other names (older ones circulate) counts, with a warning: they change the accuracy.

    Raises:
        DatasetError: the file does not hold the 1,000 identifiers, sorted, with a name each.
    """
    known = imagenet_classes()
    path = folder / CLASSNAMES
    if not path.is_file():
        return known
    rows = [line.split(None, 1) for line in read_lines(path, "class names", reader)]
    for number, row in enumerate(rows, 1):
        if len(row) != 2 or not _IDENTIFIER.fullmatch(row[0]):
            raise DatasetError(f"{path}, line {number} must be 'n######## name', got {' '.join(row)!r:.60}.")
    found = dict(rows)
    if len(rows) != len(found) or list(found) != list(known):
        odd = sorted(set(found) ^ set(known))
        what = f"{odd[0]} is missing or too much" if odd else "a line is doubled or out of order"
        raise DatasetError(
            f"{path} must hold ImageNet's {len(known)} classes sorted by identifier, but {what}; delete the file to "
            f"use the known names."
        )
    other = [identifier for identifier, name in found.items() if name != known[identifier]]
    if other:
        print(
            f"Warning: {path} calls {other[0]} {found[other[0]]!r}, not {known[other[0]]!r} ({len(other)} such lines); "
            f"delete the file to use the names that published results have"
        )
    return found


def class_folders(images: Path, part: str, names: Sequence[str], reader: str) -> list[list[str]]:
    """Paths, relative to `images` and sorted, of the pictures in each of the folders `names` of the folder `part`.

    Raises:
        DatasetMissing: the folder or class folders are not there.
        DatasetLayout: there is a folder of no class, or pictures instead of folders.
        DatasetError: a class has no picture.
    """
    parent = images / part
    if not parent.is_dir():
        raise DatasetMissing(f"No folder {parent}, where {reader} has its class folders; complete the data set.")
    folders = set(subfolders(parent))
    if not folders and images_in(parent):
        raise DatasetLayout(
            f"The pictures of {parent} are in one flat folder, but belong into a folder a class; put the official "
            f"archives there and run: {download_command(reader, images.parent.parent)}."
        )
    unknown, absent = sorted(folders - set(names)), sorted(set(names) - folders)
    if unknown:
        raise DatasetLayout(
            f"{parent / unknown[0]} is named after no class of {reader} ({len(unknown)} such folders); move it away."
        )
    if absent:
        raise DatasetMissing(
            f"{len(absent)} of {len(names)} class folders are not in {parent} (first: {absent[0]}); complete the data "
            f"set."
        )
    start = f"{part}/" if part else ""
    pictures = [[f"{start}{name}/{file}" for file in images_in(parent / name)] for name in names]
    empty = [name for name, paths in zip(names, pictures, strict=True) if not paths]
    if empty:
        raise DatasetError(f"{parent / empty[0]} has no picture ({len(empty)} such folders); complete the data set.")
    return pictures


def numbered_folders(parent: Path) -> bool:
    """Whether the class folders are named by label, "0" to "999", rather than by identifier.

    Raises:
        DatasetLayout: both kinds are there.
    """
    kinds = {name.isdecimal() for name in subfolders(parent)}
    if len(kinds) > 1:
        raise DatasetLayout(f"{parent} has folders named by number and by identifier; keep those of one data set.")
    return kinds == {True}
