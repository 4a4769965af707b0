"""CLIP's vision transformer, with OpenAI's constructor, attributes and parameter names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import LayerNorm, Transformer, check_images


class VisionTransformer(nn.Module):
    """Images [B, 3, H, H] to class-token features [B, E]; w is the width, N = (H / patch)² the number of patches."""

    def __init__(self, input_resolution: int, patch_size: int, width: int, layers: int, heads: int, output_dim: int):
        super().__init__()
        if input_resolution % patch_size:
            raise ValueError(
                f"The image size must be a multiple of the patch size, got {input_resolution} and {patch_size}."
            )
        self.input_resolution, self.patch_size, self.output_dim = input_resolution, patch_size, output_dim
        self.grid = input_resolution // patch_size  # patches a side
        self.conv1 = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size, bias=False)
        scale = width**-0.5
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(scale * torch.randn(self.grid**2 + 1, width))
        self.ln_pre = LayerNorm(width)
        self.transformer = Transformer(width, layers, heads)
        self.ln_post = LayerNorm(width)
        self.proj = nn.Parameter(scale * torch.randn(width, output_dim))

    def patch_embed(self, images: Tensor) -> Tensor:
        """[B, 3, H, H] -> [B, N, w], before position embeddings; the image size must be the model's."""
        check_images(images, self.input_resolution)
        x = images.to(self.conv1.weight.dtype)
        weight, p = self.conv1.weight.flatten(1), self.patch_size
        # patches do not overlap, so the convolution is one matrix product
        x = x.unflatten(2, (-1, p)).unflatten(4, (-1, p)).permute(0, 2, 4, 1, 3, 5)  # [B, g, g, 3, p, p]
        return F.linear(x.flatten(3).flatten(1, 2), weight)  # [B, N, w]

    def embed(self, patches: Tensor) -> Tensor:
        """[B, N, w] -> [B, 1+N, w]: class token first, positions added, `ln_pre` applied."""
        cls = self.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
        x = torch.cat([cls, patches], dim=1) + self.positional_embedding.to(patches.dtype)
        return self.ln_pre(x)

    def project(self, x: Tensor) -> Tensor:
        """`ln_post`, then the projection: [..., w] -> [..., E]."""
        return F.linear(self.ln_post(x), self.proj.t())

    def forward(self, images: Tensor) -> Tensor:
        x = self.embed(self.patch_embed(images))
        *blocks, last = self.transformer.blocks()
        for block in blocks:
            x = block.run(x)
        return self.project(last.run_first(x)[:, 0])

    def init_weights(self) -> None:
        self.transformer.init_weights()
