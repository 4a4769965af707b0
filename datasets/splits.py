"""Splits, few-shot samples and class subsets: the rules that decide which picture is where.

A split file is JSON, {"train": [[path, label, name], ...], "val": [...], "test": [...]}, with relative paths and labels
0..n-1, as the CoOp family publishes them (`split_zhou_*.json`). Nothing here touches pictures or draws from a global
random generator that the caller did not hand over, and nothing is cached: sampling takes milliseconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from dassl.utils.files import write_text

PARTS = ("train", "val", "test")
SUBSETS = ("all", "base", "new")
VAL_SHOTS = 4  # at most so many validation pictures a class in a few-shot run


class Item(NamedTuple):
    """One picture: path relative to the image folder, label, class name."""

    path: str
    label: int
    name: str


class Split(NamedTuple):
    """The three lists of a data set."""

    train: list[Item]
    val: list[Item]
    test: list[Item]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the compact JSON of the content, so that formatting does not matter."""
        tree = {part: [list(item) for item in items] for part, items in zip(PARTS, self, strict=True)}
        return hashlib.sha256(json.dumps(tree, separators=(",", ":")).encode()).hexdigest()


def read_split(path: str | os.PathLike[str], test_only: bool = False) -> Split:
    """Read and check a split file.

    Args:
        test_only: the lists train and val may be empty.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no split file; the sentence names the first thing that is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"No split file at {path}; put the published file there, because a split made anew is another benchmark."
        )
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of JSON and of UTF-8
        raise ValueError(f"{path} is no JSON file ({error}); it may be incomplete, get it again.") from None
    if not isinstance(tree, dict) or set(tree) != set(PARTS):
        found = ", ".join(sorted(map(str, tree))[:5]) if isinstance(tree, dict) else type(tree).__name__
        raise ValueError(f"{path} must hold exactly the lists train, val and test, got {found or 'nothing'}.")
    split = Split(*(_read_part(path, part, tree[part]) for part in PARTS))
    _check_labels(path, split, test_only)
    return split


def _read_part(path: Path, part: str, rows: Any) -> list[Item]:
    if not isinstance(rows, list):
        raise ValueError(f"{path}: {part} must be a list of [path, label, class name], got a {type(rows).__name__}.")
    items = []
    for number, row in enumerate(rows):
        where = f"{path}: {part}[{number}]"
        if not (
            isinstance(row, list)
            and [type(field) for field in row] == [str, int, str]  # bool is an int, but no label
            and row[1] >= 0
        ):
            raise ValueError(f"{where} must be [path, label, class name] with a label of 0 or more, got {row!r:.80}.")
        item = Item(*row)
        parts = PurePosixPath(item.path).parts
        if not parts or item.path.startswith("/") or ".." in parts or "\\" in item.path or ":" in parts[0]:
            raise ValueError(
                f"{where} must name a picture below the image folder, by a relative path without .., got {item.path!r}."
            )
        items.append(item)
    return items


def _check_labels(path: Path, split: Split, test_only: bool) -> None:
    names: dict[int, str] = {}
    places: dict[str, str] = {}
    for part, items in zip(PARTS, split, strict=True):
        for item in items:
            if names.setdefault(item.label, item.name) != item.name:
                raise ValueError(
                    f"{path}: label {item.label} is called {names[item.label]!r} and {item.name!r}; one name is right."
                )
            if places.setdefault(item.path, part) != part:
                raise ValueError(
                    f"{path}: {item.path} is in {places[item.path]} and in {part}; a picture has one place."
                )
    if not split.test or not (split.train or test_only):
        raise ValueError(
            f"{path}: train and test must not be empty, got {len(split.train)} and {len(split.test)} items."
        )
    n = max(names) + 1
    for part, items in zip(PARTS, split, strict=True):
        missing = set(range(n)) - {item.label for item in items}
        if missing and items:
            raise ValueError(
                f"{path}: labels go up to {n - 1}, but {part} has no picture of label {min(missing)}; "
                f"labels must be 0..n-1 in train, val and test."
            )


def save_split(split: Split, path: str | os.PathLike[str]) -> None:
    """Write a split file, atomically.

    Raises:
        RuntimeError: the file cannot be written.
    """
    tree = {part: [list(item) for item in items] for part, items in zip(PARTS, split, strict=True)}
    write_text(path, json.dumps(tree, indent=4))


def sample_generator(seed: int) -> random.Random:
    """The generator of few-shot samples, a private one, so that a sample does not depend on what ran before.

    A negative seed asks for no reproducibility (SEED's default); the generator then starts from a number that Python's
    global one draws.
    """
    return random.Random(seed if seed >= 0 else random.getrandbits(64))


def sample_few_shot(split: Split, num_shots: int, generator: random.Random, where: str = "The data set") -> Split:
    """Draw `num_shots` training and at most four validation pictures a class; test stays whole.

    The rule of the family, item for item: classes in the order in which the list first names them, one `sample` each,
    first train, then val with the same generator. A class with too few validation pictures is taken whole.

    Args:
        num_shots: below 1 returns the split as it is.
        generator: seeded with the run's seed, nothing drawn from it yet.
        where: beginning of the error's sentence.

    Raises:
        ValueError: a class has fewer than `num_shots` training pictures.
    """
    if num_shots < 1:
        return split
    for items in _by_label(split.train):
        if len(items) < num_shots:
            raise ValueError(
                f"{where} has only {len(items)} training pictures of class {items[0].name!r}, but DATASET.NUM_SHOTS is "
                f"{num_shots}; ask for at most {min(map(len, _by_label(split.train)))}."
            )
    train = _draw(split.train, num_shots, generator)
    return Split(train, _draw(split.val, min(num_shots, VAL_SHOTS), generator), split.test)


def _draw(items: Sequence[Item], shots: int, generator: random.Random) -> list[Item]:
    drawn: list[Item] = []
    for group in _by_label(items):
        drawn += generator.sample(group, shots) if len(group) >= shots else group
    return drawn


def _by_label(items: Iterable[Item]) -> list[list[Item]]:
    """Items of each label, labels in order of first appearance."""
    groups: dict[int, list[Item]] = {}
    for item in items:
        groups.setdefault(item.label, []).append(item)
    return list(groups.values())


def subset_labels(items: Iterable[Item], subset: str) -> list[int]:
    """Labels of a class subset: "base" is the first half of the sorted labels, rounded up, "new" the rest.

    Raises:
        ValueError: unknown subset, or "new" of a data set with one class.
    """
    if subset not in SUBSETS:
        raise ValueError(f"DATASET.SUBSAMPLE_CLASSES must be one of {', '.join(SUBSETS)}, got {subset!r}.")
    labels = sorted({item.label for item in items})
    half = (len(labels) + 1) // 2
    chosen = {"all": labels, "base": labels[:half], "new": labels[half:]}[subset]
    if not chosen:
        raise ValueError(f"A data set of {len(labels)} class has no new classes; use DATASET.SUBSAMPLE_CLASSES all.")
    return chosen


def subsample_classes(split: Split, subset: str) -> Split:
    """Keep one class subset in all three lists and renumber its labels from 0; names are kept.

    Raises:
        ValueError: as in `subset_labels`.
    """
    number = {label: i for i, label in enumerate(subset_labels(split.train, subset))}
    if subset == "all":
        return split
    return Split(*([i._replace(label=number[i.label]) for i in items if i.label in number] for items in split))
