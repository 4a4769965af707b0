"""The commands `verify` and `stats`: what they print, write and return."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import pytest
from PIL import Image

from datasets.oxford_pets import OxfordPets
from datasets.preparation import commands
from datasets.preparation.commands import add_commands
from tests.datasets.preparation.trees import make_foreign, make_pets, picture, truncate


@pytest.fixture
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_pets(tmp_path, monkeypatch)


def run(*argv: str | Path) -> int:
    parser = argparse.ArgumentParser(prog="prepare_data.py")
    add_commands(parser.add_subparsers(required=True))
    args = parser.parse_args([str(arg) for arg in argv])
    return args.run(args)


def check(pets: Path, *argv: str | Path) -> int:
    """Verify OxfordPets, and what else the arguments begin with."""
    return run("verify", "oxford_pets", *argv, "--root", pets.parent, "--workers", "0")


# ---- verify


def test_table_of_what_is_good(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(pets) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        f"Data root: {pets.parent}, level: full",
        "",
        "data set    folder       state      train    val    test    classes    missing    unreadable  split",
        "----------  -----------  -------  -------  -----  ------  ---------  ---------  ------------  ---------",
        "OxfordPets  oxford_pets  ok         12/12    6/6     9/9        3/3          0             0  published",
    ]
    assert err == ""


def test_missing_data_sets(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(pets, "shapes_a", "imagenet", "--level", "quick") == 1
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[4:7]]
    assert rows == [
        ["OxfordPets", "oxford_pets", "ok", "12/12", "6/6", "9/9", "3/3", "0", "–", "published"],
        ["ShapesA", "shapes_a", "missing", "–", "–", "–", "–", "–", "–", "–"],
        ["ImageNet", "imagenet", "missing", "0/1,281,167", "–", "0/50,000", "0/1,000", "1,331,167", "–", "–"],
    ]


def test_notes_follow_the_table(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pets / "images").rename(pets / "pictures")
    assert check(pets) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[4].split()[2:] == ["partial", "?/12", "?/6", "?/9", "?/3", "–", "–", "–"]
    assert lines[6].startswith(f"OxfordPets: No folder {pets / 'images'}; fetch the pictures with")


def test_exit_codes(pets: Path) -> None:
    make_foreign(pets)
    assert check(pets) == 0
    assert check(pets, "--strict") == 4
    (pets / "images" / "abyssinian_test_0.jpg").unlink()
    assert check(pets) == 1
    assert check(pets, "--strict") == 4
    truncate(pets / "images" / "abyssinian_test_1.jpg")
    assert check(pets) == 4
    assert check(pets, "--level", "quick") == 1
    assert check(pets, "dtd") == 4


def test_json_and_list(pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = pets / "images"
    (images / "abyssinian_train_3.jpg").unlink()
    (images / "abyssinian_test_0.jpg").write_bytes(b"")
    reason = truncate(images / "basset_hound_test_1.jpg")
    assert check(pets, "--json", "--list", tmp_path / "bad.tsv") == 4
    tree = json.loads(capsys.readouterr().out)
    (row,) = tree["datasets"]
    notes = row.pop("notes")
    assert tree == {"root": str(tmp_path), "level": "full", "datasets": [row]}
    assert [note.partition(" (")[0] for note in notes] == [
        "2 of 26 images cannot be read",
        "1 of 27 images are missing",
    ]
    assert row == {
        "dataset": "OxfordPets",
        "folder": str(pets),
        "state": "corrupt",
        "images": {
            "train": {"found": 11, "expected": 12},
            "val": {"found": 6, "expected": 6},
            "test": {"found": 9, "expected": 9},
        },
        "classes": {"found": 3, "expected": 3},
        "image_folder": str(images),
        "n_missing": 1,
        "missing": ["abyssinian_train_3.jpg"],
        "unreadable": [
            {"path": "abyssinian_test_0.jpg", "reason": "empty file (0 bytes)"},
            {"path": "basset_hound_test_1.jpg", "reason": reason},
        ],
        "n_outside": 0,
        "split_digest": OxfordPets.published,
        "split_published": True,
    }
    assert (tmp_path / "bad.tsv").read_text().splitlines() == [
        f"OxfordPets\tmissing\t{images}/abyssinian_train_3.jpg\t",
        f"OxfordPets\tunreadable\t{images}/abyssinian_test_0.jpg\tempty file (0 bytes)",
        f"OxfordPets\tunreadable\t{images}/basset_hound_test_1.jpg\t{reason}",
    ]


def test_json_of_what_cannot_be_counted(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pets / "split_zhou_OxfordPets.json").write_text("{")
    assert check(pets, "--json") == 4
    (row,) = json.loads(capsys.readouterr().out)["datasets"]
    assert row["images"]["test"] == {"found": None, "expected": 9}
    unknown = ("image_folder", "n_missing", "unreadable", "split_digest", "split_published")
    assert [row[key] for key in unknown] == [None] * 5


def test_file_names_that_are_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("cat", "dog"):
        for i in range(4):
            picture(tmp_path / "own" / name / f"{i}.png")
    odd = os.fsencode(tmp_path / "own" / "cat") + b"/\xff.png"
    with open(odd, "wb"):
        pass
    argv = ("verify", "ImageFolder", "--root", tmp_path / "own", "--list", tmp_path / "bad.tsv")
    assert run(*argv) == 4
    assert r"cat/\udcff.png: empty file (0 bytes)" in capsys.readouterr().out
    assert odd in (tmp_path / "bad.tsv").read_bytes()
    assert run(*argv, "--json") == 4
    assert json.loads(capsys.readouterr().out)["datasets"][0]["unreadable"][0]["path"] == "cat/\udcff.png"


def test_picture(pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(pets, "--picture", tmp_path / "sheet.png") == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 1200
    assert capsys.readouterr().err == f"Sample images: {tmp_path / 'sheet.png'}\n"
    assert check(pets, "dtd", "--picture", tmp_path / "sheets.png") == 1
    assert sorted(path.name for path in tmp_path.glob("sheets*")) == ["sheets-OxfordPets.png"]
    assert "DescribableTextures: No folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (KeyboardInterrupt(), 130, "Interrupted"),
        (RuntimeError("A process was killed."), 1, "Error: A process was killed."),
    ],
)
def test_what_is_finished_is_shown(
    pets: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    sentence: str,
) -> None:
    real = commands.verify

    def verify(reader: type, *args: object) -> object:
        if reader is OxfordPets:
            return real(reader, *args)
        raise error

    monkeypatch.setattr(commands, "verify", verify)
    assert check(pets, "dtd", "eurosat") == code
    out, err = capsys.readouterr()
    assert out.splitlines()[4].startswith("OxfordPets  oxford_pets  ok")
    assert err.splitlines() == [sentence, "Not looked at to the end: DescribableTextures, EuroSAT"]


def test_all(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", "all", "--root", pets.parent) == 0
    assert "OxfordPets" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["verify", "stats"])
def test_wrong_names_and_roots(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert run(command, "cifar", "--root", tmp_path) == 2
    assert capsys.readouterr().err.startswith("Error: 'cifar' is no data set; did you mean ")
    assert run(command, "dtd", "--root", tmp_path / "nowhere") == 1
    assert capsys.readouterr().err.startswith(f"Error: No data root at '{tmp_path}/nowhere'")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("verify", "dtd", "--picture", "a.jpg"), "expected a file name that ends in .png, got 'a.jpg'"),
        (("verify", "dtd", "--workers", "-1"), "expected a whole number of 0 or more, got '-1'"),
        (("stats", "dtd", "--shots", "0"), "expected a whole number of 1 or more, got '0'"),
        (("stats", "dtd", "--seed", "x"), "expected a whole number of 0 or more, got 'x'"),
        (("verify", "--level", "quick"), "required: NAME"),
    ],
)
def test_wrong_arguments(argv: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(*argv, "--root", "data")
    assert message in capsys.readouterr().err


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    for command, words in (("verify", ("foreign-split", "--picture FILE.png")), ("stats", ("--shots 16 --seed 1",))):
        with pytest.raises(SystemExit, match="0"):
            run(command, "--help")
        out = capsys.readouterr().out
        assert all(word in out for word in ("examples:", "Exit code:", *words))


# ---- stats


def test_stats(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("stats", "oxford_pets", "--root", pets.parent)
    assert run(*argv, "--shots", "2", "--images") == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[2].split()[:5] == ["OxfordPets", "3", "12", "(4)", "6"]
    assert "24 × 16 (RGB 27)" in out
    assert err == ""
    assert run(*argv, "--json") == 0
    assert json.loads(capsys.readouterr().out)["datasets"][0]["test"]["images"] == 9


def test_stats_of_what_is_not_there(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("stats", "dtd", "oxford_pets", "--root", pets.parent) == 1
    out, err = capsys.readouterr()
    assert "OxfordPets" in out
    assert err.startswith("DescribableTextures: No folder")
    (pets / "split_zhou_OxfordPets.json").write_text("{")
    assert run("stats", "dtd", "oxford_pets", "--root", pets.parent) == 4
    assert capsys.readouterr().out == ""
