"""Caltech101: objects of 100 classes; the background and the doubled faces are left out."""

from __future__ import annotations

from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY
from datasets.base import SplitDataset
from datasets.local_splits import class_folder_items, cut
from datasets.splits import Split

IGNORED = ("BACKGROUND_Google", "Faces_easy")
RENAMED = {"airplanes": "airplane", "Faces": "face", "Leopards": "leopard", "Motorbikes": "motorbike"}


@DATASET_REGISTRY.register()
class Caltech101(SplitDataset):
    dataset_dir = "caltech-101"
    image_dir = "101_ObjectCategories"
    split_file = "split_zhou_Caltech101.json"
    n_classes = 100
    counts = (4_128, 1_649, 2_465)
    published = "cb0e193bd69a6f898a6e0263e84960d3e6e4f33fd394803eab6f98cb1474c9e8"

    @classmethod
    def local_split(cls, folder: Path) -> Split:
        return cut(class_folder_items(folder / cls.image_dir, IGNORED, RENAMED))
