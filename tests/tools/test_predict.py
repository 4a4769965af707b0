"""The command line of predictions: what it reads, what it writes, what its exit code says."""

import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dassl.utils.files import TEMPORARY
from tests.conftest import NAMES, square
from tools import predict
from tools.run_inputs import find_images, read_classnames
from trainers.predictor import Predictor

CPU = ("--set", "DEVICE", "cpu")


@pytest.fixture
def run_folder(trainer_of, tmp_path):
    trainer_of("DATASET.SUBSAMPLE_CLASSES", "base", trainer="ZeroshotCLIP").evaluate()
    return str(tmp_path / "run")


@pytest.fixture
def folder(tmp_path):
    """Two pictures, one of them below; and what is none."""
    folder = tmp_path / "pictures"
    square(folder, "a", 0, 0)
    square(folder / "below", "b", 1, 0)
    (folder / "notes.txt").write_text("no picture")
    square(folder / ".hidden", "c", 1, 0)
    return folder


@pytest.fixture
def go(run_folder, capsys):
    """Run the tool: go(IMAGE, …, flags); gives exit code, stdout and stderr."""

    def run(*argv):
        capsys.readouterr()
        code = predict.main(["--model-dir", run_folder, *map(str, argv), *CPU])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def expected(run_folder, paths, names=None):
    return list(Predictor.load(run_folder, names, opts=("DEVICE", "cpu")).predict(paths))


@pytest.fixture
def two(folder):
    return [str(folder / "a_0_0.png"), str(folder / "below" / "b_1_0.png")]


# --- output


def test_csv(go, run_folder, folder, two):
    code, out, err = go(folder, "--format", "csv", "--top", "3")
    assert code == 0
    assert "Loading CLIP" in err
    header, *rows = csv.reader(io.StringIO(out))
    assert header == ["path", "error", *(f"{what}_{i}" for i in (1, 2, 3) for what in ("class", "probability"))]
    for row, prediction in zip(rows, expected(run_folder, two), strict=True):
        assert row[:2] == [prediction.path, ""]
        assert [(row[2], float(row[3])), (row[4], float(row[5]))] == prediction.top(2)
        assert row[6:] == ["", ""]  # there are two classes


def test_json(go, run_folder, two, tiny_weights):
    code, out, _ = go(*two, "--format", "json", "--top", "1")
    assert code == 0
    tree = json.loads(out)
    pictures = tree.pop("pictures")
    assert tree == {
        "run": run_folder,
        "trainer": "ZeroshotCLIP",
        "backbone": str(tiny_weights),
        "precision": "fp32",
        "classes": list(NAMES[:2]),
    }
    for picture, prediction in zip(pictures, expected(run_folder, two), strict=True):
        ((name, probability),) = prediction.top(1)
        assert picture == {"path": prediction.path, "top": [{"name": name, "probability": probability}]}


def test_table_in_a_file(go, run_folder, two, tmp_path):
    code, out, _ = go(*two, "-o", tmp_path / "new" / "table.txt")
    assert (code, out) == (0, "")
    titles, line, *rows = (tmp_path / "new" / "table.txt").read_text().splitlines()
    assert titles.split() == ["Picture", "1.", "2."]
    assert set(line) == {"-", " "}
    for row, prediction in zip(rows, expected(run_folder, two), strict=True):
        (first, p), (second, q) = prediction.top(2)
        assert row.split("  ")[0] == prediction.path
        assert f"{first} {100 * p:.1f}%" in row
        assert row.rstrip().endswith(f"{second} {100 * q:.1f}%")
    assert not list(tmp_path.rglob(f"*{TEMPORARY}*"))


def test_chosen_tokens_in_json(trainer_of, tmp_path, two, capsys):
    trainer_of("TRAINER.SPOTLIGHTER.TOP_K", "3", trainer="Spotlighter", output="spot").train()
    capsys.readouterr()
    assert predict.main(["--model-dir", str(tmp_path / "spot"), *two, "--format", "json", *CPU]) == 0
    pictures = json.loads(capsys.readouterr().out)["pictures"]
    for picture, prediction in zip(pictures, expected(tmp_path / "spot", two), strict=True):
        choice = prediction.tokens
        assert picture["tokens"] == {
            "grid": 4,
            "level1": choice.level1.tolist(),
            "level2": choice.level2.tolist(),
            "scores": choice.scores.tolist(),
            "matched_class": choice.matched_name,
            "prototypes": choice.prototypes.tolist(),
        }


