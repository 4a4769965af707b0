"""The training patches that lie nearest to prototypes of the memory bank: one pass over training images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.predictor import Predictor, opened
from trainers.spotlighter.head import SpotlighterHead
from trainers.spotlighter.method import SpotlighterMethod

Row = tuple[int, int]  # class of the bank, prototype within it


@dataclass(frozen=True)
class Patch:
    """A patch of a training image."""

    image: int  # which of the images given
    patch: int
    cosine: float  # to the prototype, in the joint space


def nearest_patches(
    predictor: Predictor, paths: Sequence[str], rows: Sequence[Row], n: int = 3
) -> dict[Row, list[Patch]]:
    """The n patches nearest to each prototype, nearest first, at most one of an image.

    Args:
        predictor: of a run with a memory bank.
        paths: of the training images.
        rows: the prototypes.

    Raises:
        ValueError: the run has no memory bank of classes.
        FileNotFoundError, ImageReadError: an image is missing or damaged.
    """
    method = predictor.trainer.method
    if not isinstance(method, SpotlighterMethod) or not isinstance(method.head, SpotlighterHead):
        raise ValueError("The run has no memory bank with prototypes of classes, so no patch is nearest to one.")
    best_cosine, best_patch, best_image = [], [], []  # [images, rows] each, in pieces
    wanted = torch.tensor(rows, dtype=torch.long)
    start = 0
    for images in batches(predictor, paths):
        unit, bank = _joint(method, images, predictor)
        chosen = bank[wanted[:, 0].to(bank.device), wanted[:, 1].to(bank.device)]  # [rows, d]
        cosine, patch = torch.einsum("bnd,rd->bnr", unit, chosen).max(dim=1)  # [B, rows]
        best_cosine.append(cosine.cpu())
        best_patch.append(patch.cpu())
        best_image.append(torch.arange(start, start + len(images)))
        start += len(images)
    if not start:
        return {row: [] for row in rows}
    cosines, patches = torch.cat(best_cosine), torch.cat(best_patch)
    order = cosines.argsort(dim=0, descending=True, stable=True)[:n]  # [n, rows]
    return {
        row: [Patch(int(i), int(patches[i, r]), float(cosines[i, r])) for i in order[:, r]]
        for r, row in enumerate(rows)
    }


def batches(predictor: Predictor, paths: Sequence[str]) -> Iterator[Tensor]:
    """Images as the model takes them, [B, 3, H, W] on its device."""
    for start in range(0, len(paths), predictor.batch_size):
        part = [predictor.transform(opened(path)) for path in paths[start : start + predictor.batch_size]]
        yield torch.stack(part).to(predictor.trainer.device)


@torch.no_grad()
def _joint(method: SpotlighterMethod, images: Tensor, predictor: Predictor) -> tuple[Tensor, Tensor]:
    """All patches of the images, P [B, N, d], and the bank, view(U) [C, K, d]; nothing is pruned here."""
    head = method.head
    assert isinstance(head, SpotlighterHead)
    with predictor.trainer.precision.autocast():
        vision = method.host.image(images, frozenset(head.want(method.backbone.vision.n_blocks, training=False)))
        given = method.given(vision, method.frozen_text())
    with torch.autocast(images.device.type, enabled=False):
        return given.view(given.hidden_parts()[1]), head.memory.viewed(given.view)
