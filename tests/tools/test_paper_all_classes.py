"""Tables II and III from hand-written run folders: every figure computed by hand, gaps, tests, published figures."""

import pytest

from tests.tools.paper import SPOTLIGHTER, ZEROSHOT, context, line_of, printed, values
from tools.paper_all_classes import fewshot_table, transfer_tables


def test_fewshot(runs):
    for dataset, shift in (("dtd", 0.0), ("eurosat", 10.0)):
        for shots, value in ((1, 40.0), (4, 50.0)):
            for seed in (1, 2):
                runs.of(f"fewshot/{dataset}/shots_{shots}", value + shift + seed, seed)
        runs.of(f"zeroshot/{dataset}", 30.0 + shift, num_shots=-1, **ZEROSHOT)
    runs.of("fewshot/dtd/shots_4", 60.0, **SPOTLIGHTER)
    runs.of("zeroshot/imagenet_a", 1.0, **ZEROSHOT)  # no data set of this table
    figures = [printed(48.0, "accuracy", dataset="dtd", protocol="fewshot", shots="4")]
    table = fewshot_table(context(runs.root, figures))
    assert [column.title for column in table.columns] == ["zero-shot", "1 shot", "4 shots"]
    line = line_of(table, "CoOp", "dtd", None)
    assert values(line, "1", "4") == (41.5, 51.5)
    assert (line.cells["1"].spread, line.cells["4"].difference) == (0.5, 3.5)
    average = line_of(table, "CoOp", "average", None)
    assert values(average, "1", "4") == (46.5, 56.5)  # of 41.5 and 51.5, of 51.5 and 61.5
    zero = line_of(table, "ZeroshotCLIP", "average", None)
    assert (list(zero.cells), zero.cells["zero-shot"].value) == (["zero-shot"], 35.0)
    assert line_of(table, "CoOp w/ Spotlighter", "average", None).cells["4"].value is None


def test_fewshot_gaps_and_tests(runs):
    for seed in (1, 2):
        runs.of("fewshot/dtd/shots_1", 40.0 + seed, seed)
        runs.of("fewshot/dtd/shots_1", 42.0 + 3 * seed, seed, **SPOTLIGHTER)
    runs.of("fewshot/dtd/shots_-1", 80.0)
    runs.of("fewshot/eurosat/shots_1", 50.0, finished=False)
    runs.of("zeroshot/dtd", 30.0, **ZEROSHOT)
    table = fewshot_table(context(runs.root))
    assert [column.title for column in table.columns] == ["zero-shot", "1 shot", "all images"]
    commands = {(g.method, g.dataset, g.shots, g.seed): (g.reason[:10], g.commands[0]) for g in table.gaps}
    where = f"OUTPUT={runs.root}"
    assert commands == {
        ("CoOp", "eurosat", 1, 1): ("unfinished", f"CFG=rn50 {where} bash scripts/coop/fewshot.sh eurosat 1 1"),
        ("CoOp", "eurosat", 1, 2): ("no run", f"CFG=rn50 {where} bash scripts/coop/fewshot.sh eurosat 1 2"),
        ("CoOp", "eurosat", -1, 1): ("no run", f"CFG=rn50 {where} bash scripts/coop/fewshot.sh eurosat -1 1"),
        ("CoOp w/ Spotlighter", "dtd", -1, 1): ("no run", f"{where} bash scripts/spotlighter/fewshot.sh dtd -1 1"),
        **{
            ("CoOp w/ Spotlighter", "eurosat", shots, seed): (
                "no run",
                f"{where} bash scripts/spotlighter/fewshot.sh eurosat {shots} {seed}",
            )
            for shots, seed in ((1, 1), (1, 2), (-1, 1))
        },
        ("ZeroshotCLIP", "eurosat", None, 1): ("no run", f"{where} bash scripts/zsclip/zeroshot.sh eurosat"),
    }
    (comparison,) = table.comparisons
    assert (comparison.what, comparison.test.n, comparison.test.difference) == ("1 shot", 2, 5.0)  # 4 and 6


def shown(table):
    """Methods, data sets and images a class of the cells that hold something."""
    return {
        (line.method, line.dataset, key)
        for line in table.lines
        for key, cell in line.cells.items()
        if cell.value is not None
    }


XD, OWN = {"config": "vit_b16_ep50_ctxv1"}, {"config": "vit_b16_ep50"}  # CoOp's configs for ImageNet
TESTED = {"mode": "eval", "started": "2030-01-01T11:00:00"}


