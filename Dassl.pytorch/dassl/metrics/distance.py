"""Distances between the rows of two matrices."""

import torch.nn.functional as F
from torch import Tensor

__all__ = ["compute_distance_matrix", "cosine_distance", "euclidean_squared_distance"]


def compute_distance_matrix(input1: Tensor, input2: Tensor, metric: str = "euclidean") -> Tensor:
    """Distances of all pairs of rows.

    Args:
        input1: [n, d].
        input2: [m, d].
        metric: "euclidean" (squared) or "cosine".

    Returns:
        [n, m].

    Raises:
        ValueError: unknown metric, or the shapes do not match.
    """
    metrics = {"euclidean": euclidean_squared_distance, "cosine": cosine_distance}
    if metric not in metrics:
        raise ValueError(f"metric must be one of {list(metrics)}, got {metric!r}")
    return metrics[metric](input1, input2)


def euclidean_squared_distance(input1: Tensor, input2: Tensor) -> Tensor:
    """|a|² + |b|² - 2 a·b of all pairs of rows: [n, d], [m, d] → [n, m]; never below 0."""
    _check(input1, input2)
    squares = input1.square().sum(dim=1)[:, None] + input2.square().sum(dim=1)[None, :]  # [n, m]
    return (squares - 2 * input1 @ input2.T).clamp(min=0)


def cosine_distance(input1: Tensor, input2: Tensor) -> Tensor:
    """1 - cos of all pairs of rows: [n, d], [m, d] → [n, m]."""
    _check(input1, input2)
    return 1 - F.normalize(input1, dim=1) @ F.normalize(input2, dim=1).T


def _check(input1: Tensor, input2: Tensor) -> None:
    if input1.ndim != 2 or input2.ndim != 2 or input1.shape[1] != input2.shape[1]:
        raise ValueError(f"expected [n, d] and [m, d], got {list(input1.shape)} and {list(input2.shape)}")
