"""Spotlighter as a method: a host, frozen or trained as the host says, with a head around it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clip.backbone import LabelSpace, Pruning, VisionOut
from dassl.engine.precision import without_autocast
from trainers.chosen_tokens import ChosenTokens, on_grid
from trainers.hosts import HostedMethod
from trainers.method import Inspected, Method, StepOutput
from trainers.spotlighter.head import SpotlighterHead
from trainers.spotlighter.interface import HeadInput, HeadOutput
from trainers.spotlighter.release import ReleaseHead


class SpotlighterMethod(HostedMethod):
    """A host's text and image side, and a head that turns them into logits; the host does not know of it.

    Args:
        host: any method.
        head: `SpotlighterHead` or `ReleaseHead`.
        prune: which patch rows stay behind which blocks; None keeps all.
        prune_train: prune in training, too.

    Raises:
        ValueError: the backbone is no ViT, or `prune` is not possible.
    """

    def __init__(
        self,
        host: Method,
        head: SpotlighterHead | ReleaseHead,
        prune: Pruning | None = None,
        prune_train: bool = False,
    ):
        super().__init__(host)
        self.head = head
        self.prune, self.prune_train = prune, prune_train
        tower = self.backbone.vision
        left = tower.vit.grid**2
        if prune is not None:
            left = min(prune.counts(tower.n_blocks, left).values(), default=left)
        if isinstance(head, SpotlighterHead) and head.options.top_k >= left:
            raise ValueError(
                f"TOP_K must be less than the {left} patches that can be activated, got {head.options.top_k}."
            )
        if prune_train and prune is None:
            raise ValueError("PRUNE_TRAIN is set, but PRUNE is empty; name blocks and shares there.")
        self._want_in_training = frozenset(head.want(tower.n_blocks, training=True))
        self._want = frozenset(head.want(tower.n_blocks, training=False))

    def text(self, space: LabelSpace | None = None) -> Tensor:
        return self.host.text(space)

    def text_for(self, vision: VisionOut, space: LabelSpace | None = None) -> Tensor:
        return self.host.text_for(vision, space)

    def class_vectors(self, space: LabelSpace | None = None) -> Tensor:
        return self.host.class_vectors(space)

    def losses(self, images: Tensor, label: Tensor) -> StepOutput:
        """The head's terms and, prefixed with "host_", those that the host adds to its own classification loss."""
        vision = self.host.image(images, self._want_in_training, self.prune if self.prune_train else None)
        text = self.text_for(vision)
        given = self.given(vision, text)
        given.label, given.teacher = label, self.host.teacher(images)
        given.classification_weight = self.host.classification_weight
        given.text0 = self.host.frozen_text()
        if self.head.reads_frozen_image:
            given.image0 = F.normalize(self.host.frozen_image(images, vision).float(), dim=1)
        more, weights = self.host.penalties(images, vision, text)
        with without_autocast(text.device):
            out = self.head(given)
        terms = out.terms | {f"host_{name}": term for name, term in more.items()}
        weights = out.weights | {f"host_{name}": w for name, w in weights.items()}
        return StepOutput(out.logits, terms, weights, given.teacher)

    def forward(self, images: Tensor, space: LabelSpace | None = None) -> Tensor:
        return self._infer(images, space)[2].logits

    def inspect(self, images: Tensor, space: LabelSpace | None = None) -> Inspected:
        """As in the base class; the `paper` preset chooses tokens in inference, `release` in training only."""
        vision, given, out = self._infer(images, space)
        if not isinstance(self.head, SpotlighterHead):
            return Inspected(out.logits)
        grid, kept, seen = self.backbone.vision.vit.grid, vision.kept, out.diagnostics
        semantic = seen.get("semantic")
        with without_autocast(images.device):
            weights = self.head.class_weights(given, seen["index"])
        tokens = ChosenTokens(
            grid=grid,
            levels=self.head.options.filled_levels,
            index=seen["index"] if kept is None else kept.gather(1, seen["index"]),
            scores=on_grid(seen["scores"], kept, grid**2),
            sample=on_grid(seen["sample"], kept, grid**2),
            semantic=None if semantic is None else on_grid(semantic, kept, grid**2),
            matched_class=seen["matched_class"],
            prototypes=seen["nearest"],
            class_weights=weights,
        )
        return Inspected(out.logits, tokens)

    @property
    def refines_images(self) -> bool:
        """Whether representative tokens are added to the image features in a way that can be seen apart."""
        return isinstance(self.head, SpotlighterHead)

    @torch.no_grad()
    def representative(self, images: Tensor, space: LabelSpace | None = None) -> Tensor:
        """Image features [B, d], unit, with what the head adds to them; the host's where that can't be told apart."""
        _, given, out = self._infer(images, space)
        return out.diagnostics.get("image", given.image)

    def fold(self, space: LabelSpace) -> None:
        super().fold(space)
        if isinstance(self.head, SpotlighterHead):
            self.head.memory.fold(self._view)

    def _infer(self, images: Tensor, space: LabelSpace | None) -> tuple[VisionOut, HeadInput, HeadOutput]:
        vision = self.host.image(images, self._want, self.prune)
        given = self.given(vision, self._inference_text(vision, space))
        with without_autocast(images.device):
            return vision, given, self.head(given)

    def given(self, vision: VisionOut, text: Tensor) -> HeadInput:
        """What both training and inference hand to the head."""
        tower = self.backbone.vision
        N = tower.vit.grid**2 if vision.kept is None else vision.kept.shape[1]
        raw, hidden = self.host.joint_image(vision).float(), vision.hidden.get(tower.n_blocks - 1)
        tokens = self.host.joint_tokens(vision)
        return HeadInput(
            text=text,
            image=F.normalize(raw, dim=1),
            scale=self.backbone.logit_scale.exp(),
            block=self.host.last_block(),
            view=self._view,
            hidden=None if hidden is None else hidden[:, : 1 + N + vision.n_fused],  # prompt rows stand behind
            n_fused=vision.n_fused,
            sizes=None if vision.sizes is None else vision.sizes[:, :N],
            tokens=None if tokens is None else torch.cat([raw[:, None], tokens.float()], dim=1),
            attention=None if vision.cls_attn is None else vision.cls_attn.mean(dim=1),
        )

    def _view(self, tokens: Tensor) -> Tensor:
        return F.normalize(self.host.project(tokens).float(), dim=-1)
