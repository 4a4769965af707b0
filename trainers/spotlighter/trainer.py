"""Spotlighter as a trainer: options, the host's lookup, the bank's start and its way through checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from yacs.config import CfgNode as CN

from clip.backbone import Backbone, LabelSpace, Pruning
from clip.pruning import WAYS
from dassl.engine import TRAINER_REGISTRY
from dassl.engine.record import plain
from trainers.base import declare_compute, declare_options, options_of
from trainers.hosts import HostedTrainer, declare_host
from trainers.method import Method
from trainers.spotlighter.head import HeadOptions, SpotlighterHead
from trainers.spotlighter.initialise import bank_images, fill_bank
from trainers.spotlighter.memory import random_prototypes
from trainers.spotlighter.method import SpotlighterMethod
from trainers.spotlighter.release import ReleaseHead

PRESETS = ("paper", "release")
# keys of TRAINER.SPOTLIGHTER that both presets read
SHARED_KEYS = ("PRESET", "HOST", "PREC", "TEXT_CHUNK", "ALPHA", "MOMENTUM")


@TRAINER_REGISTRY.register()
class Spotlighter(HostedTrainer):
    """Trainer of `SpotlighterMethod`; options under TRAINER.SPOTLIGHTER, the host's under its own node."""

    node = "SPOTLIGHTER"
    method: SpotlighterMethod

    @classmethod
    def extend_cfg(cls, cfg: CN) -> None:
        node = cfg.TRAINER.SPOTLIGHTER = CN()
        node.PRESET = "paper"  # "paper" | "release": the authors' code, which reads ALPHA, MOMENTUM and RELEASE only
        declare_host(node)
        declare_options(node, HeadOptions)  # TOP_K … LAMBDA3
        node.BANK_INIT = "kmeans"  # "kmeans" on the training images' activated tokens | "random"
        node.PRUNE = []  # [[block, share], …]: share of patch rows that travel on after a block, counted from 1
        node.PRUNE_BY = "distinct"  # "distinct" | "attention": the others are fused | "merge": similar pairs are merged
        node.PRUNE_TRAIN = False  # prune in training, too
        release = node.RELEASE = CN()
        release.N_PROTOTYPES = 25  # rows of the bank, shared by all classes
        release.BALANCE = 50.0  # divisor of the three local cross-entropies
        release.DISTILL = 20.0  # weight of both L1 terms
        release.MIX_TRAIN = 0.05  # share of the representative image feature in training
        release.MIX_TEST = 0.1  # and in inference
        declare_compute(node)

    @classmethod
    def make_method(cls, cfg: CN, backbone: Backbone, space: LabelSpace) -> Method:
        node = cfg.TRAINER.SPOTLIGHTER
        host = cls.make_host(cfg, backbone, space)
        if node.PRESET == "release":
            options = {name.lower(): value for name, value in node.RELEASE.items()}
            head = ReleaseHead(host.joint_width, alpha=node.ALPHA, momentum=node.MOMENTUM, **options)
            return SpotlighterMethod(host, head)
        width = backbone.vision.vit.transformer.width
        return SpotlighterMethod(
            host,
            SpotlighterHead(options_of(node, HeadOptions), len(space), width, host.joint_width),
            pruning_of(node),
            node.PRUNE_TRAIN,
        )

    def check_cfg(self, cfg: CN) -> None:
        super().check_cfg(cfg)
        node = cfg.TRAINER.SPOTLIGHTER
        if node.PRESET not in PRESETS:
            raise ValueError(f"TRAINER.SPOTLIGHTER.PRESET must be one of {', '.join(PRESETS)}, got '{node.PRESET}'.")
        if node.BANK_INIT not in ("kmeans", "random"):
            raise ValueError(f"TRAINER.SPOTLIGHTER.BANK_INIT must be kmeans or random, got '{node.BANK_INIT}'.")
        if node.PRUNE_BY not in WAYS:
            raise ValueError(f"TRAINER.SPOTLIGHTER.PRUNE_BY must be one of {', '.join(WAYS)}, got '{node.PRUNE_BY}'.")
        refuse_ignored_keys(node)

    def before_train(self) -> None:
        """Resume, or fill the bank from the training images; refuse the bank of other classes.

        Raises:
            ValueError: resumed or initial weights belong to another class set.
        """
        super().before_train()
        head = self.method.head
        if isinstance(head, ReleaseHead):
            return
        if "local" in head.options.losses and not self.method.host.text_trains:
            print(f"Loss term local is off: the text of {self.cfg.TRAINER.SPOTLIGHTER.HOST} does not train")
        names = self.method.space.names
        if self.trained_names not in ((), names):  # those of the checkpoint that the bank comes from
            what = difference(self.trained_names, names)
            raise ValueError(f"The memory bank was trained on other classes: {what}; train on the same ones, or anew.")
        if not head.memory.filled:
            fill_bank(self)

    def images_before_training(self) -> int:
        own = 0 if isinstance(self.method.head, ReleaseHead) else len(bank_images(self))
        return super().images_before_training() + own

    def ready_to_measure(self) -> None:
        """A bank of random prototypes."""
        head = self.method.head
        if isinstance(head, SpotlighterHead) and not head.memory.filled:
            C, K, w = head.memory.prototypes.shape
            head.memory.fill(random_prototypes((C, K, w), 1.0, 0))

    def test(self, split: str | None = None) -> float:
        """As in the engine.

        Raises:
            RuntimeError: the memory bank was never filled.
        """
        head = self.method.head
        if isinstance(head, SpotlighterHead) and not head.memory.filled:
            raise RuntimeError("The memory bank is empty: train first, or name a trained run with --model-dir.")
        return super().test(split)

    def checkpoint_facts(self) -> dict[str, Any]:
        return super().checkpoint_facts() | {"options": plain(self.cfg.TRAINER.SPOTLIGHTER)}

    def check_checkpoint_facts(self, facts: dict[str, Any], path: Path) -> None:
        """As in the base class; says which options were others in training."""
        super().check_checkpoint_facts(facts, path)
        before, now = facts.get("options") or {}, plain(self.cfg.TRAINER.SPOTLIGHTER)
        changed = [f"{key} was {before[key]}, is {now[key]}" for key in before if before[key] != now.get(key)]
        if changed:
            print(f"Note: {path} was trained with other options of Spotlighter: {'; '.join(changed)}")

    def _weights_of(self, checkpoint: Any, path: Path) -> dict[str, Any]:
        """As in the engine; the bank takes the size it has in the file, one block of rows a trained class."""
        saved, head = super()._weights_of(checkpoint, path), self.method.head
        if isinstance(head, SpotlighterHead):
            bank, own = saved.get("head.memory.prototypes"), head.memory.prototypes
            if bank is not None and bank.shape[1:] == own.shape[1:] and len(bank) != len(own):
                head.memory.resize(len(bank))
        return saved


def pruning_of(node: CN) -> Pruning | None:
    """PRUNE and PRUNE_BY as the tower takes them, None where PRUNE is empty.

    Raises:
        ValueError: PRUNE has no possible value.
    """
    try:
        return Pruning(node.PRUNE, node.PRUNE_BY) if node.PRUNE else None
    except ValueError as error:
        raise ValueError(f"TRAINER.SPOTLIGHTER.PRUNE: {error}") from error


def refuse_ignored_keys(node: CN) -> None:
    """A key that the chosen preset does not read must keep its default.

    Raises:
        ValueError: it has another value.
    """
    default = Spotlighter.default_node()
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
