"""tools/compare_spt.py on toy data: what runs, what is measured and skipped; tables of made-up results."""

import csv
import json
import sys

import pytest

import train
from tools import compare_spt
from tools.spt_render import Measured, draw, render_csv, render_table

NEAR = {"cosine": 0.5, "nearest": 0.75, "mmd": 0.125}
FAR = {"cosine": 0.25, "nearest": 0.5, "mmd": 1.0}


def measured(strategy, seed, base, new=None, curve=()):
    accuracy = {"base": base} if new is None else {"base": base, "new": new}
    before = {} if new is None else {"base": base - 10, "new": new - 20}
    return Measured(strategy, seed, accuracy, before, NEAR, FAR, list(curve))


# --- tables


def test_a_table_of_the_linear_part():
    runs = [measured("random", seed, base, curve=(10, 20, base - 5, 90)) for seed, base in ((1, 60.0), (2, 62.0))]
    table = render_table([measured("normal", 1, 50.0, curve=(1, 2)), *runs])
    head, _, vpt, ours = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert head[:4] == ["Start", "Seeds", "Base", "Validation, epoch 3"]
    assert vpt[:4] == ["VPT: N(0, 0.02²)", "1", "50.00 ± –", "2.00 ± –"]  # a shorter run shows its last epoch
    assert ours == ["random", "1 2", "61.00 ± 1.00", "56.00 ± 1.00", "0.500 → 0.250", "0.750 → 0.500", "0.125 → 1.000"]


def test_a_table_of_the_text_part_has_the_mean_of_the_means():
    table = render_table([measured("kmeans", 1, 80.0, 60.0), measured("kmeans", 2, 70.0, 40.0)])
    row = [cell.strip() for cell in table.splitlines()[-1].strip("|").split("|")]
    assert row[:6] == ["k-means", "1 2", "75.00 ± 5.00", "50.00 ± 10.00", "60.00", "65.00, 30.00"]  # 2·75·50/125 = 60


def test_csv_has_a_line_a_run_at_full_precision():
    text = render_csv([measured("mean", 3, 100 / 3, 50.0), measured("max", 1, 1.0, curve=(1.5, 2.5))])
    first, second = csv.DictReader(text.splitlines())
    assert (first["strategy"], first["seed"], float(first["base"])) == ("mean", "3", 100 / 3)
    assert float(first["hm"]) == pytest.approx(40.0)
    assert (second["new"], second["hm"], second["validation"]) == ("", "", "1.5 2.5")
    assert (first["mmd_before"], first["mmd_after"]) == ("0.125", "1.0")


def test_the_figure_is_the_same_for_the_same_results(tmp_path):
    runs = [measured(name, seed, 50.0, curve=(10, 20 + seed)) for name in ("normal", "random") for seed in (1, 2)]
    first, second = (draw(runs, tmp_path / name).read_bytes() for name in ("a.svg", "b.svg"))
    assert first == second
    assert b"<svg" in first


# --- runs


@pytest.fixture
def tool(tmp_path, tiny_weights, monkeypatch, capsys):
    """Runs the tool on toy data with the tiny CLIP; gives exit code, stdout, stderr. `tool.started` lists its runs."""
    (tmp_path / "toy.yaml").write_text("DATASET:\n  NAME: Toy\n")
    started = []

    def execute(runs, jobs):
        for run in runs.values():
            if run.state() == "finished":
                continue
            started.append(run.folder)
            stdout = sys.stdout
            code = train.run(run.command()[2:])
            sys.stdout = stdout
            if code:
                return {run.folder: "it failed"}
        return {}

    monkeypatch.setattr(compare_spt, "execute", execute)
    monkeypatch.setattr(compare_spt, "STRATEGIES", ["normal", "random"])
    monkeypatch.setattr(compare_spt, "SAMPLE", 40)
    monkeypatch.setattr(compare_spt, "draw", lambda results, path: path)  # slow, and has its own test

    def go(*argv, options=()):
        small = ("INPUT.SIZE", "(32, 32)", "MODEL.BACKBONE.NAME", str(tiny_weights), "OPTIM.MAX_EPOCH", "1")
        small += ("DATALOADER.NUM_WORKERS", "0", "DATALOADER.TRAIN_X.BATCH_SIZE", "4", "DEVICE", "cpu")
        flags = ("--dataset", str(tmp_path / "toy.yaml"), "--root", str(tmp_path / "data"))
        code = compare_spt.main([*flags, "--output", str(tmp_path / "out"), *argv, *small, *options])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    go.started, go.out = started, tmp_path / "out"
    return go


