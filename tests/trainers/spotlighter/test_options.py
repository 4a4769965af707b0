"""Every key of TRAINER.SPOTLIGHTER changes the result, and every mistake ends with one sentence."""

import pytest
import torch

import train
from clip.backbone import Backbone
from clip.model import CLIP, CLIPSpec
from dassl.engine import TRAINER_REGISTRY
from tests.trainers.spotlighter.runs import BASE, NEW, NODE, RELEASE, flags_to_test, sentence
from trainers.base import MethodTrainer
from trainers.coop import CoOpMethod
from trainers.spotlighter.head import HeadOptions, SpotlighterHead
from trainers.spotlighter.method import SpotlighterMethod

CHANGES = {
    "TOP_K": 3,
    "LEVEL1_SHARE": 0.2,
    "N_PROTOTYPES": 2,
    "SAMPLE_SCORE": "attention",
    "SEMANTIC": False,
    "RECALCULATE": False,
    "BANK_UPDATE": "sum",
    "BANK_INIT": "random",
    "MOMENTUM": 0.1,
    "IRM": "linear",
    "TRM": "transformer",
    "ALPHA": 0.7,
    "GATE": "fixed",
    "RHO": 0.3,
    "LEVELS": "level1",
    "LOSSES": "['kl']",
    "KL_OVER": "features",
    "LOCAL_SCALED": True,
    "LAMBDA1": 1.0,
    "LAMBDA2": 0.5,
    "LAMBDA3": 2.0,
    "PRUNE": "[[1, 0.5]]",
    "PRUNE_BY": "attention",
    "PRUNE_TRAIN": True,
    "PREC": "bf16",
    "HOST": "ZeroshotCLIP",
    "PRESET": "release",
}
RELEASE_CHANGES = {
    "N_PROTOTYPES": 3,
    "BALANCE": 2.0,
    "DISTILL": 7.0,
    "MIX_TRAIN": 0.5,
    "MIX_TEST": 0.5,
}


def trained_logits(make, images, *opts):
    trainer = make(*BASE, "TRAINER.SPOTLIGHTER.LAMBDA2", "1.0", *opts) if "release" not in opts else make(*BASE, *opts)
    trainer.train()
    trainer.set_model_mode("eval")
    return trainer.model_inference(images)


@pytest.mark.parametrize("key", CHANGES)
def test_every_key_of_the_paper_preset_changes_the_result(make, images, key, tmp_path):
    pruned = (NODE + "PRUNE", "[[1, 0.5]]") if key in ("PRUNE_BY", "PRUNE_TRAIN") else ()
    before = trained_logits(make, images, *pruned)
    reset = RELEASE[2:] if key == "PRESET" else ()
    after = trained_logits(lambda *o: make(*o, output="b"), images, *pruned, NODE + key, str(CHANGES[key]), *reset)
    assert not torch.equal(before, after)


@pytest.mark.parametrize("key", [*RELEASE_CHANGES, "ALPHA", "MOMENTUM"])
def test_every_key_of_the_release_preset_changes_the_result(make, images, key):
    name = f"{NODE}RELEASE.{key}" if key in RELEASE_CHANGES else NODE + key
    before = trained_logits(make, images, *RELEASE)
    change = (name, str({**CHANGES, **RELEASE_CHANGES}[key]))
    assert not torch.equal(before, trained_logits(lambda *o: make(*o, output="b"), images, *RELEASE, *change))


def test_the_keys_tested_here_are_all_keys(make):
    from dassl.config import get_cfg_default

    cfg = get_cfg_default()
    train.extend_cfg(cfg)
    assert set(cfg.TRAINER.SPOTLIGHTER) == {*CHANGES, "RELEASE", "TEXT_CHUNK"}  # the last changes memory only
    assert set(cfg.TRAINER.SPOTLIGHTER.RELEASE) == set(RELEASE_CHANGES)


def test_an_empty_bank_is_not_tested(make):
    trainer = make(*BASE)
    with pytest.raises(RuntimeError, match="memory bank is empty: train first, or name a trained run"):
        trainer.test()


def test_options_that_changed_since_training_are_told(run, tmp_path):
    assert run(*BASE)[0] == 0
    _, out, _ = run(*NEW, output="same", flags=flags_to_test(tmp_path))
    assert "other options" not in out
    code, out, _ = run(*NEW, NODE + "TOP_K", "3", output="new", flags=flags_to_test(tmp_path))
    assert code == 0
    assert "was trained with other options of Spotlighter: TOP_K was 5, is 3" in out


