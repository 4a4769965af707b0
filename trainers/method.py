"""What a method is: a few trainable tensors around frozen CLIP that turn images and class names into logits.

A `Method` knows no configuration, no data loader and no optimiser; `trainers/base.py` connects it to the engine. It
imports no other method. Axis letters are those of STYLE: B images, C classes, N patches, M context rows, d joint
width, w tower width.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.backbone import Backbone, LabelSpace, Pruning, TextBatch, VisionOut
from clip.layers import ResidualAttentionBlock
from dassl.engine.precision import without_autocast
from datasets.templates import dataset_template
from trainers.chosen_tokens import ChosenTokens


@dataclass
class StepOutput:
    """What one training step computes: logits, the raw loss terms, and the weight of each term in the total."""

    logits: Tensor  # [B, C]
    terms: dict[str, Tensor]  # name -> 0-d tensor, unweighted
    weights: dict[str, float] = field(default_factory=dict)  # a term without an entry has weight 1
    teacher: Tensor | None = None  # [B, C], logits of the teacher that the step learned from

    @property
    def total(self) -> Tensor:
        """The weighted sum of all terms, 0-d: what is differentiated."""
        return torch.stack([self.weights.get(name, 1.0) * term for name, term in self.terms.items()]).sum()


@dataclass
class Inspected:
    """What inference computed, for people to look at."""

    logits: Tensor  # [B, C]
    tokens: ChosenTokens | None = None  # None: the method chooses none


class ClassVectors:
    """Text features of label spaces, computed again only when a parameter they depend on has moved."""

    def __init__(self) -> None:
        self._state: tuple = ()  # of the parameters that the vectors were computed with
        self._vectors: dict[LabelSpace, Tensor] = {}

    def get(self, space: LabelSpace, parameters: Sequence[Tensor], build: Callable[[LabelSpace], Tensor]) -> Tensor:
        """Return `build(space)` [C, d], from the cache if the parameters are those of an earlier call for it.

        Args:
            space: the classes.
            parameters: every tensor the result depends on; in-place changes and replacements are both noticed.
            build: computes the vectors.
        """
        state = tuple((id(p), p.data_ptr(), p._version, p.dtype) for p in parameters)
        if state != self._state:
            self._vectors.clear()
            self._state = state
        if space not in self._vectors:
            self._vectors[space] = build(space)
        return self._vectors[space]


class Method(nn.Module):
    """Base of all methods: frozen CLIP; a subclass says which text it reads and what it trains.

    The module's parameters are the trainable tensors and its state dict is what a checkpoint holds, so nothing in it
    depends on the class names: a model trained on one label space loads, strictly, on another. A method that can't
    promise this says so by `tied_to_classes`.

    Another method, such as Spotlighter, may stand on this one, its host. For that a host says what is frozen, how
    hidden tokens reach the space of the logits, and what it adds to the loss: `frozen_text` to `after_epoch`.

    Args:
        backbone: frozen CLIP; kept outside the module tree, so that it is neither saved nor counted as trained.
        space: the classes of the current task.
    """

    text_depends_on_image = False  # True: `text` can't be computed once per label space (CoCoOp)
    reads_text = True  # False: the logits come from trained weights of the classes, without text
    text_trains = True  # False: no gradient reaches `text`, so that training computes it once per label space, too
    image_trains = False  # True: `image` is not frozen CLIP's
    tied_to_classes = False  # True: what is trained belongs to its classes and can't be used on others
    classification_weight = 1.0  # of the cross-entropy in the method's loss
    looks_first = False  # True: `before_training` looks at the images
    learns_from_labels = True  # False: from a teacher, on the unlabelled images of DATASET.NUM_UNLABELLED

    def __init__(self, backbone: Backbone, space: LabelSpace):
        super().__init__()
        self._outside = (backbone,)  # a tuple hides the frozen model from nn.Module's registration
        self.space = space
        self._folded: Tensor | None = None  # class vectors that are taken for every label space
        self._prepared: dict[LabelSpace, TextBatch] = {}
        self._class_vectors = ClassVectors()
        self._frozen_text: dict[LabelSpace, Tensor] = {}
        self._frozen_image: tuple[weakref.ref[VisionOut], Tensor] | None = None  # of the images seen last

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

    def text_for(self, vision: VisionOut, space: LabelSpace | None = None) -> Tensor:
        """Unit text features for these images, with gradient: [C, d], or [B, C, d] if `text_depends_on_image`."""
        return self.text(space) if self.text_trains else self.class_vectors(space)

    def image(self, images: Tensor, want: Set[str] = frozenset(), prune: Pruning | None = None) -> VisionOut:
        """Image side of the method; `want` names extra outputs, `prune` leaves fewer tokens, as in `clip.backbone`."""
        return self.backbone.vision(images, want=want, prune=prune)

    @torch.no_grad()
    def frozen_text(self, space: LabelSpace | None = None) -> Tensor:
        """Unit text features [C, d] of frozen CLIP with the data set's hand-crafted template, computed once.

        A method that trains weights of the text tower itself must compute them before it does.
        """
        space = space or self.space
        if space not in self._frozen_text:
            tower = self.backbone.text
            raw = tower(tower.templates(space, space.template or dataset_template(space.dataset)))
            self._frozen_text[space] = F.normalize(raw.float(), dim=-1)
        return self._frozen_text[space]

    def frozen_image(self, images: Tensor, vision: VisionOut) -> Tensor:
        """Raw image features [B, d] of frozen CLIP, in the space of the logits; a second pass only where `vision`, from
        `image`, is not.
        """
        if not self.image_trains:
            return vision.pooled
        known = self._frozen_image
        if known is None or known[0]() is not vision:  # a loss of this method and a head around it both ask
            with torch.no_grad():
                known = self._frozen_image = weakref.ref(vision), self.backbone.vision(images).pooled
        return known[1]

    @property
    def joint_width(self) -> int:
        """d, the width of the space in which logits are computed."""
        return self.backbone.spec.embed_dim

    def joint_image(self, vision: VisionOut) -> Tensor:
        """Image features [B, d] in the space of the logits, not normalised, with gradient where the method trains."""
        return vision.pooled

    def project(self, tokens: Tensor) -> Tensor:
        """Hidden tokens [..., w] to the space of the logits, [..., d], not normalised.

        Frozen and without state: a method whose own projector trains passes no gradient to it here, and moves no
        running statistics.
        """
        return self.backbone.vision.project(tokens)

    def joint_tokens(self, vision: VisionOut) -> Tensor | None:
        """The last block's patch tokens in the space of the logits, [B, N, d], if the tower was asked for them."""
        return vision.tokens

    def last_block(self) -> ResidualAttentionBlock:
        """The last block of the image tower; a method that trains its weights gives one that is detached from them."""
        return list(self.backbone.vision.vit.transformer.blocks())[-1]

    def teacher(self, images: Tensor) -> Tensor | None:
        """Logits [B, C] of the teacher that a distilling method learns from; None: it learns from labels."""
        return None

    def penalties(self, images: Tensor, vision: VisionOut, text: Tensor) -> tuple[dict[str, Tensor], dict[str, float]]:
        """What the method adds to its classification loss: raw terms and their weights; here nothing.

        Args:
            images: [B, 3, H, W].
            vision: what `image` gave for them.
            text: what `text_for` gave, [C, d] or [B, C, d].
        """
        return {}, {}

    def before_training(self, images: Callable[[], Iterator[Tensor]]) -> None:
        """Called once, before the first epoch of a run that starts from neither a checkpoint nor initial weights.

        Args:
            images: gives the training images once, without augmentation and in a fixed order, [B, 3, H, W] a batch.
        """

    def after_epoch(self, epoch: int, n_epochs: int) -> None:
        """Called after epoch number `epoch` of `n_epochs`, counted from 1, before the epoch is saved."""

    def logits(self, vision: VisionOut, text: Tensor) -> Tensor:
        """Scaled cosines [B, C] in fp32 (Eq. (2) before the softmax): s · cos(v, T_c).

        Args:
            text: unit features, [C, d] or [B, C, d].
        """
        with without_autocast(text.device):
            v = F.normalize(self.joint_image(vision).float(), dim=-1)  # [B, d]
            cosine = v @ text.t() if text.dim() == 2 else torch.einsum("bd,bcd->bc", v, text)
            return self.backbone.logit_scale.exp() * cosine

    def losses(self, images: Tensor, label: Tensor) -> StepOutput:
        """One training step's forward pass.

        Args:
            images: [B, 3, H, W], normalised.
            label: [B], indices into the method's label space.
        """
        vision = self.image(images)
        text = self.text_for(vision)
        logits = self.logits(vision, text)
        terms, weights = self.penalties(images, vision, text)
        weights = {"ce": self.classification_weight, **weights}
        return StepOutput(logits, {"ce": F.cross_entropy(logits, label), **terms}, weights)

    @torch.no_grad()
    def class_vectors(self, space: LabelSpace | None = None) -> Tensor:
        """`text` for inference, computed once per label space and parameter state.

        Raises:
            ValueError: the text depends on the image, so there are none.
        """
        if self.text_depends_on_image:
            raise ValueError(f"{type(self).__name__} has no class vectors: its text features depend on the image.")
        parameters = list(self.trainables().values()) if self.text_trains else []
        return self._class_vectors.get(space or self.space, parameters, self.text)

    def forward(self, images: Tensor, space: LabelSpace | None = None) -> Tensor:
        """Inference: logits [B, C] over the classes of `space` (default: the method's own)."""
        vision = self.image(images)
        return self.logits(vision, self._inference_text(vision, space))

    def inspect(self, images: Tensor, space: LabelSpace | None = None) -> Inspected:
        """`forward`, and what there is to see of how the logits came about."""
        return Inspected(self(images, space))

    @torch.no_grad()
    def fold(self, space: LabelSpace) -> None:
        """Settle on classes: inference is from now on a function of images alone, whose text is a constant.

        Raises:
            ValueError: the text depends on the image.
        """
        if self.reads_text:
            self._folded = self.class_vectors(space)

    def _inference_text(self, vision: VisionOut, space: LabelSpace | None) -> Tensor:
        """`text_for`, computed once where it is the same for all images."""
        if self._folded is not None:
            return self._folded
        return self.text_for(vision, space) if self.text_depends_on_image else self.class_vectors(space)
