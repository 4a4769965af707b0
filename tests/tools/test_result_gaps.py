"""tools/result_gaps.py: the commands that make a missing run, and sentences where there are none."""

from dataclasses import replace
from pathlib import Path

import pytest

from tools.protocols import ROOT, ProtocolError
from tools.result_gaps import DEFAULT_HOST, Gap, command, make_gap
from tools.run_layout import Place

OUTPUT = ROOT / "output"
DTD = Place(2, "base2new_train", None, "dtd", "CoOp", None, 16)


@pytest.mark.parametrize(
    ("method", "changes", "expected"),
    [
        ("CoOp", {}, "bash scripts/coop/base2new_train.sh dtd 2"),
        ("CoOp", {"protocol": "base2new_test"}, "bash scripts/coop/base2new_test.sh dtd 2"),
        ("CoOp", {"config": "vit_b16_ep200_ctxv1"}, "bash scripts/coop/base2new_train.sh dtd 2"),  # its own
        ("CoOp", {"config": "rn50"}, "CFG=rn50 bash scripts/coop/base2new_train.sh dtd 2"),
        ("CoOp", {"shots": 4}, "SHOTS=4 bash scripts/coop/base2new_train.sh dtd 2"),
        ("CoOp", {"protocol": "fewshot", "shots": 4}, "bash scripts/coop/fewshot.sh dtd 4 2"),
        ("CoOp", {"protocol": "fewshot", "shots": -1}, "bash scripts/coop/fewshot.sh dtd -1 2"),
        ("ZeroshotCLIP", {"trainer": "ZeroshotCLIP"}, "bash scripts/zsclip/base2new_train.sh dtd 2"),
        (
            "ZeroshotCLIP2",
            {"trainer": "ZeroshotCLIP2"},
            "TRAINER=ZeroshotCLIP2 bash scripts/zsclip/base2new_train.sh dtd 2",
        ),
        (
            "ZeroshotCLIP",
            {"trainer": "ZeroshotCLIP", "protocol": "zeroshot", "shots": None},
            "bash scripts/zsclip/zeroshot.sh dtd",
        ),
        ("CoOp w/ Spotlighter", {"trainer": "Spotlighter"}, "bash scripts/spotlighter/base2new_train.sh dtd 2"),
        (
            "MaPLe w/ Spotlighter",
            {"trainer": "Spotlighter"},
            "HOST=MaPLe bash scripts/spotlighter/base2new_train.sh dtd 2",
        ),
        (
            "VPT w/ Spotlighter",
            {"trainer": "Spotlighter"},
            "bash scripts/spotlighter/base2new_train.sh dtd 2 TRAINER.SPOTLIGHTER.HOST VPT",
        ),
    ],
)
def test_commands(method, changes, expected):
    assert command(method, replace(DTD, **changes), OUTPUT) == expected


@pytest.mark.parametrize(
    ("source", "dataset", "train", "test"),
    [
        ("imagenet", "dtd", "bash scripts/coop/xd_train.sh 2", "bash scripts/coop/xd_test.sh dtd 2"),
        (
            "shapes",
            "shapes_a",
            "SOURCE=shapes bash scripts/coop/xd_train.sh 2",
            "bash scripts/coop/xd_test.sh shapes_a 2",
        ),
        (
            "shapes",
            "dtd",
            "SOURCE=shapes bash scripts/coop/xd_train.sh 2",
            "SOURCE=shapes bash scripts/coop/xd_test.sh dtd 2",
        ),
        (
            "caltech101",
            "dtd",
            "SOURCE=caltech101 bash scripts/coop/xd_train.sh 2",
            "SOURCE=caltech101 bash scripts/coop/xd_test.sh dtd 2",
        ),
    ],
)
def test_sources(source, dataset, train, test):
    place = Place(2, "xd_test", source, dataset, "CoOp", None, 16)
    assert command("CoOp", place, OUTPUT) == test
    assert command("CoOp", place.model, OUTPUT) == train


@pytest.mark.parametrize(
    ("output", "expected"),
    [(ROOT / "other", "OUTPUT=other "), (Path("/a b"), "OUTPUT='/a b' "), (ROOT / "output" / ".", "")],
)
def test_output(output, expected):
    assert command("CoOp", DTD, output) == f"{expected}bash scripts/coop/base2new_train.sh dtd 2"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainer": "KgCoOp"}, "no scripts run the trainer KgCoOp, only CLIPFit CoCoOp CoOp "),
        ({"config": "mine"}, "no config configs/trainers/CoOp/mine.yaml; CFG can be: mini_vit8_ep20 "),
        ({"dataset": "birds"}, "unknown data set 'birds'; there are: "),
        ({"trainer": "ZeroshotCLIP", "protocol": "fewshot"}, "scripts/zsclip/method.yaml names no config for fewshot"),
    ],
)
def test_a_run_that_no_script_makes_has_a_sentence(changes, message):
    place = replace(DTD, **changes)
    with pytest.raises(ProtocolError) as refused:
        command("CoOp", place, OUTPUT)
    assert str(refused.value).startswith(message)
    gap = make_gap("CoOp", "CoOp (a)", [DTD, place], OUTPUT, "no run")
    assert (gap.commands, gap.obstacle) == ((), str(refused.value))
    assert str(gap).startswith(f"CoOp (a), {place.dataset}, 16 shots, seed 2: no run; {message}")


def test_the_host_of_a_config_that_names_none_is_the_trainers_default():
    from yacs.config import CfgNode

    from trainers.spotlighter.trainer import Spotlighter

    cfg = CfgNode({"TRAINER": CfgNode()})
    Spotlighter.extend_cfg(cfg)
    assert cfg.TRAINER.SPOTLIGHTER.HOST == DEFAULT_HOST


def test_a_gap_in_words():
    gap = Gap("CoOp", "dtd", 4, 2, "no run", ("bash x",))
    assert str(gap) == "CoOp, dtd, 4 shots, seed 2: no run"
    assert str(Gap("ZeroshotCLIP", "dtd", None, 1, "no run", ())) == "ZeroshotCLIP, dtd, seed 1: no run"
