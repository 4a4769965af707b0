"""Captions of rendered pictures, for the pretraining of Mini-ViT/8."""

from __future__ import annotations

import numpy as np

from datasets.shapes.conditions import CONDITIONS
from datasets.shapes.render import Draws
from datasets.templates import IMAGENET_TEMPLATES

NAMED_SHARE = 0.85  # of the pictures that are not plain: the caption names the condition

_OWN_WORDS = {  # words of OpenAI's sentences that mean a condition here
    "night": ("dark",),
    "blurry": ("blurry",),
    "pixelated": ("pixelated", "low resolution", "jpeg corrupted"),
    "sketch": ("sketch", "drawing", "doodle"),
}
_ALL_OWN_WORDS = tuple(word for words in _OWN_WORDS.values() for word in words)

_COMMON = ("a photo of a {}.", "a photo of the {}.", "a picture of a {}.", "an image of a {}.", "a {}.", "one {}.")
NEUTRAL = (*_COMMON * 10, *(t for t in IMAGENET_TEMPLATES if not any(word in t for word in _ALL_OWN_WORDS)))

_CONDITIONED = (
    "a WORD photo of a {}.",
    "a WORD photo of the {}.",
    "a WORD picture of a {}.",
    "a WORD image of a {}.",
    "a WORD {}.",
    "the {} in a WORD photo.",
)
NAMED = {
    condition: tuple(t.replace("WORD", condition) for t in _CONDITIONED)
    + tuple(t for t in IMAGENET_TEMPLATES if any(word in t for word in _OWN_WORDS.get(condition, ())))
    for condition in CONDITIONS[1:]
}
ALL_TEMPLATES = tuple(dict.fromkeys([*NEUTRAL, *(t for templates in NAMED.values() for t in templates)]))


def draw_templates(draw: Draws, conditions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Choose a caption for each picture.

    Args:
        conditions: [B] indices into CONDITIONS.

    Returns:
        [B] indices into ALL_TEMPLATES, and [B] the condition that the caption names (0: none).
    """
    named = np.where(draw()[:, 0] < NAMED_SHARE, conditions, 0)
    pick = draw()[:, 0]
    number = {template: i for i, template in enumerate(ALL_TEMPLATES)}
    groups = [NEUTRAL, *(NAMED[condition] for condition in CONDITIONS[1:])]
    chosen = [number[groups[n][int(p * len(groups[n]))]] for n, p in zip(named, pick, strict=True)]
    return np.array(chosen, np.int64), named
