"""Spotlighter as a trainer: a host method, frozen or trained as the host says, with a head around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from yacs.config import CfgNode as CN

from clip.backbone import Backbone, LabelSpace, TextBatch, VisionOut
from dassl.engine import TRAINER_REGISTRY
from trainers.base import MethodTrainer, declare_precision
from trainers.method import Method, StepOutput
from trainers.spotlighter.head import HeadOptions, SpotlighterHead
from trainers.spotlighter.initialise import fill_bank
from trainers.spotlighter.interface import HeadInput
from trainers.spotlighter.release import ReleaseHead

PRESETS = ("paper", "release")
SHARED_KEYS = ("PRESET", "HOST", "PREC", "ALPHA", "MOMENTUM")  # keys of TRAINER.SPOTLIGHTER that both presets read


class SpotlighterMethod(Method):
    """A host's text and image side, and a head that turns them into logits; the host does not know of it.

    Args:
        host: any method whose text does not depend on the image.
        head: `SpotlighterHead` or `ReleaseHead`.
        prune: block, counted from 1, to the share of patches kept behind it; {} keeps all.
        prune_train: prune in training, too.

    Raises:
        ValueError: the backbone is no ViT, or the host's text depends on the image.
    """

    def __init__(
        self,
        host: Method,
        head: SpotlighterHead | ReleaseHead,
        prune: Mapping[int, float] | None = None,
        prune_train: bool = False,
    ):
        super().__init__(host.backbone, host.space)
        if host.text_depends_on_image:
            raise ValueError(
                f"{type(host).__name__} makes other text features for each image; Spotlighter needs a host whose text "
                "depends on the classes only."
            )
        self.host, self.head = host, head
        self.prune, self.prune_train = dict(prune or {}), prune_train
        n_blocks = self.backbone.vision.n_blocks
        self._want_in_training = frozenset(head.want(n_blocks, training=True))
        self._want = frozenset(head.want(n_blocks, training=False))

    def prepare(self, space: LabelSpace) -> TextBatch:
        return self.host.prepare(space)

    def raw_text(self, space: LabelSpace) -> Tensor:
        return self.host.raw_text(space)

    def text(self, space: LabelSpace | None = None) -> Tensor:
        return self.host.text(space)

    def class_vectors(self, space: LabelSpace | None = None) -> Tensor:
        return self.host.class_vectors(space)

    def losses(self, images: Tensor, label: Tensor) -> StepOutput:
        """The head's terms and, prefixed with "host_", those that the host adds to its own classification loss."""
        vision = self.host.image(images, self._want_in_training, self.prune if self.prune_train else None)
        text = self.host.text()
        given = self.given(vision, text)
        given.label, given.teacher = label, self.host.teacher(images)
        given.text0 = self.host.frozen_text()
        given.image0 = F.normalize(self.host.frozen_image(images, vision).float(), dim=1)
        more = self.host.penalties(images, vision, text)
        with torch.autocast(text.device.type, enabled=False):
            out = self.head(given)
        terms = out.terms | {f"host_{name}": term for name, term in more.terms.items()}
        weights = out.weights | {f"host_{name}": weight for name, weight in more.weights.items()}
        return StepOutput(out.logits, terms, weights)

    def forward(self, images: Tensor, space: LabelSpace | None = None) -> Tensor:
        vision = self.host.image(images, self._want, self.prune)
        given = self.given(vision, self.host.class_vectors(space))
        with torch.autocast(images.device.type, enabled=False):
            return self.head(given).logits

    def given(self, vision: VisionOut, text: Tensor) -> HeadInput:
        """What both training and inference hand to the head."""
        tower = self.backbone.vision
        N = tower.vit.grid**2 if vision.kept is None else vision.kept.shape[1]
        raw, hidden = vision.pooled.float(), vision.hidden.get(tower.n_blocks - 1)
        return HeadInput(
            text=text,
            image=F.normalize(raw, dim=1),
            scale=self.backbone.logit_scale.exp(),
            block=list(tower.vit.transformer.blocks())[-1],
            view=self._view,
            hidden=None if hidden is None else hidden[:, : 1 + N + vision.n_fused],  # prompt rows stand behind
            n_fused=vision.n_fused,
            tokens=None if vision.tokens is None else torch.cat([raw[:, None], vision.tokens.float()], dim=1),
            attention=None if vision.cls_attn is None else vision.cls_attn.mean(dim=1),
        )

    def _view(self, tokens: Tensor) -> Tensor:
        return F.normalize(self.host.project(tokens).float(), dim=-1)


