"""Conditions: what each does to colours, and that it leaves other pictures alone."""

from __future__ import annotations

import numpy as np
import pytest

from datasets.shapes.conditions import CONDITIONS, EFFECTS, apply_condition
from datasets.shapes.render import Draws


def apply(canvas: np.ndarray, name: str, strength: float = 1.0) -> np.ndarray:
    out = canvas.astype(np.float32).copy()
    n = len(out)
    keys = np.arange(n, dtype=np.uint64)
    apply_condition(out, np.full(n, CONDITIONS.index(name)), np.full(n, strength), Draws(keys))
    return out


@pytest.fixture
def canvas() -> np.ndarray:
    return np.random.default_rng(0).random((4, 64, 64, 3)).astype(np.float32)


def flat(*colour: float) -> np.ndarray:
    return np.broadcast_to(np.array(colour, np.float32), (1, 64, 64, 3))


def test_plain_comes_first_and_every_other_condition_has_an_effect() -> None:
    assert CONDITIONS[0] == "plain"
    assert set(EFFECTS) == set(CONDITIONS) - {"plain", "sketch"}  # sketches are drawn, not filtered


@pytest.mark.parametrize("name", CONDITIONS)
def test_strength_blends(canvas: np.ndarray, name: str) -> None:
    np.testing.assert_array_equal(apply(canvas, name, 0.0), canvas)
    half = (canvas + apply(canvas, name)) / 2
    np.testing.assert_allclose(apply(canvas, name, 0.5), half, atol=1e-5)
    changed = np.abs(apply(canvas, name) - canvas).max()
    assert changed == 0 if name in ("plain", "sketch") else changed > 0.1


def test_conditions_touch_their_own_pictures_only(canvas: np.ndarray) -> None:
    conditions = np.array([CONDITIONS.index(name) for name in ("plain", "night", "blurry", "plain")])
    out = canvas.copy()
    apply_condition(out, conditions, np.ones(4), Draws(np.arange(4, dtype=np.uint64)))
    for i, number in enumerate(conditions):
        np.testing.assert_allclose(out[i], apply(canvas, CONDITIONS[number])[i], atol=1e-6)


def test_negative_is_its_own_inverse(canvas: np.ndarray) -> None:
    np.testing.assert_allclose(apply(apply(canvas, "negative"), "negative"), canvas, atol=1e-6)


def test_light_goes_where_its_name_says() -> None:
    gray = flat(0.5, 0.5, 0.5)
    assert apply(gray, "night").mean() < 0.3
    red, green, blue = apply(gray, "sunset").mean((0, 1, 2))
    assert red > green > blue
    red, green, blue = apply(gray, "underwater").mean((0, 1, 2))
    assert red < green
    assert red < blue
    faded = apply(np.concatenate([flat(0, 0, 0), flat(1, 1, 1)]), "faded").mean((1, 2, 3))
    assert 0.4 < faded[0] < faded[1]
    assert faded[1] - faded[0] < 0.5


def test_blur_and_coarse_pixels_keep_the_mean_and_lose_detail(canvas: np.ndarray) -> None:
    for name in ("blurry", "pixelated"):
        out = apply(canvas, name)
        assert out.mean() == pytest.approx(canvas.mean(), abs=0.02)
        assert out.std() < 0.4 * canvas.std()
    blocks = apply(canvas, "pixelated").reshape(4, 16, 4, 16, 4, 3)
    np.testing.assert_allclose(blocks, np.broadcast_to(blocks[:, :, :1, :, :1], blocks.shape), atol=1e-6)
    edge = np.zeros((1, 64, 64, 3), np.float32)
    edge[:, :, 32:] = 1
    column = apply(edge, "blurry")[0, 20, :, 0]
    kernel = np.convolve(np.ones(7) / 7, np.ones(7) / 7)  # two passes of a 7-pixel box
    step = np.convolve(np.pad(edge[0, 20, :, 0], 6, mode="edge"), kernel, mode="valid")
    np.testing.assert_allclose(column, step, atol=1e-5)
