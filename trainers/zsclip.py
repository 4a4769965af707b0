"""Zero-shot CLIP with one hand-crafted template, or with an ensemble of them (Radford et al., arXiv 2103.00020)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from yacs.config import CfgNode as CN

from clip.backbone import Backbone, LabelSpace
from dassl.engine import TRAINER_REGISTRY
from datasets.templates import IMAGENET_TEMPLATES_SELECT, dataset_template, template_of
from trainers.base import MethodTrainer, declare_compute
from trainers.method import Method


class TemplateMethod(Method):
    """Frozen CLIP: text features of filled templates, nothing trained.

    Args:
        templates: strings with one "{}". The features of several are normalised, averaged and normalised again.

    Raises:
        ValueError: no template, or one without "{}".
    """

    text_trains = False

    def __init__(self, backbone: Backbone, space: LabelSpace, templates: Sequence[str]):
        super().__init__(backbone, space)
        for template in templates:
            if template.count("{}") != 1:
                raise ValueError(f"A template needs exactly one {{}} for the class name, got '{template}'")
        if not templates:
            raise ValueError("Zero-shot classification needs at least one template, got none")
        self.templates = tuple(templates)

    def raw_text(self, space: LabelSpace) -> Tensor:
        unit = [
            F.normalize(self.backbone.text(self.backbone.text.templates(space, template)).float(), dim=-1)
            for template in self.templates
        ]
        return torch.stack(unit).mean(dim=0)  # [C, d]


def ensemble_templates(dataset: str) -> list[str]:
    """The selected ImageNet templates and, for any data set but ImageNet, the data set's own behind them."""
    own = [] if dataset == "ImageNet" else [dataset_template(dataset)]
    return [*IMAGENET_TEMPLATES_SELECT, *own]


@TRAINER_REGISTRY.register()
class ZeroshotCLIP(MethodTrainer):
    """Evaluates frozen CLIP with the data set's template; run with --eval-only."""

    node = "ZEROSHOTCLIP"

    @classmethod
    def extend_cfg(cls, cfg: CN) -> None:
        node = cfg.TRAINER.ZEROSHOTCLIP = CN()
        node.TEMPLATE = ""  # a template with one {}; "" takes the data set's own
        declare_compute(node)

    @staticmethod
    def templates(cfg: CN) -> list[str]:
        return [cfg.TRAINER.ZEROSHOTCLIP.TEMPLATE or template_of(cfg)]

    @classmethod
    def make_method(cls, cfg: CN, backbone: Backbone, space: LabelSpace) -> Method:
        return TemplateMethod(backbone, space, cls.templates(cfg))


@TRAINER_REGISTRY.register()
class ZeroshotCLIP2(ZeroshotCLIP):
    """Zero-shot CLIP with the ensemble of selected templates; TEMPLATE, if set, takes the place of the data set's."""

    @staticmethod
    def templates(cfg: CN) -> list[str]:
        own = cfg.TRAINER.ZEROSHOTCLIP.TEMPLATE or cfg.DATASET.TEMPLATE
        return [*IMAGENET_TEMPLATES_SELECT, own] if own else ensemble_templates(cfg.DATASET.NAME)
