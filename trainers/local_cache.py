"""A cache of visual concepts: unit rows that texts read and image tokens write, without gradient.

Axes: K slots, R token rows, d joint width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dassl import distributed

RULES = ("sum", "mean")


class LocalCache(nn.Module):
    """K unit rows U [K, d], at first random in the positive orthant; a buffer.

    Args:
        n_slots: K.
        width: d.
        momentum: share of the old row that a write keeps, in [0, 1].
        temperature: of the softmax over slots in a read.
        rule: what a slot moves towards: the weighted "sum" of the rows that came to it, as released, or their "mean".

    Raises:
        ValueError: an argument is out of range.
    """

    slots: Tensor

    def __init__(
        self, n_slots: int, width: int, momentum: float = 0.8, temperature: float = 1.0, rule: str = "sum"
    ) -> None:
        super().__init__()
        if n_slots < 1:
            raise ValueError(f"N_SLOTS must be at least 1, got {n_slots}.")
        if not 0 <= momentum <= 1:
            raise ValueError(f"MOMENTUM must be in [0, 1], got {momentum}.")
        if not temperature > 0:
            raise ValueError(f"READ_TEMPERATURE must be positive, got {temperature}.")
        if rule not in RULES:
            raise ValueError(f"WRITE must be one of {', '.join(RULES)}, got '{rule}'.")
        self.momentum, self.temperature, self.rule = momentum, temperature, rule
        self.register_buffer("slots", F.normalize(torch.rand(n_slots, width), dim=1))

    def read(self, queries: Tensor) -> Tensor:
        """softmax_k(q · U_k / temperature) U, [n, d] to [n, d]; gradient reaches the queries.

        A copy of the cache is read, so that a write may come before the backward pass.
        """
        return read_slots(queries, self.slots.clone(), self.temperature)

    @torch.no_grad()
    def write(self, tokens: Tensor) -> None:
        """Move each slot towards the tokens [R, d], of any length, that are nearest to it."""
        self.slots.copy_(moved_slots(self.slots, tokens, self.momentum, self.rule))


def read_slots(queries: Tensor, slots: Tensor, temperature: float = 1.0) -> Tensor:
    """softmax_k(q · U_k / temperature) U: unit queries [..., d] and slots [K, d] to [..., d]."""
    return (queries @ slots.t() / temperature).softmax(dim=-1) @ slots


def moved_slots(slots: Tensor, tokens: Tensor, momentum: float, rule: str = "sum") -> Tensor:
    """The slots [K, d] after a write: each moves towards the tokens nearest to it, and stays if it is nearest to none.

    With unit tokens z_n, slot k moves to the unit vector of momentum · U_k + (1 − momentum) · Σ w_nk z_n, the sum over
    its own tokens. The weight is the softmax of z_n · U_k over all tokens divided by its maximum, in which the
    softmax's denominator cancels: w_nk = exp(z_n · U_k − max_n z_n · U_k). Masked products stand for a scatter: the
    same on every run, with static shapes, without a loop and without waiting for the device. Maxima and sums go over
    the tokens of all processes.

    Args:
        slots: unit rows U [K, d].
        tokens: [R, d], any length.
        momentum: share of the old row.
        rule: one of `RULES`.
    """
    rows = F.normalize(tokens.to(slots.dtype), dim=1)  # [R, d]
    cosine = rows @ slots.t()  # [R, K]
    mine = cosine.argmax(dim=1, keepdim=True) == torch.arange(len(slots), device=rows.device)  # [R, K], one True a row
    weight = (cosine - distributed.max_all(cosine.amax(dim=0))).exp() * mine  # [R, K]
    target, total, hits = distributed.sum_all(weight.t() @ rows, weight.sum(dim=0), mine.sum(dim=0))  # [K, d], [K], [K]
    if rule == "mean":
        target = target / total[:, None].clamp(min=torch.finfo(weight.dtype).tiny)
    moved = momentum * slots + (1 - momentum) * target
    return F.normalize(torch.where(hits[:, None] > 0, moved, slots), dim=1)
