"""Which visual tokens of an image are activated: sample-wise and semantic-wise scores (§3.2, Eq. (3)).

Pure functions; all features are unit vectors. T is [C, d], or [B, C, d] on a host whose text depends on the image.
Axes: B images, C classes, N patches, K prototypes a class, k activated tokens, d joint width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST_DEVIATION = 1e-6  # of scores within an image; below it all patches are alike


@dataclass
class Activation:
    """Scores of all patches, and which of them are activated."""

    sample: Tensor  # [B, N], standardised
    semantic: Tensor | None  # [B, N], standardised; None: not used
    scores: Tensor  # [B, N], their sum
    index: Tensor  # [B, k], best first


def activate(sample: Tensor, semantic: Tensor | None, k: int) -> Activation:
    """The k patches with the highest sum of standardised scores (R3).

    Raises:
        ValueError: k is not in 1..N-1.
    """
    scores = sample if semantic is None else sample + semantic
    return Activation(sample, semantic, scores, select(scores, k))


def mean_text(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """Text of the image's own posterior: t̄ = normalise(softmax(s · v Tᵀ) T), [B, d].

    Args:
        image: v [B, d].
        text: T [C, d] or [B, C, d].
        scale: s, 0-d.
    """
    posterior = (scale * cosines(image, text)).softmax(dim=1)  # [B, C]
    mixed = posterior @ text if text.dim() == 2 else torch.einsum("bc,bcd->bd", posterior, text)
    return F.normalize(mixed, dim=1)


def cosines(image: Tensor, text: Tensor) -> Tensor:
    """cos(v, T_c) [B, C] of unit v [B, d] and T, [C, d] or [B, C, d]."""
    return image @ text.t() if text.dim() == 2 else torch.einsum("bd,bcd->bc", image, text)


def sample_scores(patches: Tensor, mean_text: Tensor) -> Tensor:
    """Sample-wise activation [B, N]: Σ_c π_c cos(P, T_c), up to a factor per image, as one product P · t̄.

    Args:
        patches: P [B, N, d].
        mean_text: t̄ [B, d].
    """
    return torch.einsum("bnd,bd->bn", patches, mean_text)


def max_scores(patches: Tensor, text: Tensor, chunk: int = 64) -> Tensor:
    """The alternative to `sample_scores`: max_c cos(P, T_c), [B, N], `chunk` classes at a time."""
    best = patches.new_full(patches.shape[:2], -torch.inf)
    for part in text.split(chunk, dim=-2):
        best = torch.maximum(best, (patches @ part.mT).amax(dim=2))  # [B, N, chunk] -> [B, N]
    return best


def match_class(image: Tensor, prototypes: Tensor) -> Tensor:
    """Eq. (3): the class c* [B] that owns the prototype most similar to the image.

    Args:
        image: v [B, d].
        prototypes: view(U) [C, K, d].
    """
    C, K, d = prototypes.shape
    return (image @ prototypes.view(C * K, d).t()).argmax(dim=1) // K


def semantic_scores(patches: Tensor, prototypes: Tensor, mean_text: Tensor, scale: Tensor) -> Tensor:
    """Semantic-wise activation [B, N] (R2): similarity to the matched prototypes, each weighted by its fit to the text.

    Args:
        patches: P [B, N, d].
        prototypes: view(U) of each image's matched class, [B, K, d].
        mean_text: t̄ [B, d].
        scale: s, 0-d.
    """
    weights = (scale * torch.einsum("bkd,bd->bk", prototypes, mean_text)).softmax(dim=1)  # [B, K]
    return torch.einsum("bnd,bd->bn", patches, torch.einsum("bk,bkd->bd", weights, prototypes))


def standardise(scores: Tensor) -> Tensor:
    """Scores [B, N] with mean 0 and deviation 1 in each image (R3)."""
    centred = scores - scores.mean(dim=1, keepdim=True)
    return centred / centred.square().mean(dim=1, keepdim=True).sqrt().clamp(min=SMALLEST_DEVIATION)


def select(scores: Tensor, k: int) -> Tensor:
    """The k best patches of each image, index [B, k], best first.

    Raises:
        ValueError: k is not in 1..N-1.
    """
    N = scores.shape[1]
    if not 1 <= k < N:
        raise ValueError(f"TOP_K must be at least 1 and less than the {N} patches that can be activated, got {k}.")
    return scores.topk(k, dim=1).indices
