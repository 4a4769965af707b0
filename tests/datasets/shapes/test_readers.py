"""The five registered readers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from yacs.config import CfgNode as CN

from dassl.data.datasets import DATASET_REGISTRY, build_dataset
from datasets.shapes import domains
from datasets.templates import DATASET_TEMPLATES
from tests.datasets.conftest import Configure

CONFIGS = Path(__file__).parents[3] / "configs" / "datasets"


def config(name: str, root: Path, shots: int = 1, classes: str = "all") -> CN:
    data = {"NAME": name, "ROOT": str(root), "NUM_SHOTS": shots, "SUBSAMPLE_CLASSES": classes}
    return CN({"SEED": 1, "VERBOSE": False, "DATASET": data})


@pytest.mark.parametrize("name", domains.DOMAINS)
def test_registered_with_config_and_template(name: str) -> None:
    assert name in DATASET_REGISTRY.registered_names()
    assert DATASET_TEMPLATES[name] == "a photo of a {}."
    file = CONFIGS / f"{domains.DOMAINS[name].folder}.yaml"
    assert yaml.safe_load(file.read_text()) == {"DATASET": {"NAME": name}}


def test_source_domain_renders_on_first_use(tmp_path: Path, small: domains.Domain) -> None:
    base, new = (build_dataset(config("Shapes", tmp_path, classes=classes)) for classes in ("base", "new"))
    assert (len(base.train_x), len(base.val), len(base.test)) == (72, 72, 72)
    assert tuple(base.classnames + new.classnames) == domains.CLASS_NAMES
    assert Path(base.test[0].impath).is_relative_to(tmp_path / "shapes" / "images" / "test")
    assert base.split_digest == new.split_digest


def test_other_domains_are_test_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    domain = replace(domains.DOMAINS["ShapesA"], counts=(0, 0, 1))
    monkeypatch.setitem(domains.DOMAINS, "ShapesA", domain)
    data = build_dataset(config("ShapesA", tmp_path, shots=16))
    assert [item.impath for item in data.train_x] == [item.impath for item in data.test]
    assert len(data.test) == 144
    assert not data.val


def test_missing_root(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="No data root"):
        build_dataset(config("Shapes", tmp_path / "nowhere"))


def test_more_shots_than_pictures(tmp_path: Path, small: domains.Domain) -> None:
    with pytest.raises(ValueError, match=r"Shapes has only 1 training pictures of class 'gray star'"):
        build_dataset(config("Shapes", tmp_path, shots=16))


def test_image_folder_of_the_same_pictures_is_the_same_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configure: Configure
) -> None:
    """Same pictures, labels, names, order and few-shot sample, hence the same training and accuracy."""
    domain = replace(domains.DOMAINS["Shapes"], counts=(3, 2, 2))
    monkeypatch.setitem(domains.DOMAINS, "Shapes", domain)
    shots = ("DATASET.NUM_SHOTS", 2, "DATASET.SUBSAMPLE_CLASSES", "new")
    rendered = build_dataset(configure("Shapes", *shots))
    images = tmp_path / "shapes" / "images"
    folders = sorted(path.name for path in (images / "train").iterdir())
    lines = [f"{folder} {name}\n" for folder, name in zip(folders, domains.CLASS_NAMES, strict=True)]
    (images / "classnames.txt").write_text("".join(lines))
    keys = ("DATASET.IMAGE_FOLDER.DIR", "shapes/images", *shots)
    folder = build_dataset(configure("ImageFolder", *keys))
    for part in ("train_x", "val", "test"):
        assert list(map(repr, getattr(folder, part))) == list(map(repr, getattr(rendered, part)))
