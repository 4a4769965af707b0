"""Miniature data sets on disk."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from PIL import Image

from datasets.oxford_pets import OxfordPets

BREEDS = ("abyssinian", "basset_hound", "yorkshire_terrier")
COUNTS = {"train": 4, "val": 2, "test": 3}  # pictures a class
N_PETS = 27


def make_pets(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an OxfordPets of three breeds below the root, complete and published as such."""
    folder = root / "oxford_pets"
    (folder / "images").mkdir(parents=True)
    lists = {}
    for part, n in COUNTS.items():
        pairs = [(label, f"{breed}_{part}_{i}.jpg") for label, breed in enumerate(BREEDS) for i in range(n)]
        lists[part] = [[path, label, BREEDS[label]] for label, path in pairs]
        for label, path in pairs:
            picture(folder / "images" / path, label)
    (folder / "split_zhou_OxfordPets.json").write_text(json.dumps(lists, indent=4))
    compact = json.dumps(lists, separators=(",", ":"))
    monkeypatch.setattr(OxfordPets, "n_classes", 3)
    monkeypatch.setattr(OxfordPets, "counts", tuple(3 * n for n in COUNTS.values()))
    monkeypatch.setattr(OxfordPets, "published", hashlib.sha256(compact.encode()).hexdigest())
    return folder


def make_foreign(folder: Path) -> None:
    """Swap two pictures between the lists of a split file, as a split that is drawn anew does."""
    (path,) = folder.glob("split_*.json")
    lists = json.loads(path.read_text())
    lists["train"][0], lists["test"][0] = lists["test"][0], lists["train"][0]
    path.write_text(json.dumps(lists))


def picture(path: Path, label: int = 0, size: tuple[int, int] = (24, 16)) -> Path:
    """A picture that is mostly red, green or blue, in the format of the path's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.linear_gradient("L").resize(size)  # not plain, or a JPEG of half its bytes would still be whole
    channels = [image.point(lambda value: value // 3) for _ in range(3)]
    channels[label % 3] = image.point(lambda value: 128 + value // 2)
    Image.merge("RGB", channels).save(path)
    return path


def truncate(path: Path) -> str:
    """Cut the end off a file; what Pillow says of it."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - len(content) // 8])
    with pytest.raises(OSError, match=r"[Tt]runcated") as error, Image.open(path) as image:
        image.load()
    return str(error.value)
