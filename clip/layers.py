"""The transformer layers that both towers of CLIP share. Parameter names are those of OpenAI's state dict.

Inside, sequences are batch-first, [B, n, W] with W the width, and attention operands are [B, heads, n, W / heads].
A block can be run in stages (`qkv`, `q`, `kv`, `finish`), so that a caller may add keys of other rows, compute a
single output row, or read attention weights without a second copy of the block. Only `forward` of `Transformer` and of
a block is sequence-first, [n, B, W], as users of OpenAI's package call it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KeyValue = tuple[Tensor, Tensor]  # keys and values, [B, heads, n, W / heads] each


@lru_cache(maxsize=128)
def causal_mask(rows: int, keys: int, device: torch.device) -> Tensor:
    """Boolean [rows, keys], True where a row may look; the last row sees all keys. Built once per shape and device."""
    with torch.inference_mode(False):  # an inference tensor in the cache could not be saved for a later backward pass
        return torch.ones(rows, keys, dtype=torch.bool, device=device).tril(keys - rows)


def check_images(images: Tensor, size: int) -> None:
    """Refuse what is no batch of pictures of the tower's size.

    Raises:
        ValueError: the shape is not [B, 3, size, size].
    """
    if images.dim() != 4 or images.shape[1:] != (3, size, size):
        raise ValueError(
            f"This image tower takes images of shape [B, 3, {size}, {size}], got {list(images.shape)}; "
            f"resize them (INPUT.SIZE) or choose another backbone."
        )


def take_rows(rows: Tensor, index: Tensor) -> Tensor:
    """Rows [B, n, W] at index [B, k]: [B, k, W]."""
    return rows.gather(1, index[..., None].expand(-1, -1, rows.shape[2]))


class LayerNorm(nn.LayerNorm):
    """LayerNorm computed in fp32 whatever the input's type; the result has the input's type."""

    def forward(self, x: Tensor) -> Tensor:
        weight = None if self.weight is None else self.weight.float()
        bias = None if self.bias is None else self.bias.float()
        return F.layer_norm(x.float(), self.normalized_shape, weight, bias, self.eps).to(x.dtype)


class Linear(nn.Linear):
    """A linear layer whose bias may have more precision than its weight, as one that is trained has."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias.to(self.weight.dtype))


class QuickGELU(nn.Module):
    """x · sigmoid(1.702 x), written with SiLU, which keeps one tensor for the backward pass instead of three."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x * 1.702) * (1 / 1.702)


class MultiheadAttention(nn.Module):
    """Self-attention with the parameter names of `torch.nn.MultiheadAttention`, always through fused attention."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        if width % heads:
            raise ValueError(f"The attention width must be a multiple of the number of heads, got {width} and {heads}.")
        self.width, self.heads = width, heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def _project(self, x: Tensor, first: int, last: int) -> Sequence[Tensor]:
        """Projections number first..last-1 of (query, key, value), each [B, heads, n, W / heads]."""
        W = self.width
        weight, bias = self.in_proj_weight[first * W : last * W], self.in_proj_bias[first * W : last * W]
        B, n, _ = x.shape
        out = F.linear(x, weight, bias).view(B, n, last - first, self.heads, W // self.heads)
        return out.permute(2, 0, 3, 1, 4).unbind(0)

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self._project(x, 0, 3)
        return q, k, v

    def q(self, x: Tensor) -> Tensor:
        return self._project(x, 0, 1)[0]

    def kv(self, x: Tensor) -> KeyValue:
        k, v = self._project(x, 1, 3)
        return k, v

    def weights(self, q: Tensor, k: Tensor, bias: Tensor | None = None) -> Tensor:
        """Attention of the rows q to the keys k after the softmax, fp32 [B, heads, rows, keys].

        Args:
            bias: added to the scores before the softmax.
        """
        scores = q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)
        return (scores if bias is None else scores + bias).softmax(dim=-1, dtype=torch.float32)

    def output(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """Attention and output projection, [B, rows, W].

        Args:
            mask: boolean, True where a row may look; or of q's type, added to the scores.
        """
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)  # [B, heads, rows, W / heads]
        return self.out_proj(x.transpose(1, 2).flatten(2))