@TRAINER_REGISTRY.register()
class Spotlighter(MethodTrainer):
    """Trainer of `SpotlighterMethod`; options under TRAINER.SPOTLIGHTER, the host's under its own node."""

    node = "SPOTLIGHTER"
    method: SpotlighterMethod

    @classmethod
    def extend_cfg(cls, cfg: CN) -> None:
        node = cfg.TRAINER.SPOTLIGHTER = CN()
        node.PRESET = "paper"  # "paper" | "release": the authors' code, which reads ALPHA, MOMENTUM and RELEASE only
        node.HOST = "CoOp"  # the registered trainer whose method is wrapped
        for option in fields(HeadOptions):  # TOP_K … LAMBDA3, explained there
            default = option.default
            node[option.name.upper()] = list(default) if isinstance(default, tuple) else default
        node.BANK_INIT = "kmeans"  # "kmeans" on the training images' activated tokens | "random"
        node.PRUNE = []  # [[block, share], …]: share of patches kept after a block, counted from 1
        node.PRUNE_TRAIN = False  # prune in training, too
        release = node.RELEASE = CN()
        release.N_PROTOTYPES = 25  # rows of the bank, shared by all classes
        release.BALANCE = 50.0  # divisor of the three local cross-entropies
        release.DISTILL = 20.0  # weight of both L1 terms; for joint widths d >= 512
        release.MIX_TRAIN = 0.05  # share of the representative image feature in training
        release.MIX_TEST = 0.1  # and in inference
        declare_precision(node)

    @classmethod
    def make_method(cls, cfg: CN, backbone: Backbone, space: LabelSpace) -> Method:
        node = cfg.TRAINER.SPOTLIGHTER
        host = host_trainer(node.HOST).make_method(cfg, backbone, space)
        if node.PRESET == "release":
            options = {name.lower(): value for name, value in node.RELEASE.items()}
            head = ReleaseHead(backbone.spec.embed_dim, alpha=node.ALPHA, momentum=node.MOMENTUM, **options)
            return SpotlighterMethod(host, head)
        width = backbone.vision.vit.transformer.width
        return SpotlighterMethod(
            host,
            SpotlighterHead(head_options(node), len(space), width, backbone.spec.embed_dim),
            parse_prune(node.PRUNE),
            node.PRUNE_TRAIN,
        )

    def check_cfg(self, cfg: CN) -> None:
        super().check_cfg(cfg)
        node = cfg.TRAINER.SPOTLIGHTER
        if node.PRESET not in PRESETS:
            raise ValueError(f"TRAINER.SPOTLIGHTER.PRESET must be one of {', '.join(PRESETS)}, got '{node.PRESET}'.")
        if node.BANK_INIT not in ("kmeans", "random"):
            raise ValueError(f"TRAINER.SPOTLIGHTER.BANK_INIT must be kmeans or random, got '{node.BANK_INIT}'.")
        refuse_ignored_keys(node)
        host_trainer(node.HOST)
        if node.PRESET == "paper":
            head_options(node)
            parse_prune(node.PRUNE)

    def build_model(self) -> None:
        self._bank_names: tuple[str, ...] | None = None  # those of the checkpoint that the bank comes from
        super().build_model()

    def before_train(self) -> None:
        """Resume, or fill the bank from the training images; refuse the bank of other classes.

        Raises:
            ValueError: resumed or initial weights belong to another class set.
        """
        super().before_train()
        head = self.method.head
        if isinstance(head, ReleaseHead):
            return
        if "local" in head.options.losses and not self.method.text().requires_grad:
            print(f"Loss term local is off: the text of {self.cfg.TRAINER.SPOTLIGHTER.HOST} does not train")
        names = self.method.space.names
        if self._bank_names not in (None, names):
            what = difference(self._bank_names or (), names)
            raise ValueError(f"The memory bank was trained on other classes: {what}; train on the same ones, or anew.")
        if not head.memory.filled:
            fill_bank(self)

    def check_checkpoint_facts(self, facts: dict[str, Any], path: Path) -> None:
        """As in the base class; the bank takes the size it has in the file, one block of rows a trained class."""
        super().check_checkpoint_facts(facts, path)
        head, names = self.method.head, tuple(facts.get("class_names") or ())
        if names and isinstance(head, SpotlighterHead):
            self._bank_names = names
            head.memory.resize(len(names))


