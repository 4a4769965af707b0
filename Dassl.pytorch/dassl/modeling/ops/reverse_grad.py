"""Gradient reversal (Ganin and Lempitsky, 2015)."""

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ReverseGrad"]


class _ReverseGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, grad_scaling: float) -> Tensor:
        ctx.grad_scaling = grad_scaling
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return -ctx.grad_scaling * grad_output, None


class ReverseGrad(nn.Module):
    """The identity, whose gradient has the other sign."""

    def forward(self, x: Tensor, grad_scaling: float = 1.0) -> Tensor:
        """Return `x`; its gradient will be multiplied by -`grad_scaling`.

        Raises:
            ValueError: the factor is negative.
        """
        if grad_scaling < 0:
            raise ValueError(f"grad_scaling must not be negative, got {grad_scaling}")
        return _ReverseGrad.apply(x, grad_scaling)
