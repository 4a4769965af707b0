"""Batch norm whose batch is that of all processes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dassl import distributed


class BatchNorm(nn.BatchNorm1d):
    """`nn.BatchNorm1d` for rows [R, d]; of several processes, each with rows of its own, all take the same statistics.

    In training, mean and variance are those over the rows of all processes, and gradients flow through them to all.
    `nn.SyncBatchNorm` does the same, but on GPUs only.
    """

    def forward(self, rows: Tensor) -> Tensor:
        if not self.training or distributed.world_size() == 1:
            return super().forward(rows)
        own = torch.cat([rows.sum(dim=0), rows.new_full((1,), len(rows))])
        total = distributed.sum_with_gradient(own)
        n = total[-1].detach()
        mean = total[:-1] / n  # [d]
        centred = rows - mean
        variance = distributed.sum_with_gradient(centred.square().sum(dim=0)) / n  # [d]
        if self.track_running_stats:
            self._track(mean.detach(), variance.detach() * n / (n - 1))
        return centred * (variance + self.eps).rsqrt() * self.weight + self.bias

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics, which take the unbiased variance."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
