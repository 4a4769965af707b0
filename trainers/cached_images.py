"""Cached features as methods meet them: images that are rows, and an image tower that answers for them.

Knows neither files nor loaders: where features come from is the business of a `Source` (`feature_cache`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from clip.backbone import Pruning, VisionOut, VisionTower, VisualPrompts

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}  # by the value of DATALOADER.CACHE_DTYPE

Asked = tuple[frozenset[str], Pruning | None]  # of the tower: want and pruning


class Source(Protocol):
    """Where the features of some images are."""

    def features(self, images: CachedImages, asked: Asked) -> VisionOut:
        """What the tower gives for these images."""


class CachedImages:
    """Images of a source as a method gets them: numbers of rows in the place of [B, 3, H, W].

    Args:
        source: where their features are.
        rows: [B], of the source.
        device: where the features will be.
    """

    def __init__(self, source: Source, rows: np.ndarray, device: torch.device | str = "cpu"):
        self.source = source
        self.rows = rows
        self.device = torch.device(device)

    def __len__(self) -> int:
        return len(self.rows)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> CachedImages:
        """The same images with their features on a device."""
        return CachedImages(self.source, self.rows, device)


class CachedTower(VisionTower):
    """The image tower, which also answers for `CachedImages`; for pixels it is the tower that it was."""

    def __call__(
        self,
        images: Tensor | CachedImages,
        prompts: VisualPrompts | None = None,
        want: Collection[str] = frozenset(),
        prune: Pruning | None = None,
    ) -> VisionOut:
        if not isinstance(images, CachedImages):
            return super().__call__(images, prompts, want, prune)
        if prompts is not None:
            raise ValueError("Prompts change what the image encoder gives, so its features can't be cached.")
        return images.source.features(images, (frozenset(want), prune))


def to_columns(out: VisionOut) -> dict[str, Tensor]:
    """What the tower computed, by name, [B, …] each."""
    names = ("pooled", "tokens", "cls_attn", "patch_embed", "kept", "group", "sizes")
    parts = {name: getattr(out, name) for name in names}
    parts |= {f"hidden:{block}": tensor for block, tensor in out.hidden.items()}
    return {name: tensor for name, tensor in parts.items() if tensor is not None}


def from_columns(columns: Mapping[str, Tensor], scalars: Mapping[str, int]) -> VisionOut:
    """The inverse of `to_columns`."""
    hidden = {int(name.partition(":")[2]): tensor for name, tensor in columns.items() if ":" in name}
    return VisionOut(hidden=hidden, **{n: t for n, t in columns.items() if ":" not in n}, **scalars)  # type: ignore[arg-type]


def storable(tensor: Tensor, dtype: str, name: str) -> np.ndarray:
    """Values in the type of the store; numbers of patches stay whole numbers.

    Raises:
        ValueError: a value is too large for fp16.
    """
    if not tensor.is_floating_point():
        return tensor.to(torch.int32).cpu().numpy()
    stored = tensor.to(DTYPES[dtype])
    if dtype == "fp16" and not stored.isfinite().all():
        raise ValueError(f"'{name}' holds values that are too large for DATALOADER.CACHE_DTYPE fp16; take fp32.")
    return stored.cpu().numpy()
