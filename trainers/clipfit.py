"""CLIPFit: tune biases of the text tower and norms of the image tower (Li et al., EMNLP 2024, arXiv 2409.16718)."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode as CN

from clip.backbone import Backbone, LabelSpace, TextBatch, VisionOut
from clip.layers import ResidualAttentionBlock
from dassl.engine import TRAINER_REGISTRY
from datasets.templates import CLIPFIT_TEMPLATES, PLAIN_TEMPLATE
from trainers.base import MethodTrainer, declare_compute
from trainers.method import Method

Place = tuple[str, nn.Module, str]  # name of a tuned tensor, the module that uses it, and the module's name for it
AnyModule = TypeVar("AnyModule", bound=nn.Module)


def tuned_places(backbone: Backbone) -> Iterator[Place]:
    """What CLIPFit trains: the output bias of each text block's MLP, weight and bias of each norm of the image tower.

    Raises:
        ValueError: the image tower is a ResNet.
    """
    for i, block in enumerate(backbone.clip.transformer.blocks()):
        yield f"text.block.{i}.mlp.out.bias", block.mlp.c_proj, "bias"  # type: ignore[misc]
    vit = backbone.vision.vit
    norms = [("ln_pre", vit.ln_pre)]
    for i, block in enumerate(vit.transformer.blocks()):
        norms += [(f"block.{i}.ln_1", block.ln_1), (f"block.{i}.ln_2", block.ln_2)]
    for name, norm in [*norms, ("ln_post", vit.ln_post)]:
        for part in ("weight", "bias"):
            yield f"vision.{name}.{part}", norm, part


class TunedWeights(nn.Module):
    """Trainable fp32 copies of some of a model's tensors, which stand in their places; owned here, not by the model.

    Args:
        places: where the tensors are; the model must have its device already.

    Raises:
        ValueError: a tensor is not frozen.
    """

    def __init__(self, places: Iterable[Place]):
        super().__init__()
        self._places: list[tuple[nn.Module, str]] = []
        self._own: list[nn.Parameter] = []
        self._frozen: list[nn.Parameter] = []
        for name, module, attribute in places:
            frozen = getattr(module, attribute)
            if frozen.requires_grad:
                raise ValueError(
                    f"{name} of this backbone is not frozen, so another method trains it; load a second backbone."
                )
            own = nn.Parameter(frozen.detach().float().clone())
            self._places.append((module, attribute))
            self._own.append(own)
            self._frozen.append(frozen)
            self._register(name, own)
        self._put(self._own)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Inside, the model is as it was before."""
        with self._replaced_by(self._frozen):
            yield

    @contextmanager
    def detached(self) -> Iterator[None]:
        """Inside, the model computes with the trained values and gives them no gradient."""
        if not torch.is_grad_enabled():  # as it is
            yield
            return
        with self._replaced_by([without_gradient(own) for own in self._own]):
            yield

    @contextmanager
    def _replaced_by(self, tensors: list[nn.Parameter]) -> Iterator[None]:
        self._put(tensors)
        try:
            yield
        finally:
            self._put(self._own)

    def _put(self, tensors: list[nn.Parameter]) -> None:
        for (module, attribute), tensor in zip(self._places, tensors, strict=True):
            setattr(module, attribute, tensor)

    def _register(self, name: str, parameter: nn.Parameter) -> None:
        """Under a name with dots, through a module for each part."""
        module: nn.Module = self
        *path, leaf = name.split(".")
        for part in path:
            if part not in dict(module.named_children()):
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        module.register_parameter(leaf, parameter)


def without_gradient(parameter: nn.Parameter) -> nn.Parameter:
    """The same values, in the same memory, as a constant."""
    return nn.Parameter(parameter.detach(), requires_grad=False)


def without_gradients(module: AnyModule) -> AnyModule:
    """A module that computes the same from the same memory, and gives its tensors no gradient."""
    return copy.deepcopy(module, {id(p): without_gradient(p) for p in module.parameters()})


class CLIPFitMethod(Method):
    """CLIP with tuned biases and norms, whose text features are held near those of frozen CLIP.

    Args:
        template: sentence with one "{}" for the class name.
        similarity_weight: λ of λ · (1 − mean_c cos(g_c, g0_c)).

    Raises:
        ValueError: the template has not exactly one "{}", the weight is negative, or the image tower is a ResNet.
    """

    image_trains = True

    def __init__(self, backbone: Backbone, space: LabelSpace, template: str, similarity_weight: float = 8.0):
        super().__init__(backbone, space)
        if template.count("{}") != 1:
            raise ValueError(f"TRAINER.CLIPFIT.TEMPLATE needs exactly one {{}} for the class name, got '{template}'.")
        if similarity_weight < 0:
            raise ValueError(f"TRAINER.CLIPFIT.SIMILARITY_WEIGHT must not be negative, got {similarity_weight}.")
        self.template, self.similarity_weight = template, similarity_weight
        self.tuned = TunedWeights(tuned_places(backbone))
        self._untuned_text: dict[LabelSpace, Tensor] = {}

    def prepare(self, space: LabelSpace) -> TextBatch:
        return self.backbone.text.templates(space, self.template)

    @torch.no_grad()
    def untuned_text(self, space: LabelSpace | None = None) -> Tensor:
        """g0 [C, d]: unit text features of frozen CLIP with the method's own template, computed once."""
        space = space or self.space
        if space not in self._untuned_text:
            with self.tuned.frozen():
                self._untuned_text[space] = self.text(space)
        return self._untuned_text[space]

    def frozen_text(self, space: LabelSpace | None = None) -> Tensor:
        with self.tuned.frozen():
            return super().frozen_text(space)

    @torch.no_grad()
    def frozen_image(self, images: Tensor, vision: VisionOut) -> Tensor:
        with self.tuned.frozen():
            return self.backbone.vision(images).pooled

    def project(self, tokens: Tensor) -> Tensor:
        with self.tuned.detached():
            return super().project(tokens)

    def last_block(self) -> ResidualAttentionBlock:
        block = super().last_block()
        return without_gradients(block) if torch.is_grad_enabled() else block

    def penalties(self, images: Tensor, vision: VisionOut, text: Tensor) -> tuple[dict[str, Tensor], dict[str, float]]:
        """1 − mean_c cos(g_c, g0_c), from the text features that the logits use."""
        similarity = F.cosine_similarity(text, self.untuned_text(), dim=1).mean()
        return {"similarity": 1 - similarity}, {"similarity": self.similarity_weight}


@TRAINER_REGISTRY.register()
class CLIPFit(MethodTrainer):
    """Trainer of `CLIPFitMethod`; options under TRAINER.CLIPFIT."""

    node = "CLIPFIT"

    @classmethod
    def extend_cfg(cls, cfg: CN) -> None:
        node = cfg.TRAINER.CLIPFIT = CN()
        node.TEMPLATE = ""  # a sentence with one {}; "": DATASET.TEMPLATE, or CLIPFit's own for the data set
        node.SIMILARITY_WEIGHT = 8.0  # λ of the distance to frozen CLIP's text features
        declare_compute(node)

    @classmethod
    def make_method(cls, cfg: CN, backbone: Backbone, space: LabelSpace) -> Method:
        node = cfg.TRAINER.CLIPFIT
        template = node.TEMPLATE or cfg.DATASET.TEMPLATE or CLIPFIT_TEMPLATES.get(space.dataset, PLAIN_TEMPLATE)
        return CLIPFitMethod(backbone, space, template, node.SIMILARITY_WEIGHT)
