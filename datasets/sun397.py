"""SUN397: scenes; of its 108,754 pictures the 39,700 of official partition 1 are used."""

from __future__ import annotations

from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY
from datasets.base import SplitDataset
from datasets.errors import DatasetError
from datasets.layout import read_lines
from datasets.local_splits import with_val
from datasets.splits import Item, Split


def scene_name(place: str) -> str:
    """ "/c/chicken_coop/indoor" -> "indoor chicken_coop"."""
    return " ".join(reversed(place.strip("/").split("/")[1:]))


@DATASET_REGISTRY.register()
class SUN397(SplitDataset):
    dataset_dir = "sun397"
    image_dir = "SUN397"
    split_file = "split_zhou_SUN397.json"
    n_classes = 397
    counts = (15_880, 3_970, 19_850)
    published_files = {split_file: "9847f9ef611008073ac42adee6614bbb83f877cfbcfbd3115fc8284e0c8c1c47"}  # noqa: RUF012

    @classmethod
    def local_split(cls, folder: Path) -> Split:
        places = read_lines(folder / "ClassName.txt", "list of scenes", cls.__name__)
        labels = {place: label for label, place in enumerate(places)}

        def listed(name: str) -> list[Item]:
            items = []
            for line in read_lines(folder / name, "partition", cls.__name__):
                place = line.rpartition("/")[0]
                if place not in labels:
                    raise DatasetError(f"{folder / name} lists {line}, whose scene is not in ClassName.txt.")
                items.append(Item(line.lstrip("/"), labels[place], scene_name(place)))
            return items

        return with_val(listed("Training_01.txt"), listed("Testing_01.txt"))
