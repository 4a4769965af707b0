"""Token pruning inside the image tower: after some blocks, only a share of the patch rows that arrived travels on.

Three ways to choose (`Pruning.by`). "distinct": the patches least like the image's mean patch stay. "attention": those
that the class token looks at most, after Liang et al., "Not all patches are what you need" (EViT). Both fuse the rest
into one row. "merge": the most similar pairs become one row each (`merging`). In all three a row knows how many patches
it stands for and is attended to as that many, as in Bolya et al., "Token merging" (ToMe): the logarithm of its size is
added to its attention scores.

Rows stand as [class token, patches, fused row, prompt rows] throughout.

Axes: B images, N patches of an image, n patch rows that arrive, m patch rows that travel on, f fused rows that arrive
(0 or 1), P prompt rows, w width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real

import torch
import torch.nn.functional as F
from torch import Tensor

from .layers import ResidualAttentionBlock, take_rows
from .merging import merge_rows

WAYS = ("distinct", "attention", "merge")


@dataclass(frozen=True)
class Pruning:
    """What is pruned where; hashable.

    Args:
        shares: pairs of a block, counted from 1, and the share in (0, 1] of the patch rows arriving there that travel
            on, rounded up; the fused row is none of them.
        by: "distinct", "attention" or "merge"; merging keeps at least half of the rows at a time.

    Raises:
        ValueError: `shares` holds no such pairs or a block twice, a share is out of range, or no such way.
    """

    shares: tuple[tuple[int, float], ...]
    by: str = "distinct"

    def __post_init__(self) -> None:
        pairs = self.shares
        if not isinstance(pairs, Sequence) or not all(_is_pair(pair) for pair in pairs):
            raise ValueError(f"Pruning takes pairs of a block and a share, for instance [[4, 0.7]], got {pairs!r}.")
        if self.by not in WAYS:
            raise ValueError(f"Patches are pruned by {', '.join(WAYS)}, got {self.by!r}.")
        object.__setattr__(self, "shares", tuple(sorted((block, share) for block, share in pairs)))
        for block, share in self.shares:
            if not 0 < share <= 1:
                raise ValueError(f"The share of patches kept after block {block} must be in (0, 1], got {share!r}.")
            if self.by == "merge" and share < 0.5:
                raise ValueError(
                    f"Merging pairs keeps at least half of the patches, so the share after block {block} must be in "
                    f"[0.5, 1], got {share!r}; merge after more blocks."
                )
        blocks = [block for block, _ in self.shares]
        if len(set(blocks)) < len(blocks):
            raise ValueError(f"Pruning names a block twice: {pairs!r}.")

    def counts(self, n_blocks: int, n_patches: int) -> dict[int, int]:
        """How many patch rows travel on after a block, for the blocks after which there are fewer.

        Raises:
            ValueError: a block is not in 1..n_blocks-1, or a share keeps nothing.
        """
        counts, n = {}, n_patches
        for block, share in self.shares:
            if not 1 <= block < n_blocks:
                raise ValueError(
                    f"Pruning follows blocks 1..{n_blocks - 1} (counted from 1) of this tower of {n_blocks} blocks, "
                    f"got block {block!r}."
                )
            m = math.ceil(round(share * n, 9))  # rounded first, since 0.07 * 100 is a little more than 7
            if not m:
                raise ValueError(f"A share of {share!r} keeps none of the {n} patches after block {block}.")
            if m < n:
                counts[block] = n = m
        return counts


def _is_pair(pair: object) -> bool:
    return (
        isinstance(pair, Sequence)
        and not isinstance(pair, str)
        and len(pair) == 2
        and isinstance(pair[0], Integral)
        and isinstance(pair[1], Real)
    )


@dataclass
class Origin:
    """Which patches the rows between the class token and the prompts stand for."""

    kept: Tensor  # int64 [B, n], ascending: the patch in whose place each patch row stands
    group: Tensor  # int64 [B, N]: the row that each patch has become, fused into or merged with; n is the fused row
    sizes: Tensor  # fp32 [B, n+f]: number of patches that each row stands for

    @classmethod
    def of_patches(cls, x: Tensor, n: int) -> Origin:
        """Before anything is pruned.

        Args:
            x: any rows, [B, rows, w].
            n: patches.
        """
        number = torch.arange(n, device=x.device).expand(x.shape[0], n)
        return cls(number, number, x.new_ones(x.shape[0], n, dtype=torch.float32))

    def after(self, index: Tensor, place: Tensor, n_rows: int) -> Origin:
        """Behind one more pruning point.

        Args:
            index: int64 [B, m], the patch rows in whose place the new ones stand.
            place: int64 [B, n+f], the new row that each old row belongs to, 0..n_rows-1.
            n_rows: new rows, the fused one included.
        """
        sizes = self.sizes.new_zeros(place.shape[0], n_rows).scatter_add(1, place, self.sizes)
        return Origin(self.kept.gather(1, index), place.gather(1, self.group), sizes)


def size_bias(sizes: Tensor, n_prompts: int, dtype: torch.dtype) -> Tensor:
    """What is added to all attention scores of rows that stand for several patches, log(size), [B, 1, 1, 1+n+f+P].

    Args:
        sizes: [B, n+f]; class token and prompts count as one.
    """
    return F.pad(sizes.log(), (1, n_prompts)).to(dtype)[:, None, None]


def distinctness(rows: Tensor, sizes: Tensor, n_patches: int) -> Tensor:
    """How little a patch row is like the image's mean patch: minus the cosine to it, fp32 [B, n].

    The mean is that of all N patches' directions, whether they still have a row of their own or not, so that what is
    common in the image stays so while it is pruned.

    Args:
        rows: patch rows and the fused row, [B, n+f, w].
        sizes: [B, n+f].
        n_patches: n.
    """
    unit = F.normalize(rows.float(), dim=2)
    mean = (sizes[..., None] * unit).sum(dim=1)  # [B, w]; a factor per image leaves the order as it is
    return -(unit[:, :n_patches] * mean[:, None]).sum(dim=2)


def drop_rows(
    rows: Tensor, scores: Tensor, weights: Tensor, n_kept: int, n_fused: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Keep the patches with the highest scores, and fuse the rest into one row.

    Args:
        rows: [B, 1+n+f+P, w], outputs of a block.
        scores: [B, n]; of equal patches the earlier one is kept.
        weights: [B, n+f], at least 0: those of the rows in the fused row, up to a factor.
        n_kept: m, 1..n-1.
        n_fused: f; a fused row that arrives is never kept, but belongs to the rest.

    Returns:
        rows [B, 1+m+1+P, w], the kept patches in their old order; index int64 [B, m] of the kept among the n; and
        place int64 [B, n+f], the new row of each old one, m for the fused row.
    """
    n = scores.shape[1]
    rest = slice(1, 1 + n + n_fused)  # patches and fused row; what is kept gets weight 0 below
    order = scores.argsort(dim=1, descending=True, stable=True)
    index = order[:, :n_kept].sort(dim=1).values  # [B, m]
    kept = take_rows(rows[:, 1:], index)  # [B, m, w]
    # The choice is piecewise constant and has no gradient; the weights keep theirs, so that the gradient which reaches
    # prompts is that of the function computed. The small term makes a plain mean, not 0/0, of rows without weight.
    weights = (weights + 1e-12).scatter(1, index, 0.0)  # [B, n+f]
    weights = weights / weights.sum(dim=1, keepdim=True)
    # a product and a sum, since autocast would round the operands of a matrix product to half precision
    fused = (weights[..., None] * rows[:, rest]).sum(dim=1, keepdim=True).to(rows.dtype)  # [B, 1, w]
    numbers = torch.arange(n_kept, device=rows.device).expand(rows.shape[0], n_kept)
    place = torch.full_like(weights, n_kept, dtype=torch.int64).scatter(1, index, numbers)
    return torch.cat([rows[:, :1], kept, fused, rows[:, rest.stop :]], dim=1), index, place


def run_pruned(
    block: ResidualAttentionBlock, x: Tensor, origin: Origin, bias: Tensor | None, n_kept: int, by: str
) -> tuple[Tensor, Origin]:
    """A block and the pruning behind it, [B, 1+n+f+P, w] -> [B, 1+m+f+P, w].

    Args:
        origin: of the rows of x.
        bias: of their sizes; None: one patch each.
        n_kept: m.
        by: as in `Pruning`.
    """
    q, k, v = block.qkv(x)
    rows, sizes = block.finish(x, q, k, v, bias), origin.sizes
    n, patches = origin.kept.shape[1], slice(1, 1 + sizes.shape[1])
    if by == "merge":
        rows, index, place = merge_rows(rows, k, sizes, n_kept)
        return rows, origin.after(index, place, n_kept)
    if by == "attention":
        weights = block.attn.weights(q[:, :, :1], k, bias)[:, :, 0].mean(dim=1)[:, patches]  # one row, not a map
        scores = weights[:, :n]
    else:
        scores, weights = distinctness(rows[:, patches].detach(), sizes, n), sizes
    rows, index, place = drop_rows(rows, scores, weights, n_kept, sizes.shape[1] - n)
    return rows, origin.after(index, place, n_kept + 1)
