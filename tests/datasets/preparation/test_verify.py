"""Each state that a data set on disk can be in, on miniature trees."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from datasets import imagenet_classes
from datasets.errors import DatasetMissing
from datasets.fgvc_aircraft import FGVCAircraft
from datasets.image_folder import ImageFolder
from datasets.imagenet import ImageNet, ImageNetA
from datasets.oxford_pets import OxfordPets
from datasets.preparation.states import Report
from datasets.preparation.verify import verify
from datasets.shapes import Shapes, ShapesA
from datasets.shapes.domains import DOMAINS
from datasets.shapes.files import fingerprint
from tests.datasets.preparation.trees import N_PETS, make_foreign, make_pets, picture, truncate


@pytest.fixture
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_pets(tmp_path, monkeypatch)


def look(root: Path, level: str = "full") -> Report:
    return verify(OxfordPets, root, level, workers=0)


@pytest.mark.parametrize("level", ["quick", "files", "full"])
def test_complete(pets: Path, level: str) -> None:
    before = sorted(pets.rglob("*"))
    report = look(pets.parent, level)
    assert (report.state, report.notes) == ("ok", ())
    assert report.found == report.expected == (12, 6, 9)
    assert (report.n_classes_found, report.n_classes, report.n_missing, report.n_outside) == (3, 3, 0, 0)
    assert (report.dataset, report.folder, report.images) == ("OxfordPets", pets, pets / "images")
    assert report.split_published is True
    assert report.split_digest == OxfordPets.published
    assert report.unreadable == (None if level == "quick" else ())
    assert sorted(pets.rglob("*")) == before  # nothing is written


def test_unknown_level_and_missing_root(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^level must be one of quick, files, full, got 'deep'$"):
        look(tmp_path, "deep")
    with pytest.raises(DatasetMissing, match="No data root at"):
        look(tmp_path / "nowhere")


# ---- missing and partial


def test_no_folder(tmp_path: Path) -> None:
    report = verify(FGVCAircraft, tmp_path)
    assert (report.state, report.found, report.expected) == ("missing", (0, 0, 0), (3334, 3333, 3333))
    assert (report.n_missing, report.n_classes_found, report.n_classes) == (10_000, 0, 100)
    (note,) = report.notes
    assert note.startswith(f"No folder {tmp_path / 'fgvc_aircraft'}; fetch the data set with: ")


def test_broken_link(tmp_path: Path) -> None:
    (tmp_path / "oxford_pets").symlink_to(tmp_path / "nowhere")
    report = look(tmp_path)
    assert report.state == "missing"
    assert "mend the link" in report.notes[0]


@pytest.mark.parametrize("gone", ["split_zhou_OxfordPets.json", "images"])
def test_split_file_or_image_folder_is_gone(pets: Path, gone: str) -> None:
    (pets / gone).rename(pets.parent / "elsewhere")
    report = look(pets.parent)
    assert (report.state, report.found, report.n_missing, report.n_classes_found) == ("partial", None, None, None)
    assert (report.expected, report.n_classes) == ((12, 6, 9), 3)
    assert report.notes[0].startswith(f"No {'folder' if gone == 'images' else 'split file at'} {pets / gone}; fetch")


def test_some_images_are_gone(pets: Path) -> None:
    gone = [f"basset_hound_train_{i}.jpg" for i in range(4)] + ["abyssinian_test_0.jpg", "abyssinian_test_1.jpg"]
    for name in gone:
        (pets / "images" / name).unlink()
    (pets / "images" / "abyssinian_test_2.jpg").rename(pets / "images" / "abyssinian_test_2.JPG")
    report = look(pets.parent, "quick")
    assert (report.state, report.found, report.n_missing) == ("partial", (8, 6, 6), 7)
    assert report.missing == (*gone, "abyssinian_test_2.jpg")
    assert report.notes == (
        f"7 of {N_PETS} images are missing ({', '.join(gone[:5])}, …); move {pets / 'images'} away, then "
        f"fetch it anew with: python tools/prepare_data.py download OxfordPets --root {pets.parent}.",
    )


def test_folder_with_the_name_of_an_image_is_missing(pets: Path) -> None:
    (pets / "images" / "abyssinian_test_0.jpg").unlink()
    (pets / "images" / "abyssinian_test_0.jpg").mkdir()
    assert look(pets.parent).missing == ("abyssinian_test_0.jpg",)


# ---- corrupt


def damage(pets: Path) -> dict[str, str]:
    """Damage three pictures; name -> reason in the order of the lists."""
    images = pets / "images"
    (images / "yorkshire_terrier_train_1.jpg").write_bytes(b"")
    (images / "abyssinian_val_1.jpg").write_text("<html>moved</html>")
    reason = truncate(images / "basset_hound_test_2.jpg")
    return {
        "yorkshire_terrier_train_1.jpg": "empty file (0 bytes)",
        "abyssinian_val_1.jpg": "not an image of a known format, it starts with '<html>moved</html>'",
        "basset_hound_test_2.jpg": reason,
    }


def test_damaged_images(pets: Path) -> None:
    damaged = damage(pets)
    report = look(pets.parent)
    assert (report.state, report.found) == ("corrupt", (12, 6, 9))
    assert dict(report.unreadable or ()) == damaged
    listed = ", ".join(f"{name}: {reason}" for name, reason in damaged.items())
    assert report.notes == (
        f"3 of {N_PETS} images cannot be read ({listed}); move {pets / 'images'} away, then "
        f"fetch it anew with: python tools/prepare_data.py download OxfordPets --root {pets.parent}.",
    )
    assert [item.path for item in look(pets.parent, "files").unreadable or ()] == ["yorkshire_terrier_train_1.jpg"]
    assert look(pets.parent, "quick").state == "ok"


def test_the_worst_comes_first(pets: Path) -> None:
    damage(pets)
    (pets / "images" / "abyssinian_train_0.jpg").unlink()
    make_foreign(pets)
    report = look(pets.parent)
    assert (report.state, report.n_missing, report.split_published) == ("corrupt", 1, False)
    words = ("cannot be read", "are missing", "not the published split")
    assert all(word in note for word, note in zip(words, report.notes, strict=True))


def test_damaged_split_file(pets: Path) -> None:
    (pets / "split_zhou_OxfordPets.json").write_text("<html>quota</html>")
    report = look(pets.parent)
    assert (report.state, report.found) == ("corrupt", None)
    assert "it is a web page: its download failed" in report.notes[0]


def test_other_number_of_classes(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OxfordPets, "n_classes", 37)
    report = look(pets.parent)
    assert report.state == "corrupt"
    assert "has 3 classes, but OxfordPets has 37" in report.notes[0]


def test_folder_that_the_system_refuses(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(root: Path) -> None:
        raise PermissionError(13, "Permission denied", str(pets))

    monkeypatch.setattr(OxfordPets, "find_below", refuse)
    report = look(pets.parent)
    assert (report.state, report.notes) == (
        "corrupt",
        (f"Cannot read {pets} (Permission denied); mend that and look again.",),
    )


# ---- foreign split, layout, links


def test_split_that_is_not_the_published_one(pets: Path) -> None:
    make_foreign(pets)
    report = look(pets.parent)
    assert (report.state, report.split_published, report.found) == ("foreign-split", False, (12, 6, 9))
    assert report.notes == (
        f"not the published split (the digest of this one begins with {report.split_digest[:16]}); results cannot be "
        f"compared with published ones.",
    )


@pytest.mark.parametrize(
    ("here", "there", "words"),
    [("oxford_pets", "Oxford-Pets", "rename it to"), ("oxford_pets/images", "oxford_pets/data/images", "move it to")],
)
def test_files_under_other_names(pets: Path, here: str, there: str, words: str) -> None:
    (pets.parent / there).parent.mkdir(exist_ok=True)
    (pets.parent / here).rename(pets.parent / there)
    report = look(pets.parent)
    assert (report.state, report.folder) == ("layout", pets)
    assert words in report.notes[0]


def test_links(pets: Path, tmp_path: Path) -> None:
    away = tmp_path / "away"
    pets.rename(away)
    pets.symlink_to(away)
    (away / "images" / "abyssinian_val_0.jpg").rename(tmp_path / "other.jpg")
    (away / "images" / "abyssinian_val_0.jpg").symlink_to(tmp_path / "other.jpg")
    (away / "images" / "inside.jpg").symlink_to(away / "images" / "abyssinian_val_1.jpg")  # not listed
    report = look(tmp_path)
    assert (report.state, report.n_outside) == ("ok", 1)
    assert report.notes == (
        f"1 of {N_PETS} images lie outside the folder, where links lead.",
        f"{pets} is a link to {away}.",
    )
    (away / "images").rename(tmp_path / "pictures")
    (away / "images").symlink_to(tmp_path / "pictures")
    assert look(tmp_path).n_outside == N_PETS


def test_foreign_pickles_are_mentioned(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pets / "split_fewshot").mkdir()
    (pets / "split_fewshot" / "shot_1-seed_1.pkl").touch()
    report = look(pets.parent)
    assert report.state == "ok"
    assert report.notes[0].startswith(f"{pets}/split_fewshot/shot_1-seed_1.pkl is not loaded")
    assert capsys.readouterr().out == ""


# ---- folders are the split


IDENTIFIERS = ("n01440764", "n01443537", "n01484850")


@pytest.fixture
def imagenet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ImageNet of three classes with three training and two test pictures each."""
    names = dict(zip(IDENTIFIERS, ("tench", "goldfish", "great white shark"), strict=True))
    for module in ("datasets.imagenet", "datasets.imagenet_classes"):
        monkeypatch.setattr(f"{module}.synsets", lambda subset: IDENTIFIERS)
        monkeypatch.setattr(f"{module}.imagenet_classes", lambda: names)
    monkeypatch.setattr(ImageNet, "n_classes", 3)
    monkeypatch.setattr(ImageNet, "counts", (9, 0, 6))
    for part, n in (("train", 3), ("val", 2)):
        for label, name in enumerate(IDENTIFIERS):
            for i in range(n):
                picture(tmp_path / "imagenet" / "images" / part / name / f"{name}_{i}.JPEG", label)
    return tmp_path / "imagenet"