class ResidualAttentionBlock(nn.Module):
    """x += attention(LN x), x += MLP(LN x), in stages."""

    def __init__(self, width: int, heads: int, causal: bool = False):
        super().__init__()
        self.causal = causal
        self.attn = MultiheadAttention(width, heads)
        self.ln_1 = LayerNorm(width)
        layers = [("c_fc", nn.Linear(width, 4 * width)), ("gelu", QuickGELU()), ("c_proj", Linear(4 * width, width))]
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.ln_2 = LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Sequence-first, [n, B, W] -> [n, B, W], as in OpenAI's package."""
        return self.run(x.transpose(0, 1)).transpose(0, 1)

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.attn.qkv(self.ln_1(x))

    def finish(
        self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """The block for the rows x [B, rows, W] once their queries and everybody's keys and values are known."""
        x = x + self.attn.output(q, k, v, mask, causal)
        return x + self.mlp(self.ln_2(x))

    def run(self, x: Tensor, past: KeyValue | None = None, bias: Tensor | None = None) -> Tensor:
        """All rows of x, [B, n, W] -> [B, n, W]; `past` holds keys and values of rows that stand before x.

        Args:
            bias: added to the attention scores, [B, 1, 1, n]; for a block without causal mask.
        """
        q, k, v = self.qkv(x)
        if past is None:
            return self.finish(x, q, k, v, bias, causal=self.causal)
        k, v = prepend(past, k, v)
        return self.finish(x, q, k, v, causal_mask(q.shape[2], k.shape[2], x.device) if self.causal else None)

    def run_first(self, x: Tensor) -> Tensor:
        """Only the first row of the result of a block without causal mask, [B, n, W] -> [B, 1, W]: exact."""
        h = self.ln_1(x)
        return self.finish(x[:, :1], self.attn.q(h[:, :1]), *self.attn.kv(h))

    def run_row(self, x: Tensor, row: Tensor, past: KeyValue | None = None) -> Tensor:
        """Only row `row` [B] of x of the result of a causal block, [B, n, W] -> [B, 1, W]: exact."""
        h = self.ln_1(x)
        index = row[:, None, None].expand(-1, 1, x.shape[2])  # [B, 1, W]
        k, v = self.attn.kv(h)
        shift = 0
        if past is not None:
            shift = past[0].shape[2]
            k, v = prepend(past, k, v)
        mask = torch.arange(k.shape[2], device=x.device) <= row[:, None] + shift  # [B, keys]
        return self.finish(x.gather(1, index), self.attn.q(h.gather(1, index)), k, v, mask[:, None, None])


def prepend(past: KeyValue, k: Tensor, v: Tensor) -> KeyValue:
    """Keys and values of earlier rows in front. A past of G sequences serves B = G * C sequences, C in a row each."""
    G, heads, p, width = past[0].shape
    past_k, past_v = (t[:, None].expand(G, k.shape[0] // G, heads, p, width).flatten(0, 1) for t in past)
    return torch.cat([past_k, k], dim=2), torch.cat([past_v, v], dim=2)


class Transformer(nn.Module):
    """A stack of blocks; `causal` for text."""

    def __init__(self, width: int, layers: int, heads: int, causal: bool = False):
        super().__init__()
        self.width, self.layers, self.causal = width, layers, causal
        self.resblocks = nn.Sequential(*(ResidualAttentionBlock(width, heads, causal) for _ in range(layers)))

    def forward(self, x: Tensor) -> Tensor:
        """Sequence-first, [n, B, W] -> [n, B, W], as in OpenAI's package."""
        x = x.transpose(0, 1)
        for block in self.blocks():
            x = block.run(x)
        return x.transpose(0, 1)

    def blocks(self) -> Iterator[ResidualAttentionBlock]:
        return iter(self.resblocks)  # type: ignore[arg-type]

    def prefix(self, x: Tensor, replace: Callable[[int, Tensor], Tensor] | None = None) -> list[KeyValue]:
        """Keys and values in every block of rows x [G, p, W] that stand first in a causal sequence.

        Args:
            replace: called with the block's number and its input, returns the input to use (deep prompts).
        """
        pasts = []
        for i, block in enumerate(self.blocks()):
            x = replace(i, x) if replace else x
            q, k, v = block.qkv(x)
            pasts.append((k, v))
            if i + 1 < self.layers:
                x = block.finish(x, q, k, v, causal=True)
        return pasts

    def pool(
        self,
        x: Tensor,
        row: Tensor,
        pasts: Sequence[KeyValue] | None = None,
        replace: Callable[[int, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Row `row` [B] of a causal stack's result, [B, n, W] -> [B, W]; the last block computes this row only.

        Args:
            pasts: keys and values of the rows before x in every block, from `prefix`.
            replace: as in `prefix`.
        """
        for i, block in enumerate(self.blocks()):
            x = replace(i, x) if replace else x
            past = pasts[i] if pasts is not None else None
            x = block.run(x, past) if i + 1 < self.layers else block.run_row(x, row, past)
        return x[:, 0]

    def init_weights(self) -> None:
        """Normal initialisation of the CLIP paper: residual outputs shrink with the depth."""
        output_std = self.width**-0.5 * (2 * self.layers) ** -0.5
        for block in self.blocks():
            nn.init.normal_(block.attn.in_proj_weight, std=self.width**-0.5)
            nn.init.normal_(block.attn.out_proj.weight, std=output_std)
            c_fc, _, c_proj = block.mlp
            nn.init.normal_(c_fc.weight, std=(2 * self.width) ** -0.5)  # type: ignore[arg-type]
            nn.init.normal_(c_proj.weight, std=output_std)  # type: ignore[arg-type]
            nn.init.zeros_(c_fc.bias)  # type: ignore[arg-type]
            nn.init.zeros_(c_proj.bias)  # type: ignore[arg-type]