def test_training_for_other_data_sets_is_few_shot_only_beside_few_shot_runs(runs):
    runs.of("fewshot/imagenet/shots_16", 71.0, **XD)
    runs.of("xd/imagenet/dtd/shots_16", 40.0, **XD, **TESTED)
    assert shown(fewshot_table(context(runs.root))) == {("CoOp", "imagenet", "16")}
    runs.of("fewshot/dtd/shots_4", 60.0, config="vit_b16_ep100")
    assert shown(fewshot_table(context(runs.root))) == {("CoOp", "dtd", "4")}
    runs.of("fewshot/imagenet/shots_4", 65.0, **OWN)
    assert ("CoOp", "imagenet", "16") in shown(fewshot_table(context(runs.root)))
    runs.of("fewshot/imagenet/shots_16", 72.0, **OWN)
    few, (cross,) = fewshot_table(context(runs.root)), transfer_tables(context(runs.root), "cross")
    assert values(line_of(few, "CoOp", "imagenet", None), "4", "16") == (65.0, 72.0)
    assert values(line_of(cross, "CoOp", "imagenet"), "imagenet", "dtd") == (71.0, 40.0)


def test_a_tested_config_for_both_protocols_stands_in_both_tables(runs):
    for shots in (4, 16):
        runs.of(f"fewshot/imagenet/shots_{shots}", 60.0 + shots, **SPOTLIGHTER)
    runs.of("xd/imagenet/dtd/shots_16", 40.0, **SPOTLIGHTER, **TESTED)
    few, (cross,) = fewshot_table(context(runs.root)), transfer_tables(context(runs.root), "cross")
    assert values(line_of(few, "CoOp w/ Spotlighter", "imagenet", None), "4", "16") == (64.0, 76.0)
    assert values(line_of(cross, "CoOp w/ Spotlighter", "imagenet"), "imagenet", "dtd") == (76.0, 40.0)


def test_the_config_of_a_gap(runs):
    """That of its place, else what all other runs have instead of their scripts' choice, else the scripts' choice."""

    def configs():
        return [gap.commands[0].split("OUTPUT")[0] for gap in fewshot_table(context(runs.root)).gaps]

    runs.of("fewshot/dtd/shots_1", 60.0, config="vit_b16_ep50")
    runs.of("fewshot/ucf101/shots_1", 60.0, finished=False, config="vit_b16_ep50")
    runs.of("fewshot/dtd/shots_4", 60.0, config="vit_b16_ep100")
    assert configs() == ["", ""]
    for path in runs.root.rglob("vit_b16_ep*"):
        path.rename(path.with_name("rn50"))
    assert configs() == ["CFG=rn50 "] * 2
    (runs.root / "fewshot/ucf101/shots_1/CoOp/rn50").rename(runs.root / "fewshot/ucf101/shots_1/CoOp/rn101")
    assert configs() == ["CFG=rn101 ", ""]


# ---- Table III, and other data sets ----


def transfer(runs, method=None, seeds=(1, 2), shift=0.0):
    method = method or {}
    for seed in seeds:
        runs.of("fewshot/imagenet/shots_16", 70.0 + shift + seed, seed, **method)
        for target, value in (("imagenetv2", 60.0), ("imagenet_a", 50.0), ("dtd", 40.0), ("ucf101", 44.0)):
            about = {"mode": "eval", "started": "2030-01-01T11:00:00"}
            runs.of(f"xd/imagenet/{target}/shots_16", value + shift + seed, seed, **method, **about)


