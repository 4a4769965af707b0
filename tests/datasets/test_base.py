"""A reader that states its facts: sampling, subsets, digests, and what it says when files are missing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest
from yacs.config import CfgNode as CN

from datasets.base import SplitDataset
from datasets.errors import DatasetError, DatasetMissing
from datasets.samples import samples_not_kept
from datasets.splits import Item, Split, read_split, sample_few_shot, sample_generator, save_split


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


def unlabelled(cls: type[Pets], root: Path, number: int, **kwargs: object) -> Pets:
    cfg = config(root, **kwargs)
    cfg.DATASET.NUM_UNLABELLED = number
    return cls(cfg)


@pytest.mark.parametrize("classes", ["base", "new", "all"])
def test_unlabelled_images_are_of_all_classes_and_tell_no_label(root: Path, classes: str) -> None:
    data = unlabelled(Pets, root, -1, shots=2, classes=classes)
    names = sorted(Path(item.impath).name for item in data.train_u)
    assert names == [f"train_{label}_{i}.jpg" for label in range(3) for i in range(5)]
    assert {(item.label, item.classname) for item in data.train_u} == {(-1, "")}
    assert data.all_classnames == ["pet_0", "pet_1", "pet_2"]
    assert data.unlabelled_from == "train"
    assert Pets(config(root)).train_u is None


def test_unlabelled_images_of_so_many_a_class_are_the_few_shot_sample(root: Path) -> None:
    data = unlabelled(Pets, root, 2, shots=2)
    assert [item.impath for item in data.train_u] == [item.impath for item in data.train_x]
    assert len(unlabelled(Pets, root, 16).train_u) == 15  # smaller classes are taken whole
    with pytest.raises(ValueError, match=r"NUM_UNLABELLED must be a number of images a class, 0 or -1 \(all\), got -2"):
        unlabelled(Pets, root, -2)


def test_where_there_are_test_images_only_those_are_unlabelled(root: Path, capsys: pytest.CaptureFixture) -> None:
    data = unlabelled(PetsV2, root, -1)
    assert [item.impath for item in data.train_u] == [item.impath for item in data.test]
    assert data.unlabelled_from == "test"
    said = "Warning: PetsV2 has test images only, so the unlabelled images are those it is tested on\n"
    assert said in capsys.readouterr().out


def test_missing_unlabelled_pictures_are_counted_once(root: Path) -> None:
    (root / "pets" / "jpg" / "train_2_0.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"^1 of 25 listed images"):  # 10 + 4 + 6 of base classes, 5 of the new
        unlabelled(Pets, root, -1, classes="base")


@pytest.mark.parametrize("missing", ["", "nowhere"])
def test_missing_root(tmp_path: Path, missing: str) -> None:
    root = str(tmp_path / missing) if missing else ""
    with pytest.raises(FileNotFoundError, match=r"No data root at '.*' \(DATASET.ROOT\); give the folder"):
        Pets(config(root))


def test_missing_split_file(root: Path) -> None:
    (root / "pets" / "split_pets.json").unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r"No split file at .*split_pets.json; fetch .* download Pets --root",
    ):
        Pets(config(root))


def test_missing_pictures(root: Path) -> None:
    for i in range(2):
        (root / "pets" / "jpg" / f"test_1_{i}.jpg").unlink()
    message = (
        r"^2 of 30 listed images are not in .*jpg \(test_1_0.jpg, test_1_1.jpg\); move .*jpg away, then fetch it anew"
    )
    with pytest.raises(FileNotFoundError, match=message):
        Pets(config(root))
    assert len(Pets(config(root, classes="new")).test) == 3  # nothing that this run reads is missing


def test_a_picture_in_other_case_is_missing(root: Path) -> None:
    (root / "pets" / "jpg" / "test_1_2.jpg").rename(root / "pets" / "jpg" / "test_1_2.JPG")
    with pytest.raises(DatasetMissing, match=r"1 of 30 listed images"):
        Pets(config(root))


def test_more_shots_than_pictures(root: Path) -> None:
    with pytest.raises(ValueError, match=r"^Pets has only 5 training pictures of class 'pet_0', but .* 16"):
        Pets(config(root, shots=16))


def test_home_directory_is_expanded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(root))
    assert len(Pets(config("~")).test) == 9


# ---- folders


def test_missing_data_set(tmp_path: Path) -> None:
    with pytest.raises(DatasetMissing, match=r"No folder .*pets; fetch .*: python tools/prepare_data.py"):
        Pets(config(tmp_path))


def test_folder_with_nearly_the_right_name(root: Path) -> None:
    (root / "pets").rename(root / "Pe-ts")
    with pytest.raises(DatasetMissing, match=r"No folder .*pets, but there is .*Pe-ts; rename it to pets"):
        Pets(config(root))


def test_broken_link(root: Path) -> None:
    (root / "pets").rename(root / "away")
    (root / "pets").symlink_to(root / "nowhere")
    with pytest.raises(DatasetMissing, match=r"pets is a link to .*nowhere, where no folder is; mend the link"):
        Pets(config(root))
    (root / "pets").unlink()
    (root / "pets").symlink_to(root / "away")  # a good link is as good as a folder
    assert len(Pets(config(root)).test) == 9


@pytest.mark.parametrize("place", ["pets/pets/jpg", "pets/JPG", "pets/pictures", "pets/data/pictures"])
def test_pictures_one_folder_off(root: Path, place: str) -> None:
    class Renamed(Pets):
        image_aliases = ("pictures",)

    (root / place).parent.mkdir(exist_ok=True)
    (root / "pets" / "jpg").rename(root / place)
    with pytest.raises(DatasetMissing, match=rf"No folder .*pets/jpg, but there is .*{place}; move it to .*pets/jpg"):
        Renamed(config(root))


def test_no_pictures_at_all(root: Path) -> None:
    (root / "pets" / "jpg").rename(root / "elsewhere")
    with pytest.raises(DatasetMissing, match=r"No folder .*pets/jpg; fetch the pictures with"):
        Pets(config(root))


# ---- which split it is


def test_other_number_of_classes(root: Path) -> None:
    class Five(Pets):
        n_classes = 5

    with pytest.raises(DatasetError, match=r"split_pets.json has 3 classes, but Five has 5; fetch .* ImageFolder"):
        Five(config(root))


def test_published_split_is_told_by_content(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Published(Pets):
        published = read_split(root / "pets" / "split_pets.json").digest

    class Foreign(Pets):
        published = "0" * 64

    assert Pets(config(root)).split_published is None
    assert Published(config(root)).split_published is True
    assert capsys.readouterr().out == ""
    assert Foreign(config(root)).split_published is False
    assert "has not the published split (digest " in capsys.readouterr().out


def test_published_split_is_told_by_bytes(root: Path) -> None:
    path = root / "pets" / "split_pets.json"

    class Published(Pets):
        published_files = {"split_pets.json": hashlib.sha256(path.read_bytes()).hexdigest()}  # noqa: RUF012

    assert Published(config(root)).split_published is True
    path.write_text(path.read_text() + "\n")
    assert Published(config(root)).split_published is False


def test_unknown_kind_of_split(root: Path) -> None:
    cfg = config(root)
    cfg.DATASET.SPLIT = "random"
    with pytest.raises(ValueError, match=r"DATASET.SPLIT must be published or local, got 'random'"):
        Pets(cfg)
    cfg.DATASET.SPLIT = "local"
    with pytest.raises(ValueError, match=r"Pets has no local split; leave DATASET.SPLIT at published"):
        Pets(cfg)


def test_validation_on_the_test_list_must_be_asked_for(root: Path) -> None:
    cfg = config(root)
    cfg.DATASET.VAL_IS_TEST = True
    with pytest.raises(ValueError, match=r"Pets has validation pictures of its own; leave DATASET.VAL_IS_TEST"):
        Pets(cfg)
    data = PetsV2(cfg)
    assert [item.impath for item in data.val] == [item.impath for item in data.test]


# ---- kept samples


def test_sample_is_kept_and_taken_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Pets(config(root, shots=2))
    tree = json.loads((root / "pets" / "split_fewshot" / "shot_2-seed_1.json").read_text())
    paths = [str(root / "pets" / "jpg" / path) for path in tree["train"]]
    assert [item.impath for item in first.train_x] == paths
    assert tree["split_digest"] == first.split_digest
    assert first.sample_digest == hashlib.sha256("\n".join(tree["train"]).encode()).hexdigest()
    monkeypatch.setattr("datasets.samples.sample_few_shot", None)  # nothing is drawn any more
    again = Pets(config(root, shots=2, classes="base"))
    assert [item.impath for item in again.train_x] == paths[:4]
    assert again.sample_digest == first.sample_digest


def test_changed_split_is_noticed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Pets(config(root, shots=2))
    path = root / "pets" / "split_pets.json"
    split = read_split(path)
    save_split(split._replace(train=split.train[:-1]), path)
    capsys.readouterr()
    data = Pets(config(root, shots=2))
    assert (
        "shot_2-seed_1.json was drawn from another split; the sample of Pets is drawn anew" in capsys.readouterr().out
    )
    fresh = sample_few_shot(read_split(path), 2, sample_generator(1))
    assert [Path(item.impath).name for item in data.train_x] == [item.path for item in fresh.train]


@pytest.mark.parametrize(
    "damage",
    [
        lambda tree: "{",
        lambda tree: json.dumps([]),
        lambda tree: json.dumps({**tree, "train": tree["train"][1:]}),
        lambda tree: json.dumps({**tree, "train": ["gone.jpg", *tree["train"][1:]]}),
        lambda tree: json.dumps({**tree, "train": [tree["train"][0], *tree["train"][:-1]]}),
        lambda tree: json.dumps({**tree, "seed": 2}),
    ],
)
def test_damaged_sample_is_drawn_anew(root: Path, capsys: pytest.CaptureFixture[str], damage: Callable) -> None:
    first = Pets(config(root, shots=2))
    path = root / "pets" / "split_fewshot" / "shot_2-seed_1.json"
    whole = path.read_text()
    path.write_text(damage(json.loads(whole)))
    capsys.readouterr()
    again = Pets(config(root, shots=2))
    assert "shot_2-seed_1.json is damaged; the sample of Pets is drawn anew" in capsys.readouterr().out
    assert [item.impath for item in again.train_x] == [item.impath for item in first.train_x]
    assert path.read_text() == whole


def test_sample_of_a_read_only_data_set_is_kept_elsewhere(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(root / "cache"))
    Pets(config(root, shots=2))
    assert not (root / "pets" / "split_fewshot").exists()
    assert len(list((root / "cache" / "spotlighter").glob("pets-*/shot_2-seed_1.json"))) == 1


def test_sample_that_cannot_be_kept(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "pets" / "split_fewshot").touch()  # in the way
    assert len(Pets(config(root, shots=2)).train_x) == 6
    assert "Note: the sample is not kept, which changes no result: Cannot write" in capsys.readouterr().out


def test_samples_are_not_kept_where_they_must_not(root: Path) -> None:
    with samples_not_kept():
        drawn = Pets(config(root, shots=2)).train_x
        assert not (root / "pets" / "split_fewshot").exists()
    kept = Pets(config(root, shots=2)).train_x
    assert (root / "pets" / "split_fewshot").is_dir()
    assert [item.impath for item in drawn] == [item.impath for item in kept]


def test_unseeded_samples_are_not_kept(root: Path) -> None:
    cfg = config(root, shots=2)
    cfg.SEED = -1
    assert len(Pets(cfg).train_x) == 6
    assert not (root / "pets" / "split_fewshot").exists()


def test_pickles_are_left_alone(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "pets" / "split_fewshot").mkdir()
    (root / "pets" / "split_fewshot" / "shot_16-seed_1.pkl").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    Pets(config(root, shots=2))
    assert "shot_16-seed_1.pkl is not loaded, because a pickle can run code" in capsys.readouterr().out
