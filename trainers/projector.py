"""The two-layer adapter with batch norm that some methods put behind the image tower."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from trainers.batch_norm import BatchNorm


class Projector(nn.Module):
    """Linear, batch norm, ReLU, linear: rows [R, d_in] to [R, d_out]; all rows of a call are one batch.

    Args:
        d_in: width of the rows.
        d_out: width of the result and of the hidden layer.
    """

    def __init__(self, d_in: int, d_out: int):
        super().__init__()
        self.linear1 = nn.Linear(d_in, d_out)
        self.bn = BatchNorm(d_out)
        self.linear2 = nn.Linear(d_out, d_out)

    def forward(self, rows: Tensor) -> Tensor:
        return self.linear2(F.relu(self.bn(self.linear1(rows))))
