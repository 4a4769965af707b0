"""Top-k accuracy."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["compute_accuracy"]


@torch.no_grad()
def compute_accuracy(output: Tensor | Sequence[Tensor], target: Tensor, topk: Sequence[int] = (1,)) -> list[Tensor]:
    """Share of samples whose label is among the k highest logits.

    Args:
        output: [B, C] logits; of a tuple or list, the first.
        target: [B] labels.
        topk: values of k, 1..C.

    Returns:
        One tensor [1] a k, in percent.

    Raises:
        RuntimeError: a k is out of range.
    """
    logits = output[0] if isinstance(output, tuple | list) else output
    assert isinstance(logits, Tensor)
    n_cls = logits.shape[1]
    if not all(1 <= k <= n_cls for k in topk):
        raise RuntimeError(f"k must be in 1..C = 1..{n_cls}, got {list(topk)}")
    hits = logits.topk(max(topk), dim=1).indices == target[:, None]  # [B, max k]
    return [hits[:, :k].any(dim=1).float().mean(dim=0, keepdim=True) * 100.0 for k in topk]
