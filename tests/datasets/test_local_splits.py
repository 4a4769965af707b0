"""Splits drawn from official lists, in miniature trees with the awkward cases of each data set."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from dassl.data.datasets import DATASET_REGISTRY, build_dataset
from datasets.matlab import read_mat
from datasets.splits import Item, Split
from tests.datasets.conftest import Configure, touch


def local_split(root: Path, name: str) -> Split:
    return DATASET_REGISTRY.get(name).find_below(root, local=True).split


def classes(split: Split) -> list[str]:
    """Class names by label, after checking that every list has all of them."""
    names = [sorted({(item.label, item.name) for item in part}) for part in split]
    assert names[0] == names[1] == names[2]
    assert [label for label, _ in names[0]] == list(range(len(names[0])))
    return [name for _, name in names[0]]


def sizes(split: Split) -> list[int]:
    return [len(part) for part in split]


# ---- class folders, cut into 50 / 20 / 30 per cent


def test_caltech(tmp_path: Path) -> None:
    """Capitals sort first; the background and the doubled faces are no class; four folders get other names."""
    folders = ["BACKGROUND_Google", "Faces", "Faces_easy", "Leopards", "Motorbikes", "accordion", "airplanes"]
    images = tmp_path / "caltech-101" / "101_ObjectCategories"
    touch(images, [f"{folder}/image_{i:04d}.jpg" for folder in folders for i in range(10)])
    touch(images, ["tmp", ".DS_Store", "Faces/notes.txt"])
    split = local_split(tmp_path, "Caltech101")
    assert classes(split) == ["face", "leopard", "motorbike", "accordion", "airplane"]
    assert sizes(split) == [25, 10, 15]
    assert {item.path.split("/")[0] for item in chain(*split)} == set(folders) - {"BACKGROUND_Google", "Faces_easy"}


def test_eurosat(tmp_path: Path) -> None:
    images = tmp_path / "eurosat/2750"
    touch(images, [f"{name}/{name}_{i}.jpg" for name in ("AnnualCrop", "SeaLake") for i in range(10)])
    split = local_split(tmp_path, "EuroSAT")
    assert classes(split) == ["Annual Crop Land", "Sea or Lake"]
    assert sizes(split) == [10, 4, 6]
    images.rename(tmp_path / "eurosat/EuroSAT_RGB")
    with pytest.raises(FileNotFoundError, match=r"No folder .*2750, but there is .*EuroSAT_RGB; move it to .*2750"):
        local_split(tmp_path, "EuroSAT")


@pytest.mark.parametrize(
    ("name", "folder", "names"),
    [("DescribableTextures", "dtd", ["banded", "polka-dotted"]), ("Food101", "food-101", ["apple_pie", "waffles"])],
)
def test_plain_class_folders(tmp_path: Path, name: str, folder: str, names: list[str]) -> None:
    touch(tmp_path / folder / "images", [f"{name}/{i}.jpg" for name in names for i in range(10)])
    assert classes(local_split(tmp_path, name)) == names
    (tmp_path / folder / "images" / "zebra").mkdir()
    with pytest.raises(ValueError, match=r"zebra has no picture; complete the data set, or remove the folder"):
        local_split(tmp_path, name)


def test_flowers(tmp_path: Path) -> None:
    """The file numbers follow imagelabels.mat; names come from a JSON file with keys from 1."""
    folder = tmp_path / "oxford_flowers"
    labels = [2] * 10 + [1] * 10
    touch(folder / "jpg", [f"image_{i:05d}.jpg" for i in range(1, 21)])
    savemat(folder / "imagelabels.mat", {"labels": np.array([labels], dtype=np.uint8)})
    with pytest.raises(FileNotFoundError, match=r"No class names at .*cat_to_name.json; fetch them with"):
        local_split(tmp_path, "OxfordFlowers")
    (folder / "cat_to_name.json").write_text(json.dumps({"1": "pink primrose"}))
    with pytest.raises(ValueError, match=r"cat_to_name.json has no name for class 2"):
        local_split(tmp_path, "OxfordFlowers")
    (folder / "cat_to_name.json").write_text(json.dumps({"1": "pink primrose", "2": "hard-leaved pocket orchid"}))
    split = local_split(tmp_path, "OxfordFlowers")
    assert classes(split) == ["pink primrose", "hard-leaved pocket orchid"]
    assert sizes(split) == [10, 4, 6]
    assert {item.label for item in chain(*split) if item.path <= "image_00010.jpg"} == {1}


# ---- the authors' own train and test lists, of which a fifth of train becomes val


def test_pets(tmp_path: Path) -> None:
    folder = tmp_path / "oxford_pets"
    lines = [f"{name}_{i} {number} 1 1" for name, number in (("Egyptian_Mau", 1), ("beagle", 2)) for i in range(10)]
    touch(folder / "images", [f"{line.split()[0]}.jpg" for line in lines])
    (folder / "annotations").mkdir()
    (folder / "annotations/trainval.txt").write_text("\n".join(lines[:5] + lines[10:15]) + "\n")
    (folder / "annotations/test.txt").write_text("\n".join(lines[5:10] + lines[15:]))
    split = local_split(tmp_path, "OxfordPets")
    assert classes(split) == ["egyptian_mau", "beagle"]
    assert sizes(split) == [8, 2, 10]
    assert split.test[0] == Item("Egyptian_Mau_5.jpg", 0, "egyptian_mau")
    (folder / "annotations/test.txt").write_text("beagle_1 two\n")
    with pytest.raises(ValueError, match=r"test.txt must have lines 'name class species breed', got 'beagle_1 two'"):
        local_split(tmp_path, "OxfordPets")


def test_cars(tmp_path: Path) -> None:
    """Structures in MATLAB files; the year moves to the front; file names return in both folders."""
    folder = tmp_path / "stanford_cars"
    names = ["AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012"]
    (folder / "devkit").mkdir(parents=True)
    savemat(folder / "devkit/cars_meta.mat", {"class_names": np.array([names], dtype=object)})

    def annotate(path: Path, numbers: list[int]) -> None:
        kind = [("bbox_x1", object), ("class", object), ("fname", object)]
        rows = [(1, number, f"{i:05d}.jpg") for i, number in enumerate(numbers, 1)]
        savemat(path, {"annotations": np.array([rows], dtype=kind)})

    annotate(folder / "devkit/cars_train_annos.mat", [2, 1] * 5)
    annotate(folder / "cars_test_annos_withlabels.mat", [1, 2])
    touch(folder, [f"cars_train/{i:05d}.jpg" for i in range(1, 11)] + ["cars_test/00001.jpg", "cars_test/00002.jpg"])
    split = local_split(tmp_path, "StanfordCars")
    assert classes(split) == ["2000 AM General Hummer SUV", "2012 Ram C/V Cargo Van Minivan"]
    assert sizes(split) == [8, 2, 2]
    assert split.test == [
        Item("cars_test/00001.jpg", 0, "2000 AM General Hummer SUV"),
        Item("cars_test/00002.jpg", 1, "2012 Ram C/V Cargo Van Minivan"),
    ]


def test_sun(tmp_path: Path) -> None:
    """Places are nested paths; a name has its parts in reverse order, without the letter."""
    folder = tmp_path / "sun397"
    places = ["/a/abbey", "/c/chicken_coop/indoor", "/c/chicken_coop/outdoor"]
    paths = [f"{place}/sun_{i}.jpg" for place in places for i in range(6)]
    touch(folder / "SUN397", [path[1:] for path in paths])
    (folder / "ClassName.txt").write_text("\n".join(places) + "\n")
    (folder / "Training_01.txt").write_text("\n".join(path for path in paths if path[-5] < "5"))
    (folder / "Testing_01.txt").write_text("\n".join(path for path in paths if path[-5] == "5"))
    split = local_split(tmp_path, "SUN397")
    assert classes(split) == ["abbey", "indoor chicken_coop", "outdoor chicken_coop"]
    assert sizes(split) == [12, 3, 3]
    assert split.test[1].path == "c/chicken_coop/indoor/sun_5.jpg"
    (folder / "Testing_01.txt").write_text("/b/bank/sun_1.jpg\n")
    with pytest.raises(ValueError, match=r"Testing_01.txt lists /b/bank/sun_1.jpg, whose scene is not in"):
        local_split(tmp_path, "SUN397")


def test_ucf(tmp_path: Path) -> None:
    """Videos became frames; the folder is cut before capitals, the file keeps the video's odd capitals."""
    folder = tmp_path / "ucf101"
    videos = [("HandstandPushups", "HandStandPushups"), ("YoYo", "YoYo")]
    lines = [f"{action}/v_{name}_g{i:02d}_c01.avi" for action, name in videos for i in range(6)]
    frames = [f"{folder}/v_{name}_g{i:02d}_c01.jpg" for folder, (_, name) in zip(("Handstand_Pushups", "Yo_Yo"), videos,
              strict=True) for i in range(6)]  # fmt: skip
    touch(folder / "UCF-101-midframes", frames)
    (folder / "ucfTrainTestlist").mkdir()
    (folder / "ucfTrainTestlist/classInd.txt").write_text("1 HandstandPushups\r\n2 YoYo\r\n")
    train = [f"{line} {1 + line.startswith('Yo')}" for line in lines if "_g05" not in line]
    (folder / "ucfTrainTestlist/trainlist01.txt").write_text("\n".join(train))
    (folder / "ucfTrainTestlist/testlist01.txt").write_text("\n".join(line for line in lines if "_g05" in line))
    split = local_split(tmp_path, "UCF101")
    assert classes(split) == ["Handstand_Pushups", "Yo_Yo"]
    assert sizes(split) == [8, 2, 2]
    assert sorted(item.path for item in chain(*split)) == sorted(frames)
    (folder / "ucfTrainTestlist/testlist01.txt").write_text("Juggling/v_Juggling_g01_c01.avi")
    with pytest.raises(ValueError, match=r"testlist01.txt lists Juggling/.*, whose action is not in classInd.txt"):
        local_split(tmp_path, "UCF101")
    (folder / "ucfTrainTestlist/classInd.txt").write_text("HandstandPushups\n")
    with pytest.raises(ValueError, match=r"classInd.txt must have lines 'number Action', got 'HandstandPushups'"):
        local_split(tmp_path, "UCF101")


