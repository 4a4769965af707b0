"""CoOp: learn the context words of the prompt (Zhou et al., IJCV 2022, arXiv 2109.01134)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from yacs.config import CfgNode as CN

from clip.backbone import Backbone, LabelSpace, TextBatch
from dassl.engine import TRAINER_REGISTRY
from trainers.base import MethodTrainer, declare_compute
from trainers.method import Method

POSITIONS = ("end", "middle", "front")
CTX_STD = 0.02  # of randomly initialised context vectors, that of CLIP's token embeddings


class CoOpMethod(Method):
    """Text "{ctx} {name}." with trainable context rows; the image side is frozen CLIP.

    Args:
        n_ctx: context rows M when no words are given.
        ctx_init: initial words, e.g. "a photo of a"; their number replaces `n_ctx`. "" draws from N(0, 0.02²).
        csc: one context per class, [C, M, w] instead of [M, w]; ignored with `ctx_init`, as released. Such a model
            can only be used on the classes it was trained on.
        class_token_position: where the class name stands: "end" (behind the context), "middle" or "front".

    Raises:
        ValueError: unknown position, or no context rows.
    """

    def __init__(
        self,
        backbone: Backbone,
        space: LabelSpace,
        n_ctx: int = 16,
        ctx_init: str = "",
        csc: bool = False,
        class_token_position: str = "end",
    ):
        super().__init__(backbone, space)
        if class_token_position not in POSITIONS:
            raise ValueError(
                f"TRAINER.COOP.CLASS_TOKEN_POSITION must be one of {POSITIONS}, got '{class_token_position}'"
            )
        self.position = class_token_position
        self.words = ctx_init.replace("_", " ").strip() or None
        if self.words:
            ctx = backbone.text.word_embeddings(self.words).float().clone()  # [M, w]
        elif n_ctx < 1:
            raise ValueError(f"N_CTX must be at least 1, got {n_ctx}")
        else:
            rows = (len(space), n_ctx) if csc else (n_ctx,)
            ctx = torch.randn(*rows, backbone.text.width) * CTX_STD
        self.ctx = nn.Parameter(ctx)  # [M, w] or [C, M, w]
        self.tied_to_classes = self.ctx.dim() == 3

    def prepare(self, space: LabelSpace) -> TextBatch:
        return self.backbone.text.prepare(space, self.words, self.ctx.shape[-2], self.position)

    def raw_text(self, space: LabelSpace) -> Tensor:
        return self.backbone.text(self.text_batch(space), ctx=self.ctx)


@TRAINER_REGISTRY.register()
class CoOp(MethodTrainer):
    """Trainer of `CoOpMethod`; options under TRAINER.COOP."""

    node = "COOP"

    @classmethod
    def extend_cfg(cls, cfg: CN) -> None:
        node = cfg.TRAINER.COOP = CN()
        node.N_CTX = 16  # context rows, used when CTX_INIT is empty
        node.CSC = False  # one context per class
        node.CTX_INIT = ""  # initial words; their number replaces N_CTX
        node.CLASS_TOKEN_POSITION = "end"  # "end" | "middle" | "front"
        declare_compute(node)

    @classmethod
    def make_method(cls, cfg: CN, backbone: Backbone, space: LabelSpace) -> Method:
        node = cfg.TRAINER.COOP
        return CoOpMethod(backbone, space, node.N_CTX, node.CTX_INIT, node.CSC, node.CLASS_TOKEN_POSITION)
