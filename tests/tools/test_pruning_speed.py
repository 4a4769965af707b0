"""tools/pruning_speed.py on a tiny tower: what is measured, joined and written."""

import csv

import pytest

from clip.model import CLIPSpec
from tools import pruning_speed
from tools.ablation_tables import TABLES
from tools.benchmarks import subjects
from tools.pruning_render import Point, draw
from tools.pruning_speed import LARGE, MINI


@pytest.fixture
def accuracy(tmp_path):
    """Results of both ablations: HM 70.0, 69.5, …; one row was not measured."""
    folder = tmp_path / "accuracy"
    folder.mkdir()
    for name, first in (("prune", 70.0), ("prune_train", 60.0)):
        rows = [[row.label, first - i / 2, 0.25] for i, row in enumerate(TABLES[name].rows)]
        rows[3][1:] = "", ""
        with open(folder / f"{name}.csv", "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["row", "hm", "hm_std"], *rows])
    return folder


@pytest.fixture
def tiny(monkeypatch):
    """Towers of four and of twelve blocks in the place of both backbones."""

    for name, blocks in ((MINI, 4), (LARGE, 12)):
        monkeypatch.setitem(subjects.SPECS, name, CLIPSpec(32, 32, blocks, 64, 8, 77, 49408, 64, 1, 2))
    monkeypatch.setattr(pruning_speed, "draw", lambda *args: None)
    few = [
        row for row in TABLES["prune"].rows if not row.keys["PRUNE"] or row.keys["PRUNE"] in ([[1, 0.5]], [[3, 0.5]])
    ]
    monkeypatch.setitem(pruning_speed.TABLES, "prune", type(TABLES["prune"])("prune", "", tuple(few)))


def run(capsys, *argv):
    code = pruning_speed.main([*map(str, argv), "--batch", "2", "--repeats", "1"])
    return code, capsys.readouterr()


def test_accuracy_and_speed_stand_side_by_side(tiny, accuracy, tmp_path, capsys):
    code, printed = run(capsys, "--accuracy", accuracy, "--out", tmp_path / "out")
    assert code == 0
    with open(tmp_path / "out" / "pruning_speed.csv", encoding="utf-8", newline="") as file:
        rows = {row["row"]: row for row in csv.DictReader(file)}
    none, half = rows["none"], rows["distinct: 50% after block 1"]
    assert (none["by"], half["by"]) == ("none", "distinct")
    place = [row.label for row in TABLES["prune_train"].rows].index(half["row"])
    assert float(half["hm_tuned"]) == 60.0 - place / 2
    assert none["hm_tuned"] == ""
    assert float(half["hm_loss"]) == float(none["hm"]) - float(half["hm"])
    for name in (MINI, LARGE):
        assert float(none[f"{name} operations"]) < float(rows["distinct: 50% after block 3"][f"{name} operations"])
        assert float(half[f"{name} operations"]) > 1.2
        assert 0 < float(half[f"{name} low"]) <= float(half[f"{name} ratio"]) <= float(half[f"{name} high"])
    assert "distinct: 50% after block 1" in printed.out


def test_speeds_of_an_earlier_run(tiny, accuracy, tmp_path, capsys, monkeypatch):
    first, again = tmp_path / "out" / "pruning_speed.csv", tmp_path / "again" / "pruning_speed.csv"
    run(capsys, "--accuracy", accuracy, "--out", first.parent)
    monkeypatch.setattr(pruning_speed, "measure", None)
    assert run(capsys, "--accuracy", accuracy, "--speed", first, "--out", again.parent)[0] == 0
    assert again.read_bytes() == first.read_bytes()
    first.write_text(first.read_text().replace("\nnone,", "\nanother,"))
    code, printed = run(capsys, "--accuracy", accuracy, "--speed", first)
    assert code == 1
    assert "has no speed of 'none' on Mini-ViT/8; measure again, without --speed" in printed.err


def test_blocks_keep_their_share_of_the_depth():
    row = next(row for row in TABLES["prune"].rows if row.keys["PRUNE"] == [[1, 0.7], [2, 0.7]])
    node = "TRAINER.SPOTLIGHTER."
    assert Point(row, 70.0, None).options(4)[:2] == [node + "PRUNE", "[[1, 0.7], [2, 0.7]]"]
    assert Point(row, 70.0, None).options(12)[:2] == [node + "PRUNE", "[[3, 0.7], [6, 0.7]]"]


def test_the_figure_is_written_and_repeats(accuracy, tmp_path):
    points = pruning_speed.read_points(accuracy)
    assert len(points) == len(TABLES["prune"].rows) - 1
    for i, point in enumerate(points):
        point.ratios = {MINI: [1.0 + i / 10], LARGE: [1.1 + i / 10]}
    for name in ("a.svg", "b.svg"):
        draw(points, [MINI, LARGE], "a caption", tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_mistakes_are_named(accuracy, tmp_path, capsys):
    code, printed = run(capsys, "--accuracy", tmp_path)
    assert code == 1
    assert (
        "prune.csv; run `bash scripts/spotlighter/ablation.sh prune`, or name its folder with --accuracy" in printed.err
    )
    path = accuracy / "prune.csv"
    path.write_text(path.read_text().replace("\nnone,", "\nanother,"))
    code, printed = run(capsys, "--accuracy", accuracy)
    assert code == 1
    assert "has no result without pruning; finish the ablation prune" in printed.err
