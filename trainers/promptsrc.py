"""PromptSRC: prompts in both towers, held near frozen CLIP by three terms and averaged over the epochs.

Khattak et al., ICCV 2023, arXiv 2307.06948.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from yacs.config import CfgNode as CN

from clip.backbone import Backbone, LabelSpace, VisionOut
from dassl.engine import TRAINER_REGISTRY
from datasets.templates import PROMPTSRC_TEMPLATES
from trainers.aggregation import GaussianAverage, gaussian_weights, round_like_an_average
from trainers.base import MethodTrainer, declare_compute, declare_options, options_of
from trainers.divergence import posterior_kl
from trainers.method import Method
from trainers.prompting import ImagePrompts, PromptedMethod, TextPrompts, declare_both_sides, prompts_of

GPA_MODES = ("trained", "released", "off")


@dataclass(frozen=True)
class Regularisers:
    """Weights and readings of the terms; upper-case, the names of their keys in TRAINER.PROMPTSRC."""

    text_loss_weight: float = 25.0  # of mean |g - g0|
    image_loss_weight: float = 10.0  # of mean |f - f0|
    text_target: str = "raw"  # g0 is the mean of 60 templates' "raw" features, as released, or of "unit" ones
    kl_mean: str = "elements"  # KL divided by images times classes, as released | "batch": by images
    gpa: str = "trained"  # average of the trained tensors | "released": of the frozen weights, too | "off"
    gpa_mean: float = 15.0  # centre of the average, in epochs from 1
    gpa_std: float = 1.0  # its width, in epochs

    def __post_init__(self) -> None:
        for key, allowed in (("text_target", ("raw", "unit")), ("kl_mean", ("elements", "batch")), ("gpa", GPA_MODES)):
            if getattr(self, key) not in allowed:
                raise ValueError(
                    f"TRAINER.PROMPTSRC.{key.upper()} must be one of {', '.join(allowed)}, got '{getattr(self, key)}'."
                )


class PromptSRCMethod(PromptedMethod):
    """Prompts with self-regularisation; f, g are the prompted unit features, f0, g0 those of frozen CLIP.

    Args:
        n_epochs: of the whole run, which the average is made over.
    """

    def __init__(
        self,
        backbone: Backbone,
        space: LabelSpace,
        text_prompts: TextPrompts,
        image_prompts: ImagePrompts | None,
        options: Regularisers | None = None,
        n_epochs: int = 20,
    ):
        super().__init__(backbone, space, text_prompts, image_prompts)
        self.options = options or Regularisers()
        self.average: GaussianAverage | None = None
        self._frozen_is_rounded = False
        if self.options.gpa != "off":
            weights = gaussian_weights(self.options.gpa_mean, self.options.gpa_std, n_epochs)
            self.average = GaussianAverage(list(self.parameters()), weights)
            if self.options.gpa == "released":
                self.image_trains = True  # even without image prompts: the average rounds the tower's weights, too
            self.register_load_state_dict_post_hook(lambda *_: self._round_frozen())

    @torch.no_grad()
    def frozen_text(self, space: LabelSpace | None = None) -> Tensor:
        """g0 [C, d]: unit mean of frozen CLIP's features of 60 templates, computed once."""
        space = space or self.space
        if space not in self._frozen_text:
            total = torch.zeros(len(space), self.joint_width, device=self.backbone.device)
            for template in PROMPTSRC_TEMPLATES:
                raw = self.backbone.text(self.backbone.text.templates(space, template)).float()
                total += raw if self.options.text_target == "raw" else F.normalize(raw, dim=-1)
            self._frozen_text[space] = F.normalize(total, dim=-1)
        return self._frozen_text[space]

    def penalties(self, images: Tensor, vision: VisionOut, text: Tensor) -> tuple[dict[str, Tensor], dict[str, float]]:
        """mean |g − g0|, mean |f − f0|, and KL(p0 ‖ p) of the class posteriors."""
        text0 = self.frozen_text()
        image0 = VisionOut(self.frozen_image(images, vision))
        logits, logits0 = self.logits(vision, text), self.logits(image0, text0)
        terms = {
            "text_l1": F.l1_loss(text, text0),
            "image_l1": F.l1_loss(
                F.normalize(vision.pooled.float(), dim=-1), F.normalize(image0.pooled.float(), dim=-1)
            ),
            "kl": posterior_kl(logits, logits0, mean=self.options.kl_mean),
        }
        return terms, {"text_l1": self.options.text_loss_weight, "image_l1": self.options.image_loss_weight}

    def after_epoch(self, epoch: int, n_epochs: int) -> None:
        """Average the trained tensors; after the last epoch the average takes their place."""
        if self.average is not None:
            self.average.add(list(self.parameters()), epoch)
            self._round_frozen()

    def _round_frozen(self) -> None:
        """Do to the frozen weights what the released average does, once the run's average is complete."""
        if self.average is None or self.options.gpa != "released" or self._frozen_is_rounded:
            return
        if self.average.is_complete:
            round_like_an_average(self.backbone.clip.parameters(), self.average.weights)
            self._frozen_is_rounded = True
            self._prepared.clear()  # token embeddings have moved, too
            self._frozen_text.clear()


@TRAINER_REGISTRY.register()
class PromptSRC(MethodTrainer):
    """Trainer of `PromptSRCMethod`; options under TRAINER.PROMPTSRC."""

    node = "PROMPTSRC"

    @classmethod
    def extend_cfg(cls, cfg: CN) -> None:
        node = cfg.TRAINER.PROMPTSRC = CN()
        declare_both_sides(node)
        node.N_CTX_TEXT = node.N_CTX_VISION = 4
        declare_options(node, Regularisers)
        declare_compute(node)

    @classmethod
    def make_method(cls, cfg: CN, backbone: Backbone, space: LabelSpace) -> Method:
        node = cfg.TRAINER.PROMPTSRC
        options = options_of(node, Regularisers)
        return PromptSRCMethod(backbone, space, *prompts_of(node, backbone), options, cfg.OPTIM.MAX_EPOCH)
