"""The plain path: CoOp with a memory bank, computed as the first straightforward implementation computes it.

It is a yardstick for speed and memory and nothing trains with it. It stands for released code of this family and has
the same frozen weights, the same trained context and the same class features and logits as `trainers.coop`, but none of
the savings of `clip` and `trainers`:

* texts have all 77 rows, and their features are computed again for every batch, in evaluation, too;
* attention is a matrix of scores, a softmax and a product, in both towers; the image tower's maps are kept;
* every block of the image tower computes all rows, and its patch tokens are projected to the joint space and kept;
* the bank is updated in a Python loop over classes and prototypes.

Axes: B images, C classes, N patches, M context rows, K prototypes a class, k activated tokens, n rows of a sequence, w
width of a tower, d joint width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.clip import tokenize
from clip.layers import ResidualAttentionBlock
from clip.model import CLIP
from trainers.coop import CoOpMethod

ACTIVATED = 7  # k, with which the bank is updated
PROTOTYPES = 5  # K
MOMENTUM = 0.8  # β


@dataclass
class PlainImage:
    """What the image tower of the plain path gives, block by block."""

    feature: Tensor  # [B, d], not normalised
    maps: list[Tensor]  # attention [B, heads, 1+N, 1+N] of each block
    tokens: list[Tensor]  # patch tokens [B, N, d] of each block, projected, not normalised


def layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """In fp32, as CLIP's norms are."""
    weight, bias = norm.weight.float(), norm.bias.float()
    return F.layer_norm(x.float(), norm.normalized_shape, weight, bias, norm.eps).to(x.dtype)


