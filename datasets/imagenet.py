"""ImageNet (ILSVRC 2012) and its four test sets with other pictures of the same classes.

They have no split file: the folders are the split, and ImageNet's validation folder is the test set. File names are
sorted, so that few-shot samples are the same on every machine; those of the CoOp family were drawn from an unsorted
listing and never were.
"""

from __future__ import annotations

from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY
from datasets.base import SplitDataset
from datasets.imagenet_classes import class_folders, imagenet_classes, numbered_folders, read_classnames, synsets
from datasets.layout import image_folder
from datasets.splits import Item, Split


class ClassFolders(SplitDataset):
    """Pictures in folders that are named after WordNet identifiers; labels number the sorted identifiers from 0.

    Attributes:
        subset: which of ImageNet's classes there are, as `synsets` knows them.
    """

    subset = "imagenet"

    @classmethod
    def items(cls, folder: Path, part: str = "") -> list[Item]:
        """The pictures below the folder `part` of the image folder, sorted."""
        names = read_classnames(folder, cls.__name__)
        images = image_folder(folder, cls.image_dir, cls.image_aliases, cls.__name__)
        pictures = class_folders(images, part, cls.folder_names(images / part), cls.__name__)
        return [
            Item(path, label, names[identifier])
            for label, identifier in enumerate(synsets(cls.subset))
            for path in pictures[label]
        ]

    @classmethod
    def folder_names(cls, parent: Path) -> list[str]:
        """Names of the class folders in the order of labels."""
        return list(synsets(cls.subset))

    @classmethod
    def load_split(cls, folder: Path) -> Split:
        return Split([], [], cls.items(folder))

    @classmethod
    def is_published(cls, folder: Path, split: Split) -> bool | None:
        """Numbers of pictures and names of classes are all that there is to compare."""
        known = imagenet_classes()
        names = {label: known[identifier] for label, identifier in enumerate(synsets(cls.subset))}
        return tuple(map(len, split)) == cls.counts and {item.label: item.name for item in split.test} == names


@DATASET_REGISTRY.register()
class ImageNet(ClassFolders):
    """732 to 1,300 training pictures a class, 50 test pictures; no validation list, see DATASET.VAL_IS_TEST."""

    dataset_dir = "imagenet"
    n_classes = 1000
    counts = (1_281_167, 0, 50_000)

    @classmethod
    def load_split(cls, folder: Path) -> Split:
        return Split(cls.items(folder, "train"), [], cls.items(folder, "val"))


@DATASET_REGISTRY.register()
class ImageNetV2(ClassFolders):
    """New pictures, collected like ImageNet's test set (matched frequency); folders are named by label."""

    dataset_dir = "imagenetv2"
    image_dir = "imagenetv2-matched-frequency-format-val"
    test_only = True
    n_classes = 1000
    counts = (0, 0, 10_000)

    @classmethod
    def folder_names(cls, parent: Path) -> list[str]:
        names = super().folder_names(parent)
        return [str(label) for label in range(len(names))] if numbered_folders(parent) else names


@DATASET_REGISTRY.register()
class ImageNetSketch(ClassFolders):
    """Black and white sketches, 50 or 51 a class."""

    dataset_dir = "imagenet-sketch"
    image_aliases = ("sketch",)
    test_only = True
    n_classes = 1000
    counts = (0, 0, 50_889)


@DATASET_REGISTRY.register()
class ImageNetA(ClassFolders):
    """Photographs that mislead ResNets, of 200 classes; those are all that compete."""

    subset = "imagenet_a"
    dataset_dir = "imagenet-adversarial"
    image_dir = "imagenet-a"
    test_only = True
    n_classes = 200
    counts = (0, 0, 7_500)


@DATASET_REGISTRY.register()
class ImageNetR(ClassFolders):
    """Art, cartoons, toys and other renditions of 200 classes, not the same 200 as ImageNet-A's."""

    subset = "imagenet_r"
    dataset_dir = "imagenet-rendition"
    image_dir = "imagenet-r"
    test_only = True
    n_classes = 200
    counts = (0, 0, 30_000)
