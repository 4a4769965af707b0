"""Split files, few-shot samples and class subsets."""

from __future__ import annotations

import hashlib
import json
import random
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.errors import DatasetError
from datasets.splits import (
    Item,
    Split,
    cut_classes,
    derive_val,
    read_split,
    sample_few_shot,
    sample_generator,
    save_split,
    subsample_classes,
)


def items(part: str, counts: dict[int, int]) -> list[Item]:
    return [Item(f"{part}/{label}_{i}.jpg", label, f"name {label}") for label, n in counts.items() for i in range(n)]


def make(train: dict[int, int], val: dict[int, int], test: dict[int, int]) -> Split:
    return Split(items("train", train), items("val", val), items("test", test))


HAND_MADE = make({2: 5, 0: 3, 1: 4}, {1: 6, 0: 2, 2: 4}, {0: 1, 1: 2, 2: 3})


@st.composite
def splits(draw: st.DrawFn) -> Split:
    """Splits with shuffled lists, every label in every list."""
    n = draw(st.integers(1, 7))
    lists = []
    for part in ("train", "val", "test"):
        counts = {label: draw(st.integers(1, 9)) for label in range(n)}
        lists.append(draw(st.permutations(items(part, counts))))
    return Split(*lists)


def counts(rows: list[Item]) -> dict[int, int]:
    return {label: sum(row.label == label for row in rows) for label in {row.label for row in rows}}


# ---- few-shot samples


def test_few_shot_follows_the_published_rule() -> None:
    """One generator; labels in order of appearance; train first, then val with at most four."""
    generator = random.Random(7)
    train = [generator.sample(items("train", {label: n}), 3) for label, n in ((2, 5), (0, 3), (1, 4))]
    val = [generator.sample(items("val", {1: 6}), 3), items("val", {0: 2}), generator.sample(items("val", {2: 4}), 3)]
    sampled = sample_few_shot(HAND_MADE, 3, sample_generator(7))
    assert sampled.train == list(chain(*train))
    assert sampled.val == list(chain(*val))
    assert sampled.test == HAND_MADE.test


def test_validation_is_capped_at_four_shots() -> None:
    split = make({0: 20}, {0: 20}, {0: 1})
    assert [len(part) for part in sample_few_shot(split, 16, random.Random(1))] == [16, 4, 1]
    assert [len(part) for part in sample_few_shot(split, 2, random.Random(1))] == [2, 2, 1]


@settings(deadline=None, max_examples=50)
@given(splits(), st.integers(1, 9), st.integers(0, 10**6))
def test_few_shot_samples_are_balanced_complete_and_stable(split: Split, shots: int, seed: int) -> None:
    smallest = min(counts(split.train).values())
    if shots > smallest:
        with pytest.raises(ValueError, match=f"NUM_SHOTS is {shots}; ask for at most {smallest}"):
            sample_few_shot(split, shots, sample_generator(seed))
        return
    random.seed(0)
    state = random.getstate()
    sampled = sample_few_shot(split, shots, sample_generator(seed))
    assert random.getstate() == state  # the global generator was left alone
    assert counts(sampled.train) == dict.fromkeys(counts(split.train), shots)
    assert counts(sampled.val) == {
        k: min(n, shots, 4) if n >= min(shots, 4) else n for k, n in counts(split.val).items()
    }
    for part, whole in zip(sampled, split, strict=True):
        assert len(set(part)) == len(part)
        assert set(part) <= set(whole)
    random.random()  # what ran before does not matter
    assert sample_few_shot(split, shots, sample_generator(seed)) == sampled


def test_seeds_give_different_samples() -> None:
    split = make({0: 50}, {0: 50}, {0: 1})
    first, second = (sample_few_shot(split, 16, sample_generator(seed)).train for seed in (1, 2))
    assert first != second


def test_negative_seed_follows_the_global_generator() -> None:
    split = make({0: 50}, {0: 50}, {0: 1})
    random.seed(3)
    first = sample_few_shot(split, 16, sample_generator(-1)).train
    second = sample_few_shot(split, 16, sample_generator(-1)).train
    random.seed(3)
    assert sample_few_shot(split, 16, sample_generator(-1)).train == first != second


def test_no_shots_keep_the_split() -> None:
    assert sample_few_shot(HAND_MADE, -1, random.Random(0)) is HAND_MADE
    assert sample_few_shot(HAND_MADE, 0, random.Random(0)) is HAND_MADE


