"""Mixing images and labels (Zhang et al., mixup, 2018)."""

import torch
from torch import Tensor

__all__ = ["mixup"]


def mixup(
    x1: Tensor, x2: Tensor, y1: Tensor, y2: Tensor, beta: float, preserve_order: bool = False
) -> tuple[Tensor, Tensor]:
    """Mix each pair of samples by its own share λ ~ Beta(beta, beta).

    Args:
        x1, x2: [B, …].
        y1, y2: [B, C] one-hot or soft labels.
        beta: both parameters of the distribution, above 0.
        preserve_order: λ or 1 - λ, whichever is larger, so that each mix is nearer to x1.

    Returns:
        λ x1 + (1 - λ) x2 and the same of the labels.
    """
    share = torch.distributions.Beta(beta, beta).sample((len(x1),)).to(x1)  # [B]
    if preserve_order:
        share = torch.max(share, 1 - share)
    return _mix(share, x1, x2), _mix(share, y1, y2)


def _mix(share: Tensor, a: Tensor, b: Tensor) -> Tensor:
    share = share.view(-1, *[1] * (a.ndim - 1))
    return a * share + b * (1 - share)
