"""Splits, few-shot samples and class subsets: the rules that decide which picture is where.

A split file is JSON, {"train": [[path, label, name], ...], "val": [...], "test": [...]}, with relative paths and labels
0..n-1, as the CoOp family publishes them (`split_zhou_*.json`). Nothing here touches pictures or draws from a global
random generator that the caller did not hand over.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from clip.transfer import is_web_page
from dassl.utils.files import write_text
from datasets.errors import DatasetError, DatasetMissing
from datasets.layout import is_relative

PARTS = ("train", "val", "test")
SUBSETS = ("all", "base", "new")
VAL_SHOTS = 4  # at most so many validation pictures a class in a few-shot run


class Labelled(Protocol):
    """Anything with a label."""

    @property
    def label(self) -> int: ...


L = TypeVar("L", bound=Labelled)


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


def read_split(path: str | os.PathLike[str], test_only: bool = False, remedy: str = "get it again") -> Split:
    """Read and check a split file.

    Args:
        test_only: the lists train and val may be empty.
        remedy: what to do about a missing or damaged file, for messages.

    Raises:
        DatasetMissing: there is no such file.
        DatasetError: it is no split file; the sentence names the first thing that is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise DatasetMissing(
            f"No split file at {path}; {remedy}. It is never made up: a split drawn anew is another benchmark."
        )
    content = path.read_bytes()
    try:
        tree = json.loads(content.decode("utf-8-sig"))  # some editors put a byte order mark in front
    except (ValueError, RecursionError) as error:  # of JSON and of UTF-8
        reason = "it is a web page: its download failed" if is_web_page(content) else error
        raise DatasetError(f"{path} ({len(content)} bytes) is no JSON file ({reason}); {remedy}.") from None
    if not isinstance(tree, dict) or set(tree) != set(PARTS):
        names = ", ".join(sorted(map(str, tree))[:5]) if isinstance(tree, dict) else type(tree).__name__
        found = " ".join(names.split())
        raise DatasetError(f"{path} must hold exactly the lists train, val and test, got {found or 'nothing'}.")
    split = Split(*(_read_part(path, part, tree[part]) for part in PARTS))
    check_split(path, split, test_only)
    return split


def _read_part(path: Path, part: str, rows: Any) -> list[Item]:
    if not isinstance(rows, list):
        raise DatasetError(f"{path}: {part} must be a list of [path, label, class name], got a {type(rows).__name__}.")
    items = []
    for number, row in enumerate(rows):
        where = f"{path}: {part}[{number}]"
        if not (
            isinstance(row, list)
            and [type(field) for field in row] == [str, int, str]  # bool is an int, but no label
            and row[1] >= 0
        ):
            raise DatasetError(f"{where} must be [path, label, class name] with a label of 0 or more, got {row!r:.80}.")
        item = Item(*row)
        if not is_relative(item.path):
            raise DatasetError(
                f"{where} must name a picture below the image folder, by a relative path without .., got {item.path!r}."
            )
        items.append(item)
    return items


