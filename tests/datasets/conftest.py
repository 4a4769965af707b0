"""Configurations and miniature trees in the official layouts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from yacs.config import CfgNode as CN

from dassl.config import get_cfg_default
from datasets import extend_cfg

Configure = Callable[..., CN]


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """configure("OxfordPets", "DATASET.NUM_SHOTS", 2): a configuration with the test's folder as data root."""

    def build(name: str, *opts: object) -> CN:
        cfg = get_cfg_default()
        extend_cfg(cfg)
        cfg.merge_from_list(["DATASET.NAME", name, "DATASET.ROOT", str(tmp_path), "SEED", 1, "VERBOSE", False, *opts])
        return cfg

    return build


def touch(folder: Path, paths: Iterable[str]) -> None:
    """Empty files: readers look at names only."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
