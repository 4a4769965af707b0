"""FGVCAircraft: 100 variants of aircraft; its official lists are the split."""

from __future__ import annotations

from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY
from datasets.base import SplitDataset
from datasets.errors import DatasetError
from datasets.layout import read_lines
from datasets.splits import PARTS, Item, Split, check_split

VARIANTS = "variants.txt"


@DATASET_REGISTRY.register()
class FGVCAircraft(SplitDataset):
    dataset_dir = "fgvc_aircraft"
    n_classes = 100
    counts = (3_334, 3_333, 3_333)
    published_files = {  # noqa: RUF012
        VARIANTS: "6e14e778b0a7c94c80619a7ba2c9f90c6784c9c997e308938ff8d3ee11662f0b",
        "images_variant_train.txt": "29ac66fb762b9e1e5d007a18cb2cd2404ee326a4bce1dc0040e267c5585c46e7",
        "images_variant_val.txt": "17afd8d6aac16d6188109465637f224a69e6c68d8b6e8422a2591f87aa3a8281",
        "images_variant_test.txt": "06b5f65d559c399d6887d660dcec09dbf661576c0f3bd85e981e976b2bed3511",
    }

    @classmethod
    def load_split(cls, folder: Path) -> Split:
        labels = {name: i for i, name in enumerate(read_lines(folder / VARIANTS, "list of variants", cls.__name__))}
        split = Split([], [], [])
        for part, items in zip(PARTS, split, strict=True):
            path = folder / f"images_variant_{part}.txt"
            for line in read_lines(path, "list of images", cls.__name__):
                number, _, variant = line.partition(" ")  # a variant may have spaces
                if variant not in labels:
                    raise DatasetError(f"{path} lists {line!r}, whose variant is not in {VARIANTS}; get both again.")
                items.append(Item(f"{number}.jpg", labels[variant], variant))
        check_split(folder / VARIANTS, split)
        return split
