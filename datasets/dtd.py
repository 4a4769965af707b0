"""Describable Textures (DTD): 47 textures of 120 pictures; none of its ten official partitions is used."""

from __future__ import annotations

from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY
from datasets.base import SplitDataset
from datasets.family import FolderStatics
from datasets.local_splits import class_folder_items, cut
from datasets.splits import Split


@DATASET_REGISTRY.register()
class DescribableTextures(FolderStatics, SplitDataset):
    dataset_dir = "dtd"
    split_file = "split_zhou_DescribableTextures.json"
    n_classes = 47
    counts = (2_820, 1_128, 1_692)
    published = "038c759d32099a1f1df63bf97f664fe86d3af2a1e3d2f59a84c884257314bd18"

    @classmethod
    def local_split(cls, folder: Path) -> Split:
        return cut(class_folder_items(folder / cls.image_dir))
