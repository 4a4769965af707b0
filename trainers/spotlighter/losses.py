"""The loss terms of Eq. (15), but Eq. (13), which `TRM.distance` sums over chunks of classes.

Axes: B images, C classes, K prototypes a class, k activated tokens, d joint width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.divergence import posterior_kl


def classification(logits: Tensor, label: Tensor | None, teacher: Tensor | None = None) -> Tensor:
    """Eq. (12): cross-entropy, or with a teacher KL(teacher ‖ student); mean over the batch, 0-d.

    Args:
        logits: [B, C], scaled.
        label: y [B]; not used with a teacher.
        teacher: the teacher's logits [B, C].
    """
    if teacher is None:
        return F.cross_entropy(logits, label)  # type: ignore[arg-type]
    return posterior_kl(logits, teacher, mean="batch")


def visual_kl(image: Tensor, image0: Tensor, text0: Tensor, scale: Tensor, over: str = "classes") -> Tensor:
    """Eq. (14): KL(p0 ‖ p_rep) of the frozen image and the representative one, mean over the batch, 0-d (R9).

    Args:
        image: v_rep [B, d].
        image0: v0 [B, d].
        text0: T0 [C, d].
        scale: s, 0-d.
        over: "classes": p is softmax(s · v T0ᵀ); "features": softmax over the d entries of v.
    """
    if over == "classes":
        image, image0 = scale * image @ text0.t(), scale * image0 @ text0.t()  # [B, C]
    return posterior_kl(image, image0, mean="batch")


def local_ce(tokens: Tensor, text: Tensor, prototypes: Tensor, label: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """Eq. (7) (R10): each activated token is classified by text and bank together, mean over all of them, 0-d.

    Tokens and prototypes are constants, so without the text this loss would train nothing.

    Args:
        tokens: view(tok) [B, k, d].
        text: T [C, d] or [B, C, d].
        prototypes: view(U) [C, K, d].
        label: y [B].
        scale: factor of the cosines; Eq. (7) prints none, and with s single patches outweigh the image.
    """
    classes = F.normalize(text + prototypes.mean(dim=1), dim=-1)  # [C, d] or [B, C, d]
    logits = scale * tokens @ classes.mT  # [B, k, C]
    return F.cross_entropy(logits.flatten(0, 1), label.repeat_interleave(tokens.shape[1]))


def mean_of(terms: list[Tensor]) -> Tensor:
    """Mean over levels of tensors of one shape."""
    return torch.stack(terms).mean(dim=0)
