"""The paper's tables from hand-written run folders: every figure computed by hand, gaps, tests, published figures."""

import math

import pytest

from tools.paper_all_classes import fewshot_table, transfer_tables
from tools.paper_base_new import base_new_table, efficiency_table
from tools.paper_series import Context
from tools.result_published import Published, PublishedFigures
from tools.result_runs import collect
from tools.results import build
from tools.run_names import REAL

SPOTLIGHTER = {"trainer": "Spotlighter", "host": "CoOp", "config": "vit_b16_ep15_paper"}
ZEROSHOT = {"trainer": "ZeroshotCLIP", "config": "vit_b16"}
BACKBONE = "Mini-ViT/8"  # of the hand-written runs
NOTHING_TRAINED = {"parameters": {"trainable_tensors": 0, "trainable_scalars": 0}, "mode": "eval"}


@pytest.fixture
def base2new(runs):
    """Runs of base2new below the folder that the tables are asked for."""
    root = runs.root
    runs.root = root / "base2new"
    yield runs
    runs.root = root


def context(root, figures=(), **choices):
    return Context(collect(root), PublishedFigures(figures), **choices)


def printed(value, metric, method="CoOp", dataset="dtd", protocol="base2new", shots="16", note="", backbone=BACKBONE):
    return Published("I", protocol, method, "", dataset, metric, shots, value, "%", backbone, "a paper", note)


def line_of(table, method, dataset, shots=16):
    (line,) = [x for x in table.lines if (x.method, x.dataset, x.shots) == (method, dataset, shots)]
    return line


def values(line, *keys):
    return tuple(line.cells[key].value for key in keys)


# ---- Table I ------------------------------------------------------------------------------------------------------


def test_base_to_new(base2new):
    base2new.pair(1, 60.0, 90.0, dataset="dtd")
    base2new.pair(2, 80.0, 80.0, dataset="dtd")
    figures = [printed(72.5, "base"), printed(80.0, "new"), printed(76.25, "hm", note="a slip")]
    table = base_new_table(context(base2new.root.parent, figures))
    line = line_of(table, "CoOp", "dtd")
    hm = 2 * 70 * 85 / 155
    assert values(line, "base", "new", "hm", "hm_seeds") == (70.0, 85.0, pytest.approx(hm), pytest.approx(76.0))
    assert [line.cells[key].spread for key in ("base", "new", "hm", "hm_seeds")] == [
        10.0,
        5.0,
        None,
        pytest.approx(4.0),
    ]
    assert line.cells["hm"].per_seed == {1: pytest.approx(72.0), 2: pytest.approx(80.0)}
    differences = [line.cells[key].difference for key in ("base", "new", "hm", "hm_seeds")]
    assert differences == [-2.5, 5.0, pytest.approx(hm - 76.25), None]
    assert (line.seeds, line.group, line.config, table.gaps) == ([1, 2], "DTD", "rn50", ())


def test_no_runs_no_table(runs):
    runs.of("fewshot/dtd/shots_4", 50.0)
    found = context(runs.root)
    assert base_new_table(found) is None
    assert efficiency_table(found) is None
    assert transfer_tables(found, "cross") == []
    assert [table.name for table in build(found)] == ["fewshot"]


def test_average_over_data_sets(base2new):
    for seed, shift in ((1, 0.0), (2, 2.0)):
        base2new.pair(seed, 60.0 + shift, 80.0, dataset="dtd")
        base2new.pair(seed, 40.0 + shift, 50.0 + 2 * shift, dataset="eurosat")
    base2new.pair(1, 1.0, 1.0, dataset="shapes")  # the embedded benchmark is no member
    base2new.pair(2, 1.0, 1.0, dataset="shapes")
    figures = [printed(50.0, m, dataset=d) for m in ("base", "new") for d in ("dtd", "eurosat")]
    table = base_new_table(context(base2new.root.parent, figures))
    line = line_of(table, "CoOp", "average")
    assert line.group == "Average of 2"
    # base: (60 + 40) / 2 = 50 and (62 + 42) / 2 = 52; new: (80 + 50) / 2 = 65 and (80 + 54) / 2 = 67
    assert values(line, "base", "new", "hm") == (51.0, 66.0, pytest.approx(2 * 51 * 66 / 117))
    assert (line.cells["base"].spread, line.cells["new"].spread) == (1.0, 1.0)
    per_seed = [2 * 50 * 65 / 115, 2 * 52 * 67 / 119]
    assert line.cells["hm_seeds"].value == pytest.approx(sum(per_seed) / 2)
    assert line.cells["base"].published.note.startswith("not printed: the mean of the printed figures of the same 2")
    assert line.cells["hm"].published.value == 50.0


