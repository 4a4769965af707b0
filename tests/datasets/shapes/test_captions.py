"""Captions: they name the condition of the picture or none, in the stated shares."""

from __future__ import annotations

import numpy as np
import pytest

from datasets.shapes.captions import ALL_TEMPLATES, NAMED, NEUTRAL, draw_templates
from datasets.shapes.conditions import CONDITIONS
from datasets.shapes.render import Draws


def test_templates_are_sentences() -> None:
    assert len(set(ALL_TEMPLATES)) == len(ALL_TEMPLATES)
    assert all(template.count("{}") == 1 and "WORD" not in template for template in ALL_TEMPLATES)
    assert set(ALL_TEMPLATES) == set(NEUTRAL).union(*NAMED.values())


def test_neutral_sentences_name_no_condition() -> None:
    for word in CONDITIONS[1:]:
        assert not any(word in template for template in NEUTRAL)
        assert f"a {word} photo of a {{}}." in NAMED[word]
        assert not set(NAMED[word]) & set(NEUTRAL)
    assert "a photo of a {}." in NEUTRAL
    assert "a sketch of the {}." in NAMED["sketch"]
    assert "a dark photo of a {}." in NAMED["night"]


def test_shares() -> None:
    n = 20_000
    conditions = np.arange(n) % len(CONDITIONS)
    templates, named = draw_templates(Draws(np.arange(n, dtype=np.uint64)), conditions)
    dressed = conditions > 0
    assert (named[~dressed] == 0).all()
    assert (named[dressed] == conditions[dressed]).mean() == pytest.approx(0.85, abs=0.01)
    for template, name in zip(templates[:500], named[:500], strict=True):
        allowed = NAMED[CONDITIONS[name]] if name else NEUTRAL
        assert ALL_TEMPLATES[template] in allowed
    assert (templates == ALL_TEMPLATES.index("a photo of a {}.")).mean() > 0.01
