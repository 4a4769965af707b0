"""What a head is given and what it returns. A head knows neither its host nor the engine.

Axes: B images, C classes, N patches, m patch rows that reach the last block, w tower width, d joint width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from clip.layers import ResidualAttentionBlock


@dataclass
class HeadInput:
    """One batch as the host sees it; what only training needs may be None in inference."""

    text: Tensor  # T [C, d], or [B, C, d] where it depends on the image; unit, with gradient where the host trains text
    image: Tensor  # v [B, d], unit
    scale: Tensor  # s, 0-d
    block: ResidualAttentionBlock  # θ, the last block of the image tower
    view: Callable[[Tensor], Tensor]  # tokens [..., w] to unit features [..., d] in fp32
    text0: Tensor | None = None  # T0 [C, d], unit: frozen CLIP with the hand-crafted template
    image0: Tensor | None = None  # v0 [B, d], unit: frozen CLIP
    hidden: Tensor | None = None  # H [B, 1+m, w], what enters the last block, class token first
    n_fused: int = 0  # rows at the end of `hidden` that stand for dropped patches and can't be activated
    sizes: Tensor | None = None  # fp32 [B, m], patches that each row of H stands for; None: one each
    tokens: Tensor | None = None  # [B, 1+N, d], projected outputs of the last block, class token first, not unit
    attention: Tensor | None = None  # A [B, N], class token to patches in the last block, mean over heads
    label: Tensor | None = None  # y [B]
    teacher: Tensor | None = None  # [B, C], logits of a distilling host's teacher; they take the place of labels
    classification_weight: float = 1.0  # of all cross-entropies of the logits

    def hidden_parts(self) -> tuple[Tensor, Tensor]:
        """Of `hidden`, the class token [B, 1, w] and the patches that can be activated [B, m, w]."""
        assert self.hidden is not None, "the tower must give what `want` names"
        return self.hidden[:, :1], self.hidden[:, 1 : self.hidden.shape[1] - self.n_fused]


@dataclass
class HeadOutput:
    """Logits, raw loss terms with their weights (none in inference), and what one may want to look at."""

    logits: Tensor  # [B, C], scaled
    terms: dict[str, Tensor] = field(default_factory=dict)  # name -> 0-d, unweighted
    weights: dict[str, float] = field(default_factory=dict)  # a term without an entry has weight 1
    diagnostics: dict[str, Tensor] = field(default_factory=dict)  # detached
