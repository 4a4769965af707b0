"""The renderer: a picture depends on its key alone, and shows its class."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from datasets.shapes.conditions import CONDITIONS
from datasets.shapes.render import COLOURS, NAMES, PAIRS, SHAPES, SIZE, Draws, Style, picture_keys, render

CALM = Style(tilt=0, distractors=(0, 0), occluded=0, textured=0, jitter=0, clutter=0, light=0, noise=0)
COLOUR_VALUES = np.array(list(COLOURS.values()))


def keys_of(n: int, split: str = "test") -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(n) % len(NAMES)
    return picture_keys(1, "domain", split, labels, np.arange(n)), labels


def test_names() -> None:
    assert len(NAMES) == len(set(NAMES)) == 144
    assert NAMES[0] == "red circle"
    assert [NAMES[i] for i in (13, 143)] == ["orange square", "black diamond"]
    assert PAIRS[13] == (1, 1)


def test_a_batch_equals_its_pictures_one_at_a_time() -> None:
    keys, labels = keys_of(66)  # two chunks and a bit, all conditions
    conditions = np.arange(66) % len(CONDITIONS)
    strengths = np.linspace(0, 1, 66)
    style = Style(distractors=(0, 4), occluded=0.5, textured=0.5)
    batch = render(keys, labels, style, conditions, strengths)
    assert batch.shape == (66, SIZE, SIZE, 3)
    assert batch.dtype == np.uint8
    for i in range(66):
        one = slice(i, i + 1)
        alone = render(keys[one], labels[one], style, conditions[one], strengths[one])
        np.testing.assert_array_equal(alone[0], batch[i])
    order = np.random.default_rng(0).permutation(66)
    shuffled = render(keys[order], labels[order], style, conditions[order], strengths[order])
    np.testing.assert_array_equal(shuffled, batch[order])


def test_keys_differ_in_every_argument() -> None:
    labels, index = np.repeat(np.arange(144), 50), np.tile(np.arange(50), 144)
    keys = [
        picture_keys(seed, domain, split, labels, index)
        for seed in (1, 2)
        for domain in ("shapes", "shapes_v2")
        for split in ("train", "test")
    ]
    assert len(np.unique(np.concatenate(keys))) == 8 * 144 * 50


def test_draws_are_uniform_and_independent_of_the_batch() -> None:
    keys, _ = keys_of(2000)
    numbers = Draws(keys)(2.0, 4.0, columns=20)
    assert numbers.min() >= 2
    assert numbers.max() < 4
    assert np.histogram(numbers, bins=10, range=(2, 4))[0] == pytest.approx(4000, rel=0.1)
    assert abs(np.corrcoef(numbers[:-1].ravel(), numbers[1:].ravel())[0, 1]) < 0.03
    assert abs(np.corrcoef(numbers[:, 0], numbers[:, 1])[0, 1]) < 0.1
    alone = Draws(keys[7:8])
    np.testing.assert_array_equal(np.concatenate([alone(2, 4), alone(2, 4, columns=19)], 1)[0], numbers[7])
    integers = Draws(keys).integers(3, 5)
    assert set(integers) == {3, 4, 5}


def test_object_has_the_colour_of_its_class() -> None:
    labels = np.arange(144)
    keys, _ = keys_of(144)
    pictures = render(keys, labels, CALM).astype(float) / 255
    for picture, label in zip(pictures, labels, strict=True):
        distance = np.linalg.norm(picture[:, :, None, :] - COLOUR_VALUES, axis=-1)  # [64, 64, 12]
        background = picture[0, 0]  # the object stays in view, so a corner shows the background
        on_object = np.linalg.norm(picture - background, axis=-1) > 0.3
        assert 60 < on_object.sum() < 2200
        colour = np.bincount(distance.argmin(-1)[on_object], minlength=12).argmax()
        assert colour == PAIRS[label][0]


def test_shapes_are_told_apart_by_their_outlines() -> None:
    """Nearest template on masks of one size and place, each shape against all others."""
    style = replace(CALM, radius=(20.0, 20.0))
    labels = np.array([label for label, (colour, _) in enumerate(PAIRS) if colour == 11])  # black
    keys = np.full(12, picture_keys(1, "same", "test", np.zeros(1), np.zeros(1))[0])
    pictures = render(keys, labels, style).astype(float) / 255
    cover = (pictures.mean(-1) < 0.2).astype(float)  # one key: same background, same place
    overlap = (cover[:, None] * cover).sum((2, 3)) / np.maximum(cover[:, None], cover).sum((2, 3))
    np.fill_diagonal(overlap, 0)
    assert cover.sum((1, 2)).min() > 300
    assert overlap.max() < 0.95, [(SHAPES[i], SHAPES[overlap[i].argmax()]) for i in range(12)]


def test_object_stays_in_view() -> None:
    keys, labels = keys_of(288)
    pictures = render(keys, labels, replace(CALM, tilt=0.7, radius=(8.0, 24.0))).astype(int)
    corners = pictures[:, [0, 0, -1, -1], [0, -1, 0, -1]]  # [B, 4, 3]
    covered = (abs(corners - np.median(corners, axis=1, keepdims=True)).max(-1) > 60).sum(1)
    assert (covered > 1).sum() == 0


def test_style_changes_what_it_names() -> None:
    keys, labels = keys_of(48)
    calm = render(keys, labels, CALM).astype(int)
    changes: tuple[dict[str, Any], ...] = (
        {"distractors": (3, 3)},
        {"occluded": 1.0},
        {"textured": 1.0},
        {"jitter": 0.2},
        {"clutter": 0.5},
        {"light": 0.8},
        {"noise": 0.2},
    )
    for change in changes:
        other = render(keys, labels, replace(CALM, **change)).astype(int)
        changed = (abs(other - calm).max((1, 2, 3)) > 3).mean()
        assert changed > 0.9, change
