"""A text for each image: the head gives each image what it gives it alone, with its own text shared by the classes."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from trainers.cocoop import CoCoOpMethod
from trainers.spotlighter.head import HeadOptions, SpotlighterHead
from trainers.spotlighter.interface import HeadInput
from trainers.spotlighter.method import SpotlighterMethod
from trainers.spotlighter.release import ReleaseHead

B, C, N, W, D = 3, 4, 16, 64, 32
LABEL = torch.tensor([2, 0, 3])


def unit(*shape):
    return F.normalize(torch.randn(*shape), dim=-1)


@pytest.fixture
def given(backbone):
    torch.manual_seed(7)
    tower = backbone.vision
    return HeadInput(
        text=unit(B, C, D).requires_grad_(),
        image=unit(B, D),
        scale=torch.tensor(20.0),
        block=list(tower.vit.transformer.blocks())[-1],
        view=lambda tokens: F.normalize(tower.project(tokens), dim=-1),
        text0=unit(C, D),
        image0=unit(B, D),
        hidden=torch.randn(B, 1 + N, W),
        tokens=torch.randn(B, 1 + N, D),
        attention=torch.rand(B, N),
        label=LABEL,
    )


def alone(given, b):
    """Image b with its text as that of the classes."""
    one = slice(b, b + 1)
    rows = {name: getattr(given, name)[one] for name in ("image", "image0", "hidden", "tokens", "attention", "label")}
    return dataclasses.replace(given, text=given.text[b], **rows)


def stirred(head):
    """Random trained tensors, so that no path is switched off by its start at zero."""
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(std=0.2)
    return head.eval()


def paper_head(**options):
    head = SpotlighterHead(HeadOptions(**options), C, W, D)
    head.memory.fill(torch.randn(C, 5, W))
    return stirred(head)


@pytest.mark.parametrize(
    "options",
    [{}, {"sample_score": "max"}, {"trm": "transformer"}, {"trm": "none"}, {"irm": "none"}, {"local_scaled": True}],
)
def test_paper_head(given, options):
    check(paper_head(**options), given)


def test_release_head(given):
    head = stirred(ReleaseHead(D, heads=2))
    check(head, given, per_batch=("local_ce", "level1_ce", "level2_ce"))  # their adapter's batch norm sees the batch


def check(head, given, per_batch=()):
    together = head(given)
    each = [head(alone(given, b)) for b in range(B)]
    torch.testing.assert_close(together.logits, torch.cat([one.logits for one in each]), atol=1e-4, rtol=1e-5)
    for name, term in together.terms.items():
        if name not in per_batch:
            mean = torch.stack([one.terms[name] for one in each]).mean()
            torch.testing.assert_close(term, mean, atol=1e-5, rtol=1e-4)


def test_chunks_of_classes_change_nothing(given, monkeypatch):
    head = paper_head().train()
    state = {name: buffer.clone() for name, buffer in head.named_buffers()}
    whole = head(given)
    head.load_state_dict(state, strict=False)
    monkeypatch.setattr("trainers.spotlighter.mapping.CHUNK_ELEMENTS", 3 * B * D)
    torch.testing.assert_close(head(given).terms["text"], whole.terms["text"])


def test_cocoop_trains_with_the_head(backbone, space, images):
    method = SpotlighterMethod(CoCoOpMethod(backbone, space), paper_head())
    method.losses(images, torch.tensor([0, 1, 2, 3, 0])).total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.host.parameters())
    method.eval()
    with torch.no_grad():
        together, each = method(images), torch.cat([method(image[None]) for image in images])
    torch.testing.assert_close(together, each, atol=1e-4, rtol=1e-5)