def test_the_printed_average_stands_beside_all_eleven(base2new):
    for dataset in REAL:
        base2new.pair(1, 60.0, 90.0, dataset=dataset)
    table = base_new_table(context(base2new.root.parent, [printed(71.0, "hm", dataset="average")]))
    cell = line_of(table, "CoOp", "average").cells["hm"]
    assert (cell.value, cell.published.value, cell.difference) == (72.0, 71.0, pytest.approx(1.0))


def test_an_average_that_lacks_a_data_set_is_a_gap(base2new):
    base2new.pair(1, 60.0, 90.0, dataset="dtd")
    base2new.pair(1, 60.0, 90.0, dataset="eurosat")
    base2new.pair(1, 60.0, 90.0, dataset="dtd", **SPOTLIGHTER)
    table = base_new_table(context(base2new.root.parent))
    assert line_of(table, "CoOp", "average").cells["base"].value == 60.0
    assert line_of(table, "CoOp w/ Spotlighter", "average").cells["base"].value is None
    assert line_of(table, "CoOp w/ Spotlighter", "eurosat").cells["base"].value is None


def test_gaps_name_the_commands(base2new):
    root = base2new.root.parent
    base2new.pair(1, 60.0, 90.0, dataset="dtd")
    base2new.pair(2, 60.0, 90.0, dataset="dtd")
    base2new.pair(1, 60.0, 90.0, dataset="eurosat")
    base2new.pair(1, 60.0, 90.0, dataset="dtd", **SPOTLIGHTER)
    base2new.metrics(base2new.folder("train_base", 2, "eurosat"), 60.0, seed=2, finished=False)
    base2new.metrics(
        base2new.folder("train_base", 2, "dtd", "Spotlighter", "vit_b16_ep15_paper"),
        60.0,
        seed=2,
        trainer="Spotlighter",
        config={"TRAINER": {"SPOTLIGHTER": {"HOST": "CoOp"}}},
    )
    table = base_new_table(context(root))
    start, coop, ours = f"CFG=rn50 OUTPUT={root} ", "bash scripts/coop/base2new_", "bash scripts/spotlighter/base2new_"
    found = {(gap.method, gap.dataset, gap.seed): (gap.reason, gap.commands) for gap in table.gaps}
    assert found.pop(("CoOp", "eurosat", 2)) == (
        "unfinished (after 1 of 20 epochs); the command that began it goes on with it",
        (f"{start}{coop}train.sh eurosat 2", f"{start}{coop}test.sh eurosat 2"),
    )
    start = f"OUTPUT={root} "  # its scripts choose the config by themselves
    assert found.pop(("CoOp w/ Spotlighter", "dtd", 2)) == (
        "not tested on the new classes",
        (f"{start}{ours}test.sh dtd 2",),
    )
    for seed in (1, 2):
        assert found.pop(("CoOp w/ Spotlighter", "eurosat", seed)) == (
            "no run",
            (f"{start}{ours}train.sh eurosat {seed}", f"{start}{ours}test.sh eurosat {seed}"),
        )
    assert found == {}


