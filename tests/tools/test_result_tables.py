"""tools/result_tables.py and tools/result_render.py: hand-computed means, spreads, HMs, and how they are shown."""

import csv
import io
import json

import pytest

from tools.result_render import render_base_new, to_text
from tools.result_runs import pair_runs
from tools.result_tables import average_rows, base_new_rows, uneven_averages


def rows_of(runs, ci95=False):
    pairs, left_out = pair_runs(runs.root / "train_base", runs.root / "test_new")
    return base_new_rows(pairs, ci95), left_out


def test_hm_of_means_and_mean_of_hms_differ(runs):
    runs.pair(1, 60.0, 90.0)
    runs.pair(2, 80.0, 80.0)
    (row,), left_out = rows_of(runs)
    assert left_out == []
    assert (row.base.mean, row.new.mean, row.seeds) == (70.0, 85.0, [1, 2])
    assert row.hm == pytest.approx(2 * 70 * 85 / 155)  # 76.774
    assert row.hm_seeds.mean == pytest.approx(76.0)  # of 72 and 80
    assert row.hm_seeds.spread == pytest.approx(4.0)
    assert (row.base.spread, row.new.spread) == (10.0, 5.0)


def test_seeds_of_one_side_and_bad_runs_are_named_and_left_out(runs):
    runs.pair(1, 60.0, 90.0)
    runs.metrics(runs.folder("train_base", 2), 1.0, seed=2)
    runs.metrics(runs.folder("test_new", 3), 1.0, seed=3, classes="new")
    runs.pair(4, 1.0, 1.0)
    runs.metrics(runs.folder("test_new", 4), 1.0, seed=4, finished=False)
    runs.pair(5, 1.0, 1.0)
    (runs.folder("train_base", 5) / "metrics.json").write_text("{")
    (row,), left_out = rows_of(runs)
    assert (row.seeds, row.base.mean) == ([1], 60.0)
    found = {str(item.folder.relative_to(runs.root)): item.reason for item in left_out}
    tail = "shapes/shots_16/CoOp/rn50/seed"
    assert set(found) == {
        *(f"train_base/{tail}{seed}" for seed in (2, 4, 5)),
        *(f"test_new/{tail}{seed}" for seed in (3, 4, 5)),
    }
    assert found[f"train_base/{tail}2"] == f"its partner on new classes, {runs.folder('test_new', 2)}, is missing"
    assert found[f"test_new/{tail}3"] == f"its partner on base classes, {runs.folder('train_base', 3)}, is missing"
    assert found[f"train_base/{tail}4"].endswith("is left out")
    assert found[f"test_new/{tail}4"].startswith("unfinished")
    assert "cannot be read" in found[f"train_base/{tail}5"]
    assert str(left_out[0]).startswith(f"left out {runs.root}")


def test_runs_of_the_wrong_side_are_left_out(runs):
    runs.pair(1, 60.0, 90.0)
    pairs, left_out = pair_runs(runs.root / "test_new", runs.root / "train_base")
    assert pairs == []
    assert left_out[0].reason == "it evaluated the 'new' classes, expected 'base' here"


def test_test_of_another_epoch_is_left_out(runs):
    runs.pair(1, 60.0, 90.0)
    folder = runs.folder("test_new", 1)
    tested = json.loads((folder / "metrics.json").read_text())
    tested["final"]["epoch"] = 5
    (folder / "metrics.json").write_text(json.dumps(tested))
    rows, left_out = rows_of(runs)
    assert rows == []
    assert left_out[0].reason == "it tested epoch 5, and its training run measured epoch 20; test again"


def test_test_of_an_older_model_is_left_out(runs):
    runs.pair(1, 60.0, 90.0)
    runs.metrics(runs.folder("train_base", 1), 61.0, started="2030-01-01T12:00:00")
    rows, left_out = rows_of(runs)
    assert rows == []
    assert left_out[0].folder == runs.folder("test_new", 1)
    assert left_out[0].reason == "it was tested before its model was trained (anew); test again"
    runs.metrics(runs.folder("train_base", 1), 61.0, started="2030-01-01T12:00:00", mode="eval")
    assert len(rows_of(runs)[0]) == 1  # zero-shot: nothing was trained, the order does not matter


def test_logs_pair_with_metrics(runs, test_log):
    runs.log(runs.folder("train_base", 1), 60.0)
    runs.log(runs.folder("test_new", 1), 90.0, test_log)
    (row,), _ = rows_of(runs)
    assert (row.dataset, row.trainer, row.config, row.shots, row.hm) == ("shapes", "CoOp", "rn50", 16, 72.0)