def test_domains(runs):
    transfer(runs)
    transfer(runs, SPOTLIGHTER, seeds=(1,), shift=3.0)
    runs.of("zeroshot/imagenet_a", 47.0, num_shots=-1, **ZEROSHOT)
    figures = [
        printed(71.51, "accuracy", dataset="imagenet", protocol="domains"),
        printed(49.71, "accuracy", dataset="imagenet_a", protocol="domains"),
        printed(47.77, "accuracy", "CLIP", "imagenet_a", "domains", ""),
        printed(99.0, "accuracy", dataset="imagenetv2", protocol="cross"),
    ]
    (table,) = transfer_tables(context(runs.root, figures), "domains")
    assert table.title == "Domain generalisation: trained on ImageNet, tested on its other domains (Table III)"
    assert [column.key for column in table.columns] == ["imagenet", "imagenetv2", "imagenet_a", "average"]
    line = line_of(table, "CoOp", "imagenet")
    assert values(line, "imagenet", "imagenetv2", "imagenet_a", "average") == (71.5, 61.5, 51.5, 56.5)
    assert line.cells["average"].spread == 0.5
    assert line.cells["imagenet"].difference == pytest.approx(-0.01)
    assert line.cells["imagenet_a"].difference == pytest.approx(1.79)
    assert line.cells["imagenetv2"].published is None
    zero = line_of(table, "ZeroshotCLIP", "imagenet")
    assert (zero.cells["imagenet_a"].difference, zero.cells["imagenet"].value) == (pytest.approx(-0.77), None)
    wanted = [(gap.method, gap.dataset, gap.seed, gap.commands[0].split("bash ")[1]) for gap in table.gaps]
    assert wanted == [
        ("ZeroshotCLIP", "imagenet", 1, "scripts/zsclip/zeroshot.sh imagenet"),
        ("ZeroshotCLIP", "imagenetv2", 1, "scripts/zsclip/zeroshot.sh imagenetv2"),
        ("CoOp w/ Spotlighter", "imagenet", 2, "scripts/spotlighter/xd_train.sh 2"),
        ("CoOp w/ Spotlighter", "imagenetv2", 2, "scripts/spotlighter/xd_test.sh imagenetv2 2"),
        ("CoOp w/ Spotlighter", "imagenet_a", 2, "scripts/spotlighter/xd_test.sh imagenet_a 2"),
    ]
    tests = {(c.method, c.what): (c.test.n, c.test.difference) for c in table.comparisons}
    assert tests[("CoOp w/ Spotlighter", "targets")] == (2, 3.0)
    assert tests[("CoOp w/ Spotlighter", "source")] == (1, 3.0)
    assert tests[("ZeroshotCLIP", "targets")] == (2, -4.5)  # 47 - 51 and 47 - 52


def test_other_data_sets(runs):
    transfer(runs, seeds=(1,))
    figures = [printed(41.92, "accuracy", protocol="cross"), printed(9.0, "accuracy", protocol="domains")]
    (table,) = transfer_tables(context(runs.root, figures), "cross")
    assert [column.key for column in table.columns] == ["imagenet", "dtd", "ucf101", "average"]
    line = line_of(table, "CoOp", "imagenet")
    assert values(line, "imagenet", "dtd", "ucf101", "average") == (71.0, 41.0, 45.0, 43.0)
    assert line.cells["dtd"].difference == pytest.approx(-0.92)
    assert line.cells["average"].published is None  # one of the two is not published


def test_another_source_has_no_published_figures(runs):
    runs.of("fewshot/dtd/shots_16", 70.0)
    runs.of("xd/dtd/ucf101/shots_16", 40.0, mode="eval")
    figures = [printed(41.0, "accuracy", dataset="ucf101", protocol="cross")]
    (table,) = transfer_tables(context(runs.root, figures), "cross")
    line = line_of(table, "CoOp", "dtd")
    assert (line.cells["ucf101"].value, line.cells["ucf101"].published) == (40.0, None)
    assert [column.key for column in table.columns] == ["dtd", "ucf101"]  # no average of one
    train, test = transfer_tables(context(runs.root, seeds=[2]), "cross")[0].gaps
    start = f"CFG=rn50 SOURCE=dtd OUTPUT={runs.root}"
    assert train.commands == (f"{start} bash scripts/coop/xd_train.sh 2",)
    assert test.commands == (f"{start} bash scripts/coop/xd_test.sh ucf101 2",)


def test_every_source_is_a_table(runs):
    for source, target in (("shapes", "shapes_a"), ("imagenet", "imagenet_a")):
        runs.of(f"fewshot/{source}/shots_16", 70.0)
        runs.of(f"xd/{source}/{target}/shots_16", 40.0, mode="eval")
    tables = transfer_tables(context(runs.root), "domains")
    assert [table.lines[0].dataset for table in tables] == ["imagenet", "shapes"]


def test_zero_shot_alone_shows_domains(runs):
    runs.of("zeroshot/shapes", 70.0, **ZEROSHOT)
    runs.of("zeroshot/shapes_r", 50.0, **ZEROSHOT)
    (table,) = transfer_tables(context(runs.root), "domains")
    assert values(line_of(table, "ZeroshotCLIP", "shapes", None), "shapes", "shapes_r") == (70.0, 50.0)
