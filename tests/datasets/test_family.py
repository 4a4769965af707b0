"""A data-set file as other projects write it, on the statics of OxfordPets and DescribableTextures."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from yacs.config import CfgNode as CN

from dassl.data.datasets import DatasetBase, Datum
from datasets.dtd import DescribableTextures as DTD
from datasets.oxford_pets import OxfordPets
from tests.datasets.conftest import Configure, touch


class Birds(DatasetBase):
    dataset_dir = "birds"

    def __init__(self, cfg: CN) -> None:
        root = os.path.abspath(os.path.expanduser(cfg.DATASET.ROOT))
        folder = os.path.join(root, self.dataset_dir)
        images, split = os.path.join(folder, "images"), os.path.join(folder, "split.json")
        if os.path.exists(split):
            train, val, test = OxfordPets.read_split(split, images)
        else:
            train, val, test = DTD.read_and_split_data(images, ignored=["junk"], new_cnames={"owl": "an owl"})
            OxfordPets.save_split(train, val, test, split, images)
        train = self.generate_fewshot_dataset(train, num_shots=cfg.DATASET.NUM_SHOTS)
        train, val, test = OxfordPets.subsample_classes(train, val, test, subsample=cfg.DATASET.SUBSAMPLE_CLASSES)
        super().__init__(train_x=train, val=val, test=test)


def test_birds(tmp_path: Path, configure: Configure) -> None:
    touch(tmp_path / "birds/images", [f"{name}/{i}.jpg" for name in ("crow", "junk", "owl", "tit") for i in range(10)])
    first = Birds(configure("Birds"))
    assert first.classnames == ["crow", "an owl", "tit"]
    assert [len(part) for part in (first.train_x, first.val, first.test)] == [15, 6, 9]
    again = Birds(configure("Birds", "DATASET.NUM_SHOTS", 2, "DATASET.SUBSAMPLE_CLASSES", "new"))  # from the file
    assert (again.classnames, len(again.train_x), again.test[0].label) == (["tit"], 2, 0)
    assert {item.impath for item in again.test} == {item.impath for item in first.test if item.classname == "tit"}
    with pytest.raises(ValueError, match=r"SUBSAMPLE_CLASSES must be one of all, base, new, got 'half'"):
        OxfordPets.subsample_classes(first.train_x, subsample="half")


def test_split_trainval_follows_the_global_generator(tmp_path: Path) -> None:
    touch(tmp_path, [f"{i}.jpg" for i in range(20)])
    items = [Datum(str(tmp_path / f"{i}.jpg"), i % 2, classname=f"c{i % 2}") for i in range(20)]
    random.seed(4)
    train, val = OxfordPets.split_trainval(items)
    assert (len(train), len(val), {item.label for item in val}) == (16, 4, {0, 1})
    assert {item.impath for item in train + val} == {item.impath for item in items}
    random.seed(4)
    assert OxfordPets.split_trainval(items)[1] == val
