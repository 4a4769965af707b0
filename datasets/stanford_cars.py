"""StanfordCars: 196 models; pictures lie in two folders in which the same file names return."""

from __future__ import annotations

from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY
from datasets.base import SplitDataset
from datasets.local_splits import with_val
from datasets.matlab import read_mat
from datasets.splits import Item, Split


def year_first(name: str) -> str:
    """ "AM General Hummer SUV 2000" -> "2000 AM General Hummer SUV"."""
    model, _, year = name.rpartition(" ")
    return f"{year} {model}"


@DATASET_REGISTRY.register()
class StanfordCars(SplitDataset):
    dataset_dir = "stanford_cars"
    image_dir = ""
    split_file = "split_zhou_StanfordCars.json"
    n_classes = 196
    counts = (6_509, 1_635, 8_041)
    published = "dfe736f7b93100d1a65a4001d65e52d386a6ec090eebaf124353eab77a737fca"

    @classmethod
    def local_split(cls, folder: Path) -> Split:
        names = [year_first(str(name)) for name in read_mat(folder / "devkit" / "cars_meta.mat", "class_names")]

        def annotated(images: str, file: Path) -> list[Item]:
            rows = read_mat(file, "annotations")
            labels = [int(row["class"]) - 1 for row in rows]
            return [Item(f"{images}/{row['fname']}", i, names[i]) for row, i in zip(rows, labels, strict=True)]

        return with_val(
            annotated("cars_train", folder / "devkit" / "cars_train_annos.mat"),
            annotated("cars_test", folder / "cars_test_annos_withlabels.mat"),
        )
