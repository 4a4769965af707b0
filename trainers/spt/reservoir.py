"""A uniform sample, without replacement, of the rows of a stream whose length nobody knows in advance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class Reservoir:
    """Keeps `size` rows: each row of the stream draws a key from U(0, 1), and the smallest keys stay.

    Every set of rows is equally likely. The sample depends on the seed and on the order of the rows, not on the batches
    they come in. Memory is O(size), on the CPU whatever the rows' device.

    Args:
        size: rows to keep, at least 1.
        seed: of the keys.
    """

    def __init__(self, size: int, seed: Sequence[int]):
        self.size = size
        self.seen = 0  # rows of the stream so far
        self._generator = np.random.default_rng(list(seed))
        self._keys = np.empty(0)
        self._rows: Tensor | None = None

    def add(self, rows: Tensor) -> None:
        """Take notice of the next rows, [n, w]."""
        keys = self._generator.random(len(rows))
        self.seen += len(rows)
        if len(self._keys) == self.size:
            better = np.flatnonzero(keys < self._keys[-1])
            keys, rows = keys[better], rows[torch.from_numpy(better).to(rows.device)]
        self._merge(keys, rows.detach().float().cpu())

    def _merge(self, keys: np.ndarray, rows: Tensor) -> None:
        if len(keys) == 0 and self._rows is not None:
            return
        all_rows = rows if self._rows is None else torch.cat([self._rows, rows])
        all_keys = np.concatenate([self._keys, keys])
        best = np.argsort(all_keys)[: self.size]
        self._keys, self._rows = all_keys[best], all_rows[torch.from_numpy(best)]

    def rows(self) -> Tensor:
        """The sample in random order, [min(size, rows of the stream), w], fp32.

        Raises:
            ValueError: no row came.
        """
        if self._rows is None:
            raise ValueError("No row came, so there is nothing to draw from.")
        return self._rows
