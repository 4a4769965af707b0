"""Numbers and digests, against hand-written ones and those published for the real splits."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest

from datasets.base import Found, SplitDataset
from datasets.image_folder import ImageFolder
from datasets.preparation import stats
from datasets.preparation.stats import Images, Sizes, describe
from datasets.splits import Item, Split
from tests.datasets.preparation.trees import picture


class Birds(SplitDataset):
    pass


def items(part: str, counts: tuple[int, ...]) -> list[Item]:
    return [Item(f"{part}/{label}_{i}.jpg", label, f"bird {label}") for label, n in enumerate(counts) for i in range(n)]


def birds(images: Path = Path("nowhere"), published: bool | None = True) -> Found:
    split = Split(items("train", (5, 1200, 7)), items("val", (2, 2, 2)), items("test", (3, 4, 9)))
    return Found(images.parent, images, split, published)


def test_numbers() -> None:
    row = describe(Birds, birds())
    assert (row.dataset, row.n_classes, row.split_published) == ("Birds", 3, True)
    assert (row.train, row.val, row.test) == (Sizes(1212, 5, 1200), Sizes(6, 2, 2), Sizes(16, 3, 9))
    assert (row.base_new, row.base_new_test) == ((2, 1), (7, 9))  # classes 0 and 1 are base
    assert row.sample == (None, None)
    assert row.images is None
    compact = json.dumps(birds().split._asdict(), separators=(",", ":"))
    assert row.split_digest == hashlib.sha256(compact.encode()).hexdigest()[:16]


def test_data_set_of_one_class() -> None:
    found = birds()._replace(split=Split([], [], items("test", (4,))))
    row = describe(Birds, found, shots=2)
    assert (row.base_new, row.base_new_test, row.train) == ((1, 0), (4, 0), Sizes(0, 0, 0))
    assert (row.sample, row.note) == ((None, None), "it is for tests only, so no sample is drawn.")


def test_digest_of_a_sample() -> None:
    """The rule by hand: classes in order, train before val with one generator, at most four of val."""
    found = birds()
    generator = random.Random(3)
    drawn = {}
    for part, k in (("train", 5), ("val", 4)):
        drawn[part] = []
        for label in range(3):
            group = [item.path for item in getattr(found.split, part) if item.label == label]
            drawn[part] += generator.sample(group, k) if len(group) >= k else group
    expected = tuple(hashlib.sha256("\n".join(paths).encode()).hexdigest()[:16] for paths in drawn.values())
    assert describe(Birds, found, shots=5, seed=3).sample == expected
    assert describe(Birds, found, shots=5, seed=4).sample != expected


def test_class_with_too_few_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    row = describe(Birds, birds(), shots=6)
    assert row.sample == (None, None)
    assert row.note.startswith("Birds has only 5 training pictures of class 'bird 0'")
    row = describe(ImageFolder, birds(), shots=6)  # takes small classes whole
    assert None not in row.sample
    assert row.note.startswith("classes of ImageFolder with fewer than 6 training pictures are taken whole: 1")
    assert capsys.readouterr().out == ""


def test_sizes_and_modes_of_pictures(tmp_path: Path) -> None:
    found = birds(tmp_path)
    for item, size in zip(found.split.test[:4], ((10, 20), (30, 20), (50, 90), (40, 20)), strict=True):
        picture(tmp_path / item.path, size=size)
    (tmp_path / found.split.test[5].path).write_text("no picture")
    split = found.split._replace(train=[], val=[])
    assert describe(Birds, found._replace(split=split), images=True).images == Images(35, 20, {"RGB": 4})
    assert describe(Birds, birds(), images=True).images is None


def test_table() -> None:
    rows = [describe(Birds, birds(published=False), shots=5), describe(Birds, birds(), shots=6)]
    lines = stats.to_table(rows, shots=5, seed=1).splitlines()
    titles = "data set classes train val test base / new base / new test split sample train sample val"
    assert lines[0].split() == titles.split()
    assert "  1,212 (5–1,200)  6 (2)  16 (3–9)" in lines[2]
    assert "  2 / 1              7 / 9  " in lines[2]
    assert f"{rows[0].split_digest} (not the published one)  {rows[0].sample[0]}  {rows[0].sample[1]}" in lines[2]
    assert lines[3].split()[-2:] == ["–", "–"]
    assert "a run with 5 shots and seed 1 draws" in lines[6]
    assert lines[7].startswith("Birds: Birds has only 5 training pictures")


def test_table_of_pictures(tmp_path: Path) -> None:
    found = birds(tmp_path)
    picture(tmp_path / found.split.test[-1].path, size=(30, 20))
    lines = stats.to_table([describe(Birds, found, images=True), describe(Birds, birds(), images=True)]).splitlines()
    assert lines[2].endswith("30 × 20 (RGB 1)")
    assert lines[3].endswith("–")
    assert lines[6] == "images: median width × height in pixels, and modes, of up to 200."


def test_json() -> None:
    tree = json.loads(stats.to_json([describe(Birds, birds(), shots=5, seed=2)], shots=5, seed=2))
    (row,) = tree["datasets"]
    assert tree["sample"] == {"shots": 5, "seed": 2}
    assert row["train"] == {"images": 1212, "smallest": 5, "largest": 1200}
    assert row["base_new_test"] == [7, 9]
    assert json.loads(stats.to_json([]))["sample"] is None
