"""EuroSAT: Sentinel-2 pictures (RGB, 64 x 64 pixels) of ten kinds of land."""

from __future__ import annotations

from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY
from datasets.base import SplitDataset
from datasets.local_splits import class_folder_items, cut
from datasets.splits import Split

NAMES = {
    "AnnualCrop": "Annual Crop Land",
    "Forest": "Forest",
    "HerbaceousVegetation": "Herbaceous Vegetation Land",
    "Highway": "Highway or Road",
    "Industrial": "Industrial Buildings",
    "Pasture": "Pasture Land",
    "PermanentCrop": "Permanent Crop Land",
    "Residential": "Residential Buildings",
    "River": "River",
    "SeaLake": "Sea or Lake",
}


@DATASET_REGISTRY.register()
class EuroSAT(SplitDataset):
    dataset_dir = "eurosat"
    image_dir = "2750"
    image_aliases = ("EuroSAT_RGB",)
    split_file = "split_zhou_EuroSAT.json"
    n_classes = 10
    counts = (13_500, 5_400, 8_100)
    published = "7f5d4f79bba4f67d1ed4bc0b5fbafab565564c6ff8205b82d893897db0d8015b"

    @classmethod
    def local_split(cls, folder: Path) -> Split:
        return cut(class_folder_items(folder / cls.image_dir, names=NAMES))
