"""Plans: which runs they stand for, in which order and folders, and what a person can write wrongly."""

import pytest

from tools.ablation_tables import TABLES
from tools.protocols import ROOT, ProtocolError
from tools.sweeps.plan import PlanError, expand, find_plan, read_plan


def lines(tree, output="output"):
    return [job.run.shell_line() for job in expand(tree, output)]


def test_base_to_new():
    tree = {"protocol": "base2new", "methods": ["zsclip", "coop"], "datasets": ["shapes", "dtd"], "seeds": [2, 3]}
    assert lines(tree) == [
        "bash scripts/zsclip/base2new_train.sh shapes 2",  # no training: the first seed says all
        "bash scripts/zsclip/base2new_test.sh shapes 2",
        "bash scripts/zsclip/base2new_train.sh dtd 2",
        "bash scripts/zsclip/base2new_test.sh dtd 2",
        "bash scripts/coop/base2new_train.sh shapes 2",
        "bash scripts/coop/base2new_test.sh shapes 2",
        "bash scripts/coop/base2new_train.sh shapes 3",
        "bash scripts/coop/base2new_test.sh shapes 3",
        "bash scripts/coop/base2new_train.sh dtd 2",
        "bash scripts/coop/base2new_test.sh dtd 2",
        "bash scripts/coop/base2new_train.sh dtd 3",
        "bash scripts/coop/base2new_test.sh dtd 3",
    ]


def test_a_method_that_knows_its_own_classes_only_has_no_second_half():
    tree = {"methods": ["linear_probe"], "datasets": ["shapes"], "seeds": [1]}
    assert lines(tree | {"protocol": "base2new"}) == ["bash scripts/linear_probe/base2new_train.sh shapes 1"]
    assert lines(tree | {"protocol": "fewshot"}) == ["bash scripts/linear_probe/fewshot.sh shapes 16 1"]
    with pytest.raises(
        ProtocolError, match="can only tell the classes that it was trained on, so there is no xd_train"
    ):
        expand(tree | {"protocol": "xd", "datasets": ["shapes_a"]}, "output")


def test_tests_wait_for_their_training():
    tree = {"protocol": "base2new", "methods": ["zsclip", "coop"], "datasets": ["shapes"], "seeds": [1]}
    zero_train, zero_test, train, test = expand(tree, "output")
    assert (zero_train.model, zero_test.model, train.model) == (None, None, None)
    assert test.model == train.key
    assert train.folder == ROOT / "output/base2new/train_base/shapes/shots_16/CoOp/mini_vit8_ep20/seed1"
    assert str(test) == "base2new_test coop shapes 16 shots seed 1"


def test_few_shot_and_defaults():
    tree = {"protocol": "fewshot", "methods": "coop", "datasets": "eurosat", "shots": [1, 8], "seeds": 1}
    assert lines(tree) == ["bash scripts/coop/fewshot.sh eurosat 1 1", "bash scripts/coop/fewshot.sh eurosat 8 1"]
    seeds_and_shots = lines({"protocol": "fewshot", "methods": ["coop"], "datasets": ["eurosat"]})
    assert seeds_and_shots == [f"bash scripts/coop/fewshot.sh eurosat 16 {seed}" for seed in (1, 2, 3)]


def test_one_training_for_all_other_domains():
    tree = {"protocol": "xd", "methods": ["coop"], "datasets": ["shapes_a", "shapes_r"], "seeds": [1], "shots": [4]}
    jobs = expand(tree, "output")
    assert [job.run.shell_line() for job in jobs] == [
        "SOURCE=shapes SHOTS=4 bash scripts/coop/xd_train.sh 1",
        "SHOTS=4 bash scripts/coop/xd_test.sh shapes_a 1",
        "SHOTS=4 bash scripts/coop/xd_test.sh shapes_r 1",
    ]
    assert [job.model for job in jobs] == [None, jobs[0].key, jobs[0].key]
    tree = {"protocol": "xd", "methods": ["coop"], "datasets": ["dtd"], "source": "caltech101", "seeds": [1]}
    assert lines(tree) == [
        "SOURCE=caltech101 bash scripts/coop/xd_train.sh 1",
        "SOURCE=caltech101 bash scripts/coop/xd_test.sh dtd 1",
    ]


def test_zero_shot_has_neither_seeds_nor_shots():
    tree = {"protocol": "zeroshot", "methods": ["zsclip"], "datasets": ["shapes", "dtd"], "seeds": [5], "shots": [1, 2]}
    assert lines(tree) == ["bash scripts/zsclip/zeroshot.sh shapes", "bash scripts/zsclip/zeroshot.sh dtd"]


def test_another_config():
    tree = {"protocol": "fewshot", "methods": ["coop"], "datasets": ["dtd"], "seeds": [1], "configs": {"coop": "rn50"}}
    assert lines(tree) == ["CFG=rn50 bash scripts/coop/fewshot.sh dtd 16 1"]