def host_trainer(name: str) -> type[MethodTrainer]:
    """The trainer class of a host.

    Raises:
        ValueError: it is no registered trainer of this project, or Spotlighter itself.
    """
    hosts = {n: t for n in TRAINER_REGISTRY.registered_names() if is_host(t := TRAINER_REGISTRY.get(n))}
    if name not in hosts:
        raise ValueError(f"TRAINER.SPOTLIGHTER.HOST must be one of {', '.join(hosts)}, got '{name}'.")
    return hosts[name]


def is_host(trainer: type) -> bool:
    return issubclass(trainer, MethodTrainer) and not issubclass(trainer, Spotlighter)


def head_options(node: CN) -> HeadOptions:
    values = {option.name: node[option.name.upper()] for option in fields(HeadOptions)}
    return HeadOptions(**values | {"losses": tuple(node.LOSSES)})


def parse_prune(pairs: Sequence[Sequence[float]]) -> dict[int, float]:
    """PRUNE as a mapping; the tower checks blocks and shares.

    Raises:
        ValueError: an entry is no pair, or a block stands twice.
    """
    if not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs):
        raise ValueError(f"TRAINER.SPOTLIGHTER.PRUNE must be a list of [block, share], got {pairs}.")
    prune = {int(block): float(share) for block, share in pairs}
    if len(prune) < len(pairs):
        raise ValueError(f"TRAINER.SPOTLIGHTER.PRUNE names a block twice: {pairs}.")
    return prune


def refuse_ignored_keys(node: CN) -> None:
    """A key that the chosen preset does not read must keep its default.

    Raises:
        ValueError: it has another value.
    """
    default = CN()
    default.TRAINER = CN()
    Spotlighter.extend_cfg(default)
    default = default.TRAINER.SPOTLIGHTER
    if node.PRESET == "paper":
        ignored = [f"RELEASE.{key}" for key, value in node.RELEASE.items() if value != default.RELEASE[key]]
    else:
        ignored = [key for key, value in node.items() if key not in (*SHARED_KEYS, "RELEASE") and value != default[key]]
    if ignored:
        raise ValueError(
            f"TRAINER.SPOTLIGHTER.{ignored[0]} is set, but the preset {node.PRESET} does not read it; leave it out, or "
            "change PRESET."
        )


def difference(of_bank: tuple[str, ...], now: tuple[str, ...]) -> str:
    """What distinguishes two lists of class names, in a few words."""
    gone, new = [n for n in of_bank if n not in now], [n for n in now if n not in of_bank]
    if not gone and not new:
        return "they are the same, but in another order"
    listed = [f"{len(gone)} only in the bank (such as '{gone[0]}')"] if gone else []
    listed += [f"{len(new)} only in this data set (such as '{new[0]}')"] if new else []
    return " and ".join(listed)
