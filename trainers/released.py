"""Checkpoints of released codes with prompts in both towers: their names of trained tensors, turned into ours.

Such a file holds a whole CLIP and tables made from the class names beside the trained tensors. Neither is used: the
frozen weights are the backbone's own, and the tables are made from the classes at hand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_NAMES = (
    (r"prompt_learner\.ctx", "text_prompts.ctx"),
    (r"text_encoder\.transformer\.resblocks\.(\d+)\.VPT_shallow", r"text_prompts.deep.\1"),
    (r"image_encoder\.VPT", "image_prompts.rows.0"),
    (r"image_encoder\.transformer\.resblocks\.(\d+)\.VPT_shallow", r"image_prompts.rows.\1"),
    (r"VPT_image_trans\.conv1\.0\.(\w+)", r"projector.linear1.\1"),
    (r"VPT_image_trans\.conv1\.1\.(\w+)", r"projector.bn.\1"),
    (r"VPT_image_trans\.conv1\.3\.(\w+)", r"projector.linear2.\1"),
)
_UNUSED = re.compile(r"(prompt_learner|text_encoder|image_encoder)\.|logit_scale$")


def is_released(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has the layout of the released codes."""
    return any(name.startswith("image_encoder.") for name in state)


def own_layout(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Trained tensors under our names, in fp32, 1 x 1 convolutions as matrices; a state dict of ours stays as it is.

    Names that are neither trained tensors nor parts of a CLIP are kept, for the one who loads them to refuse.
    """
    if not is_released(state):
        return dict(state)
    result = {}
    for name, tensor in state.items():
        for pattern, own in _NAMES:
            if re.fullmatch(pattern, name):
                number = tensor.float() if tensor.is_floating_point() else tensor
                result[re.sub(pattern, own, name)] = number.flatten(1) if tensor.dim() == 4 else number
                break
        else:
            if not _UNUSED.match(name):
                result[name] = tensor
    return result


def prompt_sizes(state: Mapping[str, Tensor]) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Rows, depth and width of the text prompts, and of the image prompts, of a state dict in our layout.

    Raises:
        ValueError: a tower has no prompts, or they don't begin at its input and go on block by block.
    """
    found = []
    for first, others in (("text_prompts.ctx", "text_prompts.deep"), ("image_prompts.rows.0", "image_prompts.rows")):
        numbers = {int(m[1]) for name in state if (m := re.fullmatch(rf"{re.escape(others)}\.(\d+)", name))} - {0}
        if first not in state or numbers != set(range(1, len(numbers) + 1)):
            raise ValueError(f"no tensors {first}, {others}.1, {others}.2, … without gaps")
        rows, width = state[first].shape
        found.append((rows, 1 + len(numbers), width))
    return found[0], found[1]