def test_overrides_have_their_own_folder():
    changed = {"plain": {}, "low": {"OPTIM.LR": 0.001, "TRAINER.COOP.CSC": True, "TRAINER.SPOTLIGHTER.LOSSES": ["kl"]}}
    tree = {"protocol": "base2new", "methods": ["coop"], "datasets": ["dtd"], "seeds": [1], "overrides": changed}
    plain, _, low, test = expand(tree, "/somewhere")
    assert str(plain.folder) == "/somewhere/base2new/train_base/dtd/shots_16/CoOp/vit_b16_ep200_ctxv1/seed1"
    assert (plain.variant, plain.run.options) == ("", ())
    tail = "variants/low/base2new/train_base/dtd/shots_16/CoOp/vit_b16_ep200_ctxv1/seed1"
    assert (str(low.folder), low.variant, test.model) == (f"/somewhere/{tail}", "low", low.key)
    options = ("OPTIM.LR", "0.001", "TRAINER.COOP.CSC", "True", "TRAINER.SPOTLIGHTER.LOSSES", "['kl']")
    assert low.run.options == options == test.run.options


@pytest.mark.parametrize("method", ["promptkd", "spotlighter:PromptKD"])
def test_a_teacher_comes_first_and_once(method):
    tree = {"protocol": "base2new", "methods": [method], "datasets": ["shapes"], "seeds": [1, 2]}
    jobs = expand(tree, "output")
    teacher, student, tested, *_ = jobs
    assert [job.run.trainer for job in jobs].count("PromptSRC") == 1
    assert (teacher.run.trainer, teacher.run.config, teacher.run.seed) == ("PromptSRC", "mini_vit8_l_ep10", 1)
    assert (teacher.needs, student.needs, tested.needs) == (None, teacher.key, student.key)
    assert (student.model, tested.model) == (None, student.key)
    assert len(jobs) == 1 + 2 * 2


def test_another_host_is_behind_a_colon():
    tree = {"protocol": "base2new", "methods": ["spotlighter:MaPLe"], "datasets": ["shapes"], "seeds": [1]}
    assert lines(tree) == [
        "HOST=MaPLe bash scripts/spotlighter/base2new_train.sh shapes 1",
        "HOST=MaPLe bash scripts/spotlighter/base2new_test.sh shapes 1",
    ]


def test_blocks_share_what_stands_beside_them_and_duplicates_are_merged():
    block = {"protocol": "fewshot", "methods": ["coop"], "datasets": ["dtd"]}
    tree = {"seeds": [1], "runs": [block, block, {**block, "seeds": [1, 2]}]}
    assert lines(tree) == [f"bash scripts/coop/fewshot.sh dtd 16 {seed}" for seed in (1, 2)]


def test_training_for_other_domains_is_the_few_shot_run_on_their_source():
    few = {"protocol": "fewshot", "methods": ["coop"], "datasets": ["shapes"], "shots": [4, 16]}
    other = {"protocol": "xd", "methods": ["coop"], "datasets": ["shapes_a"]}
    jobs = expand({"seeds": [1], "runs": [few, other]}, "output")
    assert [job.run.shell_line() for job in jobs] == [
        "bash scripts/coop/fewshot.sh shapes 4 1",
        "bash scripts/coop/fewshot.sh shapes 16 1",
        "bash scripts/coop/xd_test.sh shapes_a 1",
    ]
    assert jobs[2].model == jobs[1].key


def test_output_is_part_of_the_command():
    tree = {"protocol": "fewshot", "methods": ["coop"], "datasets": ["dtd"], "seeds": [1]}
    assert lines(tree, "/my runs") == ["OUTPUT='/my runs' bash scripts/coop/fewshot.sh dtd 16 1"]


