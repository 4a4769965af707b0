"""KL divergence of class posteriors: how far a student, or a tuned model, is from its teacher, or from frozen CLIP."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def posterior_kl(logits: Tensor, teacher: Tensor, temperature: float = 1.0, mean: str = "elements") -> Tensor:
    """τ² · Σ_i KL(q_i ‖ p_i), 0-d; q and p are the teacher's and the student's posterior at temperature τ.

    Args:
        logits, teacher: [rows, C], scaled.
        mean: "elements" divides the sum by rows · C, "batch" by rows.
    """
    student, target = (F.log_softmax(x / temperature, dim=1) for x in (logits, teacher))
    kl = F.kl_div(student, target, reduction="batchmean", log_target=True) * temperature**2
    return kl / logits.shape[1] if mean == "elements" else kl
