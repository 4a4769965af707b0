"""Whole runs: which images are learned from, over which classes, what is tested, and what every key does."""

from __future__ import annotations

import os
import random
import signal

import pytest
import torch

from clip.backbone import LabelSpace
from dassl.data.datasets import Datum
from datasets.base import SplitDataset

NAMES = tuple(f"square_{i}" for i in range(4))


@pytest.fixture
def distil(make, taught):
    def build(*opts, **kwargs):
        return make("TRAINER.PROMPTKD.TEACHER_DIR", taught, *opts, **kwargs)

    return build


def state_of(trainer):
    return {name: tensor.clone() for name, tensor in trainer.method.state_dict().items()}


def trained(trainer):
    trainer.train()
    return state_of(trainer)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_train_on_all_classes_test_on_base_then_on_new(distil, make, record_of, pictures, taught):
    trainer = distil()
    assert (trainer.method.space.names, trainer.test_space.names) == (NAMES, NAMES[:2])
    seen = []
    losses = trainer.method.losses
    trainer.method.losses = lambda images, label: seen.append((images, label)) or losses(images, label)
    trainer.train()
    assert len(seen) == 2 * 6  # 24 images in batches of 4, two epochs
    assert torch.cat([label for _, label in seen]).unique().tolist() == [-1]
    record = record_of()
    assert record["data"]["train_u"] == 24
    assert record["data"]["unlabelled_from"] == "train"
    assert record["class_names"] == list(NAMES[:2])
    assert list(record["epochs"][0]["train"]) == ["loss", "agreement"]
    assert "chosen_on" not in record["final"]
    before = state_of(trainer)
    new = distil(output="new", classes="new")
    new.evaluate(str(pictures / "student"), epoch=2)
    assert same(before, state_of(new))  # batch norm stands still in a test
    assert record_of("new")["class_names"] == list(NAMES[2:])
    with torch.no_grad():
        images = torch.randn(3, 3, 32, 32)
        whole = new.method(images)  # over all classes
        torch.testing.assert_close(new.model_inference(images), whole[:, 2:], atol=1e-5, rtol=0)


def test_other_labels_change_nothing(distil, monkeypatch):
    expected = trained(distil())
    datums = SplitDataset._datums

    def shuffled(images, items):
        """The training list with its labels dealt out anew."""
        labels = [item.label for item in items]
        random.Random(3).shuffle(labels)
        names = {item.label: item.name for item in items}
        made = datums(images, items)
        return [Datum.listed(d.impath, label, classname=names[label]) for d, label in zip(made, labels, strict=True)]

    monkeypatch.setattr(SplitDataset, "_datums", staticmethod(shuffled))
    assert same(expected, trained(distil(output="again")))


def test_an_interrupted_run_ends_alike(distil, record_of):
    expected = trained(distil())
    trainer, steps = distil(output="again"), []
    forward = trainer.forward_backward

    def stop(batch):
        steps.append(1)
        if len(steps) == 9:
            os.kill(os.getpid(), signal.SIGTERM)
        return forward(batch)

    trainer.forward_backward = stop
    with pytest.raises(SystemExit):
        trainer.train()
    assert not record_of("again")["finished"]
    assert same(expected, trained(distil(output="again")))


@pytest.mark.parametrize(
    "change",
    [
        ("DATASET.NUM_UNLABELLED", 2),
        ("TRAINER.PROMPTKD.N_CTX_VISION", 2),
        ("TRAINER.PROMPTKD.PROMPT_DEPTH_VISION", 1),
        ("TRAINER.PROMPTKD.INJECT", "post_ln"),
        ("TRAINER.PROMPTKD.TARGET", "labels", "DATASET.NUM_UNLABELLED", 0),
        ("TRAINER.PROMPTKD.KD_WEIGHT", 10.0),
        ("TRAINER.PROMPTKD.TEMPERATURE", 2.0),
        ("TRAINER.PROMPTKD.KL_MEAN", "batch"),
        ("TRAINER.PROMPTKD.PREC", "bf16"),
    ],
    ids=lambda change: f"{change[0].split('.')[-1]}={change[1]}",
)
def test_every_key_changes_something(distil, change):
    short = ("OPTIM.MAX_EPOCH", 1, "OPTIM.LR_SCHEDULER", "single_step")
    assert not same(trained(distil(*short)), trained(distil(*short, *change, output="other")))


def test_learning_from_labels_is_over_the_labelled_classes(distil, record_of):
    trainer = distil("TRAINER.PROMPTKD.TARGET", "labels", "DATASET.NUM_UNLABELLED", 0)
    assert trainer.method.space == LabelSpace(NAMES[:2], "ImageFolder", trainer.method.space.template)
    trainer.train()
    assert list(record_of()["epochs"][0]["train"]) == ["loss", "acc"]


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (
            ("DATASET.NUM_UNLABELLED", 0),
            r"PromptKD learns from a teacher on unlabelled images here, but DATASET.NUM_UNLABELLED is 0; set it to -1",
        ),
        (
            ("TRAINER.PROMPTKD.TARGET", "labels"),
            r"PromptKD learns from labels here, but DATASET.NUM_UNLABELLED is -1; set it to 0\.",
        ),
        (
            ("DATALOADER.TRAIN_X.BATCH_SIZE", 1),
            r"TRAIN_X.BATCH_SIZE must be 2 or more: PromptKD normalises over the batch",
        ),
    ],
)
def test_what_does_not_go_together(distil, opts, message):
    with pytest.raises(ValueError, match=message):
        distil(*opts)


def test_methods_that_learn_from_labels_refuse_unlabelled_images(make):
    with pytest.raises(
        ValueError, match=r"CoOp learns from labels here, but DATASET.NUM_UNLABELLED is -1; set it to 0"
    ):
        make("DATASET.NUM_UNLABELLED", "-1", trainer="CoOp")


def test_spotlighter_on_it_fills_its_bank_from_the_unlabelled_images(make, pictures, large_weights, record_of):
    """Its classes are the teacher's choice, over all of them."""
    opts = ("OPTIM.MAX_EPOCH", 8, "OPTIM.LR", 0.5)
    make(*opts, trainer="IVLP", output="all", backbone=large_weights, classes="all").train()
    bank = (
        "TRAINER.SPOTLIGHTER.HOST",
        "PromptKD",
        "TRAINER.SPOTLIGHTER.N_PROTOTYPES",
        2,
        "TRAINER.SPOTLIGHTER.TOP_K",
        4,
    )
    trainer = make(
        *(*bank, "TRAINER.PROMPTKD.TEACHER_DIR", pictures / "all", "DATASET.NUM_UNLABELLED", -1),
        trainer="Spotlighter",
    )
    trainer.train()
    assert trainer.method.head.memory.prototypes.shape == (4, 2, 64)
    assert record_of()["finished"]
    assert "agreement" in record_of()["epochs"][0]["train"]