def test_more_shots_than_pictures_name_class_and_counts() -> None:
    with pytest.raises(
        ValueError, match=r"^Toy has only 3 training pictures of class 'name 0', but DATASET.NUM_SHOTS is 4"
    ):
        sample_few_shot(HAND_MADE, 4, random.Random(0), "Toy")


def test_small_classes_can_be_taken_whole(capsys: pytest.CaptureFixture[str]) -> None:
    sampled = sample_few_shot(HAND_MADE, 4, sample_generator(3), "Toy", take_whole=True)
    assert counts(sampled.train) == {2: 4, 0: 3, 1: 4}
    assert capsys.readouterr().out == (
        "Note: classes of Toy with fewer than 4 training pictures are taken whole: 1, the smallest is 'name 0' with 3\n"
    )


# ---- splits of our own


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.integers(0, 9), st.integers(2, 30), min_size=1), st.integers(0, 10**6))
def test_cut_classes_are_disjoint_complete_and_of_the_right_size(sizes: dict[int, int], seed: int) -> None:
    rows = items("all", sizes)
    split = cut_classes(rows, 0.5, 0.2, random.Random(seed))
    assert sorted(chain(*split)) == sorted(rows)
    assert sum(map(len, split)) == len(rows)
    for label, n in sizes.items():
        train, val, test = (counts(part).get(label, 0) for part in split)
        assert train >= 1
        assert test >= 1
        if n >= 5:  # from there on, nothing has to be rounded up
            assert (train, val) == (round(n / 2), round(n / 5))
    assert cut_classes(rows, 0.5, 0.2, random.Random(seed)) == split


def test_cut_of_a_single_picture() -> None:
    with pytest.raises(DatasetError, match=r"Class 'name 3' has the single picture all/3_0.jpg, but needs"):
        cut_classes(items("all", {1: 4, 3: 1}), 0.5, 0.2, random.Random(1))


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.integers(0, 9), st.integers(1, 30), min_size=1), st.integers(0, 10**6))
def test_derived_val_is_a_share_of_each_class(sizes: dict[int, int], seed: int) -> None:
    rows = items("train", sizes)
    train, val = derive_val(rows, 0.2, random.Random(seed))
    assert sorted(train + val) == sorted(rows)
    assert counts(val) == {label: round(n / 5) for label, n in sizes.items() if round(n / 5)}


# ---- class subsets


def test_base_is_the_first_half_rounded_up() -> None:
    base, new = subsample_classes(HAND_MADE, "base"), subsample_classes(HAND_MADE, "new")
    assert counts(base.train) == {0: 3, 1: 4}
    assert counts(base.val) == {0: 2, 1: 6}
    assert counts(new.train) == {0: 5}
    assert {row.name for row in new.test} == {"name 2"}


