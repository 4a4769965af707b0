"""OxfordFlowers (Flowers102): 102 flowers; the official split of 10 training pictures a class is not used."""

from __future__ import annotations

from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import read_json
from datasets.base import SplitDataset
from datasets.errors import DatasetError, DatasetMissing
from datasets.layout import download_command
from datasets.local_splits import cut
from datasets.matlab import read_mat
from datasets.splits import Item, Split


@DATASET_REGISTRY.register()
class OxfordFlowers(SplitDataset):
    dataset_dir = "oxford_flowers"
    image_dir = "jpg"
    split_file = "split_zhou_OxfordFlowers.json"
    n_classes = 102
    counts = (4_093, 1_633, 2_463)
    published = "3e0c54f6848d8f4413150006815dce589aefaed5fb7efaa6a3b6f66918146bcc"

    @classmethod
    def local_split(cls, folder: Path) -> Split:
        names_file = folder / "cat_to_name.json"
        if not names_file.is_file():
            command = download_command(cls.__name__, folder.parent)
            raise DatasetMissing(f"No class names at {names_file}; fetch them with: {command}.")
        names, numbers = read_json(names_file), read_mat(folder / "imagelabels.mat", "labels")
        unnamed = sorted({int(number) for number in numbers} - {int(key) for key in names})
        if unnamed:
            raise DatasetError(f"{names_file} has no name for class {unnamed[0]}; fetch it again.")
        items = [
            Item(f"image_{index:05d}.jpg", int(number) - 1, names[str(number)])
            for index, number in enumerate(numbers, 1)
        ]
        return cut(items)
