"""torch.compile for the blocks of both towers."""

from __future__ import annotations

import warnings
from functools import cache

import torch

from .backbone import Backbone
from .layers import ResidualAttentionBlock


def compile_blocks(backbone: Backbone) -> None:
    """From now on each block's pass over all its rows is compiled; passes for one row, and pruning, stay as they are.

    All blocks of a tower share their code, so that one compilation serves them, and copies of a block stay compiled.
    It takes up to a minute, once more where the batch is the first of another size, and needs a C++ compiler on a CPU.
    Results differ in the last bits.

    Raises:
        ValueError: the image tower is a ResNet.
    """
    warnings.filterwarnings("ignore", r"Dynamo detected a call to a `functools.lru_cache`")  # masks: by shape alone
    for transformer in (backbone.vision.vit.transformer, backbone.clip.transformer):
        for block in transformer.blocks():
            block.__class__ = _compiled_block()


@cache
def _compiled_block() -> type[ResidualAttentionBlock]:
    return type("CompiledBlock", (ResidualAttentionBlock,), {"run": torch.compile(ResidualAttentionBlock.run)})