def test_a_stale_test_is_a_gap(base2new):
    base2new.pair(1, 60.0, 90.0, dataset="dtd")
    base2new.metrics(base2new.folder("train_base", 1, "dtd"), 60.0, started="2030-01-01T12:00:00")
    (gap,) = base_new_table(context(base2new.root.parent)).gaps
    assert gap.reason == "it was tested before its model was trained (anew); test again"
    assert [command.split("bash ")[1] for command in gap.commands] == ["scripts/coop/base2new_test.sh dtd 1"]


def test_seeds_may_be_asked_for(base2new):
    base2new.pair(1, 60.0, 90.0, dataset="dtd")
    assert base_new_table(context(base2new.root.parent)).gaps == ()
    gaps = base_new_table(context(base2new.root.parent, seeds=[1, 2, 3])).gaps
    assert [gap.seed for gap in gaps] == [2, 3]


def test_a_method_that_trains_nothing_needs_one_seed(base2new):
    base2new.pair(1, 60.0, 90.0, dataset="dtd")
    base2new.pair(2, 70.0, 90.0, dataset="dtd")
    base2new.pair(1, 50.0, 80.0, dataset="dtd", **ZEROSHOT)
    table = base_new_table(context(base2new.root.parent))
    assert table.gaps == ()
    (base, *_) = [c for c in table.comparisons if c.method == "ZeroshotCLIP"]
    assert (base.what, base.test.n, base.test.difference) == ("Base", 2, -15.0)  # 50 - 60 and 50 - 70


def test_other_methods_that_train_nothing_tell_it_by_their_parameters(base2new):
    for seed in (1, 2):
        base2new.pair(seed, 60.0, 90.0, dataset="dtd")
    for side, classes in (("train_base", "base"), ("test_new", "new")):
        folder = base2new.folder(side, 1, "dtd", "Frozen")
        base2new.metrics(folder, 50.0, trainer="Frozen", classes=classes, **NOTHING_TRAINED)
    assert base_new_table(context(base2new.root.parent)).gaps == ()


def test_two_configs_on_one_data_set_are_two_methods(base2new):
    base2new.pair(1, 60.0, 90.0, dataset="dtd")
    base2new.pair(1, 70.0, 90.0, dataset="dtd", config="rn101")
    base2new.pair(1, 50.0, 90.0, dataset="imagenet", config="rn101", trainer="MaPLe")
    base2new.pair(1, 40.0, 90.0, dataset="dtd", config="rn50", trainer="MaPLe")
    table = base_new_table(context(base2new.root.parent, [printed(61.0, "base")]))
    assert table.methods == ["CoOp (rn50)", "CoOp (rn101)", "MaPLe"]
    assert line_of(table, "CoOp (rn101)", "dtd").cells["base"].difference == 9.0
    assert values(line_of(table, "MaPLe", "average"), "base") == (45.0,)
    gap = next(gap for gap in table.gaps if gap.method == "CoOp (rn101)")
    assert gap.commands[0].startswith("CFG=rn101 ")
    assert gap.commands[0].endswith(" bash scripts/coop/base2new_train.sh imagenet 1")
    gap = next(gap for gap in table.gaps if gap.method == "CoOp (rn50)")
    assert gap.commands[0].startswith("CFG=rn50 ")


def test_shots_are_blocks_of_their_own(base2new):
    base2new.pair(1, 60.0, 90.0, dataset="dtd")
    base2new.pair(1, 60.0, 90.0, dataset="eurosat")
    for side, classes in (("train_base", "base"), ("test_new", "new")):
        folder = base2new.root / side / "dtd" / "shots_4" / "CoOp" / "rn50" / "seed1"
        base2new.metrics(folder, 50.0, classes=classes, num_shots=4)
    table = base_new_table(context(base2new.root.parent, [printed(61.0, "base")]))
    assert line_of(table, "CoOp", "dtd", 4).cells["base"].published is None
    assert line_of(table, "CoOp", "dtd", 16).cells["base"].published.value == 61.0
    assert table.gaps == ()  # eurosat was never run with 4 shots


