"""Names that people type, and the readers they mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasets.dtd import DescribableTextures
from datasets.image_folder import ImageFolder
from datasets.imagenet import ImageNetA, ImageNetR
from datasets.oxford_flowers import OxfordFlowers
from datasets.preparation import names
from datasets.preparation.names import resolve
from datasets.preparation.verify import verify
from datasets.shapes import ShapesV2
from tests.datasets.preparation.trees import picture

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("name", "reader"),
    [
        ("DescribableTextures", DescribableTextures),
        ("dtd", DescribableTextures),
        ("DTD", DescribableTextures),
        ("oxfordflowers", OxfordFlowers),
        ("Oxford_Flowers", OxfordFlowers),
        ("imagenet-adversarial", ImageNetA),
        ("imagenet_r", ImageNetR),
        ("shapes_v2", ShapesV2),
        ("ImageFolder", ImageFolder),
    ],
)
def test_registry_name_config_and_folder_in_any_case(name: str, reader: type) -> None:
    assert resolve([name]) == [reader]


def test_each_once_in_the_order_of_the_names() -> None:
    assert resolve(["imagenet_r", "dtd", "ImageNetR", "DTD"]) == [ImageNetR, DescribableTextures]


def test_every_config_file_names_a_reader() -> None:
    stems = [path.stem for path in (ROOT / "configs" / "datasets").glob("*.yaml")]
    assert len(resolve(stems)) == len(stems) == 21


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"^'oxford_pet' is no data set; did you mean 'oxford_pets'\? Known: caltech"):
        resolve(["dtd", "oxford_pet"])


def test_all_are_those_whose_folder_is_there(tmp_path: Path) -> None:
    (tmp_path / "shapes_v2").mkdir()
    (tmp_path / "dtd").mkdir()
    (tmp_path / "something").mkdir()
    (tmp_path / "food-101").touch()
    assert set(resolve(["all"], tmp_path)) == {DescribableTextures, ShapesV2}
    assert len(resolve(["ALL"])) == 20  # ImageFolder has no folder of its own
    with pytest.raises(ValueError, match=r"^No folder in .*something is that of a known data set; name data sets inst"):
        resolve(["all"], tmp_path / "something")


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(names, "CONFIGS", tmp_path / "configs")
    (tmp_path / "configs").mkdir()
    return tmp_path / "configs"


def test_config_file_of_ones_own(tmp_path: Path, configs: Path) -> None:
    (configs / "mushrooms.yaml").write_text(
        "DATASET: {NAME: ImageFolder, IMAGE_FOLDER: {DIR: fungi, CLASSNAMES: names.txt, TRAIN_SHARE: 0.7}}\n"
        "INPUT: {SIZE: [32, 32]}\n"
    )
    for i in range(10):
        picture(tmp_path / "fungi" / "bolete" / f"{i}.png")
        picture(tmp_path / "fungi" / "morel" / f"{i}.png")
    (reader,) = resolve(["Mushrooms"])
    assert [r.__name__ for r in resolve(["all", "mushrooms", "fungi"], tmp_path)] == ["mushrooms"]
    report = verify(reader, tmp_path, workers=0)
    assert (report.dataset, report.folder, report.state) == ("mushrooms", tmp_path / "fungi", "ok")
    assert report.found == (14, 4, 2)  # 0.7 and 0.2 of ten


def test_config_files_that_name_no_reader(configs: Path) -> None:
    (configs / "empty.yaml").touch()
    (configs / "other.yaml").write_text("DATASET: {NAME: NotOurs}\n")
    assert names.configured_readers() == {}
    (configs / "broken.yaml").write_text("DATASET: [\n")
    with pytest.raises(ValueError, match=r"broken.yaml is not valid yaml"):
        resolve(["dtd"])