@settings(deadline=None, max_examples=50)
@given(splits())
def test_base_and_new_are_disjoint_complete_and_renumbered(split: Split) -> None:
    n = len(counts(split.train))
    if n == 1:
        with pytest.raises(ValueError, match="no new classes"):
            subsample_classes(split, "new")
        return
    base, new = subsample_classes(split, "base"), subsample_classes(split, "new")
    half = -(-n // 2)
    for whole, kept, rest in zip(split, base, new, strict=True):
        assert sorted({row.label for row in kept}) == list(range(half))
        assert sorted({row.label for row in rest}) == list(range(n - half))
        back = [*kept, *(row._replace(label=row.label + half) for row in rest)]
        assert sorted(back) == sorted(whole)
        assert [row for row in whole if row.label < half] == kept  # order is kept
    assert subsample_classes(split, "all") == split


def test_sampling_comes_before_the_class_subset() -> None:
    """A base run trains on the base part of the sample of all classes."""
    both = sample_few_shot(HAND_MADE, 2, sample_generator(5))
    base = subsample_classes(both, "base")
    assert base.train == [row for row in both.train if row.label < 2]


def test_unknown_subset() -> None:
    with pytest.raises(ValueError, match=r"SUBSAMPLE_CLASSES must be one of all, base, new, got 'novel'"):
        subsample_classes(HAND_MADE, "novel")


# ---- files


def test_round_trip_and_digest(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    save_split(HAND_MADE, path)
    assert read_split(path) == HAND_MADE
    tree = json.loads(path.read_text())
    assert list(tree) == ["train", "val", "test"]
    assert tree["train"][0] == ["train/2_0.jpg", 2, "name 2"]
    compact = json.dumps(tree, separators=(",", ":"), ensure_ascii=True)
    assert HAND_MADE.digest == hashlib.sha256(compact.encode()).hexdigest()


def test_digest_sees_content_not_layout(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    save_split(HAND_MADE, path)
    path.write_text(json.dumps(json.loads(path.read_text())) + "\n")
    assert read_split(path).digest == HAND_MADE.digest
    assert HAND_MADE._replace(val=HAND_MADE.val[::-1]).digest != HAND_MADE.digest


def tree(**changes: object) -> dict[str, object]:
    row = [["a.jpg", 0, "cat"]]
    return {"train": row, "val": [], "test": [["b.jpg", 0, "cat"]]} | changes


BAD = {
    "missing list": ({"train": [], "test": []}, r"exactly the lists train, val and test, got test, train"),
    "no object": ([], r"exactly the lists train, val and test, got list"),
    "list is no list": (tree(val={}), r"val must be a list of \[path, label, class name\], got a dict"),
    "short row": (tree(val=[["a.jpg", 0]]), r"val\[0\] must be \[path, label, class name\]"),
    "label is text": (tree(val=[["a.jpg", "0", "cat"]]), r"val\[0\] must be"),
    "label is a truth value": (tree(val=[["a.jpg", True, "cat"]]), r"val\[0\] must be"),
    "negative label": (tree(val=[["a.jpg", -1, "cat"]]), r"val\[0\] must be .* label of 0 or more"),
    "absolute path": (tree(val=[["/etc/a.jpg", 0, "cat"]]), r"val\[0\] must name a picture .* got '/etc/a.jpg'"),
    "path that leaves": (tree(val=[["x/../../a.jpg", 0, "cat"]]), r"relative path without \.\."),
    "windows path": (tree(val=[["x\\a.jpg", 0, "cat"]]), r"must name a picture below"),
    "drive letter": (tree(val=[["C:/a.jpg", 0, "cat"]]), r"must name a picture below"),
    "empty path": (tree(val=[["", 0, "cat"]]), r"must name a picture below"),
    "two names": (tree(val=[["c.jpg", 0, "dog"]]), r"label 0 is called 'cat' and 'dog'"),
    "listed twice": (
        tree(train=[["a.jpg", 0, "cat"], ["a.jpg", 0, "cat"]]),
        r"a.jpg is in train and in train; a picture has one place",
    ),
    "two places": (tree(val=[["a.jpg", 0, "cat"]]), r"a.jpg is in train and in val"),
    "gap in train": (
        tree(train=[["a.jpg", 0, "cat"], ["c.jpg", 2, "dog"]]),
        r"labels go up to 2, but train has no picture of label 1",
    ),
    "null in a path": (tree(val=[["a\0.jpg", 0, "cat"]]), r"must name a picture below"),
    "half a character": (tree(val=[["a\ud800.jpg", 0, "cat"]]), r"must name a picture below"),
    "a label beyond all bounds": (
        tree(test=[["b.jpg", 0, "cat"], ["c.jpg", 10**18, "dog"]]),
        r"labels go up to 1000000000000000000, but train has no picture of label 1;",
    ),
    "gap in test": (
        tree(train=[["a.jpg", 0, "cat"], ["c.jpg", 1, "dog"]]),
        r"labels go up to 1, but test has no picture of label 1",
    ),
    "nothing to train on": (tree(train=[]), r"train and test must not be empty, got 0 and 1 items"),
    "nothing to test on": (tree(test=[]), r"train and test must not be empty, got 1 and 0 items"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_damaged_files_get_one_sentence(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "split.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as error:
        read_split(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_test_only_file(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_text(json.dumps(tree(train=[])))
    assert read_split(path, test_only=True).test == [Item("b.jpg", 0, "cat")]


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe\x00", b"<html>"])
def test_files_that_are_no_json(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "split.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"split.json \(\d+ bytes\) is no JSON file .* get it again"):
        read_split(path)


def test_web_page_in_place_of_a_split_file(tmp_path: Path) -> None:
    (tmp_path / "split.json").write_text("\n<!DOCTYPE html><html>Quota exceeded</html>")
    with pytest.raises(DatasetError, match=r"is no JSON file \(it is a web page: its download failed\)"):
        read_split(tmp_path / "split.json")


def test_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    save_split(HAND_MADE, path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_split(path).digest == HAND_MADE.digest


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No split file at .*split.json; get it again. It is never made up"):
        read_split(tmp_path / "split.json")