def test_two_runs_for_one_seed_are_refused(runs):
    runs.log(runs.root / "train_base" / "a" / "seed1", 60.0)
    runs.log(runs.root / "test_new" / "a" / "seed1", 60.0)
    runs.log(runs.root / "train_base" / "a" / "seed_1", 60.0)
    runs.log(runs.root / "test_new" / "a" / "seed_1", 60.0)
    with pytest.raises(ValueError, match=r"expected one run a seed, got a second one in .*; name a folder deeper"):
        rows_of(runs)


def test_a_method_that_knows_its_own_classes_only_has_a_base_alone(runs):
    for dataset, shift in (("dtd", 0.0), ("eurosat", 10.0)):
        for seed in (1, 2):
            folder = runs.folder("train_base", seed, dataset, "LinearProbe", "vit_b16")
            runs.metrics(folder, 60.0 + shift + seed, seed=seed, trainer="LinearProbe", dataset=dataset)
    runs.pair(1, 60.0, 90.0)
    rows, left_out = rows_of(runs)
    assert left_out == []
    probe = next(row for row in rows if row.trainer == "LinearProbe")
    assert (probe.base.mean, probe.new, probe.hm, probe.hm_seeds) == (61.5, None, None, None)
    assert (probe.per_seed, probe.hms) == ({1: (61.0, None), 2: (62.0, None)}, {})
    (average,) = average_rows(rows)
    assert (average.base.mean, average.base.spread, average.new, average.hm) == (66.5, 0.5, None, None)
    assert average_rows([row for row in rows if row.seeds != [1]])[0].new is None
    text = render_base_new(rows)
    (line,) = [line for line in text.splitlines() if line.startswith("dtd ")]
    assert line.split() == ["dtd", "LinearProbe", "vit_b16", "1", "2", "61.50", "±", "0.50", "–", "–", "–"]
    record = json.loads(render_base_new(rows, "json"))["rows"][0]
    assert (record["base_mean"], record["new_mean"], record["new_spread"], record["hm"]) == (61.5, None, None, None)
    assert record["per_seed"][0] == {"seed": 1, "base": 61.0, "new": None, "hm": None}
    csv_row = next(csv.DictReader(io.StringIO(render_base_new(rows, "csv"))))
    assert (csv_row["base_mean"], csv_row["new_mean"], csv_row["hm"]) == ("61.5", "", "")


def test_order_of_rows(runs):
    for dataset in ("zebras", "shapes", "eurosat", "apples"):
        for trainer in ("Spotlighter", "CoOp", "Zzz", "ZeroshotCLIP", "Abc"):
            runs.pair(1, 60.0, 90.0, dataset=dataset, trainer=trainer)
    rows, _ = rows_of(runs)
    order = [row.dataset for row in rows][::5]
    assert order == ["eurosat", "shapes", "apples", "zebras"]
    assert [row.trainer for row in rows][:5] == ["ZeroshotCLIP", "CoOp", "Spotlighter", "Abc", "Zzz"]
    assert [row.trainer for row in average_rows(rows)] == ["ZeroshotCLIP", "CoOp", "Spotlighter", "Abc", "Zzz"]


def test_average_is_the_hm_of_averaged_accuracies(runs):
    runs.pair(1, 60.0, 90.0, dataset="dtd")
    runs.pair(2, 80.0, 80.0, dataset="dtd")
    runs.pair(1, 40.0, 50.0, dataset="eurosat")
    runs.pair(2, 50.0, 70.0, dataset="eurosat")
    (average,) = average_rows(rows_of(runs)[0])
    assert average.dataset == "Average of 2"
    assert average.per_seed == {1: (50.0, 70.0), 2: (65.0, 75.0)}
    assert (average.base.mean, average.new.mean, average.base.spread, average.new.spread) == (57.5, 72.5, 7.5, 2.5)
    assert average.hm == pytest.approx(2 * 57.5 * 72.5 / 130)


def test_average_over_different_seeds_has_no_spread(runs):
    runs.pair(1, 60.0, 90.0, dataset="dtd")
    runs.pair(1, 40.0, 50.0, dataset="eurosat")
    runs.pair(2, 50.0, 70.0, dataset="eurosat")
    (average,) = average_rows(rows_of(runs)[0])
    assert (average.base.mean, average.new.mean, average.base.spread) == (52.5, 75.0, None)
    assert (average.hm_seeds, average.seeds) == (None, [])
    assert render_base_new(rows_of(runs)[0]).count("52.50 ± –") == 1


def test_no_average_over_one_data_set_or_over_configs(runs):
    runs.pair(1, 60.0, 90.0, dataset="dtd", config="rn50")
    runs.pair(1, 60.0, 90.0, dataset="eurosat", config="rn101")
    assert average_rows(rows_of(runs)[0]) == []


