"""CoCoOp: context words that a small net shifts by the image (Zhou et al., CVPR 2022, arXiv 2203.05557)."""

from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode as CN

from clip.backbone import Backbone, LabelSpace, TextBatch, VisionOut
from dassl.engine import TRAINER_REGISTRY
from trainers.base import MethodTrainer, declare_compute
from trainers.method import Method
from trainers.prompting import TextPrompts

REDUCTION = 16  # the net's hidden layer has d / REDUCTION units


class CoCoOpMethod(Method):
    """Context of image x: each of the M rows plus the same shift π(x) = meta_net(f(x)), f the unit image feature.

    Args:
        n_ctx: M; up to the number of `ctx_init`'s words it starts as the first of them, otherwise as N(0, 0.02²).
        ctx_init: initial words.
    """

    text_depends_on_image = True

    def __init__(self, backbone: Backbone, space: LabelSpace, n_ctx: int = 4, ctx_init: str = "a photo of a"):
        super().__init__(backbone, space)
        start = TextPrompts(backbone, n_ctx, ctx_init, depth=1)
        self.words, self.ctx = start.words, start.ctx  # ctx: [M, w]
        d = backbone.spec.embed_dim
        layers = {"linear1": nn.Linear(d, d // REDUCTION), "relu": nn.ReLU(inplace=True)}
        self.meta_net = nn.Sequential(OrderedDict(layers | {"linear2": nn.Linear(d // REDUCTION, backbone.text.width)}))

    def prepare(self, space: LabelSpace) -> TextBatch:
        return self.backbone.text.prepare(space, self.words, len(self.ctx))

    def raw_text(self, space: LabelSpace) -> Tensor:
        """Features of the context without a shift: what all images' texts have in common."""
        return self.backbone.text(self.text_batch(space), ctx=self.ctx)

    def text_for(self, vision: VisionOut, space: LabelSpace | None = None) -> Tensor:
        """Unit text features [B, C, d]."""
        shift = self.meta_net(F.normalize(vision.pooled.float(), dim=-1))  # [B, w]
        ctx = self.ctx + shift[:, None, None]  # [B, 1, M, w]
        raw = self.backbone.text(self.text_batch(space or self.space), ctx=ctx)
        return F.normalize(raw.float(), dim=-1)


@TRAINER_REGISTRY.register()
class CoCoOp(MethodTrainer):
    """Trainer of `CoCoOpMethod`; options under TRAINER.COCOOP."""

    node = "COCOOP"

    @classmethod
    def extend_cfg(cls, cfg: CN) -> None:
        node = cfg.TRAINER.COCOOP = CN()
        node.N_CTX = 4  # M; more than CTX_INIT has words: random rows
        node.CTX_INIT = "a photo of a"
        declare_compute(node)
        node.TEXT_CHUNK = 2048  # a text for each image and class: 100 images of 1000 classes are 100,000

    @classmethod
    def make_method(cls, cfg: CN, backbone: Backbone, space: LabelSpace) -> Method:
        return CoCoOpMethod(backbone, space, cfg.TRAINER.COCOOP.N_CTX, cfg.TRAINER.COCOOP.CTX_INIT)
