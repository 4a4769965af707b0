"""Trainers whose method stands on another trainer's, the host. Knows no host and no such trainer by name."""

from __future__ import annotations

from yacs.config import CfgNode as CN

from clip.backbone import Backbone, LabelSpace
from dassl.engine import TRAINER_REGISTRY
from trainers.base import MethodTrainer
from trainers.method import Method


def declare_host(node: CN) -> None:
    """Add the key that names the host."""
    node.HOST = "CoOp"  # the registered trainer whose method is wrapped; its options are read from its own node


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
        host, default = self.host_trainer(cfg.TRAINER[self.node].HOST), CN({"TRAINER": CN()})
        host.extend_cfg(default)
        for key in ("PREC", "TEXT_CHUNK"):
            if cfg.TRAINER[host.node][key] != default.TRAINER.get(host.node, cfg.TRAINER[host.node])[key]:
                raise ValueError(
                    f"TRAINER.{host.node}.{key} is not read under {type(self).__name__}; set TRAINER.{self.node}.{key} "
                    "instead."
                )


def is_host(trainer: type) -> bool:
    return issubclass(trainer, MethodTrainer) and not issubclass(trainer, HostedTrainer)
