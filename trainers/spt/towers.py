"""What SPT asks of a frozen ViT, and CLIP's image tower seen that way.

Axes: B images, N patches, P prompt rows, w width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from torch import Tensor

from clip.backbone import VisionTower, VisualPrompts

TIMM = "timm:"  # of MODEL.BACKBONE.NAME, before the name of a timm model


class PlainTower(ABC):
    """A frozen ViT that ends with its last block and a norm: no projection, no classes."""

    width: int  # w
    n_blocks: int
    n_prefix: int  # rows in front of the patches: class token, registers

    @abstractmethod
    def layers(self, images: Tensor, depth: int) -> Iterator[Tensor]:
        """The patch rows that prompts of depth 1..`depth` stand beside, [B, N, w] each, one layer in memory at a time.

        First the patch embedding, before position embeddings; then what enters block 1, 2, … of the un-prompted model.
        """

    @abstractmethod
    def encode(self, images: Tensor, prompts: VisualPrompts) -> Tensor:
        """All rows behind the last block, before the norm, [B, n_prefix + N + P, w]; prompts stand last."""

    @abstractmethod
    def norm(self, rows: Tensor) -> Tensor:
        """The final norm, [..., w] -> [..., w]."""


class ClipTower(PlainTower):
    """CLIP's image tower; its norm is `ln_post`.

    Raises:
        ValueError: the tower is a ResNet.
    """

    n_prefix = 1

    def __init__(self, vision: VisionTower):
        self.vision = vision
        self.width, self.n_blocks = vision.vit.transformer.width, vision.n_blocks

    def layers(self, images: Tensor, depth: int) -> Iterator[Tensor]:
        patches = self.vision.vit.patch_embed(images)
        yield patches
        if depth > 1:
            x = self.vision.vit.embed(patches)
            for block in range(1, depth):
                x = self.vision.blocks(x, block - 1, block)
                yield x[:, 1:]

    def encode(self, images: Tensor, prompts: VisualPrompts) -> Tensor:
        return self.vision.hidden(images, self.n_blocks, prompts)

    def norm(self, rows: Tensor) -> Tensor:
        return self.vision.vit.ln_post(rows)
