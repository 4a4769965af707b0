"""Windows of consecutive patch tokens of an image, averaged or maximised: the pooled prototypes of SPT."""

from __future__ import annotations

import torch
from torch import Tensor


def window_bounds(n_tokens: int, n_prompts: int) -> list[tuple[int, int]]:
    """First and, exclusively, last token of each window, in raster order.

    P prompts ask for P - 1 windows of w = ⌊N / (P - 1)⌋ tokens and one of the last N mod w tokens, as released. Where
    N mod w is 0 the release takes the whole image for the last window; here it is what the others leave over, and there
    is none where they leave nothing over. One prompt has the whole image as its window.

    Args:
        n_tokens: N, patch tokens of an image.
        n_prompts: P.

    Raises:
        ValueError: there are fewer tokens than windows.
    """
    if n_prompts == 1:
        return [(0, n_tokens)]
    size = n_tokens // (n_prompts - 1)
    if size == 0:
        raise ValueError(
            f"{n_prompts} pooled prototypes need at least {n_prompts - 1} patches an image, but there are {n_tokens}; "
            "choose a smaller TRAINER.SPT.N_CTX_VISION, or STRATEGY random."
        )
    bounds = [(i * size, (i + 1) * size) for i in range(n_prompts - 1)]
    last = n_tokens % size or n_tokens - size * (n_prompts - 1)
    return [*bounds, (n_tokens - last, n_tokens)] if last else bounds


def pool_windows(tokens: Tensor, n_prompts: int, pooling: str) -> Tensor:
    """Each image's windows as one row each, [B, N, w] -> [B, number of windows, w].

    Args:
        pooling: "mean", or "max" for the element-wise maximum.
    """
    parts = [tokens[:, first:last] for first, last in window_bounds(tokens.shape[1], n_prompts)]
    return torch.stack([part.mean(dim=1) if pooling == "mean" else part.amax(dim=1) for part in parts], dim=1)
