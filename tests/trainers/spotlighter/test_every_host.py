"""Spotlighter on every other method."""

import pytest
import torch

from dassl.engine import TRAINER_REGISTRY
from tests.trainers.every import (
    NO_GRADIENT,
    OPTIONS,
    WITH_TEXT,
    copied,
    logits_of,
    moved,
    train_and_watch,
    without_gradient,
)
from trainers.hosts import is_host

HOSTS = [name for name in WITH_TEXT if is_host(TRAINER_REGISTRY.get(name))]


@pytest.mark.parametrize("host", HOSTS)
def test_spotlighter_stands_on_every_other_method(make_any, images, run_folder, host):
    options = ("TRAINER.SPOTLIGHTER.HOST", host, *OPTIONS.get(host, ()))
    alone = make_any(host, output="alone").method
    trainer = make_any("Spotlighter", *options)
    frozen = copied(trainer.backbone.clip.state_dict())
    trained = {id(p) for p in trainer.method.trainables().values()}
    assert {f"host.{key}" for key in alone.trainables()} <= set(trainer.method.trainables())
    norms = train_and_watch(trainer)
    no_gradient = {f"host.{key}" for key in NO_GRADIENT.get(host, {})} | set(NO_GRADIENT.get("Spotlighter", {}))
    assert without_gradient(norms) == no_gradient
    tuned = {key for key, p in trainer.backbone.clip.named_parameters() if id(p) in trained}
    assert moved(frozen, trainer.backbone.clip.state_dict()) <= tuned
    every = make_any("Spotlighter", *options, classes="all", output="all")
    every.load_model(run_folder, epoch=trainer.max_epoch)
    trainer.method.eval()
    with torch.no_grad():
        torch.testing.assert_close(logits_of(every, images), trainer.method(images, every.method.space))
