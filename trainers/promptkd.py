"""PromptKD: image prompts and a projector learn the posterior of a larger, prompted CLIP on images without labels.

Li et al., CVPR 2024, arXiv 2403.02781. The classifier is the teacher's text, computed once per label space. Axes: B
images, C classes, d_s joint width of the student, d that of the teacher.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from yacs.config import CfgNode as CN

from clip.backbone import Backbone, LabelSpace, VisionOut
from dassl.engine import TRAINER_REGISTRY
from dassl.engine.precision import without_autocast
from trainers.base import MethodTrainer, declare_compute, declare_options, options_of
from trainers.divergence import posterior_kl
from trainers.method import Method, StepOutput
from trainers.projector import Projector
from trainers.prompting import ImagePrompts, PromptedMethod, declare_inject
from trainers.released import own_layout
from trainers.teacher import load_teacher


@dataclass(frozen=True)
class Distillation:
    """What is learned; upper-case, the names of the keys in TRAINER.PROMPTKD."""

    target: str = "teacher"  # "teacher": KL, no labels | "labels": cross-entropy on labelled images, to compare with
    kd_weight: float = 1000.0  # K_w, of the KL term
    temperature: float = 1.0  # τ of both posteriors
    kl_mean: str = "elements"  # KL divided by images times classes, as released | "batch": by images

    def __post_init__(self) -> None:
        for key, allowed in (("target", ("teacher", "labels")), ("kl_mean", ("elements", "batch"))):
            if getattr(self, key) not in allowed:
                raise ValueError(
                    f"TRAINER.PROMPTKD.{key.upper()} must be one of {', '.join(allowed)}, got '{getattr(self, key)}'."
                )
        for key in ("kd_weight", "temperature"):
            if not getattr(self, key) > 0:
                raise ValueError(f"TRAINER.PROMPTKD.{key.upper()} must be positive, got {getattr(self, key)}.")


def project_frozen(projector: Projector, features: Tensor) -> Tensor:
    """The projector with running statistics and without gradient to it: [..., d_s] to [..., d]."""
    fixed = {name: parameter.detach() for name, parameter in projector.named_parameters()}
    hidden = F.linear(features, fixed["linear1.weight"], fixed["linear1.bias"]).flatten(0, -2)
    bn = projector.bn
    hidden = F.batch_norm(hidden, bn.running_mean, bn.running_var, fixed["bn.weight"], fixed["bn.bias"], eps=bn.eps)
    rows = F.linear(F.relu(hidden), fixed["linear2.weight"], fixed["linear2.bias"])
    return rows.unflatten(0, features.shape[:-1])


class PromptKDMethod(PromptedMethod):
    """Student with image prompts and a projector, taught by another method.

    Args:
        teacher: a frozen, trained method; kept outside the module tree, so that it is neither saved nor trained.
        prompts: of the student's image tower.
    """

    def __init__(
        self,
        backbone: Backbone,
        space: LabelSpace,
        teacher: Method,
        prompts: ImagePrompts,
        options: Distillation | None = None,
    ):
        super().__init__(backbone, space, None, prompts)
        self.options = options or Distillation()
        self._teaching = (teacher,)  # a tuple hides the teacher from nn.Module's registration
        self.projector = Projector(backbone.spec.embed_dim, teacher.joint_width)
        self.learns_from_labels = self.options.target == "labels"
        if not self.learns_from_labels:  # as a factor of the batch's mean KL
            share = len(space) if self.options.kl_mean == "elements" else 1
            self.classification_weight = self.options.kd_weight * self.options.temperature**2 / share

    @property
    def taught_by(self) -> Method:
        return self._teaching[0]

    @property
    def joint_width(self) -> int:
        return self.taught_by.joint_width

    def class_vectors(self, space: LabelSpace | None = None) -> Tensor:
        """The teacher's unit text features [C, d], computed once per label space."""
        return self.taught_by.class_vectors(space or self.space)

    def text(self, space: LabelSpace | None = None) -> Tensor:
        return self.class_vectors(space)

    def raw_text(self, space: LabelSpace) -> Tensor:
        return self.class_vectors(space)

    def frozen_text(self, space: LabelSpace | None = None) -> Tensor:
        return self.class_vectors(space)

    def joint_image(self, vision: VisionOut) -> Tensor:
        with without_autocast(vision.pooled.device):
            return self.projector(vision.pooled.float())

    @torch.no_grad()
    def frozen_image(self, images: Tensor, vision: VisionOut) -> Tensor:
        """Features [B, d] of the student's tower without prompts, through the projector as it is."""
        return self._through_frozen(self.backbone.vision(images).pooled)

    def project(self, tokens: Tensor) -> Tensor:
        return self._through_frozen(super().project(tokens))

    def joint_tokens(self, vision: VisionOut) -> Tensor | None:
        return None if vision.tokens is None else self._through_frozen(vision.tokens)

    def _through_frozen(self, features: Tensor) -> Tensor:
        with without_autocast(features.device):
            return project_frozen(self.projector, features.float())

    @torch.no_grad()
    def teacher(self, images: Tensor) -> Tensor | None:
        """s_tea · cos(f_tea, t̂), [B, C] over the method's own label space; None where it learns from labels."""
        if self.learns_from_labels:
            return None
        return self.taught_by.logits(self.taught_by.image(images), self.class_vectors())

    def losses(self, images: Tensor, label: Tensor) -> StepOutput:
        """KL from the teacher, or cross-entropy; `label` is not read with a teacher."""
        logits, teacher = self.logits(self.image(images), self.class_vectors()), self.teacher(images)
        if teacher is None:
            return StepOutput(logits, {"ce": F.cross_entropy(logits, label)})
        options = self.options
        kl = posterior_kl(logits, teacher, options.temperature, options.kl_mean)
        return StepOutput(logits, {"kl": kl}, {"kl": options.kd_weight}, teacher)


