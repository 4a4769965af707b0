"""RAdam as configs of this family mean it: torch's, with decoupled weight decay."""

from collections.abc import Iterable
from typing import Any

import torch


class RAdam(torch.optim.RAdam):
    """Rectified Adam (arXiv 1908.03265); while the variance is not rectified it takes momentum-SGD steps.

    Args:
        params: parameters or parameter groups.
        lr, betas, eps: as in Adam.
        weight_decay: decoupled (subtracted from the weights as lr · weight_decay · weight, not added to the gradient).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, decoupled_weight_decay=weight_decay != 0
        )
