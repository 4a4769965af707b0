"""Small random worlds: a head whose layers are all lively, what it is given, and the same as float64 arrays."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.layers import ResidualAttentionBlock
from tests.trainers.spotlighter.runs import SMALL
from trainers.spotlighter.head import HeadOptions, SpotlighterHead
from trainers.spotlighter.interface import HeadInput, HeadOutput

WIDTH, HEADS, DIM, SCALE = 16, 2, 12, 10.0


def load_oracle() -> ModuleType:
    """The module beside this file; test folders are no packages."""
    spec = importlib.util.spec_from_file_location("spotlighter_oracle", Path(__file__).with_name("oracle.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ORACLE = load_oracle()


@pytest.fixture(scope="session")
def oracle() -> ModuleType:
    return ORACLE


def array(x: Tensor) -> np.ndarray:
    return x.detach().double().numpy()


def units(*shape: int, generator: torch.Generator) -> Tensor:
    """Unit rows in float64."""
    return F.normalize(torch.randn(*shape, generator=generator).double(), dim=-1)


@torch.no_grad()
def enliven(module: nn.Module, generator: torch.Generator, size: float = 0.4) -> None:
    """Give every parameter a random value, so that no layer is neutral."""
    for name, p in module.named_parameters():
        noise = torch.randn(p.shape, generator=generator).to(p.dtype)
        is_norm = "ln_" in name and name.endswith("weight")
        p.copy_(0.3 + 0 * noise if p.dim() == 0 else 1 + 0.3 * noise if is_norm else size * noise)


class View:
    """normalise(proj(ln_post(x))) for tensors, and `arrays`, the same for NumPy; fp32, or fp64 if its input is."""

    def __init__(self, generator: torch.Generator, width: int = WIDTH, dim: int = DIM):
        self.weight = 1 + 0.3 * torch.randn(width, generator=generator)
        self.bias = 0.3 * torch.randn(width, generator=generator)
        self.proj = torch.randn(width, dim, generator=generator)

    def __call__(self, x: Tensor) -> Tensor:
        x = x.float() if x.dtype != torch.float64 else x
        weight, bias, proj = (t.to(x.dtype) for t in (self.weight, self.bias, self.proj))
        return F.normalize(F.layer_norm(x, x.shape[-1:], weight, bias) @ proj, dim=-1)

    def arrays(self, x: np.ndarray) -> np.ndarray:
        return ORACLE.unit(ORACLE.layer_norm(x, array(self.weight), array(self.bias)) @ array(self.proj))


@dataclass
class World:
    """A head with options, its input, and the oracle's answer to the same."""

    options: dict[str, Any]
    head: SpotlighterHead
    given: HeadInput
    view: View

    def run(self, training: bool) -> HeadOutput:
        self.head.train(training)
        if training:
            return self.head(self.given)
        with torch.no_grad():
            plain = replace(
                self.given, text=self.given.text.detach(), text0=None, image0=None, label=None, teacher=None
            )
            return self.head(plain)

    def trm_block(self, text: np.ndarray, tokens: np.ndarray, alpha: float) -> np.ndarray:
        """Table XI's transformer TRM, one image: the T_c row of a pre-LN block, T_c + α (row - T_c), unit."""
        p = {name: array(value) for name, value in self.head.trm.named_parameters()}
        names = {"in_proj_weight": "qkv.weight", "in_proj_bias": "qkv.bias"}
        names |= {"out_proj.weight": "out.weight", "out_proj.bias": "out.bias"}
        block = {f"attn.{new}": p[old] for new, old in names.items()}
        out = []
        for t in text:
            rows = np.concatenate([t[None], tokens])
            h = ORACLE.layer_norm(rows, p["ln_1.weight"], p["ln_1.bias"])
            rows = rows + ORACLE.attention(h, h, block, self.head.trm.heads)
            h = ORACLE.layer_norm(rows, p["ln_2.weight"], p["ln_2.bias"])
            h = ORACLE.gelu(h @ p["mlp.0.weight"].T + p["mlp.0.bias"])
            rows = rows + h @ p["mlp.2.weight"].T + p["mlp.2.bias"]
            out.append(ORACLE.unit(t + alpha * (rows[0] - t)))
        return np.array(out)

    def params(self) -> dict[str, Any]:
        head, params = self.head, {"bank": array(self.head.memory.prototypes), "trm": self.trm_block}
        params["rho"] = self.options.get("rho", 0.01) if head.gate is None else head.gate.item()
        irm, trm = self.options.get("irm", "transformer"), self.options.get("trm", "linear")
        if irm == "transformer":
            params["ffn"] = [(array(head.irm.ffn[i].weight), array(head.irm.ffn[i].bias)) for i in (0, 2)]
        if irm == "linear":
            params["irm"] = (array(head.irm.linear.weight), array(head.irm.linear.bias))
        if trm == "linear":
            params["trm"] = array(head.trm.linear.weight)
        return params

    def arrays(self, training: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the oracle is given, and its parameters."""
        names = ["text", "image", "hidden", "attention", "sizes"]
        names += ["text0", "image0"] if training else []
        given = {name: array(value) for name in names if (value := getattr(self.given, name)) is not None}
        if training and self.given.label is not None:
            given["label"] = self.given.label.numpy()
        if training and self.given.teacher is not None:
            given["teacher"] = array(self.given.teacher)
        given["block"] = {name: array(value) for name, value in self.given.block.named_parameters()}
        given |= {"view": self.view.arrays, "heads": HEADS, "scale": self.given.scale.item()}
        given |= {"n_fused": self.given.n_fused, "text_trains": self.given.text.requires_grad}
        return given, self.params()

    def expected(self, training: bool) -> dict[str, Any]:
        """The oracle's answer; call it before `run`, which moves the bank."""
        return ORACLE.head(*self.arrays(training), training, **self.options)


def make_world(
    seed: int = 0,
    B: int = 4,
    C: int = 5,
    N: int = 11,
    n_fused: int = 0,
    teacher: bool = False,
    lively: bool = True,
    bank_classes: int | None = None,
    **options: Any,
) -> World:
    """A world of random numbers; K and k are options. `lively` False leaves the head as it is built."""
    generator = torch.Generator().manual_seed(seed)
    options = {"n_prototypes": 3, **options}
    torch.manual_seed(seed)
    head = SpotlighterHead(HeadOptions(**options), bank_classes or C, WIDTH, DIM)
    block = ResidualAttentionBlock(WIDTH, HEADS).requires_grad_(False)
    enliven(block, generator)
    if lively:
        enliven(head, generator)
    view = View(generator)
    head.memory.fill(torch.randn(head.memory.prototypes.shape, generator=generator))
    given = HeadInput(
        text=units(C, DIM, generator=generator).float().requires_grad_(),
        image=units(B, DIM, generator=generator).float(),
        scale=torch.tensor(SCALE),
        block=block,
        view=view,
        text0=units(C, DIM, generator=generator).float(),
        image0=units(B, DIM, generator=generator).float(),
        hidden=torch.randn(B, 1 + N + n_fused, WIDTH, generator=generator),
        n_fused=n_fused,
        attention=torch.randn(B, N, generator=generator).softmax(dim=1),
        label=torch.randint(C, (B,), generator=generator),
        teacher=2 * torch.randn(B, C, generator=generator) if teacher else None,
    )
    return World(options, head, given, view)


@pytest.fixture
def world():
    return make_world


@pytest.fixture
def draw():
    """Random unit rows (float64), plain rows and modules from one generator a test."""
    generator = torch.Generator().manual_seed(11)

    class Draw:
        def units(self, *shape: int) -> Tensor:
            return units(*shape, generator=generator)

        def rows(self, *shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        def labels(self, n: int, n_cls: int) -> Tensor:
            return torch.randint(n_cls, (n,), generator=generator)

        def view(self) -> View:
            return View(generator)

        def block(self) -> ResidualAttentionBlock:
            block = ResidualAttentionBlock(WIDTH, HEADS).requires_grad_(False)
            enliven(block, generator)
            return block

        def enliven(self, module: nn.Module) -> None:
            enliven(module, generator)

    return Draw()


@pytest.fixture
def close():
    """Asserts that a tensor has the oracle's shape and values."""

    def check(tensor: Tensor, expected: Any, tolerance: float = 1e-5) -> None:
        expected = np.asarray(expected)
        assert tuple(tensor.shape) == expected.shape
        np.testing.assert_allclose(array(tensor), expected, rtol=tolerance, atol=tolerance)

    return check


@pytest.fixture
def run(run_trainer):
    """Run train.py on toy data with Spotlighter; gives exit status, stdout and stderr."""
    return lambda *opts, **kwargs: run_trainer(*SMALL, *opts, trainer="Spotlighter", **kwargs)


@pytest.fixture
def make(trainer_of):
    """A trainer that has not run."""
    return lambda *opts, **kwargs: trainer_of(*SMALL, *opts, trainer="Spotlighter", **kwargs)
