"""tools/ablate.py with a stand-in for train.py: which runs are started, shared, skipped or refused, and what is shown.

Published figures are checked against the paper's own arithmetic.
"""

import csv
import json
from pathlib import Path

import pytest

import train
from tools import ablate
from tools.ablation_render import published
from tools.ablation_tables import ALL_LOSSES, TABLES

ROOT = Path(__file__).resolve().parents[2]

STAND_IN = '''\
"""Stands for train.py: writes down its arguments and environment, and a metrics.json with the real configuration."""
import datetime, json, os, pathlib, sys
argv = sys.argv[1:]
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps({"argv": argv, "threads": os.environ["OMP_NUM_THREADS"]}) + "\\n")
flag = lambda name: argv[argv.index(name) + 1] if name in argv else None
folder = pathlib.Path(flag("--output-dir"))
print("a line of output")
if os.environ.get("FAILS", "nothing") in str(folder):
    sys.exit("Error: this one cannot run")
folder.mkdir(parents=True, exist_ok=True)
seed, classes = int(flag("--seed")), argv[argv.index("DATASET.SUBSAMPLE_CLASSES") + 1]
values = argv[argv.index("DATASET.SUBSAMPLE_CLASSES") + 2 :]
keys = dict(zip(values[::2], values[1::2]))
accuracy = (60.0 if classes == "base" else 70.0) + seed + (5 if "TRAINER.SPOTLIGHTER.SEMANTIC" in keys else 0)
config = {"OPTIM": {"MAX_EPOCH": int(keys.get("OPTIM.MAX_EPOCH", 15))}, "TRAINER": {"SPOTLIGHTER": {"TOP_K": 5}}}
(folder / "metrics.json").write_text(json.dumps({
    "schema": 1, "finished": True, "mode": "eval" if "--eval-only" in argv else "train", "seed": seed,
    "classes": classes, "config": config, "epochs": [{"epoch": 3}], "wall_seconds": 4.2,
    "started": datetime.datetime.now().isoformat(),
    "final": {"epoch": int(flag("--load-epoch") or 3), "metrics": {"accuracy": accuracy}},
}))
'''


@pytest.fixture
def tool(tmp_path, monkeypatch, capsys):
    """Runs the tool on `tmp_path/out`; gives exit code, stdout, stderr. `tool.calls()` lists the runs it started."""
    (tmp_path / "train.py").write_text(STAND_IN)
    monkeypatch.setattr(ablate, "TRAIN", tmp_path / "train.py")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setattr("tools.ablate.draw", lambda *args: [])  # drawing is slow and has its own test

    def run(*argv):
        code = ablate.main([*map(str, argv), "--output", str(tmp_path / "out")])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    def calls():
        path = tmp_path / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    run.calls, run.out = calls, tmp_path / "out"
    return run


def folders(tool):
    return [
        str(Path(call["argv"][call["argv"].index("--output-dir") + 1]).relative_to(tool.out)) for call in tool.calls()
    ]


