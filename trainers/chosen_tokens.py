"""Which visual tokens a method chose on the way to its logits: of a batch as tensors, of one picture to look at.

Axes: B images, C classes, N patches of a picture, g patches a side (N = g²), k chosen tokens. Patch p is in row p // g
and column p % g of the picture as the model sees it, resized and cropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass
class ChosenTokens:
    """Of a batch. Where the tower drops patches on the way, the maps hold NaN for those it dropped."""

    grid: int  # g
    levels: dict[str, slice]  # name -> which of the k tokens; an empty level is left out
    index: Tensor  # int64 [B, k], patches, best first
    scores: Tensor  # [B, N], what the choice is made by
    sample: Tensor  # [B, N], the sample-wise part of it
    semantic: Tensor | None  # [B, N], the semantic-wise part; None: not used
    matched_class: Tensor  # int64 [B], class of the bank whose prototypes are nearest to the image
    prototypes: Tensor  # int64 [B, k], number of each token's nearest prototype within that class
    class_weights: Tensor | None  # [B, C, k], share of each token in a class's text, 1 in all in each level


@dataclass(frozen=True)
class TokenChoice:
    """Of one picture; scores have mean 0 and deviation 1 over its patches, and their sum decides."""

    grid: int  # g
    level1: np.ndarray  # int64 [k1], patches, best first
    level2: np.ndarray  # int64 [k2], the next best
    scores: np.ndarray  # fp32 [k1 + k2], summed scores of level 1, then of level 2
    sample_map: np.ndarray  # fp32 [g, g], sample-wise activation; NaN where the tower dropped the patch
    semantic_map: np.ndarray | None  # fp32 [g, g], semantic-wise activation; None: the run does not use it
    summed_map: np.ndarray  # fp32 [g, g], what the choice is made by
    matched_class: int  # class of the memory bank, in the order of the training classes
    matched_name: str  # its name, "" if the checkpoint does not tell
    prototypes: np.ndarray  # int64 [k1 + k2], nearest prototype of each token within that class
    class_weights: np.ndarray | None  # fp32 [C, k1 + k2], which tokens each class's text looks at; 1 in all in a level

    @property
    def tokens(self) -> np.ndarray:
        """All chosen patches, int64 [k1 + k2]: level 1, then level 2."""
        return np.concatenate([self.level1, self.level2])

    def cell(self, patch: int) -> tuple[int, int]:
        """Row and column of a patch."""
        return divmod(int(patch), self.grid)


def choices(chosen: ChosenTokens, bank_names: tuple[str, ...] = ()) -> list[TokenChoice]:
    """One `TokenChoice` an image.

    Args:
        bank_names: of the classes that the bank was trained on; () if nobody knows them.
    """
    scores, index = _array(chosen.scores.gather(1, chosen.index)), _array(chosen.index)
    sample, total, matched = _array(chosen.sample), _array(chosen.scores), _array(chosen.matched_class)
    semantic = None if chosen.semantic is None else _array(chosen.semantic)
    prototypes = _array(chosen.prototypes)
    weights = None if chosen.class_weights is None else _array(chosen.class_weights)
    square, none = (chosen.grid, chosen.grid), slice(0, 0)
    return [
        TokenChoice(
            grid=chosen.grid,
            level1=index[i, chosen.levels.get("level1", none)],
            level2=index[i, chosen.levels.get("level2", none)],
            scores=scores[i],
            sample_map=sample[i].reshape(square),
            semantic_map=None if semantic is None else semantic[i].reshape(square),
            summed_map=total[i].reshape(square),
            matched_class=int(matched[i]),
            matched_name=bank_names[matched[i]] if matched[i] < len(bank_names) else "",
            prototypes=prototypes[i],
            class_weights=None if weights is None else weights[i],
        )
        for i in range(len(index))
    ]


def on_grid(scores: Tensor, kept: Tensor | None, n_patches: int) -> Tensor:
    """Scores [B, m] of the patches that a pruned tower kept, as [B, N] with NaN elsewhere.

    Args:
        kept: int64 [B, m], their numbers; None: all N.
    """
    if kept is None:
        return scores
    return scores.new_full((scores.shape[0], n_patches), torch.nan).scatter(1, kept, scores)


def _array(values: Tensor) -> np.ndarray:
    return (values.float() if values.is_floating_point() else values).cpu().numpy()
