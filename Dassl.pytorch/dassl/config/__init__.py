"""Configuration: `get_cfg_default()` gives a fresh yacs tree, `merge_file` and `merge_opts` change it."""

from yacs.config import CfgNode

from .defaults import _C as cfg_default
from .merge import merge_file, merge_opts

__all__ = ["cfg_default", "clean_cfg", "get_cfg_default", "merge_file", "merge_opts"]


def get_cfg_default() -> CfgNode:
    """A fresh copy of the default tree."""
    return cfg_default.clone()


def clean_cfg(cfg: CfgNode, trainer: str) -> None:
    """Remove every child of `cfg.TRAINER` but `NAME` and the node of `trainer` (compared in upper case)."""
    for key in list(cfg.TRAINER):
        if key not in ("NAME", trainer.upper()):
            cfg.TRAINER.pop(key)
