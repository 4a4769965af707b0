"""PromptKD in golden files: the student and its teacher from the settings of a case, and what such a case looks at."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clip.backbone import Backbone, LabelSpace
from tools.golden_inputs import Inputs, draw
from trainers.prompting import WORDS, ImagePrompts, PromptedMethod, TextPrompts
from trainers.promptkd import Distillation, PromptKDMethod

# names of trainable tensors in golden files -> ours, beside those of the prompts
NAMES = (
    (r"projector\.in\.", "projector.linear1."),
    (r"projector\.out\.", "projector.linear2."),
)
TEACHER_STREAM = 6


def promptkd_method(inputs: Inputs, backbone: Backbone, space: LabelSpace, settings: dict[str, Any]) -> PromptKDMethod:
    """The student of a case; its teacher has prompts in all blocks, drawn in the order of the recipe."""
    M, depth = settings["teacher_n_ctx"], settings["teacher_prompt_depth"]
    of_teacher, generator = inputs.backbone(settings["teacher"]), inputs.stream(TEACHER_STREAM)
    text = TextPrompts(of_teacher, M, WORDS, depth)
    teacher = PromptedMethod(of_teacher, space, text, ImagePrompts.random(of_teacher, M, depth))
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.copy_(draw(generator, tuple(parameter.shape), 0.5))
    prompts = ImagePrompts.random(backbone, settings["n_ctx_vision"], settings["prompt_depth_vision"])
    options = Distillation(kd_weight=settings["kd_weight"], temperature=settings["temperature"])
    return PromptKDMethod(backbone, space, teacher.requires_grad_(False).eval(), prompts, options)


@torch.no_grad()
def teacher_side(method: PromptKDMethod, images: Tensor) -> dict[str, Tensor | None]:
    """Of the teacher: logits, and the first columns of both unit features."""
    return {
        "teacher_logits": method.teacher(images),
        "teacher_text_features": method.class_vectors()[:, :4],
        "teacher_image_features": F.normalize(method.taught_by.image(images).pooled, dim=-1)[:, :4],
    }


def running_statistics(method: PromptKDMethod) -> dict[str, dict[str, float]]:
    """Norms of what the projector's batch norm has seen."""
    bn = method.projector.bn
    return {"bn_running": {"mean_norm": float(bn.running_mean.norm()), "var_norm": float(bn.running_var.norm())}}
