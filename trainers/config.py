"""The keys of all registered data sets and methods, on top of dassl's."""

from __future__ import annotations

from yacs.config import CfgNode as CN

import datasets
from dassl.engine import TRAINER_REGISTRY


def extend_cfg(cfg: CN) -> None:
    """Declare the keys that the project adds to dassl's: its own, and those of every registered trainer."""
    datasets.extend_cfg(cfg)
    for name in TRAINER_REGISTRY.registered_names():
        declare = getattr(TRAINER_REGISTRY.get(name), "extend_cfg", None)
        if declare is not None:
            declare(cfg)
