"""A cache of visual concepts: unit rows that texts read and image tokens write, without gradient.

Axes: K slots, R token rows, d joint width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
        slots = self.slots.clone()
        return (queries @ slots.t() / self.temperature).softmax(dim=1) @ slots

    @torch.no_grad()
    def write(self, tokens: Tensor) -> None:
        """Move each slot towards the tokens that are nearest to it; a slot that is nearest to none stays.

        With unit tokens z_n, slot k moves to the unit vector of momentum · U_k + (1 − momentum) · Σ w_nk z_n, the sum
        over its own tokens. The weight is the softmax of z_n · U_k over all tokens divided by its maximum, in which the
        softmax's denominator cancels: w_nk = exp(z_n · U_k − max_n z_n · U_k). Masked products stand for a scatter: the
        same on every run, without a loop and without waiting for the device.

        Args:
            tokens: [R, d], any length.
        """
        rows = F.normalize(tokens.to(self.slots.dtype), dim=1)  # [R, d]
        cosine = rows @ self.slots.t()  # [R, K]
        mine = cosine.argmax(dim=1, keepdim=True) == torch.arange(len(self.slots), device=rows.device)  # [R, K]
        weight = (cosine - cosine.amax(dim=0)).exp() * mine  # [R, K]
        target = weight.t() @ rows  # [K, d]
        hit = mine.any(dim=0)[:, None]  # [K, 1]
        if self.rule == "mean":
            target = target / weight.sum(dim=0)[:, None].clamp(min=torch.finfo(weight.dtype).tiny)
        moved = self.momentum * self.slots + (1 - self.momentum) * target
        self.slots.copy_(F.normalize(torch.where(hit, moved, self.slots), dim=1))
