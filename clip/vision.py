"""The image tower of the methods: one frozen tower, prompted through arguments, tapped where a method asks.

Axes: B images, N patches, P prompt rows, w tower width, E joint width, m patch rows that reach a block (N without
pruning), f fused rows behind them (1 once patches were dropped, 0 otherwise).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .layers import ResidualAttentionBlock
from .pruning import Origin, Pruning, run_pruned, size_bias
from .resnet import ModifiedResNet
from .vit import VisionTransformer


@dataclass
class VisualPrompts:
    """Learnable rows behind the patches. They carry no position code, so their place makes no difference.

    Args:
        shallow: [P, w] or [B, P, w], rows of the first block's input.
        deep: block number (1 or more) -> [P, w] or [B, P, w], rows that replace them before that block, as they are.
        inject: "pre_ln": the shallow rows pass `ln_pre`, as in CLIP's prompt tuning; "post_ln": they do not.
    """

    shallow: Tensor | None = None
    deep: Mapping[int, Tensor] = field(default_factory=dict)
    inject: str = "pre_ln"

    def __post_init__(self) -> None:
        if self.inject not in ("pre_ln", "post_ln"):
            raise ValueError(f'inject must be "pre_ln" or "post_ln", got {self.inject!r}.')
        if self.deep and self.shallow is None:
            raise ValueError("Deep visual prompts replace the shallow ones, so give shallow prompts too.")
        for block, rows in self.deep.items():
            if rows.shape[-2] != self.count:
                raise ValueError(
                    f"Deep visual prompts must have as many rows as the shallow ones, {self.count}, "
                    f"got {rows.shape[-2]} before block {block}."
                )

    @property
    def count(self) -> int:
        """P, the number of prompt rows."""
        return 0 if self.shallow is None else self.shallow.shape[-2]


@dataclass
class VisionOut:
    """What the image tower computed; None for what nobody wanted."""

    pooled: Tensor  # [B, E], class-token feature, not normalised
    tokens: Tensor | None = None  # [B, m, E], patch features of the last block, projected, not normalised
    cls_attn: Tensor | None = (
        None  # fp32 [B, heads, m], last block, class token to patches, after the softmax over all rows
    )
    hidden: dict[int, Tensor] = field(default_factory=dict)  # l -> [B, 1+m+f+P, w], what enters block l
    patch_embed: Tensor | None = None  # [B, N, w], before position embeddings
    kept: Tensor | None = None  # int64 [B, m], ascending: the patches whose rows reach the last block; None: all
    group: Tensor | None = None  # int64 [B, N], which of the m+f rows each patch has become; None: its own
    sizes: Tensor | None = None  # fp32 [B, m+f], patches that each of these rows stands for; None: one each
    n_fused: int = 0  # f in the last block; its row stands behind the kept patches in `hidden`, never in `tokens`


class VisionTower:
    """Runs the image tower that a CLIP model owns; it holds no parameters of its own."""

    def __init__(self, visual: VisionTransformer | ModifiedResNet):
        self.visual = visual

    @property
    def is_vit(self) -> bool:
        return isinstance(self.visual, VisionTransformer)

    @property
    def vit(self) -> VisionTransformer:
        """The ViT behind the tower; a ResNet has no tokens and takes no prompts.

        Raises:
            ValueError: the tower is a ResNet.
        """
        if not isinstance(self.visual, VisionTransformer):
            raise ValueError(
                "Prompts, pruning, patch tokens, attention and hidden layers need a ViT image tower, and this backbone "
                "is a ResNet, which gives pooled features only; choose a ViT (for instance ViT-B/16)."
            )
        return self.visual

    @property
    def n_blocks(self) -> int:
        return self.vit.transformer.layers

    def __call__(
        self,
        images: Tensor,
        prompts: VisualPrompts | None = None,
        want: Collection[str] = frozenset(),
        prune: Pruning | None = None,
    ) -> VisionOut:
        """Run the whole tower.

        Args:
            images: [B, 3, H, H], normalised with CLIP's mean and deviation.
            want: extra outputs out of "tokens", "cls_attn", "patch_embed" and "hidden:l", l counting the blocks that
                have run: "hidden:0" is the input of the first block, "hidden:11" of a 12-block tower enters the last.
            prune: after which blocks only a share of the patch rows travels on, and how they are chosen. Class token
                and prompt rows are never dropped or merged.

        Raises:
            ValueError: unknown `want`, prompts of a wrong shape, wrong image size, `prune` names a block that the tower
                lacks, or a ResNet is asked for more than pooled features.
        """
        if not self.is_vit and prompts is None and not want and prune is None:
            return VisionOut(self.visual(images))
        counts = prune.counts(self.n_blocks, self.vit.grid**2) if prune is not None else {}
        patches = self.vit.patch_embed(images)
        x = self._insert(self.vit.embed(patches), prompts)
        out = self._run(x, 0, want, prompts, counts, prune.by if prune is not None else "")
        out.patch_embed = patches if "patch_embed" in want else None
        return out

    def hidden(self, images: Tensor, stop: int, prompts: VisualPrompts | None = None) -> Tensor:
        """Only the first `stop` blocks: what enters block `stop`, [B, 1+N(+P), w]."""
        return self.blocks(self._insert(self.vit.embed(self.vit.patch_embed(images)), prompts), 0, stop, prompts)

    def blocks(self, tokens: Tensor, start: int, stop: int, prompts: VisualPrompts | None = None) -> Tensor:
        """Blocks start..stop-1 on tokens [B, 1+m(+P), w], in full; the result is what enters block `stop`.

        Between two calls a method may drop or merge rows; the class token stays first and prompt rows stay last.
        """
        n = self.n_blocks
        if not 0 <= start <= stop <= n:
            raise ValueError(f"Blocks must satisfy 0 <= start <= stop <= {n}, got start {start} and stop {stop}.")
        x = self._replace(start, tokens, prompts)
        for i, block in enumerate(self.vit.transformer.blocks()):
            if start <= i < stop:
                x = self._replace(i + 1, block.run(x), prompts)
        return x

    def resume(
        self,
        tokens: Tensor,
        from_block: int = 11,
        want: Collection[str] = frozenset(),
        prompts: VisualPrompts | None = None,
        sizes: Tensor | None = None,
    ) -> VisionOut:
        """Run the blocks from number `from_block` (from 0) on, on any reduced set of rows.

        Args:
            tokens: [B, 1+m, w], class token first, for instance rows of `hidden[from_block]`.
            want: as in a full run, but "patch_embed"; N becomes m.
            prompts: given when the last P rows of `tokens` are prompt rows; those before `from_block` are not used.
            sizes: [B, m], the number of patches that each row stands for after pruning; None: one each.
        """
        if not 0 <= from_block < self.n_blocks:
            raise ValueError(
                f"from_block must be in 0..{self.n_blocks - 1} for this tower of {self.n_blocks} blocks, "
                f"got {from_block}."
            )
        if "patch_embed" in want:
            raise ValueError('"patch_embed" comes from images, so a resumed run cannot give it; ask the full run.')
        vit = self.vit
        if tokens.dim() != 3 or tokens.shape[2] != vit.transformer.width:
            raise ValueError(f"tokens must be [B, 1+m, {vit.transformer.width}], got {list(tokens.shape)}.")
        rows = tokens.shape[1] - 1 - (prompts.count if prompts is not None else 0)
        if sizes is not None and sizes.shape != (len(tokens), rows):
            raise ValueError(f"sizes must be [B, m] = [{len(tokens)}, {rows}], got {list(sizes.shape)}.")
        x = self._replace(from_block, tokens.to(vit.conv1.weight.dtype), prompts)
        return self._run(x, from_block, want, prompts, sizes=sizes)

    def project(self, tokens: Tensor) -> Tensor:
        """`ln_post`, then the joint projection: [..., w] -> [..., E]."""
        return self.vit.project(tokens.to(self.vit.conv1.weight.dtype))

    def _insert(self, x: Tensor, prompts: VisualPrompts | None) -> Tensor:
        """Append the shallow prompts: [B, 1+N, w] -> [B, 1+N+P, w]."""
        if prompts is None or prompts.shallow is None:
            return x
        rows = self._rows(prompts.shallow, x, "shallow")
        return torch.cat([x, self.vit.ln_pre(rows) if prompts.inject == "pre_ln" else rows], dim=1)

    def _replace(self, block: int, x: Tensor, prompts: VisualPrompts | None) -> Tensor:
        """What enters `block`: the last P rows are replaced where there is a deep prompt."""
        if prompts is None or block not in prompts.deep:
            return x
        rows = self._rows(prompts.deep[block], x, f"deep (block {block})")
        return torch.cat([x[:, : x.shape[1] - prompts.count], rows], dim=1)

    def _rows(self, rows: Tensor, x: Tensor, what: str) -> Tensor:
        """Prompt rows as [B, P, w] in the type of x."""
        B, _, w = x.shape
        if rows.dim() not in (2, 3) or rows.shape[-1] != w or (rows.dim() == 3 and rows.shape[0] != B):
            raise ValueError(
                f"Visual prompts ({what}) must be [P, {w}] or [B, P, {w}] with B = {B}, got {list(rows.shape)}."
            )
        return rows.to(x.dtype).expand(B, -1, -1)

    def _run(
        self,
        x: Tensor,
        start: int,
        want: Collection[str],
        prompts: VisualPrompts | None,
        counts: Mapping[int, int] | None = None,
        by: str = "",
        sizes: Tensor | None = None,
    ) -> VisionOut:
        """Blocks from `start` on, with taps. The last block computes the class token only, unless tokens are wanted.

        Args:
            counts: block, counted from 1 -> patch rows that travel on after it, fewer than arrive.
            by: how they are chosen.
            sizes: [B, m], patches that the rows of x stand for; None: one each.
        """
        n, counts = self.n_blocks, counts or {}
        taps = self._taps(want, start)
        if prompts is not None and prompts.deep and not set(prompts.deep) <= set(range(1, n)):
            raise ValueError(f"Deep visual prompts go before blocks 1..{n - 1}, got {sorted(prompts.deep)}.")
        P = prompts.count if prompts is not None else 0
        if x.shape[1] < 1 + P:
            raise ValueError(f"tokens must hold the class token and {P} prompt rows, got {x.shape[1]} rows.")
        m = x.shape[1] - 1 - P
        origin: Origin | None = None
        bias = None if sizes is None else size_bias(sizes, P, x.dtype)
        hidden = {start: x} if start in taps else {}
        *blocks, last = list(self.vit.transformer.blocks())[start:]
        for i, block in enumerate(blocks, start + 1):
            if i in counts:
                origin = origin or Origin.of_patches(x, m)
                x, origin = run_pruned(block, x, origin, bias, counts[i], by)
                m, bias = counts[i], size_bias(origin.sizes, P, x.dtype)
            else:
                x = block.run(x, bias=bias)
            x = self._replace(i, x, prompts)
            if i in taps:
                hidden[i] = x
        x, cls_attn = self._last(last, x, bias, full="tokens" in want or n in taps, weights="cls_attn" in want)
        if n in taps:
            hidden[n] = x
        features = self.vit.project(x if "tokens" in want else x[:, :1])
        out = VisionOut(
            pooled=features[:, 0],
            tokens=features[:, 1 : 1 + m] if "tokens" in want else None,
            cls_attn=None if cls_attn is None else cls_attn[:, :, 1 : 1 + m],
            hidden=hidden,
        )
        if origin is not None:
            out.kept, out.group, out.sizes = origin.kept, origin.group, origin.sizes
            out.n_fused = origin.sizes.shape[1] - m
        return out

    @staticmethod
    def _last(
        block: ResidualAttentionBlock, x: Tensor, bias: Tensor | None, full: bool, weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The last block, [B, n, w] or, unless `full`, [B, 1, w]; and the class token's attention [B, heads, n]."""
        h = block.ln_1(x)
        k, v = block.attn.kv(h)
        rows = x if full else x[:, :1]
        q = block.attn.q(h if full else h[:, :1])
        attention = block.attn.weights(q[:, :, :1], k, bias)[:, :, 0] if weights else None
        return block.finish(rows, q, k, v, bias), attention

    def _taps(self, want: Collection[str], start: int) -> set[int]:
        """Block counts l of the "hidden:l" in `want`."""
        n, taps = self.n_blocks, set()
        for item in want:
            kind, _, number = item.partition(":")
            if kind == "hidden" and number.isdecimal() and start <= int(number) <= n:
                taps.add(int(number))
            elif item not in ("tokens", "cls_attn", "patch_embed"):
                raise ValueError(
                    f'want may hold "tokens", "cls_attn", "patch_embed" and "hidden:{start}".."hidden:{n}" here, '
                    f"got {item!r}."
                )
        return taps