def test_another_backbone_has_no_published_figure(base2new):
    base2new.pair(1, 60.0, 90.0, dataset="dtd")
    found = [printed(61.0, "base", backbone="ViT-B/16")]
    assert base_new_table(context(base2new.root.parent, found)).lines[0].cells["base"].published is None
    base2new.metrics(base2new.folder("train_base", 1, "dtd"), 60.0, backbone="ViT-B/16")
    base2new.metrics(base2new.folder("test_new", 1, "dtd"), 90.0, backbone="ViT-B/16", classes="new")
    assert base_new_table(context(base2new.root.parent, found)).lines[0].cells["base"].difference == -1.0


def test_two_runs_for_one_seed_are_refused(base2new):
    base2new.pair(1, 60.0, 90.0)
    base2new.log(base2new.folder("train_base", 1).with_name("seed_1"))
    with pytest.raises(ValueError, match=r"expected one run a seed, got a second one in .*; move one of them away"):
        context(base2new.root.parent)


# ---- tests --------------------------------------------------------------------------------------------------------


def test_paired_tests_against_the_host(base2new):
    for dataset, base in (("dtd", 60.0), ("eurosat", 70.0)):
        for seed in (1, 2, 3):
            base2new.pair(seed, base + seed, 80.0, dataset=dataset)
            base2new.pair(seed, base + 2 * seed, 80.0, dataset=dataset, **SPOTLIGHTER)
    base2new.pair(4, 90.0, 80.0, dataset="dtd", **SPOTLIGHTER)  # CoOp has no seed 4
    table = base_new_table(context(base2new.root.parent))
    base, new, _ = table.comparisons
    assert (base.method, base.versus, base.what) == ("CoOp w/ Spotlighter", "CoOp", "Base")
    # differences 1, 2, 3, 1, 2, 3: mean 2, sample variance 4 / 5, t = 2 / sqrt(0.8 / 6)
    assert (base.test.n, base.test.difference) == (6, 2.0)
    x = (2 / math.sqrt(0.8 / 6)) / math.sqrt(5)  # Student's t with 5 degrees of freedom, closed form
    cumulative = 0.5 + (x / (1 + x**2) * (1 + 2 / (3 * (1 + x**2))) + math.atan(x)) / math.pi
    assert base.test.t_test == pytest.approx(2 * (1 - cumulative), abs=1e-9)
    assert (new.test.difference, new.test.t_test, new.test.wilcoxon) == (0.0, None, None)


@pytest.mark.parametrize("name", ["maple", "MaPLe"])
def test_another_reference(base2new, name):
    for trainer, base in (("CoOp", 60.0), ("MaPLe", 61.0), ("SPT", 64.0)):
        base2new.pair(1, base, 80.0, trainer=trainer)
    table = base_new_table(context(base2new.root.parent, versus=name))
    found = [(c.method, c.versus, c.test.difference) for c in table.comparisons if c.what == "Base"]
    assert found == [("CoOp", "MaPLe", -1.0), ("SPT", "MaPLe", 3.0)]
    assert {c.test.t_test for c in table.comparisons} == {None}  # one pair


def test_an_unknown_reference(base2new):
    base2new.pair(1, 60.0, 80.0)
    base2new.pair(1, 60.0, 80.0, **SPOTLIGHTER)
    with pytest.raises(ValueError, match="no method 'KgCoOp' among the runs; there are: CoOp, CoOp w/ Spotlighter"):
        context(base2new.root.parent, versus="KgCoOp")


def test_without_a_reference_nothing_is_tested(base2new):
    base2new.pair(1, 60.0, 80.0, trainer="MaPLe")
    base2new.pair(1, 60.0, 80.0, trainer="SPT")
    assert base_new_table(context(base2new.root.parent)).comparisons == ()


# ---- Table II, Figure 7 -------------------------------------------------------------------------------------------


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


# ---- Table III, and other data sets -------------------------------------------------------------------------------


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


# ---- Table IV -----------------------------------------------------------------------------------------------------


