"""How each method is built from the settings of a golden case, and what of it a case looks at beside the usual."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clip.backbone import Backbone, LabelSpace, VisionOut
from tools import golden_promptkd
from tools.golden_inputs import Inputs
from trainers.clipfit import CLIPFitMethod
from trainers.cocoop import CoCoOpMethod
from trainers.coop import CoOpMethod
from trainers.maple import MaPLeMethod
from trainers.method import Method
from trainers.prompting import ImagePrompts, PromptedMethod, TextPrompts
from trainers.promptsrc import PromptSRCMethod, Regularisers
from trainers.textrefiner import RefinerOptions, TextRefinerMethod
from trainers.zsclip import TemplateMethod

Settings = dict[str, Any]

# names of trainable tensors in golden files -> ours; `ctx` is `text_prompts.ctx` where there are prompts in both towers
NAMES = (
    (r"text\.prompt\.(\d+)", r"text_prompts.deep.\1"),
    (r"vision\.prompt\.(\d+)", r"image_prompts.rows.\1"),
    (r"couple\.(\d+)\.", r"couplings.\1."),
    (r"meta\.(\d+)\.", r"meta_net.linear\1."),
    (r"(text\.block|vision)\.", r"tuned.\1."),
    (r"local\.in\.", "local.linear1."),
    (r"local\.out\.", "local.linear2."),
    *golden_promptkd.NAMES,
)


def own_name(method: Method, name: str) -> str:
    """Our name of a golden file's trainable tensor."""
    own = name
    for pattern, replacement in NAMES:
        own = re.sub(f"^{pattern}", replacement, own)
    if isinstance(method, TextRefinerMethod) and own not in method.trainables():
        return f"host.{own_name(method.host, name)}"
    name = own
    return f"text_prompts.{name}" if name == "ctx" and hasattr(method, "text_prompts") else name


@dataclass(frozen=True)
class Recipe:
    """How one method is made and looked at.

    Args:
        build: the method on the case's tiny CLIP.
        extra: of the method and the images, fields of step 0 that only this method has.
        moving: state beside the parameters that training moves, by field; a dict where a field has several quantities.
    """

    build: Callable[[Inputs, Backbone, LabelSpace, Settings], Method]
    extra: Callable[[Method, Tensor], dict[str, Any]] = lambda method, images: {}
    moving: Callable[[Method], dict[str, Any]] = lambda method: {}


def template_method(inputs: Inputs, backbone: Backbone, space: LabelSpace, settings: Settings) -> Method:
    template = settings["template"]
    return TemplateMethod(backbone, space, [template] if isinstance(template, str) else template)


def text_prompts(backbone: Backbone, settings: Settings) -> TextPrompts:
    return TextPrompts(backbone, settings["n_ctx_text"], settings["ctx_init"], settings["prompt_depth_text"])


def image_prompts(backbone: Backbone, settings: Settings) -> ImagePrompts | None:
    n, depth = settings["n_ctx_vision"], settings["prompt_depth_vision"]
    return ImagePrompts.random(backbone, n, depth) if n else None


def vpt_method(inputs: Inputs, backbone: Backbone, space: LabelSpace, settings: Settings) -> Method:
    return PromptedMethod(backbone, space, None, image_prompts(backbone, settings))


def ivlp_method(inputs: Inputs, backbone: Backbone, space: LabelSpace, settings: Settings) -> Method:
    return PromptedMethod(backbone, space, text_prompts(backbone, settings), image_prompts(backbone, settings))


def maple_method(inputs: Inputs, backbone: Backbone, space: LabelSpace, settings: Settings) -> Method:
    prompts = TextPrompts(backbone, settings["n_ctx"], settings["ctx_init"], settings["prompt_depth"])
    return MaPLeMethod(backbone, space, prompts)


def promptsrc_method(inputs: Inputs, backbone: Backbone, space: LabelSpace, settings: Settings) -> Method:
    keys = ("text_loss_weight", "image_loss_weight", "gpa_mean", "gpa_std")
    options = Regularisers(**{key: settings[key] for key in keys if key in settings})
    prompts = text_prompts(backbone, settings), image_prompts(backbone, settings)
    return PromptSRCMethod(backbone, space, *prompts, options, settings.get("max_epoch", 20))


def frozen_side(method: Method, images: Tensor) -> dict[str, Tensor]:
    """Of frozen CLIP: logits, and the first columns of both unit features."""
    image, text = method.backbone.vision(images), method.frozen_text()
    return {
        "frozen_logits": method.logits(VisionOut(image.pooled), text),
        "frozen_text_features": text[:, :4],
        "frozen_image_features": F.normalize(image.pooled, dim=-1)[:, :4],
    }


def clipfit_method(inputs: Inputs, backbone: Backbone, space: LabelSpace, settings: Settings) -> Method:
    backbone.requires_grad_(False)  # CLIPFit takes the place of frozen tensors only
    return CLIPFitMethod(backbone, space, settings["template"], settings["similarity_weight"])


def textrefiner_method(inputs: Inputs, backbone: Backbone, space: LabelSpace, settings: Settings) -> Method:
    if "teacher" in settings:
        host = METHODS["PromptKD"].build(inputs, backbone, space, settings)
    else:
        host = CoOpMethod(backbone, space, settings["n_ctx"], settings["ctx_init"])
    options = RefinerOptions(
        n_slots=settings["slots"],
        momentum=settings["momentum"],
        alpha=settings["alpha"],
        top_k=settings["top_k"],
        local_weight=1 / settings.get("balance", 50),
        text_weight=settings.get("distill", 20),
    )
    method = TextRefinerMethod(host, options)
    first = torch.from_numpy(np.abs(inputs.stream(7).standard_normal(method.cache.slots.shape)).astype(np.float32))
    method.cache.slots.copy_(F.normalize(first, dim=1))
    method.first_slots = method.cache.slots.clone()
    return method


def refiner_state(method: Method) -> dict[str, Any]:
    """The cache, and running statistics: of the host's projector, if it has one, else of the adapter."""
    slots, bn = method.cache.slots, getattr(method.host, "projector", method.local).bn
    return {
        "bank": {
            "sum": float(slots.double().sum()),
            "rows_changed": int(((slots - method.first_slots).abs().sum(dim=1) > 1e-5).sum()),
            "first_3x8": slots[:3, :8],
        },
        "bn_running": {"mean_norm": float(bn.running_mean.norm()), "var_norm": float(bn.running_var.norm())},
    }


METHODS = {
    "ZeroshotCLIP": Recipe(template_method),
    "ZeroshotCLIP2": Recipe(template_method),
    "CoOp": Recipe(lambda inputs, backbone, space, settings: CoOpMethod(backbone, space, **settings)),
    "CoCoOp": Recipe(lambda inputs, backbone, space, settings: CoCoOpMethod(backbone, space, **settings)),
    "VPT": Recipe(vpt_method),
    "IVLP": Recipe(ivlp_method),
    "MaPLe": Recipe(maple_method),
    "PromptSRC": Recipe(promptsrc_method, frozen_side),
    "CLIPFit": Recipe(clipfit_method),
    "TextRefiner": Recipe(textrefiner_method, moving=refiner_state),
    "PromptKD": Recipe(
        golden_promptkd.promptkd_method, golden_promptkd.teacher_side, golden_promptkd.running_statistics
    ),
}
