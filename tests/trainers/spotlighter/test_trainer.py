"""Spotlighter on the engine: whole runs on toy data, the bank's way through files, keys, and mistakes."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
import torch

import train
from clip.backbone import Backbone
from clip.model import CLIP, CLIPSpec
from dassl.engine import TRAINER_REGISTRY
from trainers.base import MethodTrainer
from trainers.coop import CoOpMethod
from trainers.method import Method
from trainers.spotlighter.head import HeadOptions, SpotlighterHead
from trainers.spotlighter.method import SpotlighterMethod

NODE = "TRAINER.SPOTLIGHTER."
SMALL = ("TRAINER.COOP.N_CTX", "2")
BASE, NEW = ("DATASET.SUBSAMPLE_CLASSES", "base"), ("DATASET.SUBSAMPLE_CLASSES", "new")
RELEASE = (NODE + "PRESET", "release", NODE + "RELEASE.DISTILL", "1.0")
BANK = {"paper": "head.memory.prototypes", "release": "head.prototypes"}


@pytest.fixture
def run(command, capsys):
    """Run train.py on toy data with Spotlighter; gives exit status, stdout and stderr."""

    def go(*opts, output="run", flags=()):
        stdout = sys.stdout
        try:
            code = train.run(command(*SMALL, *opts, trainer="Spotlighter", output=output, flags=flags))
        finally:
            sys.stdout = stdout
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return go


@pytest.fixture
def make(trainer_of):
    """A trainer that has not run."""
    return lambda *opts, **kwargs: trainer_of(*SMALL, *opts, trainer="Spotlighter", **kwargs)


def flags_to_test(tmp_path):
    return ("--eval-only", "--model-dir", str(tmp_path / "run"), "--load-epoch", "2")


def saved(tmp_path):
    return torch.load(tmp_path / "run" / "prompt_learner" / "model.pth.tar-2", weights_only=True)["state_dict"]


def sentence(result):
    code, _, err = result
    assert code == 1, err
    (line,) = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert "Traceback" not in err
    return line


# --- whole runs


@pytest.mark.parametrize("preset", ["paper", "release"])
def test_train_on_base_then_test_on_new_with_the_trained_bank(run, make, images, tmp_path, preset):
    options = RELEASE if preset == "release" else ()
    code, _, err = run(*BASE, *options)
    assert code == 0, err
    state = saved(tmp_path)
    bank = state[BANK[preset]]
    assert bank.shape == ((2, 5, 64) if preset == "paper" else (25, 32))
    code, _, err = run(*NEW, *options, output="new", flags=flags_to_test(tmp_path))
    assert code == 0, err
    record = json.loads((tmp_path / "new" / "metrics.json").read_text())
    assert record["finished"]
    assert record["class_names"] == ["blue square", "yellow square (large)"]

    trainer = make(*NEW, *options, output="other")
    trainer.load_model(str(tmp_path / "run"), epoch=2)
    own = trainer.method.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in state.items())  # the bank among them
    trainer.set_model_mode("eval")
    logits = trainer.model_inference(images)
    own[BANK[preset]].copy_(torch.randn(bank.shape) * bank.std())
    assert (trainer.model_inference(images) - logits).abs().max() > 1e-4


def test_the_bank_moves_in_training_and_not_in_tests(make, images):
    trainer = make(*BASE)
    filled = trainer.method.head.memory
    assert not filled.filled
    trainer.train()
    bank = filled.prototypes.clone()
    trainer.set_model_mode("eval")
    trainer.model_inference(images)
    assert torch.equal(filled.prototypes, bank)
    trainer.set_model_mode("train")
    trainer.forward_backward({"img": images, "label": torch.tensor([0, 1, 0, 1, 0]), "domain": torch.zeros(5)})
    assert not torch.equal(filled.prototypes, bank)


@pytest.mark.parametrize("options", [(), RELEASE, (NODE + "BANK_INIT", "random")], ids=["paper", "release", "random"])
def test_same_seed_same_model_other_seed_other_model(make, options):
    def state(output, seed):
        trainer = make(*BASE, *options, "SEED", seed, output=output)
        trainer.train()
        return trainer.method.state_dict()

    first, again, other = state("a", "1"), state("b", "1"), state("c", "2")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("options", [(), RELEASE], ids=["paper", "release"])
@pytest.mark.parametrize("step", [0, 2])
def test_an_interrupted_run_goes_on_bit_for_bit(make, options, step, monkeypatch):
    whole = make(*BASE, *options, output="whole")
    whole.train()
    broken = make(*BASE, *options, output="broken")
    finish, steps = broken.finish_step, iter(range(100))

    def stop(losses):
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        finish(losses)

    monkeypatch.setattr(broken, "finish_step", stop)
    with pytest.raises(SystemExit):
        broken.train()
    again = make(*BASE, *options, output="broken")
    again.train()
    expected = whole.method.state_dict()
    assert all(torch.equal(expected[name], tensor) for name, tensor in again.method.state_dict().items())


@pytest.mark.parametrize("options", [(), RELEASE], ids=["paper", "release"])
@pytest.mark.parametrize("prec", ["amp", "bf16"])
def test_every_precision_trains_fp32_tensors(make, options, prec):
    trainer = make(*BASE, *options, NODE + "PREC", prec)
    trainer.train()
    floats = [tensor for tensor in trainer.method.state_dict().values() if tensor.is_floating_point()]
    assert all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in floats)


@pytest.mark.parametrize("host", ["CoOp", "ZeroshotCLIP", "ZeroshotCLIP2"])
def test_an_untrained_head_has_the_hosts_logits(make, images, host):
    """With a filled bank, a fixed gate of 0 and zero-started layers, nothing is added."""
    trainer = make(*BASE, NODE + "HOST", host, NODE + "GATE", "fixed", NODE + "RHO", "0.0")
    trainer.before_train()
    trainer.set_model_mode("eval")
    expected = trainer.method.host(images)
    torch.testing.assert_close(trainer.model_inference(images), expected, atol=1e-4, rtol=0)


def test_a_host_without_gradient_leaves_the_local_loss_out_and_says_so(make, capsys):
    trainer = make(*BASE, NODE + "HOST", "ZeroshotCLIP")
    trainer.train()
    assert "local" in capsys.readouterr().out.split("Loss term")[1].splitlines()[0]
    assert "local" not in json.loads((Path(trainer.output_dir) / "metrics.json").read_text())["epochs"][0]["train"]


class Penalised(CoOpMethod):
    """A host with a loss of its own, a teacher, and another projection."""

    def penalties(self, images, vision, text):
        return {"norm": self.ctx.square().sum()}, {"norm": 3.0}

    def teacher(self, images):
        return torch.eye(len(self.space))[: len(images)] * 10

    def project(self, tokens):
        return super().project(tokens).flip(-1)


def test_a_hosts_penalties_teacher_and_projection_are_used(backbone, space, images):
    head = SpotlighterHead(HeadOptions(), len(space), 64, 32)
    head.memory.fill(torch.randn(4, 5, 64))
    host = Penalised(backbone, space, 2)
    method = SpotlighterMethod(host, head).train()
    out = method.losses(images[:4], torch.zeros(4, dtype=torch.long))
    assert out.terms["host_norm"].item() == pytest.approx(float(host.ctx.detach().double().square().sum()), rel=1e-5)
    assert out.weights["host_norm"] == 3.0
    target = (torch.eye(4) * 10).softmax(dim=1)
    student = out.logits.double().softmax(dim=1)
    kl = (target * (target.double().log() - student.log())).sum(dim=1).mean()
    assert out.terms["ce"].item() == pytest.approx(kl.item(), rel=1e-4)
    plain = SpotlighterMethod(CoOpMethod(backbone, space, 2), head)
    tokens = torch.randn(1, 64)
    torch.testing.assert_close(method._view(tokens), plain._view(tokens).flip(-1))


# --- keys


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
    pruned = (NODE + "PRUNE", "[[1, 0.5]]") if key == "PRUNE_TRAIN" else ()
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
    assert set(cfg.TRAINER.SPOTLIGHTER) == {*CHANGES, "RELEASE"}
    assert set(cfg.TRAINER.SPOTLIGHTER.RELEASE) == set(RELEASE_CHANGES)


# --- mistakes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((NODE + "PRESET", "papr"), "PRESET must be one of paper, release, got 'papr'"),
        ((NODE + "HOST", "Coop"), "HOST must be one of CoOp"),
        ((NODE + "HOST", "Spotlighter"), "HOST must be one of CoOp"),
        ((NODE + "BANK_INIT", "zeros"), "BANK_INIT must be kmeans or random, got 'zeros'"),
        ((NODE + "BANK_UPDATE", "max"), "BANK_UPDATE must be one of mean, sum, got 'max'"),
        ((NODE + "IRM", "mlp"), "IRM must be one of transformer, linear, none, got 'mlp'"),
        ((NODE + "LOSSES", "['cls']"), "LOSSES may hold ce_level1, ce_level2, text, kl, local, got 'cls'"),
        ((NODE + "TOP_K", "0"), "TOP_K must be at least 1, got 0"),
        ((NODE + "TOP_K", "16"), "TOP_K must be less than the 16 patches that can be activated, got 16"),
        ((NODE + "PRUNE", "[[1, 0.3]]"), "TOP_K must be less than the 5 patches that can be activated, got 5"),
        ((NODE + "PRUNE", "[[2, 0.5]]"), "2"),
        ((NODE + "PRUNE", "[[1, 1.5]]"), "1.5"),
        ((NODE + "PRUNE", "[[1.5, 0.5]]"), "PRUNE must be a list of [block, share], got [[1.5, 0.5]]"),
        ((NODE + "PRUNE_TRAIN", "True"), "PRUNE_TRAIN is set, but PRUNE is empty"),
        ((NODE + "RHO", "1.5"), "RHO must be in [0, 1], got 1.5"),
        (("TRAINER.COOP.PREC", "bf16"), "set TRAINER.SPOTLIGHTER.PREC instead"),
        ((NODE + "MOMENTUM", "1.5"), "MOMENTUM must be in [0, 1], got 1.5"),
        ((NODE + "LEVEL1_SHARE", "2.0"), "LEVEL1_SHARE must be in [0, 1], got 2.0"),
        ((NODE + "LEVELS", "level2", NODE + "TOP_K", "1"), "LEVELS is level2, which is empty with TOP_K 1"),
        ((NODE + "N_PROTOTYPES", "0"), "N_PROTOTYPES must be at least 1, got 0"),
        ((NODE + "N_PROTOTYPES", "1000"), "of class 'red square' give only 90 tokens"),
        ((NODE + "PRUNE", "[0.5]"), "PRUNE must be a list of [block, share], got [0.5]"),
        ((NODE + "PRUNE", "[[1, 0.5], [1, 0.7]]"), "PRUNE names a block twice"),
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


def test_a_host_whose_text_depends_on_the_image(backbone, space):
    class PerImage(Method):
        text_depends_on_image = True

    with pytest.raises(ValueError, match="depends on the classes only"):
        SpotlighterMethod(PerImage(backbone, space), SpotlighterHead(HeadOptions(), 4, 64, 32))


def test_every_own_trainer_but_spotlighter_can_be_a_host():
    from trainers.spotlighter.trainer import host_trainer

    own = [name for name in TRAINER_REGISTRY.registered_names() if name != "Spotlighter"]
    own = [name for name in own if issubclass(TRAINER_REGISTRY.get(name), MethodTrainer)]
    assert {"CoOp", "ZeroshotCLIP"} <= set(own)
    assert all(host_trainer(name) is TRAINER_REGISTRY.get(name) for name in own)