def read_csv(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# --- the rows


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_every_row_is_a_setting_of_the_configuration(table):
    """Each row's keys exist and take its values, and just one row of a table is the default of the mini config."""
    config = ROOT / "configs/trainers/Spotlighter/mini_vit8_ep15_paper.yaml"
    defaults = 0
    for row in table.rows:
        opts = [part for key, value in row.keys.items() for part in (f"TRAINER.SPOTLIGHTER.{key}", str(value))]
        args = train.parse_args(["--config-file", str(config), "--trainer", "Spotlighter", *opts])
        node = train.setup_cfg(args).TRAINER.SPOTLIGHTER
        assert {key: node[key] for key in row.keys} == row.keys
        plain = train.setup_cfg(train.parse_args(["--config-file", str(config)])).TRAINER.SPOTLIGHTER
        defaults += all(plain[key] == value for key, value in row.keys.items())
    assert defaults == 1
    labels = [row.label for row in table.rows]
    assert len(set(labels)) == len(labels)
    assert bool(table.axis) == all(row.x is not None for row in table.rows)


def test_names_of_losses_are_the_heads():
    from trainers.spotlighter.head import AUXILIARY

    assert ALL_LOSSES == AUXILIARY


def test_rows_of_the_papers_tables_stand_beside_its_figures():
    found = {(table.source, row.label): published(table, row) for table in TABLES.values() for row in table.rows}
    of_tables = {key: tuple(figures.values()) for key, figures in found.items() if key[0].startswith("Table")}
    assert [len(figures) for figures in of_tables.values()] == [3] * (7 + 3 + 2 + 3 + 2)
    assert not any(figures for key, figures in found.items() if key not in of_tables)
    assert of_tables["Table V", "cross-entropy alone"] == ("76.50", "67.88", "71.93")
    assert of_tables["Table VI", "level 1"] == ("75.28", "70.16", "72.63")
    assert of_tables["Table VIII", "without"] == ("77.52", "71.43", "74.35")
    assert of_tables["Table XI", "transformer + linear"] == ("77.62", "71.71", "74.50")  # printed so
    assert of_tables["Table XII", "without"] == ("77.53", "71.67", "74.48")


def test_losses_table_leaves_out_what_its_labels_say():
    left_out = [set(ALL_LOSSES) - set(row.keys["LOSSES"]) for row in TABLES["losses"].rows]
    levels = {"ce_level1", "ce_level2"}
    assert left_out == [set(ALL_LOSSES), levels, {"kl"}, {"text"}, {"ce_level1"}, {"ce_level2"}, set()]


@pytest.mark.parametrize(
    ("changed", "folder"),
    [
        ({}, "default"),
        ({"TOP_K": 3}, "top_k-3"),
        ({"LOSSES": []}, "losses-none"),
        ({"LOSSES": ["text", "kl"], "ALPHA": 0.0}, "losses-text-kl_alpha-0.0"),
        ({"PRUNE": [[2, 0.5]]}, "prune-2-0.5"),
    ],
)
def test_folder_names_say_what_is_changed(changed, folder):
    assert ablate.slug(changed) == folder


def test_no_two_rows_share_a_folder_by_accident():
    found = {}
    for table in TABLES.values():
        for row in table.rows:
            keys = json.dumps(row.keys)
            assert found.setdefault(ablate.slug(row.keys), keys) == keys


# --- runs


def test_commands_of_a_table(tool):
    code, out, _ = tool("semantic", 1, "OPTIM.MAX_EPOCH", 2)
    assert code == 0
    shared = [
        *("--root", "data", "--seed", "1", "--trainer", "Spotlighter"),
        *("--dataset-config-file", str(ROOT / "configs/datasets/shapes.yaml")),
        *("--config-file", str(ROOT / "configs/trainers/Spotlighter/mini_vit8_ep15_paper.yaml"), "--output-dir"),
    ]
    off = ("TRAINER.SPOTLIGHTER.SEMANTIC", "False")

    def call(row, split, classes, *keys):
        model = ("--eval-only", "--model-dir", f"{tool.out}/{row}/train_base/seed1", "--load-epoch", "3")
        folder = f"{tool.out}/{row}/{split}/seed1"
        opts = ("DATASET.NUM_SHOTS", "16", "DATASET.SUBSAMPLE_CLASSES", classes, "OPTIM.MAX_EPOCH", "2", *keys)
        return [*(model if classes == "new" else ()), *shared, folder, *opts]

    assert [call["argv"] for call in tool.calls()] == [
        call("semantic-False", "train_base", "base", *off),
        call("default", "train_base", "base"),
        call("semantic-False", "test_new", "new", *off),
        call("default", "test_new", "new"),
    ]
    assert "semantic (Table VIII), on shapes" in out


def test_tables_share_the_default_run(tool):
    assert tool("semantic", 1)[0] == 0
    assert tool("recalculation", 1)[0] == 0
    assert folders(tool)[4:] == ["recalculate-False/train_base/seed1", "recalculate-False/test_new/seed1"]


def test_rows_of_inference_test_the_default_model(tool):
    assert tool("levels", 1)[0] == 0
    assert folders(tool) == [
        "default/train_base/seed1",
        *("eval_levels-level1/train_base/seed1", "eval_levels-level1/test_new/seed1"),
        *("eval_levels-level2/train_base/seed1", "eval_levels-level2/test_new/seed1"),
        "default/test_new/seed1",
    ]
    for call in tool.calls()[1:]:
        assert call["argv"][:3] == ["--eval-only", "--model-dir", f"{tool.out}/default/train_base/seed1"]
    assert tool.calls()[1]["argv"][-2:] == ["TRAINER.SPOTLIGHTER.LEVELS", "level1"]
    classes = [call["argv"][call["argv"].index("DATASET.SUBSAMPLE_CLASSES") + 1] for call in tool.calls()]
    assert classes == ["base", "base", "new", "base", "new", "new"]


def test_finished_runs_are_skipped_and_others_go_on(tool):
    tool("semantic", 1, 2)
    assert len(tool.calls()) == 8
    first = read_csv(tool.out / "semantic.csv")
    assert tool("semantic", 1, 2)[0] == 0
    assert len(tool.calls()) == 8
    assert read_csv(tool.out / "semantic.csv") == first
    path = tool.out / "default/test_new/seed2/metrics.json"
    path.write_text(path.read_text().replace('"finished": true', '"finished": false'))
    assert tool("semantic", 1, 2)[0] == 0
    assert folders(tool)[8:] == ["default/test_new/seed2"]


def test_a_model_trained_anew_is_tested_anew(tool):
    tool("recalculation", 1)
    (tool.out / "default/train_base/seed1/metrics.json").unlink()
    assert tool("recalculation", 1)[0] == 0
    assert folders(tool)[4:] == ["default/train_base/seed1", "default/test_new/seed1"]


def test_a_run_with_another_config_is_refused_before_anything_starts(tool):
    tool("semantic", 1)
    code, _, err = tool("semantic", 1, "OPTIM.MAX_EPOCH", 5)
    assert code == 3
    assert "holds a finished run with another config (OPTIM.MAX_EPOCH: the run has 15, now 5). Set OUTPUT" in err
    assert len(err.splitlines()) == 4  # one sentence a folder
    assert len(tool.calls()) == 4


def test_keys_that_no_file_names_are_compared_too(tool):
    """The stand-in records TOP_K 5; a changed default of the code must not pass for the same run."""
    tool("semantic", 1)
    code, _, err = tool("semantic", 1, "TRAINER.SPOTLIGHTER.TOP_K", 4)
    assert code == 3
    assert "TRAINER.SPOTLIGHTER.TOP_K: the run has 5, now 4" in err


def test_a_failing_run_does_not_stop_the_others(tool, monkeypatch):
    monkeypatch.setenv("FAILS", "semantic-False/train_base/seed1")
    code, _, err = tool("semantic", 1, 2)
    assert code == 1
    assert "train.py ended with exit code 1; the last lines of its output:" in err
    assert "    a line of output\n    Error: this one cannot run" in err
    assert "semantic-False/test_new/seed1: not tested, since its training failed" in err
    assert len(folders(tool)) == 7
    without, with_ = read_csv(tool.out / "semantic.csv")
    assert (without["seeds"], with_["seeds"]) == ("2", "1 2")
    monkeypatch.setenv("FAILS", "nothing")
    assert tool("semantic", 1, 2)[0] == 0
    assert folders(tool)[7:] == ["semantic-False/train_base/seed1", "semantic-False/test_new/seed1"]


def test_a_row_without_a_finished_run_is_shown_empty(tool, monkeypatch):
    monkeypatch.setenv("FAILS", "semantic-False/train_base")
    code, out, _ = tool("semantic", 1)
    assert code == 1
    without, _ = read_csv(tool.out / "semantic.csv")
    assert (without["base_mean"], without["hm"], without["published_base"]) == ("", "", "77.52")
    (line,) = [line.split() for line in out.splitlines() if line.startswith("without")]
    assert line == ["without", "–", "–", "–", "–", "77.52", "71.43", "74.35"]


@pytest.mark.parametrize(("jobs", "threads"), [(1, "6"), (2, "3"), (4, "1"), (9, "1")])
def test_runs_side_by_side_share_the_cores(tool, monkeypatch, jobs, threads):
    monkeypatch.setattr(ablate, "n_cores", lambda: 6)
    assert tool("semantic", 1, "--jobs", jobs)[0] == 0
    assert {call["threads"] for call in tool.calls()} == {threads}
    assert len(tool.calls()) == 4
    assert all("train_base" in folder for folder in folders(tool)[:2])  # tests wait for what they test


# --- what is shown


def test_csv_holds_means_spreads_and_the_papers_row(tool):
    tool("semantic", 1, 3)
    without, with_ = read_csv(tool.out / "semantic.csv")
    assert (with_["table"], with_["row"], with_["is_default"], with_["seeds"]) == ("semantic", "with", "True", "1 3")
    assert without["keys"] == "TRAINER.SPOTLIGHTER.SEMANTIC False"
    hms = [2 * 66 * 76 / 142, 2 * 68 * 78 / 146]
    assert float(without["hm_std"]) == pytest.approx((hms[1] - hms[0]) / 2)
    values = [float(without[key]) for key in ("base_mean", "base_std", "new_mean", "new_std", "hm")]
    assert values == pytest.approx([67.0, 1.0, 77.0, 1.0, 2 * 67 * 77 / 144])  # 66 and 68, 76 and 78
    assert float(with_["hm"]) == pytest.approx(2 * 62 * 72 / 134)
    published = [without[f"published_{key}"] for key in ("in", "dataset", "base", "new", "hm")]
    assert published == ["Table VIII", "ImageNet", "77.52", "71.43", "74.35"]


def test_csv_without_published_rows_and_with_lists(tool):
    tool("prune", 1)
    rows = read_csv(tool.out / "prune.csv")
    assert rows[2]["keys"] == "TRAINER.SPOTLIGHTER.PRUNE '[[3, 0.5]]' TRAINER.SPOTLIGHTER.PRUNE_BY distinct"
    assert {row["published_base"] + row["published_dataset"] for row in rows} == {""}


def test_the_printed_table(tool):
    _, out, _ = tool("semantic", 1, 3)
    rows = [line.split() for line in out.splitlines() if line.startswith("with")]
    assert rows == [
        ["without", "1", "3", "67.00", "±", "1.00", "77.00", "±", "1.00", "71.65", "77.52", "71.43", "74.35"],
        ["with", "*", "1", "3", "62.00", "±", "1.00", "72.00", "±", "1.00", "66.63", "77.62", "71.71", "74.55"],
    ]
    assert out.splitlines()[-2].startswith("HM is the harmonic mean of the mean base and the mean new value")
    assert out.splitlines()[-1].startswith("± is the population standard deviation over seeds")
    assert "HM per seed" not in out
    assert "published: ImageNet base" in out


@pytest.mark.parametrize("name", ["semantic", "lambda1"])
def test_figures_are_written_and_repeat(tmp_path, name):
    from tools.ablation_render import Result, draw

    table = TABLES[name]
    results = [Result(row, {1: (60.0 + i, 70.0), 2: (62.0, 71.0 + i)}) for i, row in enumerate(table.rows)]
    results[-1] = Result(table.rows[-1], {})  # a row without runs is left out
    first, second = (draw(table, results, "a caption", tmp_path / folder) for folder in ("a", "b"))
    assert [path.suffix for path in first] == [".png", ".svg"]
    assert first[0].read_bytes()[:4] == b"\x89PNG"
    assert first[1].read_bytes() == second[1].read_bytes()
    assert draw(table, results[-1:], "a caption", tmp_path / "c") == []


# --- mistakes


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["semantics"], "invalid choice: 'semantics'"),
        (["semantic", "1", "1"], "expected each seed once, got 1 1"),
        (["semantic", "1", "OPTIM.LR"], "expected pairs KEY VALUE behind the seeds, got OPTIM.LR"),
        (["semantic", "--config", "mini"], "no config mini; there are: mini_vit8_ep10_clipfit_paper, "),
        (["semantic", "--dataset", "shape"], "no config shape; there are: "),
        (["semantic", "--config", "mini_vit8_ep20_release"], "keys of the preset paper"),
        (["semantic", "1", "OPTIM.MAX_EPOCHS", "3"], "MAX_EPOCH"),
        (["semantic", "--jobs", "0"], "must be at least 1, got 0"),
    ],
)
def test_mistakes_start_nothing(tool, argv, sentence, capsys):
    with pytest.raises(SystemExit) as stop:
        tool(*argv)
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err
    assert tool.calls() == []
