"""What golden files are made from: tiny CLIPs, images and initial values, redrawn from NumPy generators."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clip.backbone import Backbone
from clip.model import build_model

Draw = tuple[str, tuple[int, ...], float, float]  # state-dict key, shape, scale, mean


@dataclass(frozen=True)
class TinyCLIP:
    """A tiny CLIP of the recipe: 32-pixel images in patches of 8, heads of width 64."""

    stream: int
    embed: int
    vision_width: int
    vision_blocks: int
    text_width: int
    text_blocks: int

    def draws(self) -> Iterator[Draw]:
        """Tensors in drawing order; "logit_scale" is not drawn."""
        v, t, e = self.vision_width, self.text_width, self.embed
        yield "positional_embedding", (77, t), 0.2, 0.0
        yield "text_projection", (t, e), t**-0.5, 0.0
        yield "visual.class_embedding", (v,), 0.5, 0.0
        yield "visual.positional_embedding", (17, v), 0.3, 0.0
        yield "visual.proj", (v, e), v**-0.5, 0.0
        yield "visual.conv1.weight", (v, 3, 8, 8), 192**-0.5, 0.0
        yield from self.norm("visual.ln_pre", v)
        for block in range(self.vision_blocks):
            yield from self.block(f"visual.transformer.resblocks.{block}", v)
        yield from self.norm("visual.ln_post", v)
        for block in range(self.text_blocks):
            yield from self.block(f"transformer.resblocks.{block}", t)
        yield "token_embedding.weight", (49408, t), 0.5, 0.0
        yield from self.norm("ln_final", t)

    @staticmethod
    def norm(name: str, width: int) -> Iterator[Draw]:
        yield f"{name}.weight", (width,), 0.1, 1.0
        yield f"{name}.bias", (width,), 0.01, 0.0

    @classmethod
    def block(cls, name: str, width: int) -> Iterator[Draw]:
        yield f"{name}.attn.in_proj_weight", (3 * width, width), width**-0.5, 0.0
        yield f"{name}.attn.in_proj_bias", (3 * width,), 0.01, 0.0
        yield f"{name}.attn.out_proj.weight", (width, width), 2 * width**-0.5, 0.0
        yield f"{name}.attn.out_proj.bias", (width,), 0.01, 0.0
        yield from cls.norm(f"{name}.ln_1", width)
        yield f"{name}.mlp.c_fc.weight", (4 * width, width), width**-0.5, 0.0
        yield f"{name}.mlp.c_fc.bias", (4 * width,), 0.01, 0.0
        yield f"{name}.mlp.c_proj.weight", (width, 4 * width), (4 * width) ** -0.5, 0.0
        yield f"{name}.mlp.c_proj.bias", (width,), 0.01, 0.0
        yield from cls.norm(f"{name}.ln_2", width)


CLIPS = {
    "tiny": TinyCLIP(1, 64, 192, 4, 128, 3),
    "tiny512": TinyCLIP(2, 512, 192, 4, 128, 3),
    "wide": TinyCLIP(3, 64, 768, 3, 512, 3),
    "teacher": TinyCLIP(4, 768, 256, 3, 192, 4),
}


def draw(generator: np.random.Generator, shape: tuple[int, ...], scale: float, mean: float = 0.0) -> Tensor:
    """float32(mean + scale · normal), arithmetic in float64."""
    return torch.from_numpy((mean + scale * generator.standard_normal(shape)).astype(np.float32))


class Inputs:
    """Images, labels and tiny CLIPs of one seed, drawn on first use."""

    def __init__(self, seed: int, n_images: int, n_classes: int, logit_scale: float):
        self.seed, self.scale = seed, logit_scale
        generator = self.stream(0)
        self.images = draw(generator, (n_images, 3, 32, 32), 1.0)
        self.label = torch.from_numpy(generator.integers(0, n_classes, n_images))
        self.states: dict[str, dict[str, Tensor]] = {}

    def stream(self, number: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, number])

    def state(self, name: str) -> dict[str, Tensor]:
        """State dict of a tiny CLIP in OpenAI's layout."""
        if name not in self.states:
            generator = self.stream(CLIPS[name].stream)
            self.states[name] = {key: draw(generator, *how) for key, *how in CLIPS[name].draws()}
            self.states[name]["logit_scale"] = torch.tensor(float(np.log(self.scale)))
        return self.states[name]

    def backbone(self, name: str) -> Backbone:
        return Backbone(build_model(self.state(name), dtype=torch.float32))