# --- damage


def test_a_damaged_picture_is_skipped_and_named(go, two, folder):
    bad = folder / "bad.png"
    bad.write_bytes(b"not a picture")
    code, out, err = go(two[0], bad, two[1], "--format", "csv", "--batch-size", "1")
    assert code == 3
    rows = list(csv.reader(io.StringIO(out)))[1:]
    assert [row[0] for row in rows] == [two[0], str(bad), two[1]]
    assert rows[1][1].startswith(f"Cannot read the image {bad} (not an image of a known format")
    assert f"Skipped: Cannot read the image {bad} (" in err
    assert "1 of 3 pictures could not be read" in err
    code, out, _ = go(two[0], bad, "--format", "json")
    assert code == 3
    assert [sorted(picture) for picture in json.loads(out)["pictures"]] == [["path", "top"], ["error", "path"]]
    code, out, _ = go(two[0], bad)
    assert code == 3
    assert [line.split()[1:] for line in out.splitlines() if line.startswith(str(bad))] == [["cannot", "be", "read"]]
    assert go(bad)[0] == 1  # nothing was done


def test_a_bar_moves_on_a_terminal(go, two, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert go(*two)[0] == 0
    assert "/2 [" in terminal.getvalue()


# --- wrong input: one sentence and exit code 1


def test_wrong_commands(go, two, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for argv, sentence in {
        (tmp_path / "nowhere.png",): f"There is no picture or folder at {tmp_path / 'nowhere.png'}; correct the path.",
        (tmp_path / "empty",): f"No picture found for {tmp_path / 'empty'}; correct it.",
        (f"{tmp_path}/*.tif",): f"No picture found for {tmp_path}/*.tif; correct it.",
        (two[0], "--top", "0"): "--top must be at least 1, got 0.",
        (two[0], "--load-epoch", "3"): "ZeroshotCLIP trains nothing",
        (two[0], "--set", "OPTIM.LRR", "3"): "OPTIM.LRR",
        (two[0], "--model-dir", tmp_path): "holds no metrics.json",
    }.items():
        code, out, err = go(*argv)
        assert (code, out) == (1, "")
        (line,) = [line for line in err.splitlines() if line.startswith("Error: ")]
        assert sentence in line
        assert "Traceback" not in err
    with pytest.raises(SystemExit, match="2"):
        predict.main(["--model-dir", "run"])


# --- pictures and names


def test_folders_patterns_and_paths(folder, two):
    a, b = map(Path, two)
    assert find_images([str(folder)]) == [a, b]
    assert find_images([two[1], str(folder), two[0]]) == [b, a]  # each once
    assert find_images([f"{folder}/**/*.png"]) == [a, b]
    assert find_images([f"{folder}/belo?"]) == [b]
    odd = folder / "odd[1].jpeg"
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(odd)
    assert find_images([str(odd)]) == [odd]  # a file is no pattern


def test_other_class_names(go, run_folder, two, tmp_path):
    names = tmp_path / "names.txt"
    names.write_bytes("\ufeffred square\n\n  blue   café \r\nred_square\n".encode())
    code, out, err = go(two[0], "--classnames", names, "--format", "json")
    assert code == 0
    assert f"Note: 1 blank lines of {names} are left out" in err
    assert f"Note: 1 repeated names of {names} are left out (first: 'red_square')" in err
    tree = json.loads(out)
    assert tree["classes"] == ["red square", "blue café"]
    (prediction,) = expected(run_folder, two[:1], ["red square", "blue café"])
    assert [(c["name"], c["probability"]) for c in tree["pictures"][0]["top"]] == prediction.top()


def test_files_without_class_names(tmp_path):
    names = tmp_path / "names.txt"
    with pytest.raises(FileNotFoundError, match=r"No class names at .*names\.txt; name a text file with one class"):
        read_classnames(names)
    names.write_bytes("straße".encode("latin-1"))
    with pytest.raises(ValueError, match="is no UTF-8 text; save it as UTF-8, one class name a line"):
        read_classnames(names)
    names.write_text(" \n\n")
    with pytest.raises(ValueError, match="holds no class name; write one a line"):
        read_classnames(names)
