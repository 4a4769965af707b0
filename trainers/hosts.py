"""Methods that stand on another one, the host, and their trainers. Knows no host and no such trainer by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor, nn
from yacs.config import CfgNode as CN

from clip.backbone import Backbone, LabelSpace
from dassl.engine import TRAINER_REGISTRY
from trainers.base import MethodTrainer
from trainers.method import Method


def declare_host(node: CN) -> None:
    """Add the key that names the host."""
    node.HOST = "CoOp"  # the registered trainer whose method is wrapped; its options are read from its own node


class HostedMethod(Method):
    """A method around a host's, with modules of its own; what a trainer asks of it, the host is told and asked, too.

    Args:
        host: the method that is wrapped; it does not know of it.
    """

    def __init__(self, host: Method):
        super().__init__(host.backbone, host.space)
        self.host = host
        self.text_depends_on_image = host.text_depends_on_image
        self.image_trains = host.image_trains
        self.tied_to_classes = host.tied_to_classes
        self.learns_from_labels = host.learns_from_labels
        self.looks_first = host.looks_first

    def trainables(self) -> dict[str, nn.Parameter]:
        own = {name: p for name, p in self.named_parameters() if not name.startswith("host.")}
        return {f"host.{name}": p for name, p in self.host.trainables().items()} | own

    def before_training(self, images: Callable[[], Iterator[Tensor]]) -> None:
        self.host.before_training(images)

    def after_epoch(self, epoch: int, n_epochs: int) -> None:
        self.host.after_epoch(epoch, n_epochs)


class HostedTrainer(MethodTrainer):
    """A trainer of a method around a host's method; such trainers are no hosts themselves."""

    @classmethod
    def host_trainer(cls, name: str) -> type[MethodTrainer]:
        """The trainer class of a host.

        Raises:
            ValueError: it is no registered trainer of this project, or stands on a host itself.
        """
        hosts = {n: t for n in TRAINER_REGISTRY.registered_names() if is_host(t := TRAINER_REGISTRY.get(n))}
        if name not in hosts:
            raise ValueError(f"TRAINER.{cls.node}.HOST must be one of {', '.join(hosts)}, got '{name}'.")
        return hosts[name]

    @classmethod
    def make_host(cls, cfg: CN, backbone: Backbone, space: LabelSpace) -> Method:
        """The host's method with the options of its own node."""
        return cls.host_trainer(cfg.TRAINER[cls.node].HOST).make_method(cfg, backbone, space)

    def check_cfg(self, cfg: CN) -> None:
        """As in the base class; what the wrapping trainer decides must not be set for the host."""
        super().check_cfg(cfg)
        host = self.host_trainer(cfg.TRAINER[self.node].HOST)
        default = host.default_node()
        for key in ("PREC", "TEXT_CHUNK"):
            if cfg.TRAINER[host.node][key] != default[key]:
                raise ValueError(
                    f"TRAINER.{host.node}.{key} is not read under {type(self).__name__}; set TRAINER.{self.node}.{key} "
                    "instead."
                )


def is_host(trainer: type) -> bool:
    return issubclass(trainer, MethodTrainer) and not issubclass(trainer, HostedTrainer)
