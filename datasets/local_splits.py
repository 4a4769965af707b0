"""Splits drawn from what the authors of a data set publish, for those who cannot get the published split files.

Such a split has the published one's sizes, but other pictures in train, val and test, so results on it compare only
with each other; runs on it say so. It is asked for with DATASET.SPLIT local and drawn each time, with a fixed seed,
from sorted listings: there is no file that could be taken for the published one.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from pathlib import Path

from datasets.errors import DatasetError
from datasets.layout import images_in, subfolders
from datasets.splits import Item, Split, cut_classes, derive_val

SEED = 1  # not the run's: all runs on a data set share one split
TRAIN_SHARE, VAL_SHARE = 0.5, 0.2  # of each class; the rest is test
VAL_OF_TRAIN = 0.2  # where the authors divide train and test


def class_folder_items(
    images: Path, ignored: Collection[str] = (), names: Mapping[str, str] | None = None
) -> list[Item]:
    """Pictures of class folders, folders numbered in sorted order.

    Args:
        ignored: folders that are no class.
        names: folder -> class name, where they differ.

    Raises:
        DatasetError: a class folder has no picture.
    """
    items = []
    for label, name in enumerate(name for name in subfolders(images) if name not in ignored):
        files = images_in(images / name)
        if not files:
            raise DatasetError(f"{images / name} has no picture; complete the data set, or remove the folder.")
        items += [Item(f"{name}/{file}", label, (names or {}).get(name, name)) for file in files]
    return items


def cut(items: list[Item]) -> Split:
    """Half of each class for train, a fifth for val, the rest for test."""
    return cut_classes(items, TRAIN_SHARE, VAL_SHARE, random.Random(SEED))


def with_val(trainval: list[Item], test: list[Item]) -> Split:
    """The authors' own test list, and a fifth of each class of their training list for val."""
    train, val = derive_val(trainval, VAL_OF_TRAIN, random.Random(SEED))
    return Split(train, val, test)
