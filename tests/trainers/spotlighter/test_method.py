"""What `SpotlighterMethod` hands from the host to the head, and the bank's fill, item by item."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clip.backbone import Backbone, Pruning, VisualPrompts
from clip.model import CLIP
from tests.conftest import TINY
from trainers.coop import CoOpMethod
from trainers.spotlighter.head import HeadOptions, SpotlighterHead
from trainers.spotlighter.initialise import best_tokens, fill_bank
from trainers.spotlighter.interface import HeadOutput
from trainers.spotlighter.method import SpotlighterMethod
from trainers.zsclip import TemplateMethod

HALF = Pruning(((1, 0.5),))


class Recorder(nn.Module):
    """A head that keeps what it is given and asks for everything."""

    reads_frozen_image = True

    def want(self, n_blocks, training):
        return {f"hidden:{n_blocks - 1}", "cls_attn", "tokens"}

    def forward(self, given):
        self.given = given
        return HeadOutput(given.image @ given.text.t(), {"ce": given.image.sum() * 0})


class Prompted(CoOpMethod):
    """A host with two visual prompt rows, as MaPLe has them."""

    image_trains = True
    classification_weight = 4.0

    def __init__(self, *args):
        super().__init__(*args)
        self.rows = nn.Parameter(torch.randn(2, 128))
        self.epochs = []

    def image(self, images, want=frozenset(), prune=None):
        return self.backbone.vision(images, VisualPrompts(self.rows), want, prune)

    def after_epoch(self, epoch, n_epochs):
        self.epochs.append((epoch, n_epochs))


@pytest.fixture
def wide():
    """A tower with two heads, so that one head's attention is not the mean."""
    torch.manual_seed(4)
    return Backbone(CLIP(dataclasses.replace(TINY, vision_width=128)).eval().requires_grad_(False))


@pytest.fixture
def headed(wide, space):
    return SpotlighterMethod(Prompted(wide, space, 2), Recorder(), HALF, prune_train=True)


def test_the_head_gets_the_hosts_features(headed, wide, images):
    label = torch.tensor([0, 1, 2, 3, 0])
    headed.losses(images, label)
    given, host = headed.head.given, headed.host
    want = {"hidden:1", "cls_attn", "tokens"}
    vision = host.image(images, want, HALF)
    plain = wide.vision(images)
    assert given.hidden.shape == (5, 1 + 8 + 1, 128)  # class token, half of 16 patches, the rest; no prompt rows
    assert given.n_fused == 1
    assert torch.equal(given.sizes, torch.ones(5, 8))
    same = torch.testing.assert_close
    same(given.hidden, vision.hidden[1][:, :10], rtol=0, atol=0)
    same(given.image, F.normalize(vision.pooled, dim=1))
    same(given.image0, F.normalize(plain.pooled, dim=1))
    assert not torch.allclose(given.image, given.image0)
    assert given.image.requires_grad
    assert not given.image0.requires_grad
    same(given.text, host.text())
    same(given.text0, host.frozen_text())
    assert not torch.allclose(given.text, given.text0)
    same(given.scale, wide.logit_scale.exp())
    assert given.block is list(wide.vision.vit.transformer.blocks())[-1]
    same(given.tokens[:, 0], vision.pooled)
    same(given.tokens[:, 1:], vision.tokens)
    same(given.attention, vision.cls_attn.mean(dim=1))
    assert not torch.allclose(given.attention, vision.cls_attn[:, 0])
    assert given.label is label
    assert given.teacher is None
    assert given.classification_weight == 4.0
    rows = torch.randn(3, 128)
    same(given.view(rows), F.normalize(wide.vision.project(rows), dim=1))


def test_inference_gets_no_label_and_the_space_it_is_asked_for(headed, space, images):
    other = dataclasses.replace(space, names=("one", "two"))
    assert headed(images, other).shape == (5, 2)
    given = headed.head.given
    torch.testing.assert_close(given.text, headed.host.text(other))
    assert given.label is given.text0 is given.image0 is None
    assert given.n_fused == 1


