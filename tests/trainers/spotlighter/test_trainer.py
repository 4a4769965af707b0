"""Spotlighter on the engine: whole runs on toy data, and the bank's way through files."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from tests.trainers.spotlighter.runs import BASE, NEW, NODE, RELEASE, flags_to_test
from trainers.coop import CoOpMethod
from trainers.spotlighter.head import HeadOptions, SpotlighterHead
from trainers.spotlighter.method import SpotlighterMethod

BANK = {"paper": "head.memory.prototypes", "release": "head.prototypes"}


def saved(tmp_path):
    return torch.load(tmp_path / "run" / "prompt_learner" / "model.pth.tar-2", weights_only=True)["state_dict"]


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


def test_a_damaged_image_stops_the_banks_first_pass_or_is_replaced_and_named_once(run, make, tmp_path):
    make(*BASE)  # writes the pictures
    damaged = tmp_path / "data" / "toy" / "train_1_2.png"
    damaged.write_bytes(b"")
    code, _, err = run(*BASE)
    assert code == 1
    assert f"Cannot read the image {damaged} (empty file (0 bytes))" in err
    code, out, err = run(*BASE, "INPUT.ON_ERROR", "replace")
    assert code == 0, err
    assert out.count(str(damaged)) == 2  # when it is met first, in filling the bank, and in the closing line
    assert "; restore or remove " in out


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
