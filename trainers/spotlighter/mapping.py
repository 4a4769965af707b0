"""From activated tokens to representative ones: IRM for the image, Eq. (8)-(10), TRM for the text, Eq. (11).

Trained layers start such that a module changes nothing. Axes: B images, C classes, k tokens of one level, w tower
width, d joint width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clip.layers import ResidualAttentionBlock
from trainers.spotlighter.activation import cosines

CHUNK_ELEMENTS = 2**22  # of the widest tensor per class that is made at once: 16 MB in fp32
HEAD_WIDTH = 64  # of the transformer TRM, as in CLIP


def zero(layer: nn.Linear) -> nn.Linear:
    """The layer with weight, and bias if it has one, set to zero."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class AttentionIRM(nn.Module):
    """IRM of the paper. Attention and norms are those of θ, frozen (R6); only the FFN of Eq. (9) trains.

    Args:
        width: w.
    """

    def __init__(self, width: int):
        super().__init__()
        self.ffn = nn.Sequential(nn.Linear(width, width // 4), nn.GELU(), zero(nn.Linear(width // 4, width)))

    def forward(
        self,
        matched: Tensor,
        tokens: Tensor,
        cls_token: Tensor,
        block: ResidualAttentionBlock,
        sizes: Tensor | None = None,
    ) -> Tensor:
        """Û' [B, k, w]: the fused tokens after θ.

        Args:
            matched: U_match [B, k, w], each token's most similar prototype.
            tokens: activated tokens of one level [B, k, w].
            cls_token: the image's class token as it enters θ, [B, 1, w].
            block: θ.
            sizes: [B, k], patches that each token stands for and is attended to as; None: one each.
        """
        dtype = block.attn.in_proj_weight.dtype
        bias = None if sizes is None else sizes.log().to(dtype)[:, None, None]  # [B, 1, 1, k]
        q = block.attn.q(block.ln_1(matched.to(dtype)))
        z = block.attn.output(q, *block.attn.kv(block.ln_1(tokens.to(dtype))), bias).float() + matched  # Eq. (8)
        fused = z + self.ffn(block.ln_2(z))  # Eq. (9)
        rows = torch.cat([cls_token.float(), fused, tokens.float()], dim=1).to(dtype)  # [B, 1+2k, w]
        # Eq. (10), of which only the fused rows are needed
        h, own = block.ln_1(rows), slice(1, 1 + matched.shape[1])
        bias = None if bias is None else F.pad(bias, (own.stop, 0))
        return block.finish(rows[:, own], block.attn.q(h[:, own]), *block.attn.kv(h), bias).float()


class LinearIRM(nn.Module):
    """The linear alternative of Table XI: Û = U_match + Lin([U_match; tok]), without θ.

    Args:
        width: w.
    """

    def __init__(self, width: int):
        super().__init__()
        self.linear = zero(nn.Linear(2 * width, width))

    def forward(
        self,
        matched: Tensor,
        tokens: Tensor,
        cls_token: Tensor,
        block: ResidualAttentionBlock,
        sizes: Tensor | None = None,
    ) -> Tensor:
        """As in `AttentionIRM`; class token, θ and sizes are not used."""
        return matched + self.linear(torch.cat([matched, tokens.float()], dim=2))


def token_weights(text: Tensor, tokens: Tensor, scale: Tensor) -> Tensor:
    """W [B, C, k] of Eq. (11): which activated tokens a class looks at, softmax_j(s · cos(T_c, tok_j)).

    Args:
        text: T [C, d] or [B, C, d].
        tokens: view(tok) [B, k, d].
        scale: s, 0-d.
    """
    return (scale * tokens @ text.mT).mT.softmax(dim=2)


class TRM(nn.Module):
    """What both kinds of TRM share: classes go through in chunks, recomputed in the backward pass if there are many.

    Args:
        dim: d.
        alpha: α, share of the fused part (Eq. (11)).
    """

    def __init__(self, dim: int, alpha: float):
        super().__init__()
        self.dim, self.alpha = dim, alpha
        self.widest = dim  # features of the widest [B, classes, ·] tensor

    def representative(self, text: Tensor, tokens: Tensor, scale: Tensor) -> Tensor:
        """t_rep [B, C, d], unit: Eq. (11) for the given classes.

        Args:
            text: T [C, d] or [B, C, d], all classes or some.
            tokens: view(tok) of one level, [B, k, d].
            scale: s, 0-d.
        """
        raise NotImplementedError

    def cosines(self, image: Tensor, text: Tensor, tokens: Tensor, scale: Tensor) -> Tensor:
        """cos(v_rep, t_rep) [B, C], Eq. (12).

        Args:
            image: v_rep [B, d], unit.
            text, tokens, scale: as in `representative`.
        """

        def part(text: Tensor) -> Tensor:
            return torch.einsum("bd,bcd->bc", image, self.representative(text, tokens, scale))

        return torch.cat(self._in_chunks(part, tokens.shape[0], text), dim=1)

    def distance(self, text: Tensor, text0: Tensor, tokens: Tensor, scale: Tensor) -> Tensor:
        """Eq. (13): mean |t_rep − T0| over images, classes and features, 0-d.

        Args:
            text0: T0 [C, d].
            text, tokens, scale: as in `representative`.
        """

        def part(text: Tensor, text0: Tensor) -> Tensor:
            return (self.representative(text, tokens, scale) - text0).abs().sum()

        return torch.stack(self._in_chunks(part, len(tokens), text, text0)).sum() / (len(tokens) * text0.numel())

    def _in_chunks(self, part: Callable[..., Tensor], n_images: int, *texts: Tensor) -> list[Tensor]:
        """`part(*texts)` for chunks of classes of at most `CHUNK_ELEMENTS` / (B · widest)."""
        if torch.compiler.is_compiling():  # a graph for any number of images can't count chunks
            return [part(*texts)]
        size = max(1, CHUNK_ELEMENTS // (n_images * self.widest))
        chunks = list(zip(*(text.split(size, dim=-2) for text in texts), strict=True))
        if len(chunks) == 1 or not torch.is_grad_enabled():
            return [part(*chunk) for chunk in chunks]
        # nothing random in it
        return [checkpoint(part, *chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks]


class LinearTRM(TRM):
    """TRM of the paper: one linear layer without bias over [T_c; Σ_j W tok_j], one for both levels (R8).

    The layer's weight is used in two halves: T_c goes through the first one once, not once an image, and k vectors an
    image, not one a class, go through the second.
    """

    def __init__(self, dim: int, alpha: float):
        super().__init__(dim, alpha)
        self.linear = zero(nn.Linear(2 * dim, dim, bias=False))

    def _parts(self, text: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """T_c + α Lin([T_c; 0]), shaped as T, and α Lin([0; tok_j]) [B, k, d]."""
        of_text, of_tokens = self.linear.weight.split(self.dim, dim=1)  # [d, d] each
        return text + self.alpha * F.linear(text, of_text), self.alpha * F.linear(tokens, of_tokens)

    def representative(self, text: Tensor, tokens: Tensor, scale: Tensor) -> Tensor:
        base, mixed = self._parts(text, tokens)
        weights = token_weights(text, tokens, scale)  # [B, C, k]
        return F.normalize(base + torch.einsum("bck,bkd->bcd", weights, mixed), dim=2)

    def cosines(self, image: Tensor, text: Tensor, tokens: Tensor, scale: Tensor) -> Tensor:
        """As in the base class, from products of small matrices: no [B, C, d] tensor is made."""
        base, mixed = self._parts(text, tokens)
        weights = token_weights(text, tokens, scale)  # [B, C, k]
        product = cosines(image, base) + (weights * torch.einsum("bd,bkd->bk", image, mixed)[:, None]).sum(dim=2)
        # |base_c + Σ_j W_j mixed_j|²
        cross = (weights * (mixed @ base.mT).mT).sum(dim=2)  # [B, C]
        within = (weights @ (mixed @ mixed.transpose(1, 2)) * weights).sum(dim=2)  # [B, C]
        square = base.square().sum(dim=-1) + 2 * cross + within
        return product * square.clamp(min=1e-12).rsqrt()


class TransformerTRM(TRM):
    """The alternative of Table XI: one pre-LN block over [T_c; tok_1..k], of which T_c's row is taken.

    T_c + α · (row − T_c), so that α keeps its meaning; both residual branches start at zero.
    """

    def __init__(self, dim: int, alpha: float):
        super().__init__(dim, alpha)
        self.widest = 4 * dim
        self.heads = max(1, dim // HEAD_WIDTH)
        self.ln_1, self.ln_2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), zero(nn.Linear(dim, dim))
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), zero(nn.Linear(4 * dim, dim)))

    def representative(self, text: Tensor, tokens: Tensor, scale: Tensor) -> Tensor:
        rows = text if text.dim() == 3 else text[None]  # [B or 1, C, d]
        q, k_text, v_text = self._heads(self.ln_1(rows)).unbind(dim=2)  # [B or 1, C, heads, d / heads] each
        _, k, v = self._heads(self.ln_1(tokens)).unbind(dim=2)  # [B, k, heads, d / heads] each
        width = q.shape[-1] ** -0.5
        own = (q * k_text).sum(dim=3, keepdim=True).expand(tokens.shape[0], -1, -1, -1)  # [B, C, heads, 1]
        others = torch.einsum("bchw,bkhw->bchk", q.expand(tokens.shape[0], -1, -1, -1), k)
        weights = torch.cat([own, others], dim=3).mul(width).softmax(dim=3)
        read = weights[..., :1] * v_text + torch.einsum("bchk,bkhw->bchw", weights[..., 1:], v)
        added = self.out(read.flatten(2))  # [B, C, d]
        added = added + self.mlp(self.ln_2(text + added))
        return F.normalize(text + self.alpha * added, dim=2)

    def _heads(self, x: Tensor) -> Tensor:
        """Queries, keys and values, [..., d] to [..., 3, heads, d / heads]."""
        return self.qkv(x).unflatten(-1, (3, self.heads, -1))


IRMS: dict[str, type[AttentionIRM] | type[LinearIRM]] = {"transformer": AttentionIRM, "linear": LinearIRM}
TRMS: dict[str, type[TRM]] = {"linear": LinearTRM, "transformer": TransformerTRM}