@TRAINER_REGISTRY.register()
class PromptKD(MethodTrainer):
    """Trainer of `PromptKDMethod`; options under TRAINER.PROMPTKD."""

    node = "PROMPTKD"

    @classmethod
    def extend_cfg(cls, cfg: CN) -> None:
        node = cfg.TRAINER.PROMPTKD = CN()
        node.TEACHER_DIR = ""  # run folder of the trained teacher, or a released checkpoint of prompts in both towers
        node.TEACHER_BACKBONE = "ViT-L/14"  # of a released checkpoint; a run folder names its own
        node.N_CTX_VISION = 4  # P, rows before each prompted block of the student
        node.PROMPT_DEPTH_VISION = 9  # J, 1: at the input only; cut to the number of blocks
        declare_inject(node)
        declare_options(node, Distillation)
        declare_compute(node)

    @classmethod
    def make_method(cls, cfg: CN, backbone: Backbone, space: LabelSpace) -> Method:
        node = cfg.TRAINER.PROMPTKD
        if not node.TEACHER_DIR:
            raise ValueError(
                "PromptKD needs a trained teacher; name its run folder in TRAINER.PROMPTKD.TEACHER_DIR "
                "(scripts/promptkd/train_teacher.sh makes one)."
            )
        options = options_of(node, Distillation)
        teacher = load_teacher(cfg, node.TEACHER_DIR, node.TEACHER_BACKBONE, backbone, space)
        prompts = ImagePrompts.random(backbone, node.N_CTX_VISION, node.PROMPT_DEPTH_VISION, node.INJECT)
        return PromptKDMethod(backbone, space, teacher, prompts, options)

    def check_cfg(self, cfg: CN) -> None:
        super().check_cfg(cfg)
        if cfg.DATALOADER.TRAIN_X.BATCH_SIZE < 2:
            raise ValueError("DATALOADER.TRAIN_X.BATCH_SIZE must be 2 or more: PromptKD normalises over the batch.")

    def _weights_of(self, checkpoint: Any, path: Path) -> dict[str, Any]:
        """As in the engine; checkpoints of the released code load, too."""
        return own_layout(super()._weights_of(checkpoint, path))
