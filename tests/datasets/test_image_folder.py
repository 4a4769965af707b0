"""Folders of anybody's pictures: both layouts, class names, and what people get wrong."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest

from dassl.data.datasets import build_dataset
from datasets.templates import template_of
from tests.datasets.conftest import Configure, touch

NAMES = ("Amanita muscaria", "boletus", "chanterelle")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    touch(tmp_path, [f"{name}/IMG {i}.JPG" for name in NAMES for i in range(10)])
    return tmp_path


@pytest.fixture
def divided(tmp_path: Path) -> Path:
    for part, n in (("train", 5), ("val", 2), ("test", 3)):
        touch(tmp_path / part, [f"{name}/{part}_{i}.png" for name in NAMES for i in range(n)])
    return tmp_path


def sizes(data: object) -> list[int]:
    return [len(part) for part in (data.train_x, data.val, data.test)]  # type: ignore[attr-defined]


def test_class_folders_are_divided_here(photos: Path, configure: Configure) -> None:
    data = build_dataset(configure("ImageFolder"))
    assert data.classnames == list(NAMES)
    assert sizes(data) == [15, 6, 9]
    paths = [item.impath for item in chain(data.train_x, data.val, data.test)]
    assert len(set(paths)) == 30
    again = build_dataset(configure("ImageFolder", "SEED", 5))
    assert [item.impath for item in again.test] == [item.impath for item in data.test]
    assert (data.split_published, len(data.split_digest)) == (None, 64)


def test_shares(photos: Path, configure: Configure) -> None:
    keys = ("DATASET.IMAGE_FOLDER.TRAIN_SHARE", 0.7, "DATASET.IMAGE_FOLDER.VAL_SHARE", 0.0)
    assert sizes(build_dataset(configure("ImageFolder", *keys))) == [21, 0, 9]
    for train, val in ((0.0, 0.2), (1.0, 0.0), (0.8, 0.2), (0.5, -0.1)):
        keys = ("DATASET.IMAGE_FOLDER.TRAIN_SHARE", train, "DATASET.IMAGE_FOLDER.VAL_SHARE", val)
        with pytest.raises(ValueError, match=rf"must be shares with something left for test, got {train} and {val}"):
            build_dataset(configure("ImageFolder", *keys))


def test_divided_folders(divided: Path, configure: Configure) -> None:
    data = build_dataset(configure("ImageFolder"))
    assert data.classnames == list(NAMES)
    assert sizes(data) == [15, 6, 9]
    assert all(f"/{part}/" in item.impath for part in ("test",) for item in data.test)
    assert [Path(item.impath).name for item in data.train_x[:5]] == [f"train_{i}.png" for i in range(5)]


def test_divided_folders_without_val(divided: Path, configure: Configure) -> None:
    (divided / "val").rename(divided / ".elsewhere")
    assert sizes(build_dataset(configure("ImageFolder"))) == [12, 3, 9]
    assert sizes(build_dataset(configure("ImageFolder", "DATASET.IMAGE_FOLDER.VAL_SHARE", 0.0))) == [15, 0, 9]


def test_divided_folders_without_test(divided: Path, configure: Configure) -> None:
    (divided / "test").rename(divided / ".elsewhere")
    with pytest.raises(ValueError, match=r"has a folder train but no folder test; rename val to test, or move"):
        build_dataset(configure("ImageFolder"))


def test_a_class_called_train_is_a_class(tmp_path: Path, configure: Configure) -> None:
    touch(tmp_path, [f"{name}/{i}.jpg" for name in ("bus", "train", "tram") for i in range(10)])
    assert build_dataset(configure("ImageFolder")).classnames == ["bus", "train", "tram"]


def test_few_shot_takes_small_classes_whole(photos: Path, configure: Configure) -> None:
    touch(photos, ["rare one/1.jpg", "rare one/2.jpg"])
    data = build_dataset(configure("ImageFolder", "DATASET.NUM_SHOTS", 4))
    assert sizes(data) == [13, 6, 10]
    assert not (photos / "split_fewshot").exists()  # it would be a class
    new = build_dataset(configure("ImageFolder", "DATASET.NUM_SHOTS", 4, "DATASET.SUBSAMPLE_CLASSES", "new"))
    assert new.classnames == ["chanterelle", "rare one"]


def test_class_names_from_a_file(photos: Path, configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    touch(photos, [f"boletus edulis/{i}.jpg" for i in range(4)])
    lines = ["boletus edulis penny bun", "boletus\tany other bolete", "Amanita muscaria fly agaric", "morel morel"]
    (photos / "classnames.txt").write_text("\n".join(lines), encoding="utf-8-sig")
    data = build_dataset(configure("ImageFolder"))
    assert data.classnames == ["fly agaric", "any other bolete", "penny bun", "chanterelle"]
    assert "1 lines of" in (out := capsys.readouterr().out)
    assert "(first: 'morel morel')" in out


def test_one_root_many_collections(tmp_path: Path, configure: Configure) -> None:
    for name in ("mine", "yours"):
        touch(tmp_path / name, [f"{name} {c}/{i}.jpg" for c in "ab" for i in range(3)])
    assert build_dataset(configure("ImageFolder", "DATASET.IMAGE_FOLDER.DIR", "yours")).classnames == [
        "yours a",
        "yours b",
    ]
    with pytest.raises(FileNotFoundError, match=r"No folder .*theirs \(DATASET.ROOT and DATASET.IMAGE_FOLDER.DIR\)"):
        build_dataset(configure("ImageFolder", "DATASET.IMAGE_FOLDER.DIR", "theirs"))


def test_pictures_deeper_down_and_files_that_are_none(tmp_path: Path, configure: Configure) -> None:
    touch(tmp_path, ["cat/2024/may/1.jpeg", "cat/2.webp", "cat/.thumb.jpg", "cat/notes.txt", "dog/1.gif", "dog/2.tif"])
    touch(tmp_path, [".git/config.jpg", "README.md"])
    data = build_dataset(configure("ImageFolder"))
    names = sorted(Path(item.impath).name for item in chain(data.train_x, data.val, data.test))
    assert (data.classnames, names) == (["cat", "dog"], ["1.gif", "1.jpeg", "2.tif", "2.webp"])


def test_template(photos: Path, configure: Configure) -> None:
    assert template_of(configure("ImageFolder")) == "a photo of a {}."
    assert template_of(configure("ImageFolder", "DATASET.TEMPLATE", "a {}, a mushroom.")) == "a {}, a mushroom."
    with pytest.raises(ValueError, match=r"DATASET.TEMPLATE needs exactly one \{\} for the class name, got 'a photo'"):
        template_of(configure("ImageFolder", "DATASET.TEMPLATE", "a photo"))


def test_loose_pictures(tmp_path: Path, configure: Configure) -> None:
    touch(tmp_path, ["1.jpg", "2.jpg"])
    with pytest.raises(
        ValueError, match=r"has no class folders \(2 pictures lie in it directly\); put the pictures of"
    ):
        build_dataset(configure("ImageFolder"))


def test_empty_classes(divided: Path, configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (divided / "test" / "boletus").iterdir():
        path.unlink()
    assert sizes(build_dataset(configure("ImageFolder"))) == [15, 6, 6]
    assert "Note: 1 classes have no picture in" in capsys.readouterr().out
    (divided / "train" / "zebra").mkdir()
    with pytest.raises(ValueError, match=r"train/zebra has no picture; add some, or remove the folder"):
        build_dataset(configure("ImageFolder"))


def test_class_that_train_lacks(divided: Path, configure: Configure) -> None:
    touch(divided, ["test/morel/1.jpg"])
    with pytest.raises(ValueError, match=r"test/morel is a class that .*train does not have"):
        build_dataset(configure("ImageFolder"))
    for path in (divided / "train").glob("*/*"):
        path.unlink()
    for path in (divided / "train").iterdir():
        path.rmdir()
    with pytest.raises(ValueError, match=r"train has no class folders; put the pictures of each class into a folder"):
        build_dataset(configure("ImageFolder"))


def test_no_local_split(photos: Path, configure: Configure) -> None:
    with pytest.raises(ValueError, match=r"ImageFolder has no local split; leave DATASET.SPLIT at published"):
        build_dataset(configure("ImageFolder", "DATASET.SPLIT", "local"))
