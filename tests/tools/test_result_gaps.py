"""tools/result_gaps.py: the commands that make a missing run."""

from pathlib import Path

import pytest

from tools import result_gaps
from tools.result_gaps import Gap, Recipe, choose_config, script_folder

ROOT = Path(__file__).parents[2]


def recipe(**changes):
    about = {"method": "CoOp", "trainer": "CoOp", "shots": 16, "output": ROOT / "output"}
    return Recipe(**about | changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "bash scripts/coop/base2new_train.sh dtd 2"),
        ({"shots": 4}, "SHOTS=4 bash scripts/coop/base2new_train.sh dtd 2"),
        ({"shots": None}, "bash scripts/coop/base2new_train.sh dtd 2"),
        ({"output": ROOT / "other"}, "OUTPUT=other bash scripts/coop/base2new_train.sh dtd 2"),
        ({"output": Path("/a b")}, "OUTPUT='/a b' bash scripts/coop/base2new_train.sh dtd 2"),
        ({"method": "ZeroshotCLIP", "trainer": "ZeroshotCLIP"}, "bash scripts/zsclip/base2new_train.sh dtd 2"),
        (
            {"method": "ZeroshotCLIP2", "trainer": "ZeroshotCLIP2"},
            "TRAINER=ZeroshotCLIP2 bash scripts/zsclip/base2new_train.sh dtd 2",
        ),
        ({"method": "MaPLe", "trainer": "MaPLe"}, "bash scripts/maple/base2new_train.sh dtd 2"),
        (
            {"method": "CoOp w/ Spotlighter", "trainer": "Spotlighter"},
            "bash scripts/spotlighter/base2new_train.sh dtd 2",
        ),
        (
            {"method": "MaPLe w/ Spotlighter", "trainer": "Spotlighter"},
            "HOST=MaPLe bash scripts/spotlighter/base2new_train.sh dtd 2",
        ),
    ],
)
def test_commands(changes, expected):
    assert recipe(**changes).command("base2new_train", "dtd", 2, None) == expected


def test_config_and_source():
    command = recipe(shots=4).command("xd_test", "dtd", 1, "ep20", "caltech101")
    assert command == "SHOTS=4 CFG=ep20 SOURCE=caltech101 bash scripts/coop/xd_test.sh dtd 1"
    assert recipe().command("xd_test", "dtd", 1, None, "imagenet") == "bash scripts/coop/xd_test.sh dtd 1"
    assert recipe().command("xd_test", "shapes_a", 1, None, "shapes") == "bash scripts/coop/xd_test.sh shapes_a 1"
    assert "SOURCE=shapes " in recipe().command("xd_test", "dtd", 1, None, "shapes")


def test_the_config_of_other_seeds_is_taken():
    assert choose_config("CoOp", "dtd", [("dtd", "mine"), ("eurosat", "other")]) == "mine"


def test_the_config_of_other_data_sets_is_taken_unless_the_script_takes_it_itself(tmp_path, monkeypatch):
    folder = tmp_path / "scripts" / "coop"
    folder.mkdir(parents=True)
    (folder / "method.sh").write_text("# a comment\nMETHOD=(CoOp small_ep20 large_ep200)\nif true; then :; fi\n")
    monkeypatch.setattr(result_gaps, "ROOT", tmp_path)
    assert choose_config("CoOp", "dtd", [("eurosat", "mine"), ("shapes", "small_ep20")]) == "mine"
    assert choose_config("CoOp", "imagenet", [("eurosat", "large_ep200")]) is None  # the script knows ImageNet's own
    assert choose_config("CoOp", "shapes", [("shapes_a", "small_ep20")]) is None
    assert choose_config("CoOp", "shapes", [("eurosat", "large_ep200")]) is None  # nothing seen on such data
    assert choose_config("CoOp", "dtd", [("eurosat", "a"), ("ucf101", "b")]) is None
    assert choose_config("MaPLe", "dtd", [("eurosat", "mine")]) == "mine"  # no scripts to ask


def test_scripts_that_exist_are_named():
    for trainer in ("ZeroshotCLIP", "CoOp", "Spotlighter"):
        assert (ROOT / "scripts" / script_folder(trainer) / "base2new_train.sh").is_file()


def test_the_scripts_own_configs_are_read_from_their_method_sh():
    assert choose_config("Spotlighter", "dtd", [("eurosat", "vit_b16_ep15_paper")]) is None
    assert choose_config("CoOp", "dtd", [("eurosat", "vit_b16_ep200_ctxv1")]) is None
    assert choose_config("CoOp", "dtd", [("eurosat", "vit_b16_ep50")]) == "vit_b16_ep50"


def test_a_gap_in_words():
    gap = Gap("CoOp", "dtd", 4, 2, "no run", ("bash x",))
    assert str(gap) == "CoOp, dtd, 4 shots, seed 2: no run"
    assert str(Gap("ZeroshotCLIP", "dtd", None, 1, "no run", ())) == "ZeroshotCLIP, dtd, seed 1: no run"
