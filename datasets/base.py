"""The base of all readers: a reader states the facts of a data set, and here is what is done with them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from yacs.config import CfgNode as CN

from dassl.data.datasets import DatasetBase, Datum
from datasets.errors import DatasetError
from datasets.layout import check_images, data_root, dataset_folder, download_command, image_folder
from datasets.samples import few_shot, report_pickles, sample_digest, samples_folder
from datasets.splits import Item, Split, check_split, read_split, subsample_classes


def extend_cfg(cfg: CN) -> None:
    """Declare the keys of data sets that dassl does not have."""
    node = cfg.DATASET
    node.SUBSAMPLE_CLASSES = "all"  # "all" | "base" (first half of the classes, rounded up) | "new" (the rest)
    node.SPLIT = "published"  # "published" | "local" (drawn from the official lists; results are not comparable)
    node.VAL_IS_TEST = (
        False  # data sets without validation images: True validates on the test images (ImageNet in CoOp)
    )
    # unlabelled training images a class, of all classes whatever SUBSAMPLE_CLASSES; 0: none, -1: all. Where there
    # are test images only, those.
    node.NUM_UNLABELLED = 0
    node.TEMPLATE = ""  # hand-crafted sentence with one {} for the class name; "": the data set's own
    folder = node.IMAGE_FOLDER = CN()  # of DATASET.NAME ImageFolder
    folder.DIR = ""  # folder below DATASET.ROOT; "": DATASET.ROOT itself
    folder.CLASSNAMES = "classnames.txt"  # lines "folder name", below that folder or absolute; optional
    folder.TRAIN_SHARE = 0.5  # of each class, where no folders train and test divide the pictures
    folder.VAL_SHARE = 0.2  # the same; and of train where there is a test folder, but no val folder


class Found(NamedTuple):
    """A data set on disk: its folder, that of its pictures, its whole split, and whether that is the published one."""

    folder: Path
    images: Path
    split: Split
    published: bool | None  # None: nothing to compare with


class SplitDataset(DatasetBase):
    """A data set of a fixed split: few-shot sample, then class subset, then one `Datum` a picture.

    Subclasses set the attributes below; those without a split file override `load_split`, those for which official
    lists exist beside the published split override `local_split`.

    Attributes:
        dataset_dir: folder below the data root.
        image_dir: folder of the pictures below it; "": the folder itself.
        image_aliases: names under which archives hold that folder, for messages.
        split_file: name of the split file in the folder.
        test_only: there is no training list; `train_x` is the test list, so that class names exist, and shots are
            ignored.
        n_classes: of the published split; 0: any number.
        counts: pictures of the published split in train, val and test; a val of 0 that validates on test included.
        published: SHA-256 of the published split's content (`Split.digest`).
        published_files: file in the folder -> SHA-256 of its bytes, where the content's digest is not known.
        small_classes: a class with fewer training pictures than shots is taken whole rather than refused.
        split_digest: of the split in use, for the run record.
        split_published: whether that is the published one; None: there is none to compare with.
        sample_digest: of the training sample before the class subset, for the run record; None without shots.
        all_classnames: names of all classes, whatever the subset, by the split's own labels.
        unlabelled_from: "train" or "test", the list that `train_u` is from, for the run record; None without it.

    Raises:
        DatasetMissing: data root, a folder, the split file or pictures of it are missing.
        DatasetError: the split file is damaged or of another data set.
        ValueError: unknown DATASET.SPLIT or class subset.
    """

    dataset_dir = ""
    image_dir = "images"
    image_aliases: tuple[str, ...] = ()
    split_file = ""
    test_only = False
    n_classes = 0
    counts = (0, 0, 0)
    published = ""
    small_classes = False
    published_files: dict[str, str] = {}  # noqa: RUF012 -- a fact of the class

    def __init__(self, cfg: CN) -> None:
        found = self.find(cfg)
        self.folder = found.folder
        self.split_digest, self.split_published = found.split.digest, found.published
        self.sample_digest: str | None = None
        self.all_classnames = list(dict(sorted((item.label, item.name) for item in found.split.test)).values())
        self.unlabelled_from: str | None = None
        self._report(cfg)
        split, unlabelled = self.divide(cfg, found), self.unlabelled(cfg, found)
        paths = [item.path for part in split for item in part]
        more = {item.path for item in unlabelled} - set(paths)
        check_images(found.images, [*paths, *sorted(more)], self.advice(found.folder))
        train, val, test = (self._datums(found.images, items) for items in split)
        train_u = [
            Datum.listed(f"{found.images}/{item.path}", label=-1) for item in unlabelled
        ]  # nobody can read labels
        super().__init__(train_x=train, train_u=train_u or None, val=val, test=test)

    # ---- the data set on disk

    def find(self, cfg: CN) -> Found:
        """Folder, pictures and the whole split that the configuration asks for."""
        kind = cfg.DATASET.get("SPLIT", "published")
        if kind not in ("published", "local"):
            raise ValueError(f"DATASET.SPLIT must be published or local, got {kind!r}.")
        return self.find_below(data_root(cfg.DATASET.ROOT), local=kind == "local")

    @classmethod
    def find_below(cls, root: Path, local: bool = False) -> Found:
        """The data set below a data root, needing no configuration.

        Args:
            local: draw the split from the official lists.
        """
        folder = cls.find_folder(root)
        images = image_folder(folder, cls.image_dir, cls.image_aliases, cls.__name__)
        if local:
            split = cls.local_split(folder)
            check_split(folder, split)
            return Found(folder, images, split, False)
        split = cls.load_split(folder)
        n_classes = len({item.label for item in split.test})
        if cls.n_classes and n_classes != cls.n_classes:
            raise DatasetError(
                f"{folder / cls.split_file} has {n_classes} classes, but {cls.__name__} has {cls.n_classes}; "
                f"{cls.remedy(folder)}, or read a data set of your own with DATASET.NAME ImageFolder."
            )
        return Found(folder, images, split, cls.is_published(folder, split))

    @classmethod
    def find_folder(cls, root: Path) -> Path:
        """The data set's folder below the data root."""
        return dataset_folder(root, cls.dataset_dir, cls.__name__)

    @classmethod
    def load_split(cls, folder: Path) -> Split:
        """The published split, whole."""
        return read_split(folder / cls.split_file, cls.test_only, cls.remedy(folder))

    @classmethod
    def local_split(cls, folder: Path) -> Split:
        """A split drawn from what the data set's authors publish; not the one that the field compares on.

        Raises:
            ValueError: the data set has no such lists.
        """
        raise ValueError(f"{cls.__name__} has no local split; leave DATASET.SPLIT at published.")

    @classmethod
    def remedy(cls, folder: Path) -> str:
        """What to do about a missing or damaged file, for messages."""
        return f"fetch the published one with: {download_command(cls.__name__, folder.parent)}"

    @classmethod
    def advice(cls, folder: Path) -> str:
        """What to do about missing or damaged pictures, for messages."""
        command = download_command(cls.__name__, folder.parent)
        return f"move {folder / cls.image_dir} away, then fetch it anew with: {command}"

    @classmethod
    def is_published(cls, folder: Path, split: Split) -> bool | None:
        """Whether a split is the published one, by its content or by the bytes of its files; None: not known."""
        if cls.published:
            return split.digest == cls.published
        if not cls.published_files:
            return None
        digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in cls.published_files}
        return digests == cls.published_files

    # ---- the part of it that a run uses

    def divide(self, cfg: CN, found: Found) -> Split:
        """The run's lists: few-shot sample of all classes first, then the class subset."""
        split, name = found.split, type(self).__name__
        if self.test_only:
            split = Split(split.test, [], split.test)
        elif cfg.DATASET.NUM_SHOTS > 0:
            folder = self.samples_folder()
            shots, seed = cfg.DATASET.NUM_SHOTS, cfg.SEED
            split = few_shot(split, self.split_digest, shots, seed, name, folder, self.small_classes)
            self.sample_digest = sample_digest(split.train)
        if cfg.DATASET.get("VAL_IS_TEST", False):
            if split.val:
                raise ValueError(f"{name} has validation pictures of its own; leave DATASET.VAL_IS_TEST at False.")
            split = split._replace(val=split.test)
        return subsample_classes(split, cfg.DATASET.get("SUBSAMPLE_CLASSES", "all"))

    def unlabelled(self, cfg: CN, found: Found) -> list[Item]:
        """The images of all classes that a run sees without labels, as DATASET.NUM_UNLABELLED says.

        Raises:
            ValueError: the number is below -1.
        """
        shots, name = cfg.DATASET.get("NUM_UNLABELLED", 0), type(self).__name__
        if shots < -1:
            raise ValueError(f"DATASET.NUM_UNLABELLED must be a number of images a class, 0 or -1 (all), got {shots}.")
        if shots == 0:
            return []
        split = found.split
        if self.test_only:
            print(f"Warning: {name} has test images only, so the unlabelled images are those it is tested on")
            split = Split(split.test, [], split.test)
        self.unlabelled_from = "test" if self.test_only else "train"
        if shots > 0:
            split = few_shot(split, self.split_digest, shots, cfg.SEED, name, self.samples_folder(), take_whole=True)
        return split.train

    def samples_folder(self) -> Path:
        """Where few-shot samples are kept."""
        return samples_folder(self.folder)

    def _report(self, cfg: CN) -> None:
        report_pickles(self.folder)
        if self.split_published is False:
            which = "a local split" if cfg.DATASET.get("SPLIT") == "local" else "not the published split"
            print(
                f"Warning: {type(self).__name__} in {self.folder} has {which} (digest {self.split_digest[:16]}); "
                f"results cannot be compared with published ones"
            )

    @staticmethod
    def _datums(images: Path, items: Sequence[Item]) -> list[Datum]:
        return [Datum.listed(f"{images}/{path}", label, classname=name) for path, label, name in items]
