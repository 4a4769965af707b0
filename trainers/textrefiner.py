"""TextRefiner: a cache of visual concepts refines a host's text features (Xie et al., AAAI 2025, arXiv 2412.08176).

Axes: B images, C classes, N patches, k chosen patches, K slots of the cache, E CLIP's joint width, d the logits' one.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode as CN

from clip.backbone import Backbone, LabelSpace, Pruning, VisionOut
from clip.layers import take_rows
from dassl.engine import TRAINER_REGISTRY
from dassl.engine.precision import without_autocast
from trainers.base import declare_compute, declare_options, options_of
from trainers.divergence import posterior_kl
from trainers.hosts import HostedMethod, HostedTrainer, declare_host
from trainers.local_cache import LocalCache
from trainers.method import Method, StepOutput
from trainers.projector import Projector

WANT = frozenset({"tokens", "cls_attn"})  # of the image tower, in training only


@dataclass(frozen=True)
class RefinerOptions:
    """What can be varied; upper-case, the names of the keys in TRAINER.TEXTREFINER."""

    n_slots: int = 25  # K
    momentum: float = 0.8  # share of the old slot that a write keeps, in [0, 1]
    write: str = "sum"  # a slot moves to the weighted "sum" of its tokens, as released | to their "mean"
    read_temperature: float = 1.0  # of the softmax over slots; at 1, as released, it is nearly flat
    alpha: float = 0.2  # share of the refinement: t' = t + α · A [t; r]
    top_k: int = 5  # k, patches with the highest class-token attention that are classified on their own
    normalise: bool = False  # True: t' in the logits and the classified tokens are unit vectors; released: not
    local_weight: float = 0.02  # of the tokens' cross-entropy
    text_weight: float = 20.0  # of mean |norm(t') − t|
    kd_local_weight: float = 0.01  # both weights for a host that learns from a teacher, as factors of its own KL's
    kd_text_weight: float = 0.02

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise ValueError(f"TRAINER.TEXTREFINER.TOP_K must be at least 1, got {self.top_k}.")


class TextRefinerMethod(HostedMethod):
    """A host whose text features t become t' = t + α · A [t; r], r being what t reads in the cache.

    Training also gives the image tower's tokens to an adapter m, whose results z are classified by t and written to the
    cache after it was read. Inference needs neither m nor tokens, and t' is computed once per label space.

    Args:
        host: any method whose text does not depend on the image.

    Raises:
        ValueError: the backbone is no ViT or has fewer patches than `top_k`, or the host's text depends on the image.
    """

    def __init__(self, host: Method, options: RefinerOptions | None = None):
        super().__init__(host)
        if host.text_depends_on_image:
            raise ValueError(
                f"{type(host).__name__} makes other text features for each image; TextRefiner needs a host whose text "
                "depends on the classes only."
            )
        self.options = o = options or RefinerOptions()
        n_patches = self.backbone.vision.vit.grid**2
        if o.top_k > n_patches:
            raise ValueError(f"TRAINER.TEXTREFINER.TOP_K must be at most the {n_patches} patches, got {o.top_k}.")
        d = host.joint_width
        self.local = Projector(self.backbone.spec.embed_dim, d)  # m
        self.extractor = nn.Linear(2 * d, d, bias=False)  # A
        self.cache = LocalCache(o.n_slots, d, o.momentum, o.read_temperature, o.write)

    def host_text(self, space: LabelSpace | None = None) -> Tensor:
        """The host's text features t [C, d], unit, with gradient where it trains them."""
        return self.host.text(space) if self.host.text_trains else self.host.class_vectors(space)

    def refine(self, text: Tensor) -> Tensor:
        """t' [C, d] of t [C, d]; unit only with `normalise`."""
        with without_autocast(text.device):
            read = self.cache.read(text)
            refined = text + self.options.alpha * self.extractor(torch.cat([text, read], dim=1))
            return self._scaled(refined)

    def text(self, space: LabelSpace | None = None) -> Tensor:
        """t' [C, d] in fp32; unit only with `normalise`."""
        return self.refine(self.host_text(space))

    @torch.no_grad()
    def class_vectors(self, space: LabelSpace | None = None) -> Tensor:
        """`text` for inference, computed once per label space and state of parameters and cache."""
        state = [*self.host.trainables().values(), self.extractor.weight, self.cache.slots]
        return self._class_vectors.get(space or self.space, state, self.text)

    def losses(self, images: Tensor, label: Tensor) -> StepOutput:
        """Classification by t', of the tokens by t, and the distance of both texts; then the cache is written.

        With a teacher, its posterior takes the place of labels, and KL terms that of cross-entropies.
        """
        vision = self.host.image(images, WANT)
        text = self.host_text()
        refined = self.refine(text)
        logits = self.host.logits(vision, refined)
        with without_autocast(images.device):
            adapted = self._adapted(vision)  # [B, 1+N, d]
            top = self._top(adapted, vision)  # [B, k+2, d]
            local = self.backbone.logit_scale.exp() * top @ text.t()  # [B, k+2, C]
            teacher = self.host.teacher(images)
            terms, weights = self._terms(logits, local, label, teacher)
            terms["text_l1"] = F.l1_loss(F.normalize(refined, dim=1), text)
        more, more_weights = self.host.penalties(images, vision, text)
        terms |= {f"host_{name}": term for name, term in more.items()}
        weights |= {f"host_{name}": weight for name, weight in more_weights.items()}
        if self.training:
            self.cache.write(adapted.detach().flatten(0, 1))
        return StepOutput(logits, terms, weights, teacher)

    def _adapted(self, vision: VisionOut) -> Tensor:
        """z = m(x) [B, 1+N, d] of the last block's outputs in CLIP's joint space, class token first."""
        assert vision.tokens is not None, "the tower must give what `WANT` names"
        x = torch.cat([vision.pooled[:, None], vision.tokens], dim=1).float()  # [B, 1+N, E]
        return self.local(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    def _top(self, adapted: Tensor, vision: VisionOut) -> Tensor:
        """What is classified, [B, k+2, d]: the class token, the k most attended patches, the mean of all rows."""
        assert vision.cls_attn is not None, "the tower must give what `WANT` names"
        index = vision.cls_attn.mean(dim=1).topk(self.options.top_k, dim=1).indices  # [B, k] of the patches
        patches = take_rows(adapted[:, 1:], index)
        return self._scaled(torch.cat([adapted[:, :1], patches, adapted.mean(dim=1, keepdim=True)], dim=1))

    def _terms(
        self, logits: Tensor, local: Tensor, label: Tensor, teacher: Tensor | None
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Both classification terms, and the weights of all three."""
        o, weight, C = self.options, self.host.classification_weight, logits.shape[1]
        rows = local.shape[1]
        if teacher is None:
            terms = {
                "global_ce": F.cross_entropy(logits, label),
                "local_ce": F.cross_entropy(local.flatten(0, 1), label.repeat_interleave(rows)),
            }
            return terms, {
                "global_ce": weight,
                "local_ce": weight * o.local_weight,
                "text_l1": weight * o.text_weight,
            }
        terms = {
            "kl": posterior_kl(logits, teacher),
            "local_kl": posterior_kl(local.flatten(0, 1), teacher.repeat_interleave(rows, dim=0)),
        }
        weight *= C  # the host's is that of a KL divided by images, those below by images and classes
        return terms, {"kl": weight, "local_kl": weight * o.kd_local_weight, "text_l1": weight * o.kd_text_weight}

    def image(self, images: Tensor, want: Set[str] = frozenset(), prune: Pruning | None = None) -> VisionOut:
        return self.host.image(images, want, prune)

    def logits(self, vision: VisionOut, text: Tensor) -> Tensor:
        return self.host.logits(vision, text)

    def _scaled(self, rows: Tensor) -> Tensor:
        return F.normalize(rows, dim=-1) if self.options.normalise else rows


@TRAINER_REGISTRY.register()
class TextRefiner(HostedTrainer):
    """Trainer of `TextRefinerMethod`; options under TRAINER.TEXTREFINER, the host's under its own node."""

    node = "TEXTREFINER"

    @classmethod
    def extend_cfg(cls, cfg: CN) -> None:
        node = cfg.TRAINER.TEXTREFINER = CN()
        declare_host(node)
        declare_options(node, RefinerOptions)
        declare_compute(node)

    @classmethod
    def make_method(cls, cfg: CN, backbone: Backbone, space: LabelSpace) -> Method:
        node = cfg.TRAINER.TEXTREFINER
        options = options_of(node, RefinerOptions)
        return TextRefinerMethod(cls.make_host(cfg, backbone, space), options)
