"""Token pruning inside the image tower, after Liang et al., "Not all patches are what you need" (EViT).

After some blocks only the patches with the highest class-token attention travel on, with one fused token that is the
attention-weighted mean of the rest. Rows stand as [class token, patches, fused token, prompt rows] throughout.

Axes: B images, n patch rows that arrive, m patch rows kept, f fused rows that arrive (0 or 1), P prompt rows, w width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real

import torch
from torch import Tensor

from .layers import take_rows


def kept_counts(prune: Mapping[int, float] | None, n_blocks: int, n_patches: int) -> dict[int, int]:
    """How many patches travel on after a block, for the blocks after which any is dropped.

    Args:
        prune: block, counted from 1 -> share in (0, 1] of the patches arriving there (the fused token is none).

    Raises:
        ValueError: `prune` is no mapping, a block is not in 1..n_blocks-1, a share is not in (0, 1] or keeps nothing.
    """
    if prune is None:
        return {}
    if not isinstance(prune, Mapping):
        raise ValueError(f"prune must map block numbers to kept shares, for instance {{4: 0.7}}, got {prune!r}.")
    for block, share in prune.items():
        if not isinstance(block, Integral) or not 1 <= block < n_blocks:
            raise ValueError(
                f"Pruning follows blocks 1..{n_blocks - 1} (counted from 1) of this tower of {n_blocks} blocks, "
                f"got block {block!r}."
            )
        if not isinstance(share, Real) or not 0 < share <= 1:
            raise ValueError(f"The share of patches kept after block {block} must be in (0, 1], got {share!r}.")
    counts, n = {}, n_patches
    for block, share in sorted(prune.items()):
        m = math.ceil(round(share * n, 9))  # rounded first, since 0.07 * 100 is a little more than 7
        if not m:
            raise ValueError(f"A share of {share!r} keeps none of the {n} patches after block {block}.")
        if m < n:
            counts[block] = n = m
    return counts


def prune_rows(rows: Tensor, attention: Tensor, n_patches: int, n_kept: int, n_fused: int) -> tuple[Tensor, Tensor]:
    """Keep the patches that the class token looks at most, and fuse the rest into one row.

    Args:
        rows: [B, 1+n+f+P, w], outputs of a block.
        attention: [B, 1+n+f+P], that block's class-token attention, mean over heads, after the softmax over all rows.
        n_patches: n.
        n_kept: m, 1..n-1; of equal patches the earlier one is kept.
        n_fused: f; a fused row that arrives is never kept, but belongs to the rest with its attention.

    Returns:
        rows [B, 1+m+1+P, w], the kept patches in their old order, and index int64 [B, m] of the kept among the n.
    """
    rest = slice(1, 1 + n_patches + n_fused)  # patches and fused row; what is kept gets weight 0 below
    order = attention[:, 1 : 1 + n_patches].argsort(dim=1, descending=True, stable=True)
    index = order[:, :n_kept].sort(dim=1).values  # [B, m]
    kept = take_rows(rows[:, 1:], index)  # [B, m, w]
    # The choice is piecewise constant and has no gradient; the weights keep theirs, so that the gradient which reaches
    # prompts is that of the function computed. The small term makes a plain mean, not 0/0, of rows without attention.
    weights = (attention[:, rest] + 1e-12).scatter(1, index, 0.0)  # [B, n+f]
    weights = weights / weights.sum(dim=1, keepdim=True)
    # a product and a sum, since autocast would round the operands of a matrix product to half precision
    fused = (weights[..., None] * rows[:, rest]).sum(dim=1, keepdim=True).to(rows.dtype)  # [B, 1, w]
    return torch.cat([rows[:, :1], kept, fused, rows[:, rest.stop :]], dim=1), index
