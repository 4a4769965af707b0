"""What data-set files of other CoOp-family projects call on `OxfordPets` and `DescribableTextures`.

They import these two classes for their static methods; with them, such a file works when it is put into this folder.
Readers of our own use `datasets.splits`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from dassl.data.datasets import Datum
from datasets import splits
from datasets.local_splits import class_folder_items

Datums = list[Datum]


class SplitStatics:
    """The statics of OxfordPets."""

    @staticmethod
    def read_split(filepath: str, path_prefix: str) -> tuple[Datums, Datums, Datums]:
        """The lists train, val and test of a split file, with paths below the prefix."""
        train, val, test = (_datums(items, path_prefix) for items in splits.read_split(filepath))
        return train, val, test

    @staticmethod
    def save_split(train: Datums, val: Datums, test: Datums, filepath: str, path_prefix: str) -> None:
        """Write a split file with paths relative to the prefix."""
        lists = (
            [splits.Item(Path(os.path.relpath(d.impath, path_prefix)).as_posix(), d.label, d.classname) for d in part]
            for part in (train, val, test)
        )
        splits.save_split(splits.Split(*lists), filepath)

    @staticmethod
    def split_trainval(trainval: Datums, p_val: float = 0.2) -> tuple[Datums, Datums]:
        """Take a share of each class for validation, drawn with Python's global generator."""
        return splits.derive_val(trainval, p_val, _from_global())

    @staticmethod
    def subsample_classes(*args: Datums, subsample: str = "all") -> Sequence[Datums]:
        """Keep the base or the new half of the first list's classes in all lists, renumbered from 0."""
        number = {label: i for i, label in enumerate(splits.subset_labels(args[0], subsample))}
        return [
            [Datum.listed(d.impath, number[d.label], classname=d.classname) for d in part if d.label in number]
            for part in args
        ]


class FolderStatics:
    """The static of DescribableTextures."""

    @staticmethod
    def read_and_split_data(
        image_dir: str,
        p_trn: float = 0.5,
        p_val: float = 0.2,
        ignored: Collection[str] = (),
        new_cnames: Mapping[str, str] | None = None,
    ) -> tuple[Datums, Datums, Datums]:
        """Class folders, each cut at random into train, val and test, with Python's global generator."""
        items = class_folder_items(Path(image_dir), ignored, new_cnames)
        train, val, test = (
            _datums(part, image_dir) for part in splits.cut_classes(items, p_trn, p_val, _from_global())
        )
        return train, val, test


def _datums(items: Sequence[splits.Item], prefix: str) -> Datums:
    return [Datum(os.path.join(prefix, item.path), item.label, classname=item.name) for item in items]


def _from_global() -> random.Random:
    return random.Random(random.getrandbits(64))