def test_a_failed_load_keeps_the_bank(make, tmp_path):
    make(*BASE).train()
    trainer = make(*NEW, NODE + "N_PROTOTYPES", "3", output="other")
    trainer.train()
    bank = trainer.method.head.memory.prototypes.clone()
    with pytest.raises(RuntimeError, match="does not fit"):
        trainer.load_model(str(tmp_path / "run"), epoch=2)
    assert torch.equal(trainer.method.head.memory.prototypes, bank)
    assert trainer.method.head.memory.filled


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((NODE + "PRESET", "papr"), "PRESET must be one of paper, release, got 'papr'"),
        ((NODE + "HOST", "Coop"), "HOST must be one of C"),
        ((NODE + "HOST", "Spotlighter"), "HOST must be one of C"),
        ((NODE + "BANK_INIT", "zeros"), "BANK_INIT must be kmeans or random, got 'zeros'"),
        ((NODE + "BANK_UPDATE", "max"), "BANK_UPDATE must be one of mean, sum, got 'max'"),
        ((NODE + "IRM", "mlp"), "IRM must be one of transformer, linear, none, got 'mlp'"),
        ((NODE + "LOSSES", "['cls']"), "LOSSES may hold ce_level1, ce_level2, text, kl, local, got 'cls'"),
        ((NODE + "TOP_K", "0"), "TOP_K must be at least 1, got 0"),
        ((NODE + "TOP_K", "16"), "TOP_K must be less than the 16 patches that can be activated, got 16"),
        ((NODE + "PRUNE", "[[1, 0.3]]"), "TOP_K must be less than the 5 patches that can be activated, got 5"),
        ((NODE + "PRUNE", "[[2, 0.5]]"), "2"),
        ((NODE + "PRUNE", "[[1, 1.5]]"), "1.5"),
        (
            (NODE + "PRUNE", "[[1.5, 0.5]]"),
            "PRUNE: Pruning takes pairs of a block and a share, for instance [[4, 0.7]], got [[1.5, 0.5]]",
        ),
        ((NODE + "PRUNE_BY", "random"), "PRUNE_BY must be one of distinct, attention, merge, got 'random'"),
        ((NODE + "PRUNE_TRAIN", "True"), "PRUNE_TRAIN is set, but PRUNE is empty"),
        ((NODE + "RHO", "1.5"), "RHO must be in [0, 1], got 1.5"),
        (("TRAINER.COOP.PREC", "bf16"), "set TRAINER.SPOTLIGHTER.PREC instead"),
        ((NODE + "MOMENTUM", "1.5"), "MOMENTUM must be in [0, 1], got 1.5"),
        ((NODE + "LEVEL1_SHARE", "2.0"), "LEVEL1_SHARE must be in [0, 1], got 2.0"),
        ((NODE + "LEVELS", "level2", NODE + "TOP_K", "1"), "LEVELS is level2, which is empty with TOP_K 1"),
        ((NODE + "N_PROTOTYPES", "0"), "N_PROTOTYPES must be at least 1, got 0"),
        ((NODE + "N_PROTOTYPES", "1000"), "of class 'red square' give only 90 tokens"),
        (
            (NODE + "PRUNE", "[0.5]"),
            "PRUNE: Pruning takes pairs of a block and a share, for instance [[4, 0.7]], got [0.5]",
        ),
        ((NODE + "PRUNE", "[[1, 0.5], [1, 0.7]]"), "SPOTLIGHTER.PRUNE: Pruning names a block twice"),
        ((NODE + "RELEASE.DISTILL", "3.0"), "RELEASE.DISTILL is set, but the preset paper does not read it"),
        ((*RELEASE, NODE + "TOP_K", "7"), "TOP_K is set, but the preset release does not read it"),
        ((NODE + "PREC", "fp8"), "fp8"),
    ],
)
def test_bad_options_are_named(run, options, message):
    assert message in sentence(run(*options))


def test_training_on_with_the_bank_of_other_classes(run, tmp_path):
    assert run(*BASE)[0] == 0
    path = tmp_path / "run" / "prompt_learner" / "model.pth.tar-2"
    line = sentence(run(*NEW, "MODEL.INIT_WEIGHTS", str(path), output="on"))
    assert "trained on other classes: 2 only in the bank (such as 'red square')" in line
    assert "2 only in this data set (such as 'blue square')" in line


def test_a_bank_of_another_size(run, tmp_path):
    assert run(*BASE)[0] == 0
    line = sentence(run(*NEW, NODE + "N_PROTOTYPES", "3", output="new", flags=flags_to_test(tmp_path)))
    assert "head.memory.prototypes is [2, 5, 64] in the file and [2, 3, 64] here" in line


def test_a_bank_of_another_backbone(run, tmp_path):
    torch.manual_seed(9)
    torch.save(CLIP(CLIPSpec(32, 32, 2, 64, 8, 77, 49408, 64, 1, 2)).state_dict(), tmp_path / "other.pt")
    assert run(*BASE)[0] == 0
    backbone = ("MODEL.BACKBONE.NAME", str(tmp_path / "other.pt"))
    assert "another backbone" in sentence(run(*NEW, *backbone, output="new", flags=flags_to_test(tmp_path)))


def test_a_backbone_without_tokens(backbone, space):
    resnet = CLIP(CLIPSpec(32, 32, (1, 1, 1, 1), 8, None, 77, 49408, 64, 1, 2)).requires_grad_(False)
    host = CoOpMethod(Backbone(resnet), space, 2)
    with pytest.raises(ValueError, match="choose a ViT"):
        SpotlighterMethod(host, SpotlighterHead(HeadOptions(), 4, 64, 32))


def test_every_own_trainer_but_spotlighter_can_be_a_host():
    from trainers.spotlighter.trainer import Spotlighter

    own = [name for name in TRAINER_REGISTRY.registered_names() if name not in ("Spotlighter", "TextRefiner")]
    own = [name for name in own if issubclass(TRAINER_REGISTRY.get(name), MethodTrainer)]
    assert {"CoOp", "ZeroshotCLIP"} <= set(own)
    assert all(Spotlighter.host_trainer(name) is TRAINER_REGISTRY.get(name) for name in own)
