"""Food101: 101 dishes of 1,000 pictures, official training pictures (with noisy labels) and test pictures mixed."""

from __future__ import annotations

from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY
from datasets.base import SplitDataset
from datasets.local_splits import class_folder_items, cut
from datasets.splits import Split


@DATASET_REGISTRY.register()
class Food101(SplitDataset):
    dataset_dir = "food-101"
    split_file = "split_zhou_Food101.json"
    n_classes = 101
    counts = (50_500, 20_200, 30_300)
    published_files = {split_file: "7c3d456c4f348255e1a363e0ea5118318936488f3ec20d83758e0ee67cb9037c"}  # noqa: RUF012

    @classmethod
    def local_split(cls, folder: Path) -> Split:
        return cut(class_folder_items(folder / cls.image_dir))
