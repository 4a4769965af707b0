"""A tiny CLIP with lively random weights, and a plain float64 CLIP to compare with."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from clip.backbone import Backbone, LabelSpace
from clip.model import CLIP, CLIPSpec, build_model

SPEC = CLIPSpec(
    embed_dim=48,
    image_resolution=32,
    vision_layers=3,
    vision_width=128,
    vision_patch_size=8,
    transformer_width=128,
    transformer_heads=2,
    transformer_layers=3,
)


def lively(model: CLIP, seed: int = 0) -> dict[str, Tensor]:
    """A state dict in which no norm, bias or scale is neutral."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            state[name] = tensor
        elif "running_var" in name:
            state[name] = 0.5 + torch.rand(tensor.shape, generator=generator)
        elif name == "logit_scale":
            state[name] = torch.tensor(math.log(20.0))
        else:
            fan_in = tensor[0].numel() if tensor.dim() > 1 else 100
            noise = torch.randn(tensor.shape, generator=generator) * fan_in**-0.5
            is_norm = tensor.dim() == 1 and name.endswith("weight")
            state[name] = 1 + noise if is_norm else noise
    state["token_embedding.weight"] *= 5
    state["positional_embedding"] *= 3
    return state


@pytest.fixture(scope="session")
def spec() -> CLIPSpec:
    return SPEC


@pytest.fixture(scope="session")
def state(spec) -> dict[str, Tensor]:
    return lively(CLIP(spec))


@pytest.fixture(scope="session")
def resnet_state() -> dict[str, Tensor]:
    spec = CLIPSpec(24, 64, (1, 2, 1, 1), 8, None, transformer_width=64, transformer_heads=1, transformer_layers=1)
    return lively(CLIP(spec))


@pytest.fixture
def backbone(state) -> Backbone:
    return Backbone(build_model(state, torch.float32).requires_grad_(False), "tiny")


@pytest.fixture
def resnet(resnet_state) -> Backbone:
    return Backbone(build_model(resnet_state, torch.float32).requires_grad_(False), "tiny-resnet")


@pytest.fixture(scope="session")
def images() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def space() -> LabelSpace:
    """Names of one to six tokens; "crane (bird)." merges its last token with the full stop."""
    return LabelSpace(("cat", "golden_retriever", "crane (bird)", "an old wooden house", "Xylophone", "dog"), "toys")


@pytest.fixture
def randn():
    """Draws from one generator a test, so that tests do not depend on each other's order."""
    generator = torch.Generator().manual_seed(7)
    return lambda *shape: torch.randn(*shape, generator=generator)


class PlainCLIP:
    """CLIP as the paper tells it: all rows, all blocks, explicit softmax, float64; prompts spliced by hand."""

    def __init__(self, state: dict[str, Tensor]):
        self.state = {name: tensor.double() for name, tensor in state.items()}

    def norm(self, name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def linear(self, name: str, x: Tensor, join: str = ".") -> Tensor:
        return x @ self.state[f"{name}{join}weight"].T + self.state[f"{name}{join}bias"]

    def block(self, name: str, x: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
        """x [B, n, W] -> x [B, n, W] and attention [B, heads, n, n]."""
        B, n, W = x.shape
        projected = self.linear(f"{name}.attn.in_proj", self.norm(f"{name}.ln_1", x), "_")
        q, k, v = (part.reshape(B, n, W // 64, 64).transpose(1, 2) for part in projected.split(W, dim=-1))
        scores = q @ k.transpose(-1, -2) / 8
        if causal:
            scores = scores + torch.full((n, n), -math.inf, dtype=torch.float64).triu(1)
        attention = scores.exp() / scores.exp().sum(-1, keepdim=True)
        x = x + self.linear(f"{name}.attn.out_proj", (attention @ v).transpose(1, 2).reshape(B, n, W))
        hidden = self.linear(f"{name}.mlp.c_fc", self.norm(f"{name}.ln_2", x))
        return x + self.linear(f"{name}.mlp.c_proj", hidden / (1 + (-1.702 * hidden).exp())), attention

    def count(self, prefix: str) -> int:
        return len({name.split(".")[prefix.count(".")] for name in self.state if name.startswith(prefix)})

    def text(self, rows: Tensor, eot: Tensor, slots: Tensor | None = None, deep: dict[int, Tensor] | None = None):
        """Rows [C, 77, W] of token embeddings (prompts in place) -> [C, E]."""
        x = rows.double() + self.state["positional_embedding"]
        for i in range(self.count("transformer.resblocks.")):
            if deep and i in deep:
                x = x.clone()
                for c in range(len(x)):
                    x[c, slots[c]] = (deep[i] if deep[i].dim() == 2 else deep[i][c]).double()
            x, _ = self.block(f"transformer.resblocks.{i}", x, causal=True)
        x = self.norm("ln_final", x)[torch.arange(len(x)), eot]
        return x @ self.state["text_projection"]

    def vision(self, images, shallow=None, deep=None, inject="pre_ln", at_end=True):
        """Images -> (pooled [B, E], tokens [B, N, E], hidden {l: [B, 1+N+P, w]}, attention of the class token)."""
        v, images = "visual", images.double()
        kernel = self.state["visual.conv1.weight"]
        p = kernel.shape[-1]
        patches = torch.stack(
            [
                torch.einsum("bchw,ochw->bo", images[:, :, y : y + p, x : x + p], kernel)
                for y in range(0, images.shape[2], p)
                for x in range(0, images.shape[3], p)
            ],
            dim=1,
        )
        cls = self.state["visual.class_embedding"].expand(len(images), 1, -1)
        x = torch.cat([cls, patches], dim=1) + self.state["visual.positional_embedding"]
        N = patches.shape[1]
        P = 0 if shallow is None else shallow.shape[-2]
        rows = slice(1 + N, 1 + N + P) if at_end else slice(1, 1 + P)

        def splice(x: Tensor, prompt: Tensor) -> Tensor:
            prompt = prompt.double().expand(len(x), -1, -1)
            return torch.cat([x[:, : rows.start], prompt, x[:, rows.start :]], dim=1)

        if shallow is not None and inject == "pre_ln":
            x = splice(x, shallow)
        x = self.norm("visual.ln_pre", x)
        if shallow is not None and inject == "post_ln":
            x = splice(x, shallow)
        hidden, attention = {0: x}, None
        for i in range(self.count("visual.transformer.resblocks.")):
            if deep and i in deep:
                x = splice(torch.cat([x[:, : rows.start], x[:, rows.stop :]], dim=1), deep[i])
                hidden[i] = x
            x, attention = self.block(f"{v}.transformer.resblocks.{i}", x, causal=False)
            hidden[i + 1] = x
        patch = slice(1, 1 + N) if at_end else slice(1 + P, 1 + P + N)
        out = self.norm("visual.ln_post", x) @ self.state["visual.proj"]
        return out[:, 0], out[:, patch], hidden, attention[:, :, 0, patch], patches


@pytest.fixture(scope="session")
def plain(state) -> PlainCLIP:
    return PlainCLIP(state)