def test_pruning_only_in_inference_unless_asked_for(wide, space, images):
    method = SpotlighterMethod(Prompted(wide, space, 2), Recorder(), HALF)
    method.losses(images, torch.zeros(5, dtype=torch.long))
    assert (method.head.given.hidden.shape[1], method.head.given.n_fused) == (17, 0)
    method(images)
    assert (method.head.given.hidden.shape[1], method.head.given.n_fused) == (10, 1)


def test_merged_rows_bring_their_sizes(wide, space, images):
    method = SpotlighterMethod(Prompted(wide, space, 2), Recorder(), Pruning(((1, 0.5),), "merge"))
    method(images)
    given = method.head.given
    assert given.n_fused == 0
    assert given.hidden.shape == (5, 9, 128)
    assert (given.sizes.sum(dim=1) == 16).all()
    assert given.sizes.shape == (5, 8)


def test_trained_tensors_are_the_hosts_and_the_heads(wide, space):
    head = SpotlighterHead(HeadOptions(), len(space), 128, 32)
    method = SpotlighterMethod(CoOpMethod(wide, space, 2), head)
    trained = {"host.ctx", "head.gate", "head.trm.linear.weight"}
    trained |= {f"head.irm.ffn.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}
    assert set(method.trainables()) == trained
    assert set(method.state_dict()) == trained | {"head.memory.prototypes", "head.memory.filled"}


def test_text_that_does_not_train_is_computed_once(wide, space, images, monkeypatch):
    host = TemplateMethod(wide, space, ["a photo of a {}."])
    method, calls = SpotlighterMethod(host, Recorder()), []
    monkeypatch.setattr(host, "raw_text", lambda asked: calls.append(asked) or torch.randn(4, 32))
    for _ in range(3):
        method.losses(images, torch.zeros(5, dtype=torch.long))
    assert len(calls) == 1


def test_the_host_hears_of_the_end_of_an_epoch(headed):
    headed.after_epoch(2, 15)
    assert headed.host.epochs == [(2, 15)]


def test_every_method_hears_of_the_end_of_an_epoch(trainer_of, monkeypatch):
    heard = []
    monkeypatch.setattr(CoOpMethod, "after_epoch", lambda self, epoch, n_epochs: heard.append((epoch, n_epochs)))
    trainer_of("TRAINER.COOP.N_CTX", "2").train()
    assert heard == [(1, 2), (2, 2)]


def test_the_bank_is_filled_from_plain_images_by_the_frozen_text(trainer_of, monkeypatch):
    """One prototype a class is the mean of its activated tokens; the host's text is another one than T0."""
    options = ("N_PROTOTYPES", "1", "TOP_K", "2", "PRUNE", "[[1, 0.5]]", "PRUNE_TRAIN", "True")
    keys = [f"TRAINER.SPOTLIGHTER.{word}" if i % 2 == 0 else word for i, word in enumerate(options)]
    trainer = trainer_of("DATASET.SUBSAMPLE_CLASSES", "base", "TRAINER.COOP.N_CTX", "2", *keys, trainer="Spotlighter")
    method, dataset = trainer.method, trainer.dm.dataset.train_x
    transform = trainer.test_loader.dataset.transform
    from dassl.utils import read_image

    images = torch.stack([transform(read_image(item.impath)) for item in dataset])
    label = torch.tensor([item.label for item in dataset])
    vision = method.host.image(images, {"hidden:1"}, HALF)
    patches = vision.hidden[1][:, 1:9]  # without the fused row
    v, text0 = F.normalize(vision.pooled, dim=1), method.host.frozen_text()
    posterior = (method.backbone.logit_scale.exp() * v @ text0.t()).softmax(dim=1)
    scores = (F.normalize(method.host.project(patches), dim=2) @ F.normalize(posterior @ text0, dim=1)[..., None])[
        ..., 0
    ]
    chosen = patches.gather(1, scores.topk(2, dim=1).indices[..., None].expand(-1, -1, 64))
    torch.testing.assert_close(best_tokens(method, images, 2), chosen)
    assert best_tokens(method, images, 100).shape[1] == 7  # one less than can be activated
    fill_bank(trainer)
    memory = method.head.memory
    assert memory.filled
    for c in range(2):
        torch.testing.assert_close(memory.prototypes[c, 0], chosen[label == c].mean(dim=(0, 1)), rtol=1e-4, atol=1e-4)
