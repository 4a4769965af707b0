"""The base of readers with a split file: a reader states its facts and little else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from yacs.config import CfgNode as CN

from dassl.data.datasets import DatasetBase, Datum
from datasets.splits import Item, Split, read_split, sample_few_shot, sample_generator, subsample_classes


def data_root(cfg: CN) -> Path:
    """The folder of the data sets.

    Raises:
        FileNotFoundError: DATASET.ROOT is empty or no folder.
    """
    root = Path(cfg.DATASET.ROOT).expanduser().absolute()
    if not cfg.DATASET.ROOT or not root.is_dir():
        raise FileNotFoundError(
            f"No data root at {cfg.DATASET.ROOT!r} (DATASET.ROOT); give the folder of the data sets with --root, or "
            f"make it."
        )
    return root


class SplitDataset(DatasetBase):
    """A data set whose split is a file: few-shot sample, then class subset, then one `Datum` a picture.

    Subclasses set the attributes below, or override `load_split`.

    Attributes:
        dataset_dir: folder below the data root.
        image_dir: folder of the pictures below it; "": the folder itself.
        split_file: name of the split file in it.
        test_only: there is no training list; `train_x` is the test list, so that class names exist, and shots are
            ignored.
        split_digest: SHA-256 of the split's content, for the run record.

    Raises:
        FileNotFoundError: data root, split file or a picture of it is missing.
        ValueError: the split file is damaged, NUM_SHOTS is larger than a class, or the class subset is unknown.
    """

    dataset_dir = ""
    image_dir = "images"
    split_file = ""
    test_only = False

    def __init__(self, cfg: CN) -> None:
        name = type(self).__name__
        self.folder = data_root(cfg) / self.dataset_dir
        split = self.load_split()
        self.split_digest = split.digest
        if self.test_only:
            split = Split(split.test, [], split.test)
        else:
            split = sample_few_shot(split, cfg.DATASET.NUM_SHOTS, sample_generator(cfg.SEED), name)
        split = subsample_classes(split, cfg.DATASET.get("SUBSAMPLE_CLASSES", "all"))
        train, val, test = (self._read(items) for items in split)
        super().__init__(train_x=train, val=val, test=test)

    def load_split(self) -> Split:
        """The whole split, before sampling."""
        return read_split(self.folder / self.split_file, self.test_only)

    def _read(self, items: Sequence[Item]) -> list[Datum]:
        images = self.folder / self.image_dir
        return [Datum(str(images / path), label, classname=name) for path, label, name in items]
