"""MaPLe: the image tower's prompts are linear functions of the text tower's (Khattak et al., CVPR 2023, 2210.03117)."""

from __future__ import annotations

import copy

import torch
from torch import nn
from yacs.config import CfgNode as CN

from clip.backbone import Backbone, LabelSpace, VisualPrompts
from dassl.engine import TRAINER_REGISTRY
from trainers.base import MethodTrainer, declare_compute
from trainers.method import Method
from trainers.prompting import (
    ImagePrompts,
    PromptedMethod,
    TextPrompts,
    declare_inject,
    declare_text_prompts,
    stacked_prompts,
)

COUPLING_INITS = ("copies", "independent")


class MaPLeMethod(PromptedMethod):
    """Image rows V_l = F_l(C_l) from the text rows C_l of the same depth, so gradient reaches C_l through both towers.

    Args:
        text_prompts: C_0 .. C_{J-1}.
        coupling_init: F_1 .. F_{J-1} start as "copies" of one random layer, as released, or "independent".
        inject: as in `clip.backbone.VisualPrompts`.

    Raises:
        ValueError: the image tower has fewer blocks than the text is prompted deep, or an unknown option.
    """

    def __init__(
        self,
        backbone: Backbone,
        space: LabelSpace,
        text_prompts: TextPrompts,
        coupling_init: str = "copies",
        inject: str = "pre_ln",
    ):
        super().__init__(backbone, space, text_prompts, None)
        self.image_trains = True
        if coupling_init not in COUPLING_INITS:
            raise ValueError(f"COUPLING_INIT must be one of {', '.join(COUPLING_INITS)}, got '{coupling_init}'.")
        depth, n_blocks = len(text_prompts.layers()), backbone.vision.n_blocks
        if depth > n_blocks:
            raise ValueError(f"PROMPT_DEPTH {depth} is more than the {n_blocks} blocks of the image tower; lower it.")
        sizes = backbone.text.width, backbone.vision.vit.transformer.width
        first, *deep = (nn.Linear(*sizes) for _ in range(depth))
        if coupling_init == "copies":
            deep = [copy.deepcopy(deep[0]) for _ in deep]
        self.couplings = nn.ModuleList([first, *deep])
        self.inject = inject
        VisualPrompts(inject=inject)  # refuses a wrong one now, not in the first step

    def visual_prompts(self) -> VisualPrompts:
        layers = self.text_prompts.layers() if self.text_prompts is not None else []
        rows = [couple(ctx) for couple, ctx in zip(self.couplings, layers, strict=True)]  # [M, w] of the image tower
        return stacked_prompts(rows, self.inject)

    @torch.no_grad()
    def bake(self) -> PromptedMethod:
        """The same model for inference, with the couplings' results instead of the couplings."""
        prompts = self.visual_prompts()
        rows = [part.float().clone() for part in (prompts.shallow, *prompts.deep.values()) if part is not None]
        baked = ImagePrompts(self.backbone, rows, self.inject)
        return PromptedMethod(self.backbone, self.space, copy.deepcopy(self.text_prompts), baked).eval()


@TRAINER_REGISTRY.register()
class MaPLe(MethodTrainer):
    """Trainer of `MaPLeMethod`; options under TRAINER.MAPLE."""

    node = "MAPLE"

    @classmethod
    def extend_cfg(cls, cfg: CN) -> None:
        node = cfg.TRAINER.MAPLE = CN()
        declare_text_prompts(node, "N_CTX")
        node.PROMPT_DEPTH = 9  # J of both towers; 1: at the input only; cut to the number of text blocks
        node.COUPLING_INIT = "copies"  # "copies": all deep couplings start equal, as released | "independent"
        declare_inject(node)
        declare_compute(node)

    @classmethod
    def make_method(cls, cfg: CN, backbone: Backbone, space: LabelSpace) -> Method:
        node = cfg.TRAINER.MAPLE
        text = TextPrompts(backbone, node.N_CTX, node.CTX_INIT, node.PROMPT_DEPTH, node.KEEP_WORDS)
        return MaPLeMethod(backbone, space, text, node.COUPLING_INIT, node.INJECT)
