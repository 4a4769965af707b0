"""Domains: shares, class order, and that base and new classes have colours and shapes in common."""

from __future__ import annotations

import numpy as np
import pytest

from datasets.shapes.conditions import CONDITIONS
from datasets.shapes.domains import CLASS_NAMES, DOMAINS, ORDER
from datasets.shapes.render import COLOURS, NAMES, SHAPES


def test_class_order_is_a_fixed_shuffle() -> None:
    assert sorted(ORDER) == list(range(144))
    assert CLASS_NAMES[0] == NAMES[ORDER[0]]
    assert CLASS_NAMES[:3] == ("gray star", "yellow square", "brown ring")  # decides base and new: never changes


@pytest.mark.parametrize("half", [CLASS_NAMES[:72], CLASS_NAMES[72:]], ids=["base", "new"])
def test_every_colour_and_shape_is_in_both_halves(half: tuple[str, ...]) -> None:
    colours = [name.split()[0] for name in half]
    shapes = [name.split()[1] for name in half]
    assert set(colours) == set(COLOURS)
    assert set(shapes) == set(SHAPES)
    assert min(map(colours.count, COLOURS)) >= 3
    assert min(map(shapes.count, SHAPES)) >= 3


def test_five_domains() -> None:
    assert list(DOMAINS) == ["Shapes", "ShapesV2", "ShapesSketch", "ShapesA", "ShapesR"]
    assert len({domain.folder for domain in DOMAINS.values()}) == len({domain.seed for domain in DOMAINS.values()}) == 5
    for name, domain in DOMAINS.items():
        assert sum(share for _, share, _, _ in domain.conditions) == pytest.approx(1)
        assert all(condition in CONDITIONS and 0 <= low <= high <= 1 for condition, _, low, high in domain.conditions)
        train, val, test = domain.counts
        assert test >= 20
        assert (train >= 16 and val >= 4) if name == "Shapes" else (train, val) == (0, 0)


@pytest.mark.parametrize("name", DOMAINS)
def test_pictures_are_reproducible_and_differ(name: str) -> None:
    labels, index = np.array([0, 0, 5, 143]), np.array([0, 1, 0, 2])
    first = DOMAINS[name].pictures("test", labels, index)
    np.testing.assert_array_equal(first[2:3], DOMAINS[name].pictures("test", labels[2:3], index[2:3]))
    assert first.std(axis=(1, 2, 3)).min() > 5  # no empty picture
    assert len({picture.tobytes() for picture in first}) == 4
    assert not np.array_equal(first, DOMAINS[name].pictures("train", labels, index))


def test_second_test_set_has_new_pictures_of_the_same_recipe() -> None:
    source, second = DOMAINS["Shapes"], DOMAINS["ShapesV2"]
    assert (source.style, source.conditions) == (second.style, second.conditions)
    labels, index = np.arange(20), np.zeros(20, int)
    assert not np.array_equal(source.pictures("test", labels, index), second.pictures("test", labels, index))
