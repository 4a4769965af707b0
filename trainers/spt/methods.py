"""Prompts that start from training images, in CLIP against its text, or in a plain ViT under a linear head."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from clip.backbone import Backbone, LabelSpace
from dassl.engine.precision import without_autocast
from trainers.method import Method, StepOutput
from trainers.prompting import WORDS, ImagePrompts, PromptedMethod, random_rows, stacked_prompts
from trainers.spt.start import StartOptions, start_prompts
from trainers.spt.towers import ClipTower, PlainTower

READOUTS = ("cls", "mean")
HEAD_STD = 0.02  # of the linear head's initial weights


class SelfPrompted(PromptedMethod):
    """VPT whose prompts start as prototypes; text is frozen, so that the prompts serve any classes.

    Args:
        image_prompts: as VPT makes them; with the strategy "normal" they stay so.
    """

    def __init__(
        self,
        backbone: Backbone,
        space: LabelSpace,
        image_prompts: ImagePrompts,
        start: StartOptions,
        words: str = WORDS,
    ):
        super().__init__(backbone, space, None, image_prompts, words)
        self.tower: PlainTower = ClipTower(backbone.vision)
        self.start = start
        self.looks_first = start.strategy != "normal"

    def prompt_rows(self) -> list[nn.Parameter]:
        assert self.image_prompts is not None
        return list(self.image_prompts.rows)

    def before_training(self, images: Callable[[], Iterator[Tensor]]) -> None:
        start_prompts(self.prompt_rows(), self.tower, images, self.start)


class LinearSelfPrompted(Method):
    """Prompts in a plain pretrained ViT and a linear head over the classes of the task, as in SPT's own paper.

    Args:
        backbone: what `tower` belongs to.
        tower: the frozen ViT.
        n_ctx: P, prompt rows of a layer.
        depth: prompted layers, cut to the number of blocks.
        inject: "pre_ln": the rows of the input pass the norm before the first block, where the ViT has one; "post_ln".
        readout: "cls": the final norm, then the class token; "mean": the mean of all patch and prompt rows, then the
            norm, for MAE.

    Raises:
        ValueError: no rows, no depth, an unknown readout, or "cls" of a ViT without class token.
    """

    reads_text = text_trains = False
    tied_to_classes = True

    def __init__(
        self,
        backbone: Backbone,
        space: LabelSpace,
        tower: PlainTower,
        n_ctx: int,
        depth: int,
        start: StartOptions,
        inject: str = "pre_ln",
        readout: str = "cls",
    ):
        super().__init__(backbone, space)
        if n_ctx < 1 or depth < 1:
            raise ValueError(f"Image prompts need at least one row and a depth of at least 1, got {n_ctx} and {depth}.")
        if readout not in READOUTS:
            raise ValueError(f"TRAINER.SPT.READOUT must be one of {', '.join(READOUTS)}, got '{readout}'.")
        if readout == "cls" and not tower.n_prefix:
            raise ValueError(f"{backbone.name} has no class token; set TRAINER.SPT.READOUT mean.")
        n_sets = min(depth, tower.n_blocks)
        self.rows = nn.ParameterList([nn.Parameter(random_rows(n_ctx, tower.width)) for _ in range(n_sets)])
        self.head = nn.Linear(tower.width, len(space))
        nn.init.trunc_normal_(self.head.weight, std=HEAD_STD)
        nn.init.zeros_(self.head.bias)
        self.tower, self.start, self.inject, self.readout = tower, start, inject, readout
        self.looks_first = start.strategy != "normal"
        stacked_prompts(list(self.rows), inject)  # refuses a wrong `inject` now, not in the first step

    def prompt_rows(self) -> list[nn.Parameter]:
        return list(self.rows)

    def before_training(self, images: Callable[[], Iterator[Tensor]]) -> None:
        start_prompts(self.prompt_rows(), self.tower, images, self.start)

    def features(self, images: Tensor) -> Tensor:
        """What the head sees, [B, w], in the head's type."""
        x = self.tower.encode(images, stacked_prompts(list(self.rows), self.inject))
        pooled = x[:, 0] if self.readout == "cls" else x[:, self.tower.n_prefix :].mean(dim=1)
        return self.tower.norm(pooled).to(self.head.weight.dtype)

    def losses(self, images: Tensor, label: Tensor) -> StepOutput:
        logits = self(images)
        return StepOutput(logits, {"ce": F.cross_entropy(logits, label)})

    def forward(self, images: Tensor, space: LabelSpace | None = None) -> Tensor:
        """Logits [B, C] over the method's own classes.

        Raises:
            ValueError: other classes are asked for.
        """
        if space not in (None, self.space):
            raise ValueError("A linear head knows its own classes only; TRAINER.SPT.HEAD text serves any classes.")
        features = self.features(images)
        with without_autocast(images.device):
            return self.head(features)

    def raw_text(self, space: LabelSpace) -> Tensor:
        raise ValueError(NO_TEXT)

    @property
    def joint_width(self) -> int:
        raise ValueError(NO_TEXT)


NO_TEXT = "A linear head has no text features, so no method can stand on it; set TRAINER.SPT.HEAD text."
