"""A deeper image tower and a wider joint space that compute what a trained small CLIP does, to train on from there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

BLOCK = re.compile(r"visual\.transformer\.resblocks\.(\d+)\.(.+)")
WRITERS = ("attn.out_proj.", "mlp.c_proj.")  # a block adds nothing to its input where these are 0


def deepen_image_tower(state: Mapping[str, Tensor], after: Sequence[int]) -> dict[str, Tensor]:
    """The same model with more blocks in its image tower, each a copy of the one below that adds nothing yet.

    Args:
        state: OpenAI's layout.
        after: blocks, from 0, that get another one on top.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        match = BLOCK.fullmatch(name)
        if match is None:
            result[name] = tensor
            continue
        block, part = int(match[1]), match[2]
        place = block + sum(below < block for below in after)
        result[f"visual.transformer.resblocks.{place}.{part}"] = tensor
        if block in after:
            copy = torch.zeros_like(tensor) if part.startswith(WRITERS) else tensor.clone()
            result[f"visual.transformer.resblocks.{place + 1}.{part}"] = copy
    return result


def widen_joint_space(state: Mapping[str, Tensor], width: int, generator: torch.Generator) -> dict[str, Tensor]:
    """The same model with `width` joint channels: both projections turned by one matrix, so that no cosine changes.

    Raises:
        ValueError: `width` is less than the model's own.
    """
    own = state["text_projection"].shape[1]
    if width < own:
        raise ValueError(f"The joint space has {own} channels already and can't be narrowed to {width}.")
    turn = torch.linalg.qr(torch.randn(width, own, generator=generator)).Q.t()  # [own, width], orthonormal rows
    return {**state, **{name: state[name] @ turn for name in ("text_projection", "visual.proj")}}
