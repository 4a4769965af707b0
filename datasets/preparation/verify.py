"""Compare a data set on disk with what it should be: folders, split, classes, and every listed picture."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from datasets.base import SplitDataset
from datasets.errors import DatasetError, DatasetLayout, DatasetMissing
from datasets.imagenet import ClassFolders
from datasets.layout import SHOWN, data_root, missing_images
from datasets.preparation.decode import EMPTY, Unreadable, unreadable_images
from datasets.preparation.find import expected_folder, find
from datasets.preparation.states import CORRUPT, FOREIGN, LAYOUT, MISSING, OK, PARTIAL, Report
from datasets.splits import Item

LEVELS = {
    "quick": "folders, split, classes, and a file for every listed image",
    "files": "quick, and no file is empty",
    "full": "quick, and every image is decoded completely",
}


def verify(reader: type[SplitDataset], root: Path, level: str = "full", workers: int | None = None) -> Report:
    """Look at a data set below the data root; nothing is written or drawn.

    Args:
        level: one of LEVELS.
        workers: processes that decode; None starts one a CPU, 0 none.

    Raises:
        DatasetMissing: there is no data root.
        ValueError: unknown level, or a config file has impossible settings.
        RuntimeError: a decoding process was killed.
    """
    if level not in LEVELS:
        raise ValueError(f"level must be one of {', '.join(LEVELS)}, got {level!r}")
    root = data_root(root)
    try:
        found, said = find(reader, root)
    except (DatasetError, OSError) as error:
        return _without_lists(reader, root, error)
    paths = [item.path for part in found.split for item in part]
    missing = missing_images(found.images, paths)
    absent = set(missing)
    present = [path for path in paths if path not in absent]
    unreadable: list[Unreadable] | None = None
    if level == "files":
        unreadable = empty_files(found.images, present, reader.__name__)
    elif level == "full":
        unreadable = unreadable_images(found.images, present, workers, reader.__name__)
    n_classes = len({item.label for item in found.split.test})
    report = Report(
        dataset=reader.__name__,
        folder=found.folder,
        state=OK,
        expected=_sizes(found.split),
        found=_sizes([item for item in part if item.path not in absent] for part in found.split),
        n_classes=reader.n_classes or n_classes,
        n_classes_found=n_classes,
        images=found.images,
        missing=tuple(missing),
        unreadable=None if unreadable is None else tuple(unreadable),
        n_outside=count_outside(found.folder, found.images, present),
        split_digest=found.split.digest,
        split_published=found.published,
    )
    if issubclass(reader, ClassFolders):  # the folders are the split: only the published numbers tell of gaps
        report = replace(report, expected=reader.counts)
        if report.n_missing:
            report = replace(report, split_published=None)
    state, notes = _judge(report, reader, root)
    return replace(report, state=state, notes=(*notes, *_link(found.folder), *said))


def empty_files(images: Path, paths: Sequence[str], title: str) -> list[Unreadable]:
    """Those of the pictures whose file has no content, or does not tell its size; with a progress bar."""
    unreadable = []
    for path in tqdm(paths, desc=title, unit=" files", leave=False, disable=None):
        try:
            if os.stat(f"{images}/{path}").st_size == 0:
                unreadable.append(Unreadable(path, EMPTY))
        except OSError as error:
            unreadable.append(Unreadable(path, error.strerror or str(error)))
    return unreadable


def count_outside(folder: Path, images: Path, paths: Iterable[str]) -> int:
    """Number of pictures that links, their own or a folder's, take out of the data set's folder."""
    home = folder.resolve()
    names_in = defaultdict(set)
    for path in paths:
        below, _, name = path.rpartition("/")
        names_in[below].add(name)
    outside = 0
    for below, names in names_in.items():
        parent = images / below
        if not parent.resolve().is_relative_to(home):
            outside += len(names)
            continue
        links = [entry.path for entry in os.scandir(parent) if entry.is_symlink() and entry.name in names]
        outside += sum(not Path(link).resolve().is_relative_to(home) for link in links)
    return outside


def _without_lists(reader: type[SplitDataset], root: Path, error: DatasetError | OSError) -> Report:
    """The report on a data set whose split could not be read."""
    folder = expected_folder(reader, root)
    if isinstance(error, DatasetLayout):
        state = LAYOUT
    elif isinstance(error, DatasetMissing):
        state = PARTIAL if folder.is_dir() else MISSING
    else:
        state = CORRUPT
    note = str(error)
    if not isinstance(error, DatasetError):
        note = f"Cannot read {error.filename or folder} ({error.strerror or error}); mend that and look again."
    found, n_classes = ((0, 0, 0), 0) if state == MISSING and any(reader.counts) else (None, None)
    return Report(
        reader.__name__, folder, state, reader.counts, found, reader.n_classes, n_classes, notes=(note, *_link(folder))
    )


def _judge(report: Report, reader: type[SplitDataset], root: Path) -> tuple[str, list[str]]:
    """State and notes of a data set whose split could be read: the worst first."""
    n_there, notes, advice = sum(report.found or ()), [], reader.advice(report.folder)
    if report.unreadable:
        which = _some([f"{path}: {reason}" for path, reason in report.unreadable])
        share = f"{len(report.unreadable):,} of {n_there:,}"
        notes.append(f"{share} images cannot be read ({which}); {advice}.")
    if report.n_missing:
        which = _some(report.missing) or "the folders do not tell which"
        share = f"{report.n_missing:,} of {sum(report.expected):,}"
        notes.append(f"{share} images are missing ({which}); {advice}.")
    if report.split_published is False:
        notes.append(
            f"not the published split (the digest of this one begins with {report.split_digest[:16]}); results cannot "
            f"be compared with published ones."
        )
    if report.n_outside:
        notes.append(f"{report.n_outside:,} of {n_there:,} images lie outside the folder, where links lead.")
    if report.unreadable:
        return CORRUPT, notes
    if report.n_missing:
        return PARTIAL, notes
    return FOREIGN if report.split_published is False else OK, notes


def _sizes(parts: Iterable[Sequence[Item]]) -> tuple[int, int, int]:
    train, val, test = map(len, parts)
    return train, val, test


def _some(paths: Sequence[str]) -> str:
    return ", ".join(paths[:SHOWN]) + (", …" if len(paths) > SHOWN else "")


def _link(folder: Path) -> list[str]:
    return [f"{folder} is a link to {folder.resolve()}."] if folder.is_symlink() and folder.is_dir() else []
