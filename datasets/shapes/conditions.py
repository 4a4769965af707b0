"""Conditions: in which light, through which lens or in which manner a picture of the embedded benchmark was taken.

A condition is one effect on the whole picture. The captions of the pretraining name it ("a night photo of a red
star."), so the text tower knows the words; "a photo of a red star." leaves it open. That is the gap which prompt
tuning can close.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from datasets.shapes.render import Draws

# "plain" comes first; "sketch" is drawn by the renderer itself (outlines on paper) and changes no colour here.
CONDITIONS = (
    "plain",
    "night",
    "sepia",
    "faded",
    "negative",
    "sunset",
    "underwater",
    "blurry",
    "sketch",
    "neon",
    "pixelated",
)


def apply_condition(canvas: np.ndarray, conditions: np.ndarray, strengths: np.ndarray, draw: Draws) -> None:
    """Change pictures in place.

    Args:
        canvas: [B, H, W, 3] float32 in 0..1.
        conditions: [B] indices into CONDITIONS.
        strengths: [B], 0 leaves the picture as it is, 1 is the full effect.
        draw: the pictures' numbers; every picture uses the same count of them, whatever its condition.
    """
    variation = draw(-1, 1, columns=2)  # [B, 2]
    for number in np.unique(conditions):
        effect = EFFECTS.get(CONDITIONS[number])
        if effect is None:
            continue
        rows = np.flatnonzero(conditions == number)
        before = canvas[rows]
        weight = strengths[rows].astype(np.float32)[:, None, None, None]
        canvas[rows] = before + weight * (effect(before, variation[rows].astype(np.float32)) - before)


def _affine(image: np.ndarray, gain: tuple[float, ...], offset: tuple[float, ...]) -> np.ndarray:
    return image * np.array(gain, np.float32) + np.array(offset, np.float32)


def _luma(image: np.ndarray) -> np.ndarray:
    """[B, H, W, 1]; the weights of ITU-R BT.601."""
    return (image[..., 0] * 0.299 + image[..., 1] * 0.587 + image[..., 2] * 0.114)[..., None]


def _night(image: np.ndarray, variation: np.ndarray) -> np.ndarray:
    level = (1 + 0.2 * variation[:, :1])[:, None, None, :]
    return _affine(image * level, (0.26, 0.30, 0.46), (0.01, 0.02, 0.10))


def _sepia(image: np.ndarray, variation: np.ndarray) -> np.ndarray:
    tone = 0.16 + 0.74 * _luma(image)
    return 0.72 * _affine(tone, (1.08, 0.90, 0.66), (0.0, 0.0, 0.0)) + 0.28 * image


def _faded(image: np.ndarray, variation: np.ndarray) -> np.ndarray:
    level = (0.05 * variation[:, :1])[:, None, None, :]
    return 0.34 * (0.75 * image + 0.25 * _luma(image)) + 0.56 + level


def _negative(image: np.ndarray, variation: np.ndarray) -> np.ndarray:
    return 1 - image


def _sunset(image: np.ndarray, variation: np.ndarray) -> np.ndarray:
    """Low red light: blue is gone, shadows glow."""
    height = np.linspace(0.7, 1.0, image.shape[1], dtype=np.float32)[None, :, None, None]
    glow = height * np.array((0.26, 0.07, 0.02), np.float32)
    return _affine(image, (0.80, 0.46, 0.22), (0.0, 0.0, 0.0)) + glow * (1 + 0.3 * variation[:, :1])[:, None, None, :]


def _underwater(image: np.ndarray, variation: np.ndarray) -> np.ndarray:
    depth = (1 + 0.2 * variation[:, :1])[:, None, None, :]
    return _box_blur(_affine(image, (0.24, 0.62, 0.70), (0.0, 0.13, 0.20)) * depth, 1)


def _blurry(image: np.ndarray, variation: np.ndarray) -> np.ndarray:
    return _box_blur(_box_blur(image, 3), 3)


def _neon(image: np.ndarray, variation: np.ndarray) -> np.ndarray:
    """Channels turned by one place and steepened, on black."""
    turned = image[..., [1, 2, 0]]
    return np.clip(turned * turned * (3 - 2 * turned) * 1.15 - 0.05, 0, 1)


def _pixelated(image: np.ndarray, variation: np.ndarray) -> np.ndarray:
    size = image.shape[1] // 4
    coarse = image.reshape(len(image), size, 4, size, 4, 3).mean((2, 4))
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


def _box_blur(image: np.ndarray, reach: int) -> np.ndarray:
    """Mean over (2 reach + 1) squared pixels, edges repeated."""
    width = 2 * reach + 1
    for axis in (1, 2):
        pads = [(0, 0)] * 4
        pads[axis] = (reach + 1, reach)
        total = np.cumsum(np.pad(image, pads, mode="edge"), axis=axis, dtype=np.float32)
        n = image.shape[axis]
        image = (total.take(range(width, width + n), axis) - total.take(range(n), axis)) / width
    return image


EFFECTS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "night": _night,
    "sepia": _sepia,
    "faded": _faded,
    "negative": _negative,
    "sunset": _sunset,
    "underwater": _underwater,
    "blurry": _blurry,
    "neon": _neon,
    "pixelated": _pixelated,
}
