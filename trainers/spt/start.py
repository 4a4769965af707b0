"""The start of the prompts: one pass over the training images, in memory that does not grow with their number."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainers.spt.reservoir import Reservoir
from trainers.spt.towers import PlainTower
from trainers.spt.windows import pool_windows

STRATEGIES = ("random", "mean", "max", "kmeans", "normal")
KMEANS_STEPS = 50  # passes over a layer's rows, at most


@dataclass(frozen=True)
class StartOptions:
    """How prompts start.

    Raises:
        ValueError: an option is out of range.
    """

    strategy: str = "random"  # one of STRATEGIES; "normal": N(0, 0.02²), as in VPT
    kmeans_rows: int = 200_000  # rows that k-means sees, of all layers together
    seed: int = 0

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise ValueError(f"TRAINER.SPT.STRATEGY must be one of {', '.join(STRATEGIES)}, got '{self.strategy}'.")
        if self.kmeans_rows < 1:
            raise ValueError(f"TRAINER.SPT.KMEANS_ROWS must be at least 1, got {self.kmeans_rows}.")


class LayerStart:
    """Makes P prototypes of one layer's patch tokens.

    - random: P distinct tokens, drawn uniformly.
    - mean, max: P of the pooled windows of all images, drawn uniformly.
    - kmeans: centres of P clusters, k-means++ seeding, of tokens drawn uniformly.

    Args:
        n_prompts: P.
        kmeans_rows: tokens of this layer that k-means sees.
        seed: of all draws.
    """

    def __init__(self, strategy: str, n_prompts: int, kmeans_rows: int, seed: Sequence[int]):
        self.strategy, self.n_prompts, self.seed = strategy, n_prompts, seed
        self._drawn = Reservoir(max(kmeans_rows, n_prompts) if strategy == "kmeans" else n_prompts, seed)

    def add(self, tokens: Tensor) -> None:
        """Take notice of a batch's patch tokens, [B, N, w]."""
        if self.strategy in ("mean", "max"):
            tokens = pool_windows(tokens.float(), self.n_prompts, self.strategy)
        self._drawn.add(tokens.flatten(0, 1))

    def prototypes(self) -> Tensor:
        """[P, w], fp32.

        Raises:
            ValueError: the images have too few tokens, or windows.
        """
        if self._drawn.seen < self.n_prompts:
            what = "windows" if self.strategy in ("mean", "max") else "tokens"
            raise ValueError(
                f"TRAINER.SPT.N_CTX_VISION is {self.n_prompts}, but the training images give only {self._drawn.seen} "
                f"{what}; choose a smaller number."
            )
        rows = self._drawn.rows()
        return cluster_centres(rows, self.n_prompts, self.seed) if self.strategy == "kmeans" else rows


def cluster_centres(rows: Tensor, n_clusters: int, seed: Sequence[int]) -> Tensor:
    """Centres [P, w] of rows [n, w] by mini-batch k-means."""
    from sklearn.cluster import MiniBatchKMeans  # here: it takes a second to import, and only this strategy needs it
    from sklearn.exceptions import ConvergenceWarning

    state = int(np.random.SeedSequence(list(seed)).generate_state(1)[0])
    kmeans = MiniBatchKMeans(n_clusters, init="k-means++", n_init=1, max_iter=KMEANS_STEPS, random_state=state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal tokens: some centres coincide
        return torch.from_numpy(kmeans.fit(rows.numpy()).cluster_centers_).float()


@torch.no_grad()
def start_prompts(
    prompts: Sequence[Tensor], tower: PlainTower, images: Callable[[], Iterable[Tensor]], options: StartOptions
) -> None:
    """Replace prompts by prototypes of the patch tokens that they will stand beside; "normal" leaves them as they are.

    Args:
        prompts: rows by depth, [P, w] each; changed in place.
        images: gives [B, 3, H, W] a batch; not called for "normal".

    Raises:
        ValueError: the images have too few patches.
    """
    if options.strategy == "normal":
        return
    share = max(1, options.kmeans_rows // len(prompts))
    layers = [
        LayerStart(options.strategy, len(rows), share, (options.seed, layer)) for layer, rows in enumerate(prompts)
    ]
    n_images = 0
    for batch in images():
        n_images += len(batch)
        for start, tokens in zip(layers, tower.layers(batch, len(prompts)), strict=True):
            start.add(tokens)
    for rows, start in zip(prompts, layers, strict=True):
        rows.copy_(start.prototypes())
    print(f"Prompts start as {options.strategy} prototypes of the patch tokens of {n_images:,} training images")