def test_averages_over_different_data_sets_are_told(runs):
    for dataset in ("dtd", "eurosat"):
        runs.pair(1, 60.0, 90.0, dataset=dataset)
        runs.pair(1, 60.0, 90.0, dataset=dataset, trainer="ZeroshotCLIP")
    assert uneven_averages(rows_of(runs)[0]) is None
    runs.pair(1, 60.0, 90.0, dataset="ucf101")
    assert uneven_averages(rows_of(runs)[0]) == (
        "averages are over different data sets and do not compare: ZeroshotCLIP rn50 lacks ucf101"
    )


@pytest.fixture
def two_trainers(runs):
    runs.pair(1, 60.0, 90.0)
    runs.pair(2, 80.0, 80.0)
    runs.pair(1, 55.0, 66.0, trainer="ZeroshotCLIP", config="mini_vit8")
    return rows_of(runs)[0]


def words(line):
    return " ".join(line.split())


def test_terminal_table(two_trainers):
    lines = render_base_new(two_trainers).splitlines()
    assert words(lines[0]) == "Data set Trainer Config Seeds Base New HM HM per seed"
    assert words(lines[2]) == "shapes ZeroshotCLIP mini_vit8 1 55.00 ± – 66.00 ± – 60.00 60.00 ± –"
    assert words(lines[3]) == "shapes CoOp rn50 1 2 70.00 ± 10.00 85.00 ± 5.00 76.77 76.00 ± 4.00"
    assert "harmonic mean of the mean base and the mean new value" in lines[4]
    assert "population standard deviation over seeds, – with a single seed" in lines[5]


def test_interval_is_named(two_trainers):
    assert "± is the 1.96·std/√n over seeds (95% confidence)" in render_base_new(two_trainers, ci95=True)


def test_markdown_table(two_trainers):
    lines = render_base_new(two_trainers, "markdown", details=True).splitlines()
    assert set(lines[1]) <= set("|:-")
    cells = [cell.strip() for cell in lines[3].strip("|").split("|")]
    assert cells[:5] == ["shapes", "CoOp", "rn50", "1 2", "70.00 ± 10.00"]
    assert cells[8:] == ["Mini-ViT/8", "20", "1", "512", "12.5"]
    assert lines[4] == ""  # a foot line directly below would be a row


def test_shots_are_a_column_only_where_they_differ(runs, two_trainers):
    assert "Shots" not in render_base_new(two_trainers)
    for side, log in (("train_base", "Finish training"), ("test_new", "=> result")):
        folder = runs.root / side / "shapes" / "shots_4" / "CoOp" / "rn50" / "seed1"
        runs.log(folder, 50.0, f"{log}\n* accuracy: 50.0%\n")
    table = render_base_new(rows_of(runs)[0]).splitlines()
    assert table[0].split()[4] == "Shots"
    assert [line.split()[3] for line in table[2:5]] == ["16", "4", "16"]


def test_csv_keeps_precision(two_trainers):
    records = list(csv.DictReader(io.StringIO(render_base_new(two_trainers, "csv", details=True))))
    assert [record["trainer"] for record in records] == ["ZeroshotCLIP", "CoOp"]
    assert (records[0]["base_spread"], records[0]["seeds"], records[1]["seeds"]) == ("", "1", "1 2")
    assert float(records[1]["hm"]) == 2 * 70 * 85 / 155
    assert (records[1]["scalars"], records[1]["seconds"]) == ("512 512", "12.5 12.5")


def test_json_holds_seeds_and_what_was_left_out(runs, two_trainers):
    runs.metrics(runs.folder("train_base", 7), 1.0, seed=7)
    rows, left_out = rows_of(runs)
    content = json.loads(render_base_new(rows, "json", left_out=left_out))
    assert content["spread"] == "population standard deviation"
    assert content["rows"][1]["per_seed"][0] == {"seed": 1, "base": 60.0, "new": 90.0, "hm": 72.0}
    assert content["rows"][1]["hm_seeds_mean"] == pytest.approx(76.0)
    assert [item["folder"] for item in content["left_out"]] == [str(runs.folder("train_base", 7))]


def test_details_without_metrics_are_open(runs, test_log):
    runs.log(runs.folder("train_base", 1), 60.0)
    runs.log(runs.folder("test_new", 1), 90.0, test_log)
    line = render_base_new(rows_of(runs)[0], details=True).splitlines()[2]
    assert line.split()[-5:] == ["–"] * 5


def test_details_that_differ_between_seeds_are_all_shown(runs):
    runs.pair(1, 60.0, 90.0)
    runs.pair(2, 60.0, 90.0)
    runs.metrics(runs.folder("train_base", 2), seed=2, backbone="ViT-B/16", wall_seconds=7.5)
    line = render_base_new(rows_of(runs)[0], details=True).splitlines()[2]
    assert "Mini-ViT/8 / ViT-B/16" in line
    assert line.split()[-1] == "10.0"


def test_unknown_format():
    with pytest.raises(ValueError, match="format must be one of table, markdown, csv, latex, json, got 'html'"):
        to_text(["a"], [["b"]], "html", 1)
