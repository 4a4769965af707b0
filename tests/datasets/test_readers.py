"""The eleven data sets of the base-to-new protocol: their facts, and miniature trees in their official layouts."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
from pathlib import Path

import pytest
import yaml

from dassl.data.datasets import DATASET_REGISTRY, build_dataset
from datasets.base import SplitDataset
from datasets.splits import PARTS, read_split, sample_few_shot, sample_generator
from datasets.templates import DATASET_TEMPLATES
from tests.datasets.conftest import Configure, touch

ROOT = Path(__file__).parents[2]

# registry name, config, folder, folder of the pictures, classes, train, val, test
FACTS = """
ImageNet             imagenet         imagenet              images                1000  1281167  0      50000
Caltech101           caltech101       caltech-101           101_ObjectCategories  100   4128     1649   2465
OxfordPets           oxford_pets      oxford_pets           images                37    2944     736    3669
StanfordCars         stanford_cars    stanford_cars         -                     196   6509     1635   8041
OxfordFlowers        oxford_flowers   oxford_flowers        jpg                   102   4093     1633   2463
Food101              food101          food-101              images                101   50500    20200  30300
FGVCAircraft         fgvc_aircraft    fgvc_aircraft         images                100   3334     3333   3333
SUN397               sun397           sun397                SUN397                397   15880    3970   19850
DescribableTextures  dtd              dtd                   images                47    2820     1128   1692
EuroSAT              eurosat          eurosat               2750                  10    13500    5400   8100
UCF101               ucf101           ucf101                UCF-101-midframes     101   7639     1898   3783
ImageNetV2           imagenetv2       imagenetv2            imagenetv2-matched-frequency-format-val  1000  0  0  10000
ImageNetSketch       imagenet_sketch  imagenet-sketch       images                1000  0        0      50889
ImageNetA            imagenet_a       imagenet-adversarial  imagenet-a            200   0        0      7500
ImageNetR            imagenet_r       imagenet-rendition    imagenet-r            200   0        0      30000
"""
ROWS = [line.split() for line in FACTS.strip().splitlines()]

# Split files with two classes, in the form of the published ones: (dataset, [(train, val, test, name)] by label).
SPLITS = {
    "Caltech101": [
        ("Faces/image_0001.jpg", "Faces/image_0002.jpg", "Faces/image_0003.jpg", "face"),
        ("airplanes/image_0001.jpg", "airplanes/image_0002.jpg", "airplanes/image_0003.jpg", "airplane"),
    ],
    "OxfordPets": [
        ("Abyssinian_1.jpg", "Abyssinian_10.jpg", "Abyssinian_100.jpg", "abyssinian"),
        ("american_bulldog_1.jpg", "american_bulldog_2.jpg", "american_bulldog_3.jpg", "american_bulldog"),
    ],
    "StanfordCars": [  # the same file name in both folders is two pictures
        ("cars_train/00001.jpg", "cars_train/00002.jpg", "cars_test/00001.jpg", "2000 AM General Hummer SUV"),
        ("cars_train/00003.jpg", "cars_train/00004.jpg", "cars_test/00002.jpg", "2012 Ram C/V Cargo Van Minivan"),
    ],
    "OxfordFlowers": [
        ("image_06734.jpg", "image_06735.jpg", "image_06736.jpg", "pink primrose"),
        ("image_00001.jpg", "image_00002.jpg", "image_00003.jpg", "hard-leaved pocket orchid"),
    ],
    "Food101": [
        ("apple_pie/1.jpg", "apple_pie/2.jpg", "apple_pie/3.jpg", "apple_pie"),
        ("waffles/1.jpg", "waffles/2.jpg", "waffles/3.jpg", "waffles"),
    ],
    "SUN397": [
        ("a/abbey/sun_a.jpg", "a/abbey/sun_b.jpg", "a/abbey/sun_c.jpg", "abbey"),
        ("c/chicken_coop/indoor/sun_a.jpg", "c/chicken_coop/indoor/sun_b.jpg", "c/chicken_coop/indoor/sun_c.jpg",
         "indoor chicken_coop"),
    ],
    "DescribableTextures": [
        ("banded/banded_0002.jpg", "banded/banded_0004.jpg", "banded/banded_0005.jpg", "banded"),
        ("polka-dotted/polka-dotted_0001.jpg", "polka-dotted/polka-dotted_0002.jpg",
         "polka-dotted/polka-dotted_0003.jpg", "polka-dotted"),
    ],
    "EuroSAT": [
        ("AnnualCrop/AnnualCrop_1.jpg", "AnnualCrop/AnnualCrop_10.jpg", "AnnualCrop/AnnualCrop_2.jpg",
         "Annual Crop Land"),
        ("SeaLake/SeaLake_1.jpg", "SeaLake/SeaLake_2.jpg", "SeaLake/SeaLake_3.jpg", "Sea or Lake"),
    ],
    "UCF101": [
        ("Apply_Eye_Makeup/v_ApplyEyeMakeup_g08_c01.jpg", "Apply_Eye_Makeup/v_ApplyEyeMakeup_g08_c02.jpg",
         "Apply_Eye_Makeup/v_ApplyEyeMakeup_g01_c01.jpg", "Apply_Eye_Makeup"),
        ("Handstand_Pushups/v_HandStandPushups_g08_c01.jpg", "Handstand_Pushups/v_HandStandPushups_g08_c02.jpg",
         "Handstand_Pushups/v_HandStandPushups_g01_c01.jpg", "Handstand_Pushups"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_facts(row: list[str]) -> None:
    name, config, folder, images, *numbers = row
    reader = DATASET_REGISTRY.get(name)
    assert yaml.safe_load((ROOT / "configs/datasets" / f"{config}.yaml").read_text()) == {"DATASET": {"NAME": name}}
    assert (reader.dataset_dir, reader.image_dir or "-") == (folder, images)
    assert [reader.n_classes, *reader.counts] == [int(number) for number in numbers]
    assert reader.test_only == (numbers[1] == "0")
    assert name in DATASET_TEMPLATES


def make_tree(root: Path, name: str) -> type[SplitDataset]:
    reader = DATASET_REGISTRY.get(name)
    folder = root / reader.dataset_dir
    rows = SPLITS[name]
    touch(folder / reader.image_dir, [path for row in rows for path in row[:3]])
    tree = {part: [[row[i], label, row[3]] for label, row in enumerate(rows)] for i, part in enumerate(PARTS)}
    (folder / reader.split_file).write_text(json.dumps(tree, indent=4))
    return reader


@pytest.mark.parametrize("name", SPLITS)
def test_miniature_tree(
    name: str, tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = make_tree(tmp_path, name)
    monkeypatch.setattr(reader, "n_classes", 2)
    data = build_dataset(configure(name))
    images = tmp_path / reader.dataset_dir / reader.image_dir
    for i, part in enumerate((data.train_x, data.val, data.test)):
        assert [(item.impath, item.label, item.classname) for item in part] == [
            (str(images / row[i]), label, row[3]) for label, row in enumerate(SPLITS[name])
        ]
    assert data.split_published is False
    assert "not the published split" in capsys.readouterr().out
    new = build_dataset(configure(name, "DATASET.SUBSAMPLE_CLASSES", "new"))
    assert (new.classnames, new.test[0].label) == ([SPLITS[name][1][3]], 0)


@pytest.mark.parametrize("name", SPLITS)
def test_wrong_number_of_classes(name: str, tmp_path: Path, configure: Configure) -> None:
    reader = make_tree(tmp_path, name)
    with pytest.raises(ValueError, match=rf"{reader.split_file} has 2 classes, but {name} has {reader.n_classes}"):
        build_dataset(configure(name))


# ---- FGVCAircraft has lists instead of a split file


@pytest.fixture
def aircraft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(DATASET_REGISTRY.get("FGVCAircraft"), "n_classes", 2)
    folder = tmp_path / "fgvc_aircraft"
    touch(folder / "images", [f"{number:07d}.jpg" for number in range(1, 7)])
    (folder / "variants.txt").write_text("707-320\nF-16A/B\n")
    (folder / "families.txt").write_text("Boeing 707\nF-16\n")
    for part, numbers in zip(PARTS, ((1, 2), (3, 4), (5, 6)), strict=True):
        lines = [f"{numbers[1]:07d} F-16A/B", f"{numbers[0]:07d} 707-320"]
        (folder / f"images_variant_{part}.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_aircraft(aircraft: Path, configure: Configure) -> None:
    data = build_dataset(configure("FGVCAircraft"))
    assert [(Path(item.impath).name, item.label, item.classname) for item in data.test] == [
        ("0000006.jpg", 1, "F-16A/B"),
        ("0000005.jpg", 0, "707-320"),
    ]
    assert data.classnames == ["707-320", "F-16A/B"]
    assert data.split_published is False


def test_aircraft_variant_with_blanks(aircraft: Path, configure: Configure) -> None:
    for path in aircraft.glob("*.txt"):
        path.write_text(path.read_text().replace("707-320", "Cessna 525").replace("\n", "\r\n"))
    assert build_dataset(configure("FGVCAircraft")).classnames == ["Cessna 525", "F-16A/B"]


def test_aircraft_unknown_variant(aircraft: Path, configure: Configure) -> None:
    (aircraft / "variants.txt").write_text("707-320\nF-16\n")
    with pytest.raises(ValueError, match=r"images_variant_train.txt lists '0000002 F-16A/B', whose variant is not in"):
        build_dataset(configure("FGVCAircraft"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"No list of variants at .*variants.txt; fetch it with: python tools/prepare_data.py download FGVC"),
        (b"", r"variants.txt is empty, but should be the list of variants"),
        (b"<html>login</html>", r"variants.txt is a web page, not the list of variants: its download failed"),
        (b"\xff\xfe\x00", r"variants.txt is not a text file"),
    ],
)
def test_aircraft_damaged_list(aircraft: Path, configure: Configure, content: bytes | None, message: str) -> None:
    path = aircraft / "variants.txt"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        build_dataset(configure("FGVCAircraft"))


# ---- the published split files, where somebody has them

FOLDER = os.environ.get("SPLIT_FILES", "")
DIGESTS = list(csv.DictReader((Path(__file__).parent / "few_shot_digests.csv").open()))
BOUNDARIES = {  # last base class, first new class
    "Caltech101": ("helicopter", "ibis"),
    "OxfordPets": ("keeshond", "leonberger"),
    "StanfordCars": ("1998 Eagle Talon Hatchback", "2012 FIAT 500 Abarth"),
    "OxfordFlowers": ("petunia", "wild pansy"),
    "DescribableTextures": ("marbled", "matted"),
    "EuroSAT": ("Industrial Buildings", "Pasture Land"),
    "UCF101": ("Long_Jump", "Lunges"),
}


@pytest.mark.skipif(not FOLDER, reason="SPLIT_FILES names no folder with the published split files (not ours to ship)")
def test_published_split_files(tmp_path: Path) -> None:
    """Content, counts, classes, and the few-shot samples that the field draws from them."""
    files = sorted(Path(FOLDER).glob("split_zhou_*.json*"))
    assert files
    for file in files:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        path = tmp_path / file.name.removesuffix(".gz")
        path.write_bytes(content)
        name = path.stem.removeprefix("split_zhou_")
        reader, split = DATASET_REGISTRY.get(name), read_split(path)
        assert reader.is_published(tmp_path, split), name
        assert tuple(map(len, split)) == reader.counts
        names = [name for _, name in sorted({(item.label, item.name) for item in split.test})]
        assert len(names) == reader.n_classes
        if name in BOUNDARIES:
            half = -(-len(names) // 2)
            assert (names[half - 1], names[half]) == BOUNDARIES[name]
        for row in (row for row in DIGESTS if row["dataset"] == name):
            sample = sample_few_shot(split, int(row["shots"]), sample_generator(int(row["seed"])))
            for part, items in (("train", sample.train), ("val", sample.val)):
                assert hashlib.sha256("\n".join(i.path for i in items).encode()).hexdigest()[:16] == row[part], (
                    name,
                    row,
                )
