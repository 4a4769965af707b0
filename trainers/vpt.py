"""VPT on CLIP: learn rows of the image tower, at its input or before every block (Jia et al., arXiv 2203.12119)."""

from __future__ import annotations

from yacs.config import CfgNode as CN

from clip.backbone import Backbone, LabelSpace
from dassl.engine import TRAINER_REGISTRY
from trainers.base import MethodTrainer, declare_compute
from trainers.method import Method
from trainers.prompting import WORDS, ImagePrompts, PromptedMethod, declare_inject


@TRAINER_REGISTRY.register()
class VPT(MethodTrainer):
    """Trainer of image prompts against frozen text "{CTX_INIT} {name}."; options under TRAINER.VPT."""

    node = "VPT"

    @classmethod
    def extend_cfg(cls, cfg: CN) -> None:
        node = cfg.TRAINER.VPT = CN()
        node.N_CTX_VISION = 2  # P, rows before each prompted block
        node.PROMPT_DEPTH_VISION = 1  # 1: shallow, at the input only; 12: deep on ViT-B/16; cut to the number of blocks
        node.CTX_INIT = WORDS  # words of the frozen text, the same for every data set
        declare_inject(node)
        declare_compute(node)

    @classmethod
    def make_method(cls, cfg: CN, backbone: Backbone, space: LabelSpace) -> Method:
        node = cfg.TRAINER.VPT
        prompts = ImagePrompts.random(backbone, node.N_CTX_VISION, node.PROMPT_DEPTH_VISION, node.INJECT)
        return PromptedMethod(backbone, space, None, prompts, node.CTX_INIT)
