"""Tables I and IV from hand-written run folders: every figure computed by hand, gaps, tests, published figures."""

import math

import pytest

from tests.tools.paper import NOTHING_TRAINED, SPOTLIGHTER, ZEROSHOT, context, line_of, printed, values
from tools.paper_all_classes import transfer_tables
from tools.paper_base_new import base_new_table, efficiency_table
from tools.results import build
from tools.run_names import REAL


@pytest.fixture
def base2new(runs):
    """Runs of base2new below the folder that the tables are asked for."""
    root = runs.root
    runs.root = root / "base2new"
    yield runs
    runs.root = root


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


def test_a_method_that_knows_its_own_classes_only(base2new):
    base2new.pair(1, 60.0, 90.0, dataset="dtd")
    base2new.pair(2, 60.0, 90.0, dataset="dtd")
    folder = base2new.folder("train_base", 1, "dtd", "LinearProbe", "vit_b16")
    base2new.metrics(folder, 70.0, trainer="LinearProbe", dataset="dtd")
    found = context(base2new.root.parent)
    table = base_new_table(found)
    line = line_of(table, "LinearProbe", "dtd")
    assert values(line, "base", "new", "hm", "hm_seeds") == (70.0, None, None, None)
    (gap,) = table.gaps  # of seed 2: the base run alone
    assert (gap.method, gap.seed, gap.reason) == ("LinearProbe", 2, "no run")
    assert [command.split("bash ")[1] for command in gap.commands] == ["scripts/linear_probe/base2new_train.sh dtd 2"]
    cells = line_of(efficiency_table(found), "LinearProbe", "dtd").cells
    assert (cells["tensors"].value, cells["hm"].value) == (1, None)


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


# ---- paired tests ----


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


# ---- Table IV ----


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
