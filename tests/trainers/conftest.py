"""What the tests of all trainers share."""

import pytest
import torch

import train
from clip.backbone import Backbone
from clip.model import CLIP, CLIPSpec
from clip.vision import VisionTower
from dassl.config import get_cfg_default
from dassl.engine import TRAINER_REGISTRY


@pytest.fixture(scope="session")
def uneven_clip():
    """A random CLIP of three blocks a tower, of another width each, 128 for text and 64 for images; lively norms."""
    torch.manual_seed(4)
    model = CLIP(CLIPSpec(32, 32, 3, 64, 8, 77, 49408, 128, 2, 3)).eval()
    with torch.no_grad():
        model.token_embedding.weight.normal_(std=0.5)
        for norm in (module for module in model.modules() if isinstance(module, torch.nn.LayerNorm)):
            norm.weight.normal_(1, 0.3)
            norm.bias.normal_(0, 0.3)
    return model.requires_grad_(False)


@pytest.fixture
def uneven(uneven_clip):
    return Backbone(uneven_clip)


@pytest.fixture
def method_of():
    """Builds a trainer's method from its options, without data: method_of(name, backbone, space, KEY, value, …)."""

    def build(name, backbone, space, *opts):
        cfg = get_cfg_default()
        train.extend_cfg(cfg)
        trainer = TRAINER_REGISTRY.get(name)
        named = [f"TRAINER.{trainer.node}.{opt}" if i % 2 == 0 else opt for i, opt in enumerate(opts)]
        cfg.merge_from_list(named)
        return trainer.make_method(cfg, backbone, space)

    return build


@pytest.fixture
def cache_folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def make_cached(make_any, cache_folder):
    """A trainer with a cache: make_cached(name, KEY, value, …)."""
    return lambda name, *opts, **kwargs: make_any(name, "DATALOADER.CACHE", cache_folder, *opts, **kwargs)


@pytest.fixture
def encoded(monkeypatch):
    """Numbers of pictures that went through the image tower, call by call."""
    calls, run = [], VisionTower.__call__

    def noting(tower, images, *args, **kwargs):
        calls.append(len(images))
        return run(tower, images, *args, **kwargs)

    monkeypatch.setattr(VisionTower, "__call__", noting)
    return calls
