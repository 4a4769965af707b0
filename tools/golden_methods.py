"""How each method is built from the settings of a golden case, and what of it a case looks at beside the usual."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from clip.backbone import Backbone, LabelSpace, VisionOut
from tools.golden_inputs import Inputs
from trainers.cocoop import CoCoOpMethod
from trainers.coop import CoOpMethod
from trainers.maple import MaPLeMethod
from trainers.method import Method
from trainers.prompting import ImagePrompts, PromptedMethod, TextPrompts
from trainers.promptsrc import PromptSRCMethod, Regularisers
from trainers.zsclip import TemplateMethod

Settings = dict[str, Any]

# names of trainable tensors in golden files -> ours; `ctx` is `text_prompts.ctx` where there are prompts in both towers
NAMES = (
    (r"text\.prompt\.(\d+)", r"text_prompts.deep.\1"),
    (r"vision\.prompt\.(\d+)", r"image_prompts.rows.\1"),
    (r"couple\.(\d+)\.", r"couplings.\1."),
    (r"meta\.(\d+)\.", r"meta_net.linear\1."),
)


def own_name(method: Method, name: str) -> str:
    """Our name of a golden file's trainable tensor."""
    for pattern, replacement in NAMES:
        name = re.sub(f"^{pattern}", replacement, name)
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


METHODS = {
    "ZeroshotCLIP": Recipe(template_method),
    "ZeroshotCLIP2": Recipe(template_method),
    "CoOp": Recipe(lambda inputs, backbone, space, settings: CoOpMethod(backbone, space, **settings)),
    "CoCoOp": Recipe(lambda inputs, backbone, space, settings: CoCoOpMethod(backbone, space, **settings)),
    "VPT": Recipe(vpt_method),
    "IVLP": Recipe(ivlp_method),
    "MaPLe": Recipe(maple_method),
    "PromptSRC": Recipe(promptsrc_method, frozen_side),
}