# ---- what all have in common


def test_a_local_split_is_asked_for_and_says_so(
    tmp_path: Path, configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    touch(tmp_path / "dtd/images", [f"{name}/{i}.jpg" for name in ("banded", "dotted", "woven") for i in range(10)])
    with pytest.raises(FileNotFoundError, match=r"No split file at .*It is never made up"):
        build_dataset(configure("DescribableTextures"))
    first = build_dataset(configure("DescribableTextures", "DATASET.SPLIT", "local"))
    assert "has a local split (digest" in capsys.readouterr().out
    assert first.split_published is False
    again = build_dataset(configure("DescribableTextures", "DATASET.SPLIT", "local", "SEED", 7))
    assert again.split_digest == first.split_digest  # the run's seed does not move it
    assert list((tmp_path / "dtd").glob("*.json")) == []  # nothing that could be taken for the published file


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"\(it is empty\)"),
        (b"<!DOCTYPE html><html></html>", r"\(it is a web page: its download failed\)"),
        (b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n", r"\(it is a MATLAB 7.3 file"),
        (b"no matrix at all" * 20, r"\(it is truncated or damaged: "),
        ("truncated", r"\(it is truncated or damaged: "),
        ("other", r"\(it has no variable 'labels', only setid\)"),
    ],
)
def test_damaged_annotations(tmp_path: Path, content: bytes | str, message: str) -> None:
    path = tmp_path / "imagelabels.mat"
    savemat(path, {"setid" if content == "other" else "labels": np.arange(1000)})
    if content == "truncated":
        path.write_bytes(path.read_bytes()[:300])
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"Cannot read .*imagelabels.mat {message}.*; get the official file again"):
        read_mat(path, "labels")


def test_missing_annotations(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No annotation file at .*labels.mat; put the official one there"):
        read_mat(tmp_path / "labels.mat", "labels")


def test_annotations_cut_off_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "labels.mat"
    savemat(path, {"labels": np.array([[3, 1, 2]])})
    assert read_mat(path, "labels").tolist() == [3, 1, 2]
    whole = path.read_bytes()
    for size in range(1, len(whole) - 8, 17):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"Cannot read .*labels.mat \(it (is truncated|has no variable)"):
            read_mat(path, "labels")
