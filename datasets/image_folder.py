"""ImageFolder: anybody's pictures in folders that are named after their classes; needs no code and no split file.

    ROOT/class name/*.jpg                    divided into train, val and test here, always in the same way
    ROOT/{train,val,test}/class name/*.jpg   divided already; val may be missing

Labels number the sorted folder names. Pictures may lie deeper below their class; hidden names and files without a
picture's ending are left out.
"""

from __future__ import annotations

import random
from pathlib import Path

from yacs.config import CfgNode as CN

from dassl.data.datasets import DATASET_REGISTRY
from datasets.base import Found, SplitDataset
from datasets.errors import DatasetError, DatasetLayout, DatasetMissing
from datasets.layout import data_root, images_below, images_in, read_lines, subfolders
from datasets.local_splits import SEED
from datasets.samples import samples_folder
from datasets.splits import PARTS, Item, Split, cut_classes, derive_val


@DATASET_REGISTRY.register()
class ImageFolder(SplitDataset):
    """Pictures of DATASET.ROOT / DATASET.IMAGE_FOLDER.DIR."""

    small_classes = True

    def find(self, cfg: CN) -> Found:
        """See `SplitDataset.find`.

        Raises:
            DatasetMissing: there is no such folder.
            DatasetError: it has no class folders, or a class has too few pictures.
            ValueError: impossible shares, or DATASET.SPLIT is not its default.
        """
        node = cfg.DATASET.IMAGE_FOLDER
        if cfg.DATASET.SPLIT != "published":
            self.local_split(Path())
        if not (0 < node.TRAIN_SHARE < 1 and 0 <= node.VAL_SHARE < 1 and node.TRAIN_SHARE + node.VAL_SHARE < 1):
            raise ValueError(
                f"DATASET.IMAGE_FOLDER.TRAIN_SHARE and VAL_SHARE must be shares with something left for test, got "
                f"{node.TRAIN_SHARE} and {node.VAL_SHARE}."
            )
        folder = data_root(cfg.DATASET.ROOT) / node.DIR
        if not folder.is_dir():
            raise DatasetMissing(f"No folder {folder} (DATASET.ROOT and DATASET.IMAGE_FOLDER.DIR); correct them.")
        divided = is_divided(folder)
        classes = subfolders(folder / "train" if divided else folder)
        names = class_names(folder / node.CLASSNAMES, classes)
        read = read_divided if divided else read_classes
        return Found(folder, folder, read(folder, names, node.TRAIN_SHARE, node.VAL_SHARE), None)

    @classmethod
    def advice(cls, folder: Path) -> str:
        return "put good copies there, or remove them"

    def samples_folder(self) -> Path:
        return samples_folder(self.folder, inside=False)  # in it, the folder would be a class


def is_divided(folder: Path) -> bool:
    """Whether the folders in `folder` are train, val and test rather than classes."""
    found = set(subfolders(folder))
    return "train" in found and found <= set(PARTS)


def class_names(path: Path, folders: list[str]) -> dict[str, str]:
    """Class folder -> class name: the folder's own, or what an optional file says in lines "folder name".

    Folder and name are separated by a tab, or by the blank behind the longest folder name with which a line begins.
    """
    names = {folder: folder for folder in folders}
    if not path.is_file():
        return names
    unknown = []
    for line in read_lines(path, "class names", ImageFolder.__name__):
        if "\t" in line:
            folder, _, name = line.partition("\t")
        else:
            folder = max((f for f in folders if line.startswith(f"{f} ")), key=len, default="")
            name = line[len(folder) :]
        if folder.strip() in names and name.strip():
            names[folder.strip()] = name.strip()
        else:
            unknown.append(line)
    if unknown:
        print(f"Note: {len(unknown)} lines of {path} name no class folder (first: {unknown[0]!r})")
    return names


def read_classes(folder: Path, names: dict[str, str], train: float, val: float) -> Split:
    """Class folders, each divided by the shares of train and val."""
    if not names:
        loose = len(images_in(folder))
        raise DatasetLayout(
            f"{folder} has no class folders ({loose} pictures lie in it directly); put the pictures of each class into "
            f"a folder with the name of the class."
        )
    return cut_classes(_items(folder, "", names), train, val, random.Random(SEED))


def read_divided(folder: Path, names: dict[str, str], train: float, val: float) -> Split:
    """Folders train, val and test with class folders in each; without val, a share of train is val.

    Raises:
        DatasetError: there is no test folder, or it has a class that train does not have.
    """
    there = set(subfolders(folder))
    if not names:
        raise DatasetLayout(f"{folder / 'train'} has no class folders; put the pictures of each class into a folder.")
    if "test" not in there:
        raise DatasetLayout(
            f"{folder} has a folder train but no folder test; rename {'val' if 'val' in there else 'one'} to test, or "
            f"move the class folders up for a division made here."
        )
    for part in sorted(there - {"train"}):
        unknown = sorted(set(subfolders(folder / part)) - set(names))
        if unknown:
            raise DatasetError(f"{folder / part / unknown[0]} is a class that {folder / 'train'} does not have.")
    parts = {part: _items(folder, part, names) if part in there else [] for part in PARTS}
    if "val" not in there:
        parts["train"], parts["val"] = derive_val(parts["train"], val, random.Random(SEED))
    return Split(**parts)


def _items(folder: Path, part: str, names: dict[str, str]) -> list[Item]:
    """Pictures below each class folder, sorted; in train, every class has some."""
    items: list[Item] = []
    empty = []
    for label, (name, title) in enumerate(names.items()):
        below = folder / part / name
        paths = [path.relative_to(folder).as_posix() for path in images_below(below)]
        items += [Item(path, label, title) for path in paths]
        if not paths:
            empty.append(name)
    if empty and part in ("", "train"):
        raise DatasetError(f"{folder / part / empty[0]} has no picture; add some, or remove the folder.")
    if empty:
        print(f"Note: {len(empty)} classes have no picture in {folder / part} (first: {empty[0]!r})")
    return items
