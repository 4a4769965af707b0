"""A reader that states its facts: sampling, subsets, digests, and what it says when files are missing."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest
from yacs.config import CfgNode as CN

from datasets.base import SplitDataset
from datasets.splits import Item, Split, save_split


class Pets(SplitDataset):
    dataset_dir = "pets"
    image_dir = "jpg"
    split_file = "split_pets.json"


class PetsV2(Pets):
    test_only = True


def config(root: Path | str, shots: int = -1, classes: str | None = "all") -> CN:
    cfg = CN({"SEED": 1, "DATASET": {"ROOT": str(root), "NUM_SHOTS": shots}})
    if classes is not None:
        cfg.DATASET.SUBSAMPLE_CLASSES = classes
    return cfg


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three classes; 5 training, 2 validation, 3 test pictures each."""
    lists = []
    for part, n in (("train", 5), ("val", 2), ("test", 3)):
        lists.append([Item(f"{part}_{label}_{i}.jpg", label, f"pet_{label}") for label in range(3) for i in range(n)])
    folder = tmp_path / "pets"
    (folder / "jpg").mkdir(parents=True)
    for item in chain(*lists):
        (folder / "jpg" / item.path).touch()
    save_split(Split(*lists), folder / "split_pets.json")
    return tmp_path


def test_full_split(root: Path) -> None:
    data = Pets(config(root, classes=None))
    assert (len(data.train_x), len(data.val), len(data.test)) == (15, 6, 9)
    assert data.classnames == ["pet_0", "pet_1", "pet_2"]
    assert data.train_x[0].impath == str(root / "pets" / "jpg" / "train_0_0.jpg")
    assert len(data.split_digest) == 64


def test_shots_and_class_subset(root: Path) -> None:
    base, new = (Pets(config(root, shots=2, classes=classes)) for classes in ("base", "new"))
    assert (len(base.train_x), len(base.val), len(base.test)) == (4, 4, 6)
    assert (base.classnames, new.classnames) == (["pet_0", "pet_1"], ["pet_2"])
    assert {item.label for item in new.test} == {0}
    whole = Pets(config(root, shots=2))
    assert [item.impath for item in whole.train_x[:4]] == [item.impath for item in base.train_x]
    assert base.split_digest == new.split_digest == whole.split_digest


def test_test_only_data_set_trains_on_nothing_of_its_own(root: Path) -> None:
    data = PetsV2(config(root, shots=16))
    assert len(data.train_x) == len(data.test) == 9
    assert data.val == []
    assert [item.impath for item in data.train_x] == [item.impath for item in data.test]
    assert len(PetsV2(config(root, classes="base")).test) == 6


@pytest.mark.parametrize("missing", ["", "nowhere"])
def test_missing_root(tmp_path: Path, missing: str) -> None:
    root = str(tmp_path / missing) if missing else ""
    with pytest.raises(FileNotFoundError, match=r"No data root at '.*' \(DATASET.ROOT\); give the folder"):
        Pets(config(root))


def test_missing_split_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No split file at .*split_pets.json"):
        Pets(config(tmp_path))


def test_missing_picture(root: Path) -> None:
    (root / "pets" / "jpg" / "test_1_2.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"No image at \".*test_1_2.jpg\""):
        Pets(config(root))


def test_more_shots_than_pictures(root: Path) -> None:
    with pytest.raises(ValueError, match=r"^Pets has only 5 training pictures of class 'pet_0', but .* 16"):
        Pets(config(root, shots=16))


def test_home_directory_is_expanded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(root))
    assert len(Pets(config("~")).test) == 9
