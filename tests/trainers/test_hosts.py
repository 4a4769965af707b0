"""Methods around a host: what a trainer asks of them reaches the host, and what it must know of the host is told."""

import pytest
import torch
from torch import nn

from trainers.coop import CoOpMethod
from trainers.hosts import HostedMethod
from trainers.prompting import ImagePrompts, TextPrompts
from trainers.promptsrc import PromptSRCMethod
from trainers.spotlighter.head import HeadOptions, SpotlighterHead
from trainers.spotlighter.method import SpotlighterMethod
from trainers.textrefiner import TextRefinerMethod


class Host(CoOpMethod):
    """Notes what it is told."""

    learns_from_labels = False

    def __init__(self, backbone, space):
        super().__init__(backbone, space, 2, csc=True)
        self.told = []

    def before_training(self, images):
        self.told.append([len(batch) for batch in images()])

    def after_epoch(self, epoch, n_epochs):
        self.told.append((epoch, n_epochs))


def around(host):
    head = SpotlighterHead(HeadOptions(), len(host.space), 64, 32)
    return {"Spotlighter": SpotlighterMethod(host, head), "TextRefiner": TextRefinerMethod(host)}


@pytest.mark.parametrize("name", ["Spotlighter", "TextRefiner"])
def test_the_host_is_told_and_asked(backbone, space, images, name):
    host = Host(backbone, space)
    method = around(host)[name]
    method.before_training(lambda: iter([images[:2], images[2:]]))
    method.after_epoch(1, 3)
    assert host.told == [[2, 3], (1, 3)]
    assert method.tied_to_classes  # one context a class
    assert not method.learns_from_labels
    assert next(iter(method.trainables())) == "host.ctx"
    assert {f"host.{key}" for key in host.trainables()} < set(method.trainables())


def test_own_tensors_follow_the_hosts(backbone, space):
    class Wrapped(HostedMethod):
        def __init__(self, host):
            super().__init__(host)
            self.own = nn.Linear(1, 1)

    assert list(Wrapped(Host(backbone, space)).trainables()) == ["host.ctx", "own.weight", "own.bias"]


def test_frozen_features_are_computed_once_a_step(backbone, space, images, monkeypatch):
    """The host's loss and the head's ask for the same features of frozen CLIP."""
    host = PromptSRCMethod(backbone, space, TextPrompts(backbone, 2, "", 1), ImagePrompts.random(backbone, 2, 1))
    head = SpotlighterHead(HeadOptions(), len(space), 64, 32)
    head.memory.fill(torch.randn(len(space), 5, 64))
    method, tower, passes = SpotlighterMethod(host, head), type(backbone.vision), []
    run = tower.__call__

    def counted(self, images, prompts=None, *args, **kwargs):
        passes.append(prompts is not None)
        return run(self, images, prompts, *args, **kwargs)

    monkeypatch.setattr(tower, "__call__", counted)
    out = method.losses(images, torch.tensor([0, 1, 2, 3, 0]))
    assert sorted(passes) == [False, True]
    assert {"kl", "host_image_l1"} <= set(out.terms)
    method.losses(images.flip(0), torch.tensor([0, 1, 2, 3, 0]))
    assert len(passes) == 4  # other images, other features
