"""A frozen CLIP as the methods see it: two towers, a scale, a name and a digest of its weights."""

from __future__ import annotations

import hashlib
import re

import torch
from torch import nn

from .model import CLIP, CLIPSpec, build_model
from .prompts import LabelSpace, TextBatch
from .pruning import Pruning
from .text import TextTower
from .vision import VisionOut, VisionTower, VisualPrompts
from .weights import read_weights

__all__ = [
    "Backbone",
    "LabelSpace",
    "Pruning",
    "TextBatch",
    "TextTower",
    "VisionOut",
    "VisionTower",
    "VisualPrompts",
    "load_backbone",
]


class Backbone(nn.Module):
    """Both towers of a CLIP model. The parameters live once, in `clip`; the towers only use them."""

    def __init__(self, clip_model: CLIP, name: str = ""):
        super().__init__()
        self.clip = clip_model
        self.name = name
        self.vision = VisionTower(clip_model.visual)
        self.text = TextTower(clip_model)
        self.fingerprint = _fingerprint(clip_model)  # before anything trains
        self.eval()

    def train(self, mode: bool = True) -> Backbone:
        """Stays in evaluation mode inside a method that trains: a ResNet's batch statistics are part of the weights."""
        return super().train(False)

    @property
    def spec(self) -> CLIPSpec:
        return self.clip.spec

    @property
    def logit_scale(self) -> nn.Parameter:
        """The parameter, which holds the logarithm."""
        return self.clip.logit_scale

    @property
    def dtype(self) -> torch.dtype:
        """Type of the large weights."""
        return self.clip.dtype

    @property
    def device(self) -> torch.device:
        return self.clip.logit_scale.device


@torch.no_grad()
def _fingerprint(clip_model: CLIP) -> str:
    """16 hexadecimal digits of the small weights: norms, positions, class token, scale.

    They keep fp32 in every precision, so the same weights have the same fingerprint whether they are loaded as fp32,
    bf16 or fp16.
    """
    digest = hashlib.sha256(repr(clip_model.spec).encode())
    for name, tensor in sorted(clip_model.named_parameters()):
        if re.search(r"(^|\.)(ln_\w+|bn\d|positional_embedding|class_embedding|logit_scale)(\.|$)", name):
            digest.update(name.encode() + tensor.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def load_backbone(
    name_or_path: str, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> Backbone:
    """Load CLIP weights, frozen and in evaluation mode.

    The activation is QuickGELU, as in OpenAI's models. Weights do not tell their activation, so checkpoints that were
    trained with exact GELU (most of LAION's) load, but do not give their own numbers.

    Args:
        name_or_path: a name of `clip.available_models()`, or a file of weights.
        dtype: type of the large weights; norms, embeddings and the scale stay fp32.

    Raises:
        RuntimeError: neither a known name nor a file.
        FileNotFoundError: the weights are not on this machine and cannot be downloaded.
        ValueError: the file is damaged or holds no CLIP.
    """
    model = build_model(read_weights(name_or_path), dtype).to(device)
    return Backbone(model.requires_grad_(False), str(name_or_path))
