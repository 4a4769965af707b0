"""Gaussian-weighted average of trained tensors over the epochs of a run (PromptSRC, Sec. 3.3)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector


def gaussian_weights(mean: float, std: float, n_epochs: int) -> list[float]:
    """Weights of epochs 1 … n_epochs: w_e ∝ exp(−(e − mean)² / (2 std²)), with sum 1.

    Raises:
        ValueError: std is not positive, or so small that no epoch has a weight.
    """
    if std <= 0:
        raise ValueError(f"GPA_STD must be positive, got {std}.")
    raw = [math.exp(-((epoch - mean) ** 2) / (2 * std**2)) for epoch in range(1, n_epochs + 1)]
    if not sum(raw):
        raise ValueError(f"GPA_MEAN {mean} and GPA_STD {std} give none of the {n_epochs} epochs a weight.")
    return [value / sum(raw) for value in raw]


class GaussianAverage(nn.Module):
    """Sum of w_e · θ_e in fp32, kept in buffers, so that it is saved and resumed with the model.

    Args:
        parameters: what is averaged; only their sizes are kept.
        weights: of the epochs, with sum 1.
    """

    def __init__(self, parameters: Iterable[Tensor], weights: Sequence[float]):
        super().__init__()
        self.weights = tuple(weights)
        self.register_buffer("sum", torch.zeros(sum(p.numel() for p in parameters)))
        self.register_buffer("n_epochs", torch.zeros((), dtype=torch.int64))  # in the sum
        self.sum: Tensor
        self.n_epochs: Tensor

    @property
    def is_complete(self) -> bool:
        """All epochs are in the sum."""
        return int(self.n_epochs) == len(self.weights)

    @torch.no_grad()
    def add(self, parameters: Sequence[nn.Parameter], epoch: int) -> None:
        """Take in the parameters after epoch number `epoch`, counted from 1; after the last, put the average into them.

        Raises:
            RuntimeError: an epoch is missing, or comes twice.
        """
        if int(self.n_epochs) != epoch - 1:
            raise RuntimeError(
                f"The average over epochs holds {int(self.n_epochs)} of them when epoch {epoch} ends; train from the "
                "first epoch on."
            )
        self.sum += self.weights[epoch - 1] * parameters_to_vector(p.float() for p in parameters)
        self.n_epochs += 1
        if self.is_complete:
            parts = self.sum.split([p.numel() for p in parameters])
            for parameter, part in zip(parameters, parts, strict=True):
                parameter.copy_(part.view_as(parameter))


@torch.no_grad()
def round_like_an_average(tensors: Iterable[Tensor], weights: Sequence[float]) -> None:
    """Replace constants by Σ_e w_e · θ, added up in each tensor's own precision: what averaging does to frozen weights.

    In half precision this moves them by some 5e-4 of their size, in fp32 hardly.
    """
    for tensor in tensors:
        total = torch.zeros_like(tensor)
        for weight in weights:
            total += weight * tensor
        tensor.copy_(total)
