"""A plain timm ViT small enough for a CPU: three blocks, 32-pixel images in patches of 8."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.models import VisionTransformer

SIZE = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}


def small_vit(seed: int = 0, **options) -> VisionTransformer:
    """With random weights everywhere, norms and biases included, so that no layer is neutral."""
    torch.manual_seed(seed)
    vit = VisionTransformer(**SIZE, **{"num_classes": 0, **options}).eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return vit.requires_grad_(False)


@pytest.fixture
def vit() -> VisionTransformer:
    return small_vit()


@pytest.fixture
def make_vit():
    return small_vit


@pytest.fixture
def small_timm(monkeypatch):
    """timm makes the small ViT under every name, and notes whether its weights were asked for."""
    asked = []

    def create(name, pretrained=False, **options):
        asked.append((name, pretrained))
        return small_vit(**options)

    monkeypatch.setattr(timm, "create_model", create)
    return asked


@pytest.fixture
def run(run_trainer):
    """Run train.py on toy data; gives exit status, stdout and stderr."""
    return lambda *opts, trainer="SPT", **kwargs: run_trainer(*opts, trainer=trainer, **kwargs)


@pytest.fixture
def sentence(run):
    """The one sentence that a run fails with."""

    def of(*opts, **kwargs):
        code, _, err = run(*opts, **kwargs)
        assert code == 1
        (line,) = [line for line in err.splitlines() if line.startswith("Error: ")]
        assert "Traceback" not in err
        return line

    return of
