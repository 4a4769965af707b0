"""The text tower of the methods: prompts and label spaces are arguments, and no row is computed in vain.

Axes: C classes, n rows of the longest text, M context rows (slots), W text width, E joint width, G contexts that differ
by image (1 if all images share them).

The causal mask allows four exact savings. Rows behind the end token are never computed. Rows that all classes share
from the start (start token, shared context, common first words) are computed once, and the classes use their keys
and values. In the last block only the end token's row is computed. Classes of similar length run together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from itertools import pairwise

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .layers import KeyValue
from .model import CLIP
from .prompts import LabelSpace, TextBatch, make_batch, prompt_rows, template_rows, word_ids

MIN_SHARED_ROWS = 2  # sharing the start token alone costs more than it saves
PASS_COST = {"cpu": 1e7, "other": 3e9}  # multiply-adds that one more pass through a block is worth, by device


class TextTower:
    """Runs the text tower that a CLIP model owns; it holds no parameters of its own."""

    def __init__(self, clip_model: CLIP):
        self.clip = clip_model
        self.chunk: int | None = None  # of calls that name none

    @property
    def width(self) -> int:
        return self.clip.transformer.width

    @property
    def n_blocks(self) -> int:
        return self.clip.transformer.layers

    @torch.inference_mode(False)  # a batch made during evaluation must also serve training
    def prepare(self, space: LabelSpace, words: str | None, n_slots: int, position: str = "end") -> TextBatch:
        """Tokenise "{words} {name}." for each class; the first `n_slots` word rows are slots for a context.

        Args:
            words: initial context such as "a photo of a", or None for `n_slots` placeholders.
            position: of the class name, "end", "middle" or "front".

        Raises:
            ValueError: unknown position, or more slots than word tokens.
            RuntimeError: a text is longer than the model's context.
        """
        rows = prompt_rows(space, words, n_slots, position, self.clip.context_length)
        return make_batch(rows, self.clip.token_embedding)

    @torch.inference_mode(False)
    def templates(self, space: LabelSpace, template: str) -> TextBatch:
        """Tokenise a template such as "a photo of a {}." for each class, without slots.

        Raises:
            ValueError: the template has no "{}".
            RuntimeError: a text is longer than the model's context.
        """
        return make_batch(template_rows(space, template, self.clip.context_length), self.clip.token_embedding)

    @torch.inference_mode(False)
    @torch.no_grad()
    def word_embeddings(self, words: str) -> Tensor:
        """Token embeddings of context words, one row a word, [n_words, W]: the usual start of a context."""
        weight = self.clip.token_embedding.weight
        return weight[torch.tensor(word_ids(words, self.clip.context_length), device=weight.device)].clone()

    def __call__(
        self,
        batch: TextBatch,
        ctx: Tensor | None = None,
        deep: Mapping[int, Tensor] | None = None,
        share_prefix: bool = True,
        chunk: int | None = None,
    ) -> Tensor:
        """Text features, not normalised.

        Args:
            ctx: rows for the slots at the input: [M, W] shared, [C, M, W] class-specific, [B, 1, M, W] image-specific.
                None keeps the words.
            deep: block number (1 or more) -> [M, W] or [C, M, W], rows that replace the slots before that block.
            share_prefix: compute rows that all classes share once; the result is the same.
            chunk: classes, or image-class pairs, in one pass, recomputed in the backward pass to save memory; 0 for
                all at once, None for the tower's own `chunk`.

        Returns:
            [C, E], or [B, C, E] for image-specific contexts.

        Raises:
            ValueError: `ctx`, `deep` or `chunk` do not fit the batch or the tower.
        """
        prompted = _Prompted(self.clip, batch, self._check_ctx(batch, ctx), self._check_deep(batch, deep))
        chunk = self.chunk if chunk is None else chunk
        if chunk is not None and chunk < 0:
            raise ValueError(f"chunk must be a number of classes, or 0 for all at once, got {chunk}.")
        chunk = chunk or None
        p = prompted.shareable if share_prefix and len(batch) > 1 else 0
        p = p if p >= MIN_SHARED_ROWS else 0
        pasts = prompted.prefix(p) if p else None
        device = batch.ids.device
        cost = PASS_COST["cpu" if device.type == "cpu" else "other"] / (12 * self.width**2)  # in rows
        order, groups = _plan(batch.lengths, p, cost / prompted.n_images, chunk or len(batch), device)
        step = prompted.n_images if chunk is None else max(1, chunk // len(batch))
        images = [slice(i, i + step) for i in range(0, prompted.n_images, step)]
        recompute = chunk is not None and torch.is_grad_enabled() and chunk < len(batch) * prompted.n_images
        parts = []
        for image in images:
            row = []
            for classes, stop in groups:
                run = partial(prompted.run, image, classes, p, stop, pasts)
                row.append(checkpoint(run, use_reentrant=False, preserve_rng_state=False) if recompute else run())
            parts.append(torch.cat(row, dim=1) if len(row) > 1 else row[0])  # [g, C, W], classes in the groups' order
        x = torch.cat(parts) if len(parts) > 1 else parts[0]  # [G, C, W]
        features = self.clip.project_text(_take(x, 1, order))
        return features if ctx is not None and ctx.dim() == 4 else features[0]

    def _check_ctx(self, batch: TextBatch, ctx: Tensor | None) -> Tensor | None:
        """As [G, 1 or C, M, W]."""
        if ctx is None:
            return None
        C, M, W = len(batch), batch.n_slots, self.width
        images = ctx.shape[0] if ctx.dim() == 4 else 0
        if M == 0 or tuple(ctx.shape) not in ((M, W), (C, M, W), (images, 1, M, W)):
            raise ValueError(
                f"The context must be [M, W] = [{M}, {W}], [C, M, W] = [{C}, {M}, {W}] or [B, 1, M, W] for this "
                f"batch of {C} classes with {M} slots, got {list(ctx.shape)}."
            )
        return _with_images(ctx)

    def _check_deep(self, batch: TextBatch, deep: Mapping[int, Tensor] | None) -> dict[int, Tensor]:
        """Each as [1, 1 or C, M, W]."""
        C, M, W = len(batch), batch.n_slots, self.width
        result = {}
        for block, rows in (deep or {}).items():
            if not 1 <= block < self.n_blocks:
                raise ValueError(
                    f"Deep text prompts go before blocks 1..{self.n_blocks - 1} (the input's is ctx), "
                    f"got block {block}."
                )
            if M == 0 or tuple(rows.shape) not in ((M, W), (C, M, W)):
                raise ValueError(
                    f"The deep text prompt before block {block} must be [M, W] = [{M}, {W}] or [C, M, W] = "
                    f"[{C}, {M}, {W}], got {list(rows.shape)}."
                )
            result[block] = _with_images(rows)
        return result


class _Prompted:
    """A batch with its contexts filled in, run in parts: some rows, some classes, some images."""

    def __init__(self, clip_model: CLIP, batch: TextBatch, ctx: Tensor | None, deep: dict[int, Tensor]):
        self.transformer, self.batch, self.ctx, self.deep = clip_model.transformer, batch, ctx, deep
        self.positions = clip_model.positional_embedding.to(clip_model.dtype)  # [77, W]
        self.n_images = ctx.shape[0] if ctx is not None else 1

    @property
    def shareable(self) -> int:
        """Rows from the start that are the same for all classes."""
        contexts = [*self.deep.values()] if self.ctx is None else [self.ctx, *self.deep.values()]
        specific = any(context.shape[1] > 1 for context in contexts)
        return self.batch.n_plain if specific else self.batch.n_prefix

    def prefix(self, p: int) -> list[KeyValue]:
        """Keys and values of rows 0..p-1 in every block, [G, heads, p, W / heads] each."""
        k = sum(row < p for row in self.batch.prefix_slots)
        slots = self.batch.slots[:1, :k]
        x = self.batch.embeds[:1, :p].to(self.positions.dtype)[None]  # [1, 1, p, W]
        x = _put(x, slots, None if self.ctx is None else self.ctx[:, :1, :k]) + self.positions[:p]

        def replace(block: int, x: Tensor) -> Tensor:
            if block not in self.deep or k == 0:
                return x
            return _put(x[:, None], slots, self.deep[block][:, :1, :k])[:, 0]

        return self.transformer.prefix(x[:, 0], replace)

    def run(self, images: slice, classes: Tensor | None, p: int, stop: int, pasts: Sequence[KeyValue] | None) -> Tensor:
        """Rows p..stop-1 of some classes (None for all) and images through all blocks, [g, c, W]: the end tokens."""
        k = sum(row < p for row in self.batch.prefix_slots)  # slots that the prefix has filled
        slots = _take(self.batch.slots, 0, classes)[:, k:] - p
        ctx = None if self.ctx is None else _take(self.ctx[images, :, k:], 1, classes)
        deep = {block: _take(rows[:, :, k:], 1, classes) for block, rows in self.deep.items()}
        x = _take(self.batch.embeds, 0, classes)[None, :, p:stop].to(self.positions.dtype)  # [1, c, m, W]
        x = _put(x, slots, ctx) + self.positions[p:stop]
        g = len(range(self.n_images)[images])
        x = x.expand(g, -1, -1, -1)
        shape = x.shape  # [g, c, m, W]

        def replace(block: int, x: Tensor) -> Tensor:
            if block not in deep or slots.shape[1] == 0:
                return x
            return _put(x.unflatten(0, shape[:2]), slots, deep[block]).flatten(0, 1)

        row = (_take(self.batch.eot, 0, classes) - p).expand(g, -1).flatten()
        part = None if pasts is None else [(key[images], value[images]) for key, value in pasts]
        return self.transformer.pool(x.flatten(0, 1), row, part, replace).unflatten(0, shape[:2])


def _with_images(rows: Tensor) -> Tensor:
    """[M, W], [C, M, W] or [G, 1, M, W] as [G or 1, C or 1, M, W]."""
    return rows[(None,) * (4 - rows.dim())]


def _take(x: Tensor, dim: int, index: Tensor | None) -> Tensor:
    """Some classes of x, or x itself where all classes share one entry or all are asked for."""
    return x if index is None or x.shape[dim] == 1 else x.index_select(dim, index)


def _put(x: Tensor, slots: Tensor, values: Tensor | None) -> Tensor:
    """Write values [1 or g, 1 or c, M, W] into rows slots [c, M] of x [1 or g, c, n, W]; differentiable in both."""
    if values is None or slots.shape[1] == 0:
        return x
    g, (c, M), W = max(x.shape[0], values.shape[0]), slots.shape, x.shape[-1]
    index = slots[None, :, :, None].expand(g, c, M, W)
    return x.expand(g, -1, -1, -1).scatter(2, index, values.to(x.dtype).expand(g, c, M, W))


@lru_cache(maxsize=64)
def _plan(
    lengths: tuple[int, ...], p: int, cost: float, limit: int, device: torch.device
) -> tuple[Tensor | None, list[tuple[Tensor | None, int]]]:
    """Which classes run together: where each class stands afterwards, and (classes, last row + 1) of each group.

    None stands for all classes in their own order. Built once per label space and way of running.
    """
    order, groups = _group_by_length(tuple(length - p for length in lengths), cost, limit)
    if len(groups) == 1:
        return None, [(None, max(lengths))]
    with torch.inference_mode(False):  # indices made during evaluation must also serve training
        indices = [torch.tensor(group, device=device) for group in groups]
        stops = [max(lengths[c] for c in group) for group in groups]
        return torch.tensor(order, device=device), list(zip(indices, stops, strict=True))


def _group_by_length(lengths: tuple[int, ...], cost: float, limit: int) -> tuple[list[int], list[list[int]]]:
    """Split classes into groups of similar length, so that few rows are padding.

    Args:
        lengths: rows of each class.
        cost: rows that one more group is worth.
        limit: classes in a group, at most.

    Returns:
        order and groups: each group lists its classes; class c stands at place order[c] of the groups in a row.
    """
    ranked = sorted(range(len(lengths)), key=lambda c: lengths[c])
    rows = [lengths[c] for c in ranked]
    cuts = [0, *(i for i in range(1, len(rows)) if rows[i] > rows[i - 1]), len(rows)]
    best: list[tuple[float, list[int]]] = [(0.0, [0])]  # for each cut: the least cost up to it, and the cuts taken
    for j, end in enumerate(cuts[1:], 1):
        padded = rows[end - 1]
        best.append(min((best[i][0] + cost + (end - cuts[i]) * padded, [*best[i][1], end]) for i in range(j)))
    taken = best[-1][1]
    groups = [ranked[i : min(i + limit, b)] for a, b in pairwise(taken) for i in range(a, b, limit)]
    if len(groups) == 1:
        groups = [sorted(ranked)]
    order = [0] * len(lengths)
    for place, c in enumerate(c for group in groups for c in group):
        order[c] = place
    return order, groups
