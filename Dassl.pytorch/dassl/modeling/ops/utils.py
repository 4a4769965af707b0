"""Label, schedule and averaging helpers of semi-supervised methods."""

import math

import torch
from torch import Tensor, nn

__all__ = [
    "create_onehot",
    "ema_model_update",
    "linear_rampup",
    "reverse_index",
    "sharpen_prob",
    "shuffle_index",
    "sigmoid_rampup",
]


def sharpen_prob(p: Tensor, temperature: float = 2) -> Tensor:
    """p^temperature, renormalised: [B, C] probabilities → [B, C]; above 1 sharpens."""
    p = p.pow(temperature)
    return p / p.sum(dim=1, keepdim=True)


def reverse_index(data: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the reverse order of their first axis."""
    return data.flip(0), label.flip(0)


def shuffle_index(data: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Both in one random order of their first axis."""
    index = torch.randperm(len(data), device=data.device)
    return data[index], label[index]


def create_onehot(label: Tensor, num_classes: int) -> Tensor:
    """[B] labels → [B, num_classes] float, 1 at the label, on the same device."""
    return torch.zeros(len(label), num_classes, device=label.device).scatter_(1, label[:, None].long(), 1.0)


def sigmoid_rampup(current: float, rampup_length: float) -> float:
    """exp(-5 (1 - t)²) of t = current / length in [0, 1] (Laine and Aila, 2017); 1 for length 0."""
    return math.exp(-5.0 * (1.0 - linear_rampup(current, rampup_length)) ** 2)


def linear_rampup(current: float, rampup_length: float) -> float:
    """current / length, at most 1; 1 for length 0.

    Raises:
        ValueError: an argument is negative.
    """
    if current < 0 or rampup_length < 0:
        raise ValueError(f"step and length must not be negative, got {current} and {rampup_length}")
    return 1.0 if current >= rampup_length else current / rampup_length


@torch.no_grad()
def ema_model_update(model: nn.Module, ema_model: nn.Module, alpha: float) -> None:
    """Move the parameters of `ema_model` to alpha × themselves + (1 - alpha) × those of `model`."""
    for averaged, new in zip(ema_model.parameters(), model.parameters(), strict=True):
        averaged.mul_(alpha).add_(new, alpha=1 - alpha)
