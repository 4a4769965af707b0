"""The `paper` preset, in the order of the paper's figure: activate, remember, rank, map, classify.

The head is given features and returns logits, losses and diagnostics; it imports no host. Axes: B images, C classes, N
patches, K prototypes a class, k activated tokens, w tower width, d joint width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.layers import take_rows
from trainers.spotlighter import activation, losses
from trainers.spotlighter.interface import HeadInput, HeadOutput
from trainers.spotlighter.mapping import IRMS, TRMS, LinearTRM, token_weights
from trainers.spotlighter.memory import PrototypeMemory

AUXILIARY = ("ce_level1", "ce_level2", "text", "kl", "local")  # the terms beside "ce"
CHOICES = {
    "sample_score": ("mean", "max", "attention"),
    "irm": (*IRMS, "none"),
    "trm": (*TRMS, "none"),
    "gate": ("learned", "fixed"),
    "levels": ("both", "level1", "level2"),
    "kl_over": ("classes", "features"),
}


@dataclass(frozen=True)
class HeadOptions:
    """The alternatives of the method; the names are those of the configuration in lower case.

    Raises:
        ValueError: a value is not one of the possible ones.
    """

    top_k: int = 5  # k, activated tokens an image
    level1_share: float = 0.6  # k1 = ceil(share · k) of them are level 1
    n_prototypes: int = 5  # K
    sample_score: str = "mean"  # "mean" | "max" over classes | "attention" of the class token
    semantic: bool = True  # add the semantic-wise score (Table VIII)
    recalculate: bool = True  # choose again with the updated bank (Table XII)
    bank_update: str = "mean"  # "mean" | "sum", Eq. (6)
    momentum: float = 0.8  # β, Eq. (6)
    irm: str = "transformer"  # "transformer" | "linear" | "none" (Table XI)
    trm: str = "linear"  # "linear" | "transformer" | "none" (Table XI)
    alpha: float = 0.2  # α, Eq. (11)
    gate: str = "learned"  # share ρ of the representative tokens: "learned" | "fixed"
    rho: float = 0.01  # its start, or its value
    levels: str = "both"  # used in inference (Table VI): "both" | "level1" | "level2"
    losses: tuple[str, ...] = AUXILIARY  # terms beside the cross-entropy (Table V)
    kl_over: str = "classes"  # Eq. (14): softmax over "classes" | "features"
    local_scaled: bool = False  # Eq. (7): multiply the cosines by the logit scale
    lambda1: float = 0.02  # weight of both levels' cross-entropies, Eq. (15)
    lambda2: float = 20.0  # weight of "text"; 20 for d >= 512, 1 for the embedded model
    lambda3: float = 0.1  # weight of "kl" and "local"

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name.upper()} must be one of {', '.join(known)}, got '{getattr(self, name)}'.")
        unknown = set(self.losses) - set(AUXILIARY)
        if unknown:
            raise ValueError(f"LOSSES may hold {', '.join(AUXILIARY)}, got '{min(unknown)}'.")
        if self.top_k < 1:
            raise ValueError(f"TOP_K must be at least 1, got {self.top_k}.")
        if not 0 <= self.level1_share <= 1:
            raise ValueError(f"LEVEL1_SHARE must be in [0, 1], got {self.level1_share}.")
        if not 0 <= self.rho <= 1:
            raise ValueError(f"RHO must be in [0, 1], got {self.rho}.")
        if self.levels != "both" and self.levels not in self.filled_levels:
            raise ValueError(
                f"LEVELS is {self.levels}, which is empty with TOP_K {self.top_k} and LEVEL1_SHARE {self.level1_share}."
            )

    @property
    def level1_size(self) -> int:
        """k1, the number of best tokens that make level 1."""
        return math.ceil(round(self.level1_share * self.top_k, 9))  # 0.6 · 5 is a little more than 3 in floats

    @property
    def filled_levels(self) -> dict[str, slice]:
        """Which of the k tokens, best first, make each level; a level without tokens is left out."""
        k1 = self.level1_size
        levels = {"level1": slice(0, k1), "level2": slice(k1, self.top_k)}
        return {name: part for name, part in levels.items() if part.start < part.stop}


@dataclass
class Level:
    """What one level contributes."""

    image: Tensor  # v_rep [B, d]
    tokens: Tensor  # view(tok) [B, kℓ, d]
    cosines: Tensor  # [B, C]


class SpotlighterHead(nn.Module):
    """Spotlighter as the paper describes it; where the paper leaves something open, docs/fidelity.md says R1-R10.

    Args:
        options: what is varied.
        n_cls: classes of the bank: those it is trained on.
        width: w.
        dim: d.
    """

    def __init__(self, options: HeadOptions, n_cls: int, width: int, dim: int):
        super().__init__()
        self.options = options
        self.memory = PrototypeMemory(n_cls, options.n_prototypes, width, options.momentum, options.bank_update)
        self.irm = IRMS[options.irm](width) if options.irm != "none" else None
        self.trm = TRMS[options.trm](dim, options.alpha) if options.trm != "none" else None
        learned = options.gate == "learned" and self.irm is not None
        self.gate = nn.Parameter(torch.tensor(options.rho)) if learned else None

    def want(self, n_blocks: int, training: bool) -> set[str]:
        """What the image tower must give besides the image feature."""
        attention = {"cls_attn"} if self.options.sample_score == "attention" else set()
        return {f"hidden:{n_blocks - 1}"} | attention

    @property
    def reads_frozen_image(self) -> bool:
        """Whether a loss term needs v0, which may cost the host a second pass."""
        return "kl" in self.options.losses

    @property
    def rho(self) -> Tensor | float:
        return self.options.rho if self.gate is None else self.gate

    def forward(self, given: HeadInput) -> HeadOutput:
        """Steps 1-9 of the method. Losses where there are labels or a teacher; the bank moves in training mode only.

        Raises:
            ValueError: k is not less than the number of patches that can be activated.
        """
        cls_token, patches = given.hidden_parts()
        label = given.label if given.teacher is None else given.teacher.argmax(dim=1)
        with torch.no_grad():
            bank = self.memory.viewed(given.view)  # [C_train, K, d]
            matched = activation.match_class(given.image, bank)  # c* [B]
            own = bank[matched]  # [B, K, d]
            prototypes = self.memory.prototypes[matched]  # [B, K, w], a copy: mapping reads the bank before the write
            active = self._activate(given, patches, own, label, matched)
        tokens = take_rows(patches, active.index).float()  # [B, k, w]
        unit = given.view(tokens)  # [B, k, d]
        nearest = torch.einsum("bkd,bjd->bkj", unit, own).argmax(dim=2)  # [B, k]
        partners = take_rows(prototypes, nearest)  # U_match [B, k, w]
        sizes = None if given.sizes is None else given.sizes.gather(1, active.index)  # [B, k]
        parts = self.options.filled_levels
        used = [name for name in parts if self.training or self.options.levels in ("both", name)]
        levels = {
            name: self._level(
                given,
                cls_token,
                tokens[:, part],
                unit[:, part],
                partners[:, part],
                None if sizes is None else sizes[:, part],
            )
            for name, part in parts.items()
            if name in used or label is not None
        }
        out = HeadOutput(given.scale * losses.mean_of([levels[name].cosines for name in used]))  # Eq. (16)
        if label is not None:
            self._losses(out, given, levels, unit, bank, label)
        out.diagnostics = {
            "image": F.normalize(losses.mean_of([levels[name].image.detach() for name in used]), dim=1),
            "index": active.index,
            "sample": active.sample,
            **({} if active.semantic is None else {"semantic": active.semantic}),
            "scores": active.scores,
            "matched_class": matched,
            "nearest": nearest.detach(),
            "rho": torch.as_tensor(self.rho).detach(),
        }
        return out

    @torch.no_grad()
    def class_weights(self, given: HeadInput, index: Tensor) -> Tensor | None:
        """W of Eq. (11) [B, C, k]: which activated tokens, index [B, k], each class looks at, level by level.

        None where the text side has no such weights: it is left out, or a transformer.
        """
        if not isinstance(self.trm, LinearTRM):
            return None
        unit = given.view(take_rows(given.hidden_parts()[1], index).float())  # [B, k, d]
        parts = [token_weights(given.text, unit[:, part], given.scale) for part in self.options.filled_levels.values()]
        return torch.cat(parts, dim=2)

    def _activate(
        self, given: HeadInput, patches: Tensor, own: Tensor, label: Tensor | None, matched: Tensor
    ) -> activation.Activation:
        """Steps 1-5: which patches are activated; in training, the bank's update between the first and second time.

        Args:
            patches: H without the class token and what can't be activated, [B, N, w].
            own: view(U) of each image's matched class, [B, K, d].
            label: true classes [B]; None leaves the bank alone.
            matched: c* [B].
        """
        o = self.options
        unit = given.view(patches)  # P [B, N, d]
        mean_text = activation.mean_text(given.image, given.text, given.scale)  # t̄ [B, d]
        if o.sample_score == "attention":
            assert given.attention is not None, "the tower must give what `want` names"
            sample = given.attention
        elif o.sample_score == "max":
            sample = activation.max_scores(unit, given.text)
        else:
            sample = activation.sample_scores(unit, mean_text)
        sample = activation.standardise(sample)

        def activate(own: Tensor) -> activation.Activation:
            if not o.semantic:
                return activation.activate(sample, None, o.top_k)
            semantic = activation.semantic_scores(unit, own, mean_text, given.scale)
            return activation.activate(sample, activation.standardise(semantic), o.top_k)

        active = activate(own)
        if self.training and label is not None:
            self.memory.update(take_rows(patches, active.index).float(), label, given.view, given.scale)
            if o.recalculate and o.semantic:  # the sample-wise score alone would choose the same
                active = activate(given.view(self.memory.prototypes[matched]))
        return active

    def _level(
        self,
        given: HeadInput,
        cls_token: Tensor,
        tokens: Tensor,
        unit: Tensor,
        partners: Tensor,
        sizes: Tensor | None,
    ) -> Level:
        """Steps 6 and 7 for the tokens of one level."""
        image = given.image
        if self.irm is not None:
            seen = given.view(self.irm(partners, tokens, cls_token, given.block, sizes)).mean(dim=1)
            image = F.normalize((1 - self.rho) * image + self.rho * F.normalize(seen, dim=1), dim=1)  # R7
        if self.trm is not None:
            cosines = self.trm.cosines(image, given.text, unit, given.scale)
        else:
            cosines = activation.cosines(image, given.text)
        return Level(image, unit, cosines)

    def _losses(
        self, out: HeadOutput, given: HeadInput, levels: dict[str, Level], unit: Tensor, bank: Tensor, label: Tensor
    ) -> None:
        """Step 9, Eq. (15): raw terms and their weights, into `out`."""
        o, scale, text, text0, image0 = self.options, given.scale, given.text, given.text0, given.image0
        full = scale * losses.mean_of([level.cosines for level in levels.values()])  # [B, C]
        out.terms["ce"] = losses.classification(full, label, given.teacher)
        out.weights["ce"] = given.classification_weight
        for name, level in levels.items():
            if f"ce_{name}" in o.losses:
                out.terms[f"ce_{name}"] = losses.classification(scale * level.cosines, label, given.teacher)
                out.weights[f"ce_{name}"] = o.lambda1 * given.classification_weight
        if "text" in o.losses:
            assert text0 is not None, "training needs T0"
            distances = [self._text_distance(text, text0, level.tokens, scale) for level in levels.values()]
            out.terms["text"], out.weights["text"] = losses.mean_of(distances), o.lambda2
        if "kl" in o.losses:
            assert text0 is not None, "training needs T0"
            assert image0 is not None, "training needs v0"
            kls = [losses.visual_kl(level.image, image0, text0, scale, o.kl_over) for level in levels.values()]
            out.terms["kl"], out.weights["kl"] = losses.mean_of(kls), o.lambda3
        if "local" in o.losses and text.requires_grad:  # without it, nothing in this term could train
            out.terms["local"] = losses.local_ce(unit, text, bank, label, scale if o.local_scaled else 1.0)
            out.weights["local"] = o.lambda3

    def _text_distance(self, text: Tensor, text0: Tensor, tokens: Tensor, scale: Tensor) -> Tensor:
        if self.trm is None:
            return (text - text0).abs().mean()
        return self.trm.distance(text, text0, tokens, scale)
