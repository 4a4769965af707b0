"""What goes wrong between the disk and the model: images that vanish, loading processes that die, features of NaN."""

import json
import multiprocessing
import os
import re
import shutil
import signal

import pytest
import torch

from dassl.evaluation import build_evaluator
from tests.faults.conftest import until


def test_an_image_that_vanishes_ends_the_run_and_once_it_is_back_nothing_is_lost(
    make, outcome, same, pictures, tmp_path
):
    shutil.copytree(pictures, tmp_path / "data")
    settings = {"DATASET__ROOT": str(tmp_path / "data"), "TRAIN__CHECKPOINT_SECONDS": 1e-9}
    whole = make("whole", **settings)
    whole.train()
    expected = outcome(whole, "whole")
    trainer = make(**settings)
    image = tmp_path / "data" / "x_1_2.png"
    content = image.read_bytes()
    trainer.interrupt = lambda step: image.unlink() if step == 4 else None  # in the middle of the second epoch
    with pytest.raises(FileNotFoundError) as vanished:
        trainer.train()
    assert str(vanished.value) == f"No image at {image}; was it moved since the run began?"
    assert 5 <= trainer.steps < 9
    image.write_bytes(content)
    again = make(**settings)
    again.train()
    assert again.steps == 12 - trainer.steps
    same(outcome(again), expected)


def test_a_loading_process_that_is_killed_ends_the_run_with_a_sentence_and_nothing_is_lost(
    child, make, outcome, same, tmp_path
):
    settings = {"TRAIN__CHECKPOINT_SECONDS": 1e-9}
    whole = make("whole", **settings)
    whole.train()
    expected = outcome(whole, "whole")

    def train():
        trainer = make(DATALOADER__NUM_WORKERS=2, **settings)

        def kill(step):
            if step == 4:
                for worker in multiprocessing.active_children():
                    os.kill(worker.pid, signal.SIGKILL)
                    until(lambda worker=worker: not worker.is_alive())

        trainer.interrupt = kill
        try:
            trainer.train()
        except RuntimeError as error:
            print(f"Said: {error}")

    process = child(train)
    assert process.wait() == 0, process.text()
    (said,) = re.findall("Said: (.*)", process.text())
    assert re.fullmatch(
        r"A process that loads images died \(DataLoader worker .*\), perhaps for want of memory; give the same command "
        r"again, with a smaller DATALOADER\.NUM_WORKERS if it happens again\.",
        said,
    )
    again = make(**settings)
    again.train()
    assert again.steps <= 8
    same(outcome(again), expected)


# --- NaN


def spoil(trainer, monkeypatch, part):
    """Let frozen CLIP give a NaN for the third image of each batch."""
    tower = type(trainer.backbone.vision)
    call = tower.__call__

    def spoiled(self, images, *args, **kwargs):
        out = call(self, images, *args, **kwargs)
        if part == "test" or trainer.method.training:
            out.pooled[2, 0] = float("nan")
        return out

    monkeypatch.setattr(tower, "__call__", spoiled)


@pytest.mark.parametrize("name", ["CoOp", "Spotlighter", "TextRefiner"])
def test_features_of_nan_end_training_before_anything_is_saved(trainer_of, monkeypatch, tmp_path, name):
    trainer = trainer_of(trainer=name)
    spoil(trainer, monkeypatch, "train")
    before = {key: value.clone() for key, value in trainer.method.state_dict().items()}
    with pytest.raises(FloatingPointError) as stopped:
        trainer.train()
    assert re.match(
        r"Loss is infinite or NaN in epoch 1, batch 1 of 6 \(loss nan.*\); try a lower OPTIM\.LR, or PREC fp32 or ",
        str(stopped.value),
    )
    assert not list((tmp_path / "run").rglob("*.pth.tar*"))
    assert not json.loads((tmp_path / "run" / "metrics.json").read_text())["finished"]
    parameters = dict(trainer.method.named_parameters())
    assert all(torch.equal(value, before[key]) for key, value in parameters.items())


def test_features_of_nan_give_no_result(run_trainer, trainer_of, monkeypatch, tmp_path):
    spoil(trainer_of(trainer="ZeroshotCLIP"), monkeypatch, "test")
    code, out, err = run_trainer("DATALOADER.TEST.BATCH_SIZE", "8", trainer="ZeroshotCLIP", flags=("--eval-only",))
    assert code == 1
    assert err == (
        "Error: The model's outputs for 2 of 16 images are NaN, so there is no result; try PREC fp32 or bf16 instead "
        "of fp16 or amp, and another checkpoint.\n"
    )
    assert "=> result" not in out
    assert not json.loads((tmp_path / "run" / "metrics.json").read_text())["finished"]


def test_infinite_outputs_are_ranks_like_others(toys, tmp_path):
    evaluator = build_evaluator(toys.toy_cfg(tmp_path, tmp_path))
    logits = torch.tensor([[float("inf"), 0.0], [float("-inf"), -5.0]])
    evaluator.process(logits, torch.tensor([0, 1]))
    assert evaluator.evaluate()["accuracy"] == 100.0