def check_split(path: Path, split: Split, test_only: bool = False) -> None:
    """Make sure that labels are 0..n-1 with one name each, in every list, and that no picture is in two lists.

    Args:
        path: where the split is from, for messages.

    Raises:
        DatasetError: they are not, or train or test is empty.
    """
    names: dict[int, str] = {}
    places: dict[str, str] = {}
    for part, items in zip(PARTS, split, strict=True):
        for item in items:
            if names.setdefault(item.label, item.name) != item.name:
                raise DatasetError(
                    f"{path}: label {item.label} is called {names[item.label]!r} and {item.name!r}; one name is right."
                )
            if item.path in places:
                raise DatasetError(
                    f"{path}: {item.path} is in {places[item.path]} and in {part}; a picture has one place."
                )
            places[item.path] = part
    if not split.test or not (split.train or test_only):
        raise DatasetError(
            f"{path}: train and test must not be empty, got {len(split.train)} and {len(split.test)} items."
        )
    n = max(names) + 1
    for part, items in zip(PARTS, split, strict=True):
        there = {item.label for item in items}
        if items and len(there) < n:  # a damaged label can be so large that nothing of its length may be made
            missing = next(label for label in range(n) if label not in there)
            raise DatasetError(
                f"{path}: labels go up to {n - 1}, but {part} has no picture of label {missing}; "
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


def sample_few_shot(
    split: Split, num_shots: int, generator: random.Random, where: str = "The data set", take_whole: bool = False
) -> Split:
    """Draw `num_shots` training and at most four validation pictures a class; test stays whole.

    The rule of the family, item for item: classes in the order in which the list first names them, one `sample` each,
    first train, then val with the same generator. A class with too few pictures is taken whole.

    Args:
        num_shots: below 1 returns the split as it is.
        generator: seeded with the run's seed, nothing drawn from it yet.
        where: name of the data set, for messages.
        take_whole: training classes may be smaller, too; a line says how many are.

    Raises:
        ValueError: a class has fewer than `num_shots` training pictures, and not `take_whole`.
    """
    if num_shots < 1:
        return split
    short = [items for items in by_label(split.train) if len(items) < num_shots]
    if short:
        least = min(short, key=len)
        if not take_whole:
            raise ValueError(
                f"{where} has only {len(least)} training pictures of class {least[0].name!r}, but DATASET.NUM_SHOTS is "
                f"{num_shots}; ask for at most {len(least)}."
            )
        print(
            f"Note: classes of {where} with fewer than {num_shots} training pictures are taken whole: {len(short)}, "
            f"the smallest is {least[0].name!r} with {len(least)}"
        )
    train = _draw(split.train, num_shots, generator)
    return Split(train, _draw(split.val, min(num_shots, VAL_SHOTS), generator), split.test)


def _draw(items: Sequence[Item], shots: int, generator: random.Random) -> list[Item]:
    drawn: list[Item] = []
    for group in by_label(items):
        drawn += generator.sample(group, shots) if len(group) >= shots else group
    return drawn


def by_label(items: Iterable[L]) -> list[list[L]]:
    """Items of each label, labels in order of first appearance."""
    groups: dict[int, list[L]] = {}
    for item in items:
        groups.setdefault(item.label, []).append(item)
    return list(groups.values())


def cut_classes(items: Iterable[Item], train: float, val: float, generator: random.Random) -> Split:
    """Cut each class at random into train, val and test, as the family does where nothing is published.

    Args:
        train: share of a class, rounded half to even; at least one picture.
        val: share of a class, as far as one picture is left for test.
        generator: a private one; items come in an order that does not depend on the file system.

    Raises:
        DatasetError: a class has a single picture.
    """
    split = Split([], [], [])
    for group in by_label(items):
        if len(group) < 2:
            raise DatasetError(
                f"Class {group[0].name!r} has the single picture {group[0].path}, but needs one to train on and one to "
                f"test; add pictures, or remove its folder."
            )
        n = len(group)
        n_train = min(max(round(n * train), 1), n - 1)
        n_val = min(round(n * val), n - n_train - 1)
        shuffled = generator.sample(group, n)
        split.train.extend(shuffled[:n_train])
        split.val.extend(shuffled[n_train : n_train + n_val])
        split.test.extend(shuffled[n_train + n_val :])
    return split


def derive_val(items: Iterable[L], share: float, generator: random.Random) -> tuple[list[L], list[L]]:
    """Take validation pictures out of a training list: a share of each class, rounded half to even.

    Args:
        share: at least one picture of a class stays in train.
        generator: a private one.

    Returns:
        train and val.
    """
    train: list[L] = []
    val: list[L] = []
    for group in by_label(items):
        shuffled = generator.sample(group, len(group))
        n_val = min(round(len(group) * share), len(group) - 1)
        val += shuffled[:n_val]
        train += shuffled[n_val:]
    return train, val


def subset_labels(items: Iterable[Labelled], subset: str) -> list[int]:
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
