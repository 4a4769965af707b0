"""ImageNet and its four variants: folders, class names, label maps. All 1,000 folders, an empty file or two in each."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from dassl.data.datasets import build_dataset
from datasets.imagenet_classes import classnames_text, imagenet_classes, synsets
from tests.datasets.conftest import Configure, touch

IDS = synsets("imagenet")


def digest(lines: list[str] | tuple[str, ...]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    images = tmp_path / "imagenet" / "images"
    touch(images / "train", [f"{name}/{name}_{i}.JPEG" for name in IDS for i in (10, 2)])
    touch(images / "val", [f"{name}/ILSVRC2012_val_{i:08d}.JPEG" for i, name in enumerate(IDS)])
    (tmp_path / "imagenet" / "classnames.txt").write_text(classnames_text())
    return tmp_path / "imagenet"


def test_classes_are_those_of_the_field() -> None:
    """Digests of the published files, computed elsewhere."""
    assert (
        digest(classnames_text().split("\n")[:-1]) == "51b5b1d8b800502030c5556eb206abaafdd682ef363ff7a7077591ea3c9befa5"
    )
    assert digest(IDS) == "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"
    assert digest(synsets("imagenet_a")) == "f6aa4b23244554d9b864fd715ae20048f6a9686388911b2dfbf1ada01bf0f520"
    assert digest(synsets("imagenet_r")) == "e19a59d84e3746fafd34d2ccf6ae604a44e9a0500a596f343c878a89e30ce624"
    names = list(imagenet_classes().values())
    assert len(set(names)) == 998
    assert (names[657], names[836]) == (names[744], names[837]) == ("missile", "sunglasses")


def test_imagenet(imagenet: Path, configure: Configure) -> None:
    data = build_dataset(configure("ImageNet"))
    assert (len(data.train_x), data.val, len(data.test)) == (2000, [], 1000)
    first, second = data.train_x[:2]
    assert [Path(item.impath).name for item in (first, second)] == ["n01440764_10.JPEG", "n01440764_2.JPEG"]
    assert (first.label, first.classname, data.classnames[-1]) == (0, "tench", "toilet paper")
    assert data.test[0].impath == str(imagenet / "images/val/n01440764/ILSVRC2012_val_00000000.JPEG")
    assert data.split_published is False  # not 1,281,167 pictures


def test_imagenet_base_and_new(imagenet: Path, configure: Configure) -> None:
    base, new = (
        build_dataset(configure("ImageNet", "DATASET.SUBSAMPLE_CLASSES", part, "DATASET.NUM_SHOTS", 1))
        for part in ("base", "new")
    )
    assert (base.classnames[-1], new.classnames[0]) == ("cleaver", "cliff dwelling")
    assert (len(base.train_x), len(base.test)) == (500, 500)
    assert base.sample_digest == new.sample_digest


def test_imagenet_validates_on_test_only_when_asked(imagenet: Path, configure: Configure) -> None:
    data = build_dataset(configure("ImageNet", "DATASET.VAL_IS_TEST", True))
    assert [item.impath for item in data.val] == [item.impath for item in data.test]


def test_names_need_no_file(imagenet: Path, configure: Configure) -> None:
    with_file = build_dataset(configure("ImageNet")).classnames
    (imagenet / "classnames.txt").unlink()
    assert build_dataset(configure("ImageNet")).classnames == with_file


def test_stray_files_are_no_classes(imagenet: Path, configure: Configure) -> None:
    touch(imagenet / "images", ["train/README.txt", "train/.DS_Store", "train/.hidden/a.jpg", "val/n01440764/notes.md"])
    data = build_dataset(configure("ImageNet"))
    assert (len(data.classnames), len(data.test)) == (1000, 1000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("n01440764 tench\n", ""), r"n01440764 is missing or too much"),
        (lambda text: text.replace("n01440764", "n01440765"), r"n0144076\d is missing or too much"),
        (lambda text: "".join(reversed(text.splitlines(True))), r"a line is doubled or out of order"),
        (lambda text: text + "n15075141 again\n", r"a line is doubled or out of order"),
        (
            lambda text: text.replace("n01440764 tench", "n01440764"),
            r"line 1 must be 'n######## name', got 'n0144",
        ),
        (lambda text: text.replace("n01440764", "1440764"), r"line 1 must be 'n######## name', got '1440764 tench'"),
    ],
)
def test_damaged_class_names(imagenet: Path, configure: Configure, change: object, message: str) -> None:
    path = imagenet / "classnames.txt"
    path.write_text(change(path.read_text()))  # type: ignore[operator]
    with pytest.raises(ValueError, match=rf"classnames.txt.*{message}"):
        build_dataset(configure("ImageNet"))


def test_class_names_with_tabs_and_windows_lines(imagenet: Path, configure: Configure) -> None:
    path = imagenet / "classnames.txt"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_text().replace(" ", "\t", 1).replace("\n", "\r\n").encode())
    assert build_dataset(configure("ImageNet")).classnames == list(imagenet_classes().values())


def test_other_class_names_count_and_are_reported(
    imagenet: Path, configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    path = imagenet / "classnames.txt"
    path.write_text(path.read_text().replace("hammerhead shark", "hammerhead"))
    assert "hammerhead" in build_dataset(configure("ImageNet")).classnames
    assert "calls n01494475 'hammerhead', not 'hammerhead shark' (1 such lines)" in capsys.readouterr().out


def test_flat_validation_folder(imagenet: Path, configure: Configure) -> None:
    for path in list((imagenet / "images/val").glob("*/*")):
        path.rename(imagenet / "images/val" / path.name)
    for path in (imagenet / "images/val").iterdir():
        if path.is_dir():
            path.rmdir()
    with pytest.raises(ValueError, match=r"pictures of .*val are in one flat folder, .* download ImageNet --root"):
        build_dataset(configure("ImageNet"))


def test_class_folders_that_are_missing_unknown_or_empty(imagenet: Path, configure: Configure) -> None:
    (imagenet / "images/val/n01440764/ILSVRC2012_val_00000000.JPEG").unlink()
    with pytest.raises(ValueError, match=r"val/n01440764 has no picture \(1 such folders\); complete the data set"):
        build_dataset(configure("ImageNet"))
    (imagenet / "images/val/n01440764").rmdir()
    with pytest.raises(FileNotFoundError, match=r"1 of 1000 class folders are not in .*val \(first: n01440764\)"):
        build_dataset(configure("ImageNet"))
    (imagenet / "images/train/n00000000").mkdir()
    with pytest.raises(ValueError, match=r"train/n00000000 is named after no class of ImageNet \(1 such folders\)"):
        build_dataset(configure("ImageNet"))
    shutil.rmtree(imagenet / "images/train")
    with pytest.raises(FileNotFoundError, match=r"No folder .*train, where ImageNet has its class folders"):
        build_dataset(configure("ImageNet"))


# ---- variants


def test_v2_folders_are_numbers(tmp_path: Path, configure: Configure) -> None:
    """Sorted as text, 10 would come before 2, and every label behind it would be another class."""
    images = tmp_path / "imagenetv2" / "imagenetv2-matched-frequency-format-val"
    touch(images, [f"{label}/{label:04d}.jpeg" for label in range(1000)])
    data = build_dataset(configure("ImageNetV2", "DATASET.NUM_SHOTS", 16))
    assert [Path(item.impath).parent.name for item in data.test[:12]] == [str(label) for label in range(12)]
    assert data.classnames == list(imagenet_classes().values())
    assert [item.impath for item in data.train_x] == [item.impath for item in data.test]
    assert data.val == []


def test_v2_folders_may_be_identifiers_but_no_mix(tmp_path: Path, configure: Configure) -> None:
    images = tmp_path / "imagenetv2" / "imagenetv2-matched-frequency-format-val"
    touch(images, [f"{name}/a.jpeg" for name in IDS])
    assert build_dataset(configure("ImageNetV2")).classnames == list(imagenet_classes().values())
    (images / "12").mkdir()
    with pytest.raises(ValueError, match=r"has folders named by number and by identifier; keep those of one data set"):
        build_dataset(configure("ImageNetV2"))


def test_sketch(tmp_path: Path, configure: Configure) -> None:
    touch(tmp_path / "imagenet-sketch" / "sketch", [f"{name}/sketch_0.JPEG" for name in IDS])
    with pytest.raises(FileNotFoundError, match=r"No folder .*images, but there is .*sketch; move it to .*images"):
        build_dataset(configure("ImageNetSketch"))
    (tmp_path / "imagenet-sketch" / "sketch").rename(tmp_path / "imagenet-sketch" / "images")
    assert build_dataset(configure("ImageNetSketch")).test[999].classname == "toilet paper"


@pytest.mark.parametrize(
    ("reader", "folder", "images", "subset", "boundary"),
    [
        ("ImageNetA", "imagenet-adversarial", "imagenet-a", "imagenet_a", "n01498041 stingray"),
        ("ImageNetR", "imagenet-rendition", "imagenet-r", "imagenet_r", "n01443537 goldfish"),
    ],
)
def test_variants_of_200_classes(
    tmp_path: Path, configure: Configure, reader: str, folder: str, images: str, subset: str, boundary: str
) -> None:
    touch(tmp_path / folder / images, ["README.txt", *(f"{name}/a.jpg" for name in synsets(subset))])
    data = build_dataset(configure(reader))
    identifier, name = boundary.split()
    assert (Path(data.test[0].impath).parent.name, data.test[0].label, data.classnames[0]) == (identifier, 0, name)
    assert (data.num_classes, data.test[-1].label) == (200, 199)
    touch(tmp_path / folder / images, ["n01440764/a.jpg"])  # a class of ImageNet, but of neither subset
    if "n01440764" not in synsets(subset):
        with pytest.raises(ValueError, match=rf"n01440764 is named after no class of {reader}"):
            build_dataset(configure(reader))