def test_imagenet(imagenet: Path) -> None:
    report = verify(ImageNet, imagenet.parent, workers=0)
    assert (report.state, report.notes, report.split_published) == ("ok", (), True)
    assert report.found == report.expected == (9, 0, 6)


def test_imagenet_with_a_gap(imagenet: Path) -> None:
    (imagenet / "images" / "train" / IDENTIFIERS[1] / f"{IDENTIFIERS[1]}_0.JPEG").unlink()
    report = verify(ImageNet, imagenet.parent, workers=0)
    assert (report.state, report.found, report.n_missing, report.missing) == ("partial", (8, 0, 6), 1, ())
    (note,) = report.notes
    assert note.startswith("1 of 15 images are missing (the folders do not tell which); move ")
    assert report.split_published is None  # which cannot be known before all is there


def test_imagenet_with_more_than_was_published(imagenet: Path) -> None:
    picture(imagenet / "images" / "train" / IDENTIFIERS[1] / "mine.JPEG")
    report = verify(ImageNet, imagenet.parent, workers=0)
    assert (report.state, report.found, report.expected) == ("foreign-split", (10, 0, 6), (9, 0, 6))


def test_imagenet_with_other_names(imagenet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = zip(IDENTIFIERS, ("tench", "gold fish", "great white shark"), strict=True)
    (imagenet / "classnames.txt").write_text("".join(f"{identifier} {name}\n" for identifier, name in lines))
    report = verify(ImageNet, imagenet.parent, workers=0)
    assert report.state == "foreign-split"
    assert report.notes[1].startswith(f"{imagenet / 'classnames.txt'} calls n01443537 'gold fish', not 'goldfish'")
    assert capsys.readouterr().out == ""


def test_imagenet_whose_test_images_are_in_one_folder(imagenet: Path) -> None:
    val = imagenet / "images" / "val"
    val.rename(imagenet / "sorted")
    picture(val / "ILSVRC2012_val_00000001.JPEG")
    report = verify(ImageNet, imagenet.parent)
    assert (report.state, report.found) == ("layout", None)
    assert "are in one flat folder" in report.notes[0]


@pytest.mark.parametrize(
    ("odd", "words"), [("misc", "is named after no class of ImageNet"), ("n01440764.bak", "is named after no class")]
)
def test_imagenet_with_a_folder_too_many(imagenet: Path, odd: str, words: str) -> None:
    (imagenet / "images" / "val" / odd).mkdir()
    report = verify(ImageNet, imagenet.parent)
    assert report.state == "layout"
    assert words in report.notes[0]


def test_imagenet_with_a_class_folder_too_few(imagenet: Path) -> None:
    (imagenet / "images" / "val" / IDENTIFIERS[2]).rename(imagenet / "away")
    report = verify(ImageNet, imagenet.parent)
    assert (report.state, report.notes[0][:26]) == ("partial", "1 of 3 class folders are n")


def test_folders_named_in_two_ways(tmp_path: Path) -> None:
    for name in ("0", IDENTIFIERS[0]):
        (tmp_path / name).mkdir()
    with pytest.raises(DatasetMissing, match=r"has folders named by number and by identifier; keep those of one"):
        imagenet_classes.numbered_folders(tmp_path)


def test_test_only_data_set(tmp_path: Path) -> None:
    report = verify(ImageNetA, tmp_path)
    assert (report.state, report.found, report.expected, report.n_missing) == ("missing", (0, 0, 0), (0, 0, 7500), 7500)


# ---- pictures of one's own


def test_image_folder(tmp_path: Path) -> None:
    for label, name in enumerate(("bolete", "chanterelle")):
        for i in range(10):
            picture(tmp_path / name / f"{i}.png", label)
    report = verify(ImageFolder, tmp_path, workers=0)
    assert (report.state, report.found, report.expected) == ("ok", (10, 4, 6), (10, 4, 6))
    assert (report.n_classes, report.n_classes_found, report.split_published) == (2, 2, None)
    assert report.folder == report.images == tmp_path
    (tmp_path / "bolete" / "3.png").write_bytes(b"")
    report = verify(ImageFolder, tmp_path, workers=0)
    assert report.state == "corrupt"
    assert report.notes == (
        "1 of 20 images cannot be read (bolete/3.png: empty file (0 bytes)); put good copies there, or remove them.",
    )


def test_image_folder_that_is_laid_out_in_another_way(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    report = verify(ImageFolder, tmp_path)
    assert report.state == "layout"
    assert "has no class folders (1 pictures lie in it directly)" in report.notes[0]
    picture(tmp_path / "train" / "cat" / "a.png")
    report = verify(ImageFolder, tmp_path)
    assert report.state == "layout"
    assert "rename one to test" in report.notes[0]


# ---- pictures that are drawn on demand


@pytest.fixture
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("verify must not draw")

    monkeypatch.setattr("datasets.shapes.files._render_into", refuse)


def draw_two(root: Path) -> Path:
    """A rendered folder as files.py leaves it, but with two classes."""
    folder = root / "shapes"
    parts = ("train", "test")
    lists = {part: [[f"{part}/{label}.png", label, f"star {label}"] for label in range(2)] for part in parts}
    for label in range(2):
        for part in parts:
            picture(folder / "images" / part / f"{label}.png", label)
    (folder / "split_shapes.json").write_text(json.dumps(lists | {"val": []}))
    (folder / "rendered.json").write_text(json.dumps({"fingerprint": fingerprint(DOMAINS["Shapes"])}))
    return folder


def test_shapes_not_drawn_yet(tmp_path: Path, no_drawing: None) -> None:
    report = verify(ShapesA, tmp_path)
    assert (report.state, report.found, report.n_missing) == ("missing", None, None)
    assert report.notes == (
        f"No folder {tmp_path}/shapes_a; the first run draws it, or now: python -m datasets.shapes --root {tmp_path} "
        f"--only shapes_a",
    )
    assert list(tmp_path.iterdir()) == []


def test_shapes(tmp_path: Path, no_drawing: None) -> None:
    folder = draw_two(tmp_path)
    report = verify(Shapes, tmp_path, workers=0)
    assert (report.state, report.found, report.expected) == ("ok", (2, 0, 2), (2, 0, 2))
    assert report.split_published is None
    (folder / "images" / "test" / "1.png").unlink()
    report = verify(Shapes, tmp_path, workers=0)
    assert report.state == "partial"
    assert f"delete {folder}, then have it drawn anew with: python -m datasets.shapes" in report.notes[0]


def test_shapes_drawn_by_another_version(tmp_path: Path, no_drawing: None) -> None:
    folder = draw_two(tmp_path)
    (folder / "rendered.json").write_text(json.dumps({"fingerprint": "0" * 16}))
    report = verify(Shapes, tmp_path)
    assert report.state == "partial"
    assert "was drawn by another version of the renderer; the next run draws it anew, or now: " in report.notes[0]


def test_folder_of_shapes_that_holds_something_else(tmp_path: Path, no_drawing: None) -> None:
    (tmp_path / "shapes").mkdir()
    report = verify(Shapes, tmp_path)
    assert report.state == "layout"
    assert "was not drawn by this program; move it away" in report.notes[0]