def test_linear(tool):
    code, out, _ = tool("linear", "1")
    assert code == 0
    assert "| VPT: N(0, 0.02²) | 1" in out
    rows = list(csv.DictReader((tool.out / "linear.csv").open(encoding="utf-8")))
    assert [row["strategy"] for row in rows] == ["normal", "random"]
    record = json.loads((tool.out / "linear/random/train_base/seed1/metrics.json").read_text())
    assert float(rows[1]["base"]) == record["final"]["metrics"]["accuracy"]
    assert [float(rows[1]["validation"])] == [record["epochs"][0]["val"]["accuracy"]]
    assert record["config"]["TRAINER"]["SPT"]["STRATEGY"] == "random"
    assert float(rows[1]["nearest_before"]) > float(rows[0]["nearest_before"])  # prototypes are tokens
    assert len(tool.started) == 2


def test_text_and_that_what_is_done_is_skipped(tool, monkeypatch):
    code, out, _ = tool("text", "1")
    assert code == 0
    (vpt, _) = csv.DictReader((tool.out / "text.csv").open(encoding="utf-8"))
    folders = [tool.out / "text/normal" / part / "seed1" for part in ("train_base", "test_new")]
    records = [json.loads((folder / "metrics.json").read_text()) for folder in folders]
    assert [float(vpt[part]) for part in ("base", "new")] == [r["final"]["metrics"]["accuracy"] for r in records]
    assert records[1]["classes"] == "new"
    assert vpt["base_before"] != ""
    assert len(tool.started) == 4
    monkeypatch.setattr(compare_spt, "trainer_of", lambda run: pytest.fail("measured again"))
    assert tool("text", "1")[1] == out[out.index("\nCLIP, trained on the base classes") :]
    assert len(tool.started) == 4


def test_the_measured_start_is_the_one_that_was_trained(tool):
    """With a learning rate of 0 the prompts end where they started."""
    still = ("OPTIM.LR", "0.0", "OPTIM.WEIGHT_DECAY", "0.0", "OPTIM.WARMUP_EPOCH", "0")
    assert tool("text", "1", options=still)[0] == 0
    for row in csv.DictReader((tool.out / "text.csv").open(encoding="utf-8")):
        assert float(row["mmd_before"]) == float(row["mmd_after"])
        assert float(row["base_before"]) == float(row["base"])
        assert float(row["new_before"]) == float(row["new"])


def test_a_run_that_fails_is_named_and_the_others_are_shown(tool, monkeypatch):
    folder = tool.out / "linear/random/train_base/seed1"
    execute = compare_spt.execute
    monkeypatch.setattr(
        compare_spt,
        "execute",
        lambda runs, jobs: execute({f: r for f, r in runs.items() if f != folder}, jobs) or {folder: "it failed"},
    )
    code, out, err = tool("linear", "1")
    assert code == 1
    assert err.endswith(f"error: {folder}: it failed\n")
    assert "VPT: N(0, 0.02²)" in out


def test_another_config_in_the_folder(tool):
    assert tool("linear", "1")[0] == 0
    code, _, err = tool("linear", "1", options=("OPTIM.LR", "0.5"))
    assert code == 3
    assert "holds a finished run with another config" in err


def test_no_such_data_set(tool):
    with pytest.raises(SystemExit):
        tool("linear", "1", "--dataset", "nowhere")
