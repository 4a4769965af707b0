"""IVLP: independent prompts in both towers, nothing shared (the baseline of MaPLe, arXiv 2210.03117)."""

from __future__ import annotations

from yacs.config import CfgNode as CN

from clip.backbone import Backbone, LabelSpace
from dassl.engine import TRAINER_REGISTRY
from trainers.base import MethodTrainer, declare_compute
from trainers.method import Method
from trainers.prompting import PromptedMethod, declare_both_sides, prompts_of


@TRAINER_REGISTRY.register()
class IVLP(MethodTrainer):
    """Trainer of prompts in both towers, or in the text tower alone; options under TRAINER.IVLP."""

    node = "IVLP"

    @classmethod
    def extend_cfg(cls, cfg: CN) -> None:
        node = cfg.TRAINER.IVLP = CN()
        declare_both_sides(node)
        declare_compute(node)

    @classmethod
    def make_method(cls, cfg: CN, backbone: Backbone, space: LabelSpace) -> Method:
        return PromptedMethod(backbone, space, *prompts_of(cfg.TRAINER.IVLP, backbone))