def measured(runs, side, seed, speed, scalars, tensors, value=60.0, **where):
    classes = "base" if side == "train_base" else "new"
    final = {"epoch": 20, "metrics": {"accuracy": value}, "images_per_second": speed}
    about = {"parameters": {"trainable_tensors": tensors, "trainable_scalars": scalars}, "seed": seed}
    trainer = where.get("trainer", "CoOp")
    node = {"TRAINER": {"SPOTLIGHTER": {"HOST": "CoOp"}}} if trainer == "Spotlighter" else {}
    folder = runs.folder(side, seed, "imagenet", **where)
    runs.metrics(folder, value, **about | {"config": node, "trainer": trainer, "classes": classes, "final": final})


def test_efficiency(base2new):
    for side, faster in (("train_base", 10.0), ("test_new", 0.0)):
        for seed in (1, 2):
            measured(base2new, side, seed, 100.0 * seed + faster, 2048, 1)
            measured(
                base2new, side, seed, 90.0 * seed, 5000, 7, 64.0, trainer="Spotlighter", config="vit_b16_ep15_paper"
            )
    figures = [
        printed(2048.0, "parameters", dataset="imagenet", protocol="efficiency"),
        printed(9768.21, "images_per_second", dataset="imagenet", protocol="efficiency"),
        printed(21.0, "parameters_added", "CoOp w/ Spotlighter", "imagenet", "efficiency"),
    ]
    table = efficiency_table(context(base2new.root.parent, figures))
    coop, ours = table.lines
    # seed 1: (110 + 100) / 2, seed 2: (210 + 200) / 2
    assert values(coop, "tensors", "scalars", "images_per_second", "hm") == (1, 2048, 155.0, 60.0)
    assert coop.cells["images_per_second"].spread == 50.0
    assert coop.cells["scalars"].difference == 0.0
    assert coop.cells["images_per_second"].difference == pytest.approx(155.0 - 9768.21)
    added = ("tensors_added", "scalars_added", "images_per_second_added", "hm_added")
    assert values(ours, *added) == (6, 2952, -20.0, pytest.approx(4.0))  # (90 + 180) / 2 - 155, 64 - 60
    assert ours.cells["tensors_added"].difference == -15
    assert not set(added) & set(coop.cells)
    assert "Device: cpu." in table.notes[0]


def test_efficiency_without_records_or_host(base2new, test_log):
    base2new.log(base2new.folder("train_base", 1), 60.0)
    base2new.log(base2new.folder("test_new", 1), 90.0, test_log)
    base2new.pair(1, 60.0, 90.0, **SPOTLIGHTER | {"host": "MaPLe"})
    coop, ours = efficiency_table(context(base2new.root.parent)).lines
    assert values(coop, "tensors", "scalars", "images_per_second", "hm") == (None, None, None, 72.0)
    assert ours.method == "MaPLe w/ Spotlighter"
    assert ours.cells["tensors_added"].value is None


def test_records_with_parts_of_another_kind(base2new):
    odd = {"parameters": [1, 2], "backbone": 16, "device": None, "config": "lost"}
    for side, classes in (("train_base", "base"), ("test_new", "new")):
        base2new.metrics(base2new.folder(side, 1), 60.0, classes=classes, **odd)
    base2new.metrics(
        base2new.folder("train_base", 2),
        60.0,
        seed=2,
        final={"metrics": {"accuracy": 60.0}, "images_per_second": float("nan")},
    )
    base2new.metrics(base2new.folder("test_new", 2), 60.0, seed=2, classes="new")
    base, speed = build(context(base2new.root.parent))
    assert values(base.lines[0], "base", "hm") == (60.0, 60.0)
    assert values(speed.lines[0], "scalars", "images_per_second") == (512, None)


def test_gaps_are_told_once_where_both_tables_are_shown(base2new):
    base2new.pair(1, 60.0, 90.0)
    found = context(base2new.root.parent, seeds=[1, 2])
    assert [(table.name, len(table.gaps)) for table in build(found)] == [("base2new", 1), ("efficiency", 0)]
    assert [len(table.gaps) for table in build(found, "efficiency")] == [1]