def attend(block: ResidualAttentionBlock, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """One block on all rows, [B, n, w] -> [B, n, w], and its attention map [B, heads, n, n].

    Args:
        mask: [n, n], added to the scores.
    """
    B, n, w = x.shape
    heads = block.attn.heads
    q, k, v = F.linear(layer_norm(block.ln_1, x), block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, dim=-1)
    q, k, v = (part.reshape(B, n, heads, w // heads).transpose(1, 2) for part in (q, k, v))
    scores = (q * (w // heads) ** -0.5) @ k.transpose(-2, -1)  # [B, heads, n, n]
    attention = (scores if mask is None else scores + mask).softmax(dim=-1)
    read = (attention @ v).transpose(1, 2).reshape(B, n, w)
    x = x + F.linear(read, block.attn.out_proj.weight, block.attn.out_proj.bias)
    c_fc, _, c_proj = block.mlp
    hidden = F.linear(layer_norm(block.ln_2, x), c_fc.weight, c_fc.bias)
    hidden = hidden * torch.sigmoid(1.702 * hidden)  # QuickGELU
    return x + F.linear(hidden, c_proj.weight, c_proj.bias), attention


def encode_images(clip: CLIP, images: Tensor) -> PlainImage:
    """The image tower with maps and joint tokens of all blocks, images [B, 3, H, H]."""
    visual = clip.visual
    patches = F.conv2d(images.to(visual.conv1.weight.dtype), visual.conv1.weight, stride=visual.patch_size)
    patches = patches.flatten(2).transpose(1, 2)  # [B, N, w]
    cls = visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
    x = torch.cat([cls, patches], dim=1) + visual.positional_embedding.to(patches.dtype)
    x = layer_norm(visual.ln_pre, x)
    maps, joint = [], []
    for block in visual.transformer.resblocks:
        x, attention = attend(block, x, None)
        maps.append(attention)
        joint.append(layer_norm(visual.ln_post, x) @ visual.proj)  # [B, 1+N, d]
    return PlainImage(joint[-1][:, 0], maps, [rows[:, 1:] for rows in joint])


def encode_texts(clip: CLIP, prompts: Tensor, end: Tensor) -> Tensor:
    """The text tower over all rows of prompts [C, 77, w]; the features [C, d] of the rows `end` [C], not normalised."""
    n = prompts.shape[1]
    mask = torch.full((n, n), float("-inf"), dtype=clip.dtype, device=prompts.device).triu(1)
    x = prompts.to(clip.dtype) + clip.positional_embedding.to(clip.dtype)
    for block in clip.transformer.resblocks:
        x, _ = attend(block, x, mask)
    x = layer_norm(clip.ln_final, x)
    return x[torch.arange(len(x), device=x.device), end] @ clip.text_projection


@torch.no_grad()
def update_in_loops(prototypes: Tensor, tokens: Tensor, label: Tensor, scale: Tensor, momentum: float) -> None:
    """Eq. (4)-(6) with means, in place, one class and one prototype after the other.

    Args:
        prototypes: [C, K, d].
        tokens: [B, k, d].
        label: [B].
        scale: of the cosines, 0-d.
        momentum: β.
    """
    unit = F.normalize(prototypes, dim=-1)
    for c in label.unique().tolist():
        rows = tokens[label == c].flatten(0, 1)  # [n, d]
        share = (scale * F.normalize(rows, dim=-1) @ unit[c].t()).softmax(dim=1)  # D [n, K]
        nearest = share.argmax(dim=1)
        for j in range(prototypes.shape[1]):
            mine = nearest == j
            if mine.any():
                weight = share[mine, j]
                mean = (weight[:, None] * rows[mine]).sum(dim=0) / weight.sum()
                prototypes[c, j] = momentum * prototypes[c, j] + (1 - momentum) * mean


class PlainCoOp(nn.Module):
    """CoOp on the plain path, with a bank of prototypes in the joint space that training updates.

    Args:
        coop: what it computes the same as; its context is copied, its frozen model used.

    Raises:
        ValueError: the class names stand before or inside the context, or each class has a context of its own.
    """

    prefix: Tensor
    suffix: Tensor
    end: Tensor
    prototypes: Tensor

    def __init__(self, coop: CoOpMethod):
        super().__init__()
        if coop.position != "end" or coop.ctx.dim() != 2:
            raise ValueError(
                "The plain path knows one context for all classes, in front of the name; leave TRAINER.COOP.CSC and "
                "TRAINER.COOP.CLASS_TOKEN_POSITION as they are."
            )
        self._outside = (coop.backbone.clip,)  # a tuple hides the frozen model from the module's parameters
        self.ctx = nn.Parameter(coop.ctx.detach().clone())  # [M, w]
        words = coop.words or " ".join(["X"] * len(self.ctx))
        ids = tokenize([f"{words} {name}." for name in coop.space.cleaned]).to(self.ctx.device)  # [C, 77]
        rows = self.clip.token_embedding(ids)  # [C, 77, w]
        self.register_buffer("prefix", rows[:, :1])
        self.register_buffer("suffix", rows[:, 1 + len(self.ctx) :])
        self.register_buffer("end", ids.argmax(dim=1))
        size = (len(coop.space), PROTOTYPES, self.clip.spec.embed_dim)
        self.register_buffer("prototypes", torch.randn(size, device=self.ctx.device))

    @property
    def clip(self) -> CLIP:
        return self._outside[0]

    def text(self) -> Tensor:
        """Unit class features [C, d] in fp32, computed anew in every call."""
        ctx = self.ctx.to(self.prefix.dtype).expand(len(self.prefix), -1, -1)
        prompts = torch.cat([self.prefix, ctx, self.suffix], dim=1)  # [C, 77, w]
        return F.normalize(encode_texts(self.clip, prompts, self.end).float(), dim=-1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, C]."""
        return self.logits(encode_images(self.clip, images))

    def logits(self, image: PlainImage) -> Tensor:
        return self.clip.logit_scale.exp() * F.normalize(image.feature.float(), dim=-1) @ self.text().t()

    def loss(self, images: Tensor, label: Tensor) -> Tensor:
        """Cross-entropy, 0-d; the bank takes in the k patches of each image that the class token looks at most."""
        image = encode_images(self.clip, images)
        loss = F.cross_entropy(self.logits(image), label)
        attention = image.maps[-1][:, :, 0, 1:].mean(dim=1)  # [B, N]
        index = attention.topk(ACTIVATED, dim=1).indices  # [B, k]
        tokens = torch.stack([rows[chosen] for rows, chosen in zip(image.tokens[-1], index, strict=True)])
        update_in_loops(self.prototypes, tokens.float(), label, self.clip.logit_scale.exp(), MOMENTUM)
        return loss
