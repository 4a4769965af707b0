"""What a method is: a few trainable tensors around frozen CLIP that turn images and class names into logits.

A `Method` knows no configuration, no data loader and no optimiser; `trainers/base.py` connects it to the engine. It
imports no other method. Axis letters are those of STYLE: B images, C classes, N patches, M context rows, d joint
width, w tower width.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.backbone import Backbone, LabelSpace, TextBatch, VisionOut


@dataclass
class StepOutput:
    """What one training step computes: logits, the raw loss terms, and the weight of each term in the total."""

    logits: Tensor  # [B, C]
    terms: dict[str, Tensor]  # name -> 0-d tensor, unweighted
    weights: dict[str, float] = field(default_factory=dict)  # a term without an entry has weight 1

    @property
    def total(self) -> Tensor:
        """The weighted sum of all terms, 0-d: what is differentiated."""
        return torch.stack([self.weights.get(name, 1.0) * term for name, term in self.terms.items()]).sum()


class ClassVectors:
    """Text features of one label space, computed again only when a parameter they depend on has moved."""

    def __init__(self) -> None:
        self._key: tuple | None = None
        self._vectors: Tensor | None = None

    def get(self, space: LabelSpace, parameters: list[nn.Parameter], build: Callable[[LabelSpace], Tensor]) -> Tensor:
        """Return `build(space)` [C, d], from the cache if names and parameters are those of the last call.

        Args:
            space: the classes.
            parameters: every tensor the result depends on; in-place changes and replacements are both noticed.
            build: computes the vectors.
        """
        key = (space, *((id(p), p.data_ptr(), p._version, p.dtype) for p in parameters))
        if self._vectors is None or key != self._key:
            self._vectors = build(space)
            self._key = key
        return self._vectors


class Method(nn.Module):
    """Base of all methods: frozen CLIP; a subclass says which text it reads and what it trains.

    The module's parameters are the trainable tensors and its state dict is what a checkpoint holds, so nothing in it
    depends on the class names: a model trained on one label space loads, strictly, on another.

    Args:
        backbone: frozen CLIP; kept outside the module tree, so that it is neither saved nor counted as trained.
        space: the classes of the current task.
    """

    text_depends_on_image = False  # True: `text` can't be computed once per label space (CoCoOp)

    def __init__(self, backbone: Backbone, space: LabelSpace):
        super().__init__()
        self._outside = (backbone,)  # a tuple hides the frozen model from nn.Module's registration
        self.space = space
        self._prepared: dict[LabelSpace, TextBatch] = {}
        self._class_vectors = ClassVectors()

    @property
    def backbone(self) -> Backbone:
        return self._outside[0]

    def trainables(self) -> dict[str, nn.Parameter]:
        """Trainable tensors by name, in the order in which the optimiser sees them."""
        return dict(self.named_parameters())

    def prepare(self, space: LabelSpace) -> TextBatch:
        """Tokenise and embed the texts of a label space; called once per space."""
        raise NotImplementedError

    def text_batch(self, space: LabelSpace) -> TextBatch:
        if space not in self._prepared:
            self._prepared[space] = self.prepare(space)
        return self._prepared[space]

    def raw_text(self, space: LabelSpace) -> Tensor:
        """Un-normalised text features [C, d] of a label space, with gradient where the method trains text."""
        return self.backbone.text(self.text_batch(space))

    def text(self, space: LabelSpace | None = None) -> Tensor:
        """Unit text features [C, d] in fp32."""
        return F.normalize(self.raw_text(space or self.space).float(), dim=-1)

    def image(self, images: Tensor, want: Set[str] = frozenset()) -> VisionOut:
        """Image side of the method; `want` names extra outputs as in `clip.backbone`."""
        return self.backbone.vision(images, want=want)

    def logits(self, vision: VisionOut, text: Tensor) -> Tensor:
        """Scaled cosines [B, C] in fp32 (Eq. (2) before the softmax): s · cos(v, T_c)."""
        with torch.autocast(text.device.type, enabled=False):
            v = F.normalize(vision.pooled.float(), dim=-1)  # [B, d]
            return self.backbone.logit_scale.exp() * v @ text.t()

    def losses(self, images: Tensor, label: Tensor) -> StepOutput:
        """One training step's forward pass.

        Args:
            images: [B, 3, H, W], normalised.
            label: [B], indices into the method's label space.
        """
        logits = self.logits(self.image(images), self.text())
        return StepOutput(logits, {"ce": F.cross_entropy(logits, label)})

    @torch.no_grad()
    def class_vectors(self, space: LabelSpace | None = None) -> Tensor:
        """`text` for inference, computed once per label space and parameter state."""
        return self._class_vectors.get(space or self.space, list(self.trainables().values()), self.text)

    def forward(self, images: Tensor, space: LabelSpace | None = None) -> Tensor:
        """Inference: logits [B, C] over the classes of `space` (default: the method's own)."""
        return self.logits(self.image(images), self.class_vectors(space))
