"""OxfordPets: 37 breeds of cats and dogs."""

from __future__ import annotations

from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY
from datasets.base import SplitDataset
from datasets.errors import DatasetError
from datasets.family import SplitStatics
from datasets.layout import read_lines
from datasets.local_splits import with_val
from datasets.splits import Item, Split


@DATASET_REGISTRY.register()
class OxfordPets(SplitStatics, SplitDataset):
    dataset_dir = "oxford_pets"
    split_file = "split_zhou_OxfordPets.json"
    n_classes = 37
    counts = (2_944, 736, 3_669)
    published = "b1f67d4b99e64eae950bdad05b97623ba46e04e981ccc7d72691715916640dda"

    @classmethod
    def local_split(cls, folder: Path) -> Split:
        return with_val(*(cls._annotated(folder / "annotations" / file) for file in ("trainval.txt", "test.txt")))

    @classmethod
    def _annotated(cls, path: Path) -> list[Item]:
        """Lines "Breed_Name_12 class species breed", classes from 1."""
        items = []
        for line in read_lines(path, "annotation list", cls.__name__):
            name, *numbers = line.split()
            if len(numbers) != 3 or not numbers[0].isdecimal():
                raise DatasetError(f"{path} must have lines 'name class species breed', got {line!r:.80}.")
            items.append(Item(f"{name}.jpg", int(numbers[0]) - 1, name.rpartition("_")[0].lower()))
        return items
