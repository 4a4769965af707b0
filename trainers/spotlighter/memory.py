"""The semantic memory bank: K prototypes a class, moved towards the activated tokens of that class (Eq. (4)-(6)).

Axes: B images, C classes the bank knows, K prototypes a class, k activated tokens, w tower width, d joint width.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dassl import distributed

LLOYD_STEPS = 10
RULES = ("mean", "sum")


class PrototypeMemory(nn.Module):
    """Prototypes U [C, K, w] in the space of the tokens that enter the last block; a buffer, never trained by gradient.

    Args:
        n_cls: C.
        n_proto: K.
        width: w.
        momentum: β, share of the old prototype kept per update, in [0, 1] (Eq. (6)).
        rule: "mean" divides Eq. (6)'s sum over tokens by Σ D, "sum" takes the equation literally.

    Raises:
        ValueError: an argument is out of range.
    """

    prototypes: Tensor
    filled: Tensor

    def __init__(self, n_cls: int, n_proto: int, width: int, momentum: float = 0.8, rule: str = "mean"):
        super().__init__()
        if n_proto < 1:
            raise ValueError(f"N_PROTOTYPES must be at least 1, got {n_proto}.")
        if not 0 <= momentum <= 1:
            raise ValueError(f"MOMENTUM must be in [0, 1], got {momentum}.")
        if rule not in RULES:
            raise ValueError(f"BANK_UPDATE must be one of {', '.join(RULES)}, got '{rule}'.")
        self.momentum, self.rule = momentum, rule
        self.register_buffer("prototypes", torch.zeros(n_cls, n_proto, width))
        self.register_buffer("filled", torch.zeros((), dtype=torch.bool))  # False until `fill` or a checkpoint
        self._viewed: tuple[tuple[int, int], Tensor] | None = None
        self._folded: Tensor | None = None

    def train(self, mode: bool = True) -> PrototypeMemory:
        if mode != self.training:
            self._viewed = None  # a host's view may have trained
        return super().train(mode)

    @torch.no_grad()
    def viewed(self, view: Callable[[Tensor], Tensor]) -> Tensor:
        """view(U) [C, K, d]; in evaluation, where neither bank nor view moves, computed once."""
        if self.training:
            return view(self.prototypes)
        if self._folded is not None:
            return self._folded
        key = (self.prototypes.data_ptr(), self.prototypes._version)
        if self._viewed is None or self._viewed[0] != key:
            self._viewed = (key, view(self.prototypes))
        return self._viewed[1]

    def fold(self, view: Callable[[Tensor], Tensor]) -> None:
        """Make view(U) a constant of inference: bank and view will not move any more."""
        self._folded = self.viewed(view)

    def resize(self, n_cls: int) -> None:
        """Make room for the bank of a checkpoint with another number of classes; it is empty until then."""
        _, K, w = self.prototypes.shape
        self.prototypes = self.prototypes.new_zeros(n_cls, K, w)
        self.filled.fill_(False)
        self._viewed = None

    @torch.no_grad()
    def fill(self, prototypes: Tensor) -> None:
        """Set all prototypes, [C, K, w]."""
        self.prototypes.copy_(prototypes)
        self.filled.fill_(True)

    @torch.no_grad()
    def update(self, tokens: Tensor, label: Tensor, view: Callable[[Tensor], Tensor], scale: Tensor) -> None:
        """Eq. (4)-(6) with the true class's prototypes (R4); prototypes that no token is assigned to keep their value.

        Args:
            tokens: activated tokens [B, k, w].
            label: true classes [B].
            view: tokens [..., w] to unit features [..., d].
            scale: s, 0-d.
        """
        C, K, w = self.prototypes.shape
        own = view(self.prototypes[label])  # [B, K, d]
        share = (scale * view(tokens) @ own.transpose(1, 2)).softmax(dim=2)  # Eq. (4), D [B, k, K]
        weight, nearest = share.max(dim=2)  # Eq. (5), [B, k] each
        row = (label[:, None] * K + nearest).flatten()  # [B·k] in 0..C·K-1
        weighted = weight[..., None] * tokens.to(self.prototypes.dtype)  # [B, k, w]
        # sums of D · token and, in the last column, of D: one scatter, one reduction over processes
        sums = self.prototypes.new_zeros(C * K, w + 1)
        sums.index_add_(0, row, torch.cat([weighted, weight[..., None]], dim=2).flatten(0, 1))
        (sums,) = distributed.sum_all(sums)
        total, hits = sums[:, :w], sums[:, w:]
        target = total / hits.clamp(min=torch.finfo(hits.dtype).tiny) if self.rule == "mean" else total
        old = self.prototypes.view(C * K, w)
        moved = self.momentum * old + (1 - self.momentum) * target
        self.prototypes.copy_(torch.where(hits > 0, moved, old).view(C, K, w))


def kmeans_prototypes(tokens: np.ndarray, n_proto: int, seed: int) -> np.ndarray:
    """Centres of one class's tokens: k-means++ seeding and a few Lloyd steps (R5), [n, w] to [K, w].

    Raises:
        ValueError: there are fewer tokens than prototypes.
    """
    from sklearn.cluster import KMeans  # here: it takes a second to import, and only the start of a training needs it
    from sklearn.exceptions import ConvergenceWarning

    if len(tokens) < n_proto:
        raise ValueError(f"{n_proto} prototypes need as many tokens of each class, got {len(tokens)}.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal tokens: some centres coincide
        fitted = KMeans(n_proto, init="k-means++", n_init=1, max_iter=LLOYD_STEPS, random_state=seed).fit(tokens)
    return fitted.cluster_centers_.astype(np.float32)


def random_prototypes(shape: tuple[int, int, int], norm: float, seed: int) -> Tensor:
    """Random directions [C, K, w], each row as long as tokens are on average."""
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return F.normalize(rows, dim=-1) * norm