GOOD = {"protocol": "base2new", "methods": ["coop"], "datasets": ["dtd"]}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ([GOOD], "expected keys such as protocol, methods and datasets, or blocks of them under runs:"),
        ({"runs": GOOD}, "runs must be a list of blocks, each with keys such as protocol, methods and datasets"),
        ({"runs": []}, "it holds no runs"),
        ({"methods": ["coop"]}, "a block does not say protocol and datasets"),
        (GOOD | {"seed": 1}, "unknown key 'seed'; did you mean 'seeds'? There are: protocol methods datasets seeds"),
        (GOOD | {"protocol": "base2now"}, "unknown protocol 'base2now'; did you mean 'base2new'? There are: base2new"),
        (GOOD | {"methods": ["spotlighter:VPT"]}, "Spotlighter has no scripts around VPT; HOST can be: CoCoOp"),
        (GOOD | {"methods": ["cop"]}, "unknown method 'cop'; did you mean 'coop'? There are: "),
        (GOOD | {"datasets": ["eurosad"]}, "unknown data set 'eurosad'; did you mean 'eurosat'? There are: "),
        (GOOD | {"datasets": ["mnist_9"]}, "unknown data set 'mnist_9'; there are: caltech101 "),
        (GOOD | {"source": "dtd"}, "source belongs to xd alone, this block is of base2new"),
        (GOOD | {"seeds": ["one"]}, "seeds must be whole numbers of at least 0, got 'one'"),
        (GOOD | {"seeds": [True]}, "seeds must be whole numbers of at least 0, got True"),
        (GOOD | {"shots": [-2]}, "shots must be whole numbers of at least -1, got -2"),
        (GOOD | {"shots": []}, "seeds and shots must name at least one number each"),
        (GOOD | {"configs": ["rn50"]}, "configs must be names with what belongs to each, got ['rn50']"),
        (GOOD | {"configs": {"coop": "rn51"}}, "unknown config of coop 'rn51'; did you mean 'rn50'? There are: "),
        (GOOD | {"configs": {"zsclip": "rn50"}}, "unknown method of the block 'zsclip'; there are: coop"),
        (GOOD | {"overrides": {"a/b": {"A.B": 1}}}, "the override 'a/b' names a folder: letters, digits and . _ + = -"),
        (GOOD | {"overrides": {"x": {"lr": 1}}}, "the override 'x' must hold entries of the config such as OPTIM.LR: "),
        (
            GOOD | {"overrides": {"x": {"OPTIM": {"LR": 1}}}},
            "the override 'x' must write OPTIM in full, such as OPTIM.LR",
        ),
        (
            {
                "runs": [
                    GOOD | {"overrides": {"x": {"OPTIM.LR": 1}}},
                    GOOD | {"overrides": {"x": {"OPTIM.LR": 2}}},
                ]
            },
            "the override 'x' stands for two different things; give one another name",
        ),
        (
            {"protocol": "fewshot", "methods": ["zsclip"], "datasets": ["dtd"]},
            "zsclip has no fewshot.sh; it has base2new and zeroshot",
        ),
        (
            {"protocol": "xd", "methods": ["coop"], "datasets": ["imagenet"]},
            "imagenet is what xd trains on, its result is in the training run; leave it out of datasets",
        ),
    ],
)
def test_what_can_be_wrong(tmp_path, tree, message):
    with pytest.raises(PlanError) as caught:
        expand(tree, "output")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_files(tmp_path):
    with pytest.raises(PlanError, match=r"^no plan paper_tabel1; did you mean 'paper_table1'\? There are: ablations "):
        find_plan("paper_tabel1")
    path = tmp_path / "plan.yaml"
    path.write_text("a: [")
    assert find_plan(str(path)) == path
    with pytest.raises(PlanError, match=r"plan.yaml is no yaml: "):
        read_plan(path, "output")
    path.write_bytes(b"\xff")
    with pytest.raises(PlanError, match=r"plan.yaml cannot be read: "):
        read_plan(path, "output")
    path.write_text("protocol: xd")
    with pytest.raises(PlanError, match=r"plan.yaml: a block does not say methods and datasets"):
        read_plan(path, "output")


# ---- the plans of this repository

COUNTS = {  # plan -> (runs, trainings), counted by hand from the tables
    "paper_table1": (11 * (2 + 9 * 3 * 2 + 1), 11 * (9 * 3 + 1)),  # the last is the teacher of PromptKD
    "paper_table2": (6 * 11 * 5 * 3, 6 * 11 * 5 * 3),
    "paper_table3": (6 * 3 * (1 + 4) + 5, 6 * 3),
    "ablations": (13 * 3 * 2, 13 * 3),
    "cross_dataset": (6 * 3 * (1 + 10) + 10, 6 * 3),
    # zero-shot twice, the probe's base half, ten methods, six hosts of Spotlighter, a teacher
    "shapes_hosts": (2 * 2 + 3 + (10 + 6) * 3 * 2 + 1, 3 + (10 + 6) * 3 + 1),
    "shapes_all": (2 + 2 * 3 * 2 + 2 * 3 * 3 + 2 * 3 * 4 + 5, 2 * 3 * (1 + 3)),
}


def test_all_plans_are_counted():
    assert set(COUNTS) == {path.stem for path in (ROOT / "plans").glob("*.yaml")}


@pytest.mark.parametrize("name", COUNTS)
def test_ready_plans(name):
    path = find_plan(name)
    jobs = read_plan(path, "output")
    runs, trainings = COUNTS[name]
    assert len(jobs) == runs == len({job.folder for job in jobs})
    assert sum(job.run.trains for job in jobs) == trainings
    head = path.read_text().split("\nprotocol:")[0].split("\nruns:")[0]
    assert f"{runs} runs, " in head
    assert f"{trainings} of them trainings" in head or "all of them trainings" in head
    assert f"python -m tools.sweep {name}" in head


def test_the_ablations_are_the_rows_of_the_tables():
    """Each row of the five tables is one variant; the row with the config's own values is the plain run."""
    default = {"LOSSES": list(TABLES["losses"].rows[-1].keys["LOSSES"])}
    default |= {"LEVELS": "both", "SEMANTIC": True, "IRM": "transformer", "TRM": "linear", "RECALCULATE": True}
    wanted = {
        tuple(
            part
            for key, value in row.keys.items()
            if value != default[key] or name == "mapping"
            for part in (f"TRAINER.SPOTLIGHTER.{key}", str(value))
        )
        for name in ("losses", "levels", "semantic", "mapping", "recalculation")
        for row in TABLES[name].rows
        if any(value != default[key] for key, value in row.keys.items())
    }
    jobs = read_plan(find_plan("ablations"), "output")
    assert {job.run.options for job in jobs} == wanted | {()}
