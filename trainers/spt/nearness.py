"""How near prompts are to patch tokens, by three numbers that need neither labels nor training.

Axes: P prompt rows of a layer, n patch tokens of the same layer, w width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.spt.reservoir import Reservoir
from trainers.spt.towers import PlainTower


@dataclass(frozen=True)
class Nearness:
    """Numbers of one layer, or their means over layers."""

    cosine: float  # mean cosine of a prompt and a token
    nearest: float  # mean cosine of a prompt and the token that is most like it
    mmd: float  # squared maximum mean discrepancy; 0 is expected of prompts that are drawn from the tokens


def nearness(prompts: Tensor, tokens: Tensor) -> Nearness:
    """Compare the prompts [P, w] of a layer with patch tokens [n, w] of the un-prompted model that enter it.

    Raises:
        ValueError: there are less than two of either.
    """
    if min(len(prompts), len(tokens)) < 2:
        raise ValueError(f"Nearness needs two prompts and two tokens, got {len(prompts)} and {len(tokens)}.")
    prompts, tokens = prompts.double(), tokens.double()
    cosines = F.normalize(prompts, dim=1) @ F.normalize(tokens, dim=1).t()  # [P, n]
    return Nearness(float(cosines.mean()), float(cosines.amax(dim=1).mean()), squared_mmd(prompts, tokens))


def squared_mmd(x: Tensor, y: Tensor) -> float:
    """Unbiased estimate with the kernel exp(-|a - b|² / m), m the median of |a - b|² over pairs of rows of y.

    Gretton et al., JMLR 13 (2012), Eq. (3). It may be slightly negative.
    """
    pairs = torch.pdist(y).square()
    width = pairs.median()
    within_x, within_y = torch.exp(-torch.pdist(x).square() / width).mean(), torch.exp(-pairs / width).mean()
    between = torch.exp(-torch.cdist(x, y).square() / width).mean()
    return float(within_x + within_y - 2 * between)


@torch.no_grad()
def token_samples(tower: PlainTower, images: Iterable[Tensor], depth: int, n_rows: int, seed: int) -> list[Tensor]:
    """Patch tokens of each prompted layer, drawn uniformly from all images, [n_rows, w] each, fp32 on the CPU.

    They are drawn independently of the prototypes that have the same seed.
    """
    drawn = [Reservoir(n_rows, (seed, layer, 1)) for layer in range(depth)]
    for batch in images:
        for reservoir, tokens in zip(drawn, tower.layers(batch, depth), strict=True):
            reservoir.add(tokens.flatten(0, 1))
    return [reservoir.rows() for reservoir in drawn]


@torch.no_grad()
def mean_nearness(prompts: Sequence[Tensor], samples: Sequence[Tensor]) -> Nearness:
    """The three numbers, each averaged over layers."""
    layers = [nearness(rows.float().cpu(), tokens) for rows, tokens in zip(prompts, samples, strict=True)]
    columns = zip(*((x.cosine, x.nearest, x.mmd) for x in layers), strict=True)
    return Nearness(*(sum(column) / len(layers) for column in columns))
