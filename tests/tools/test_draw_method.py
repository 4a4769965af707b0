"""tools/draw_method.py: the committed picture is what the tool draws, and it can be read."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from tools import draw_method

SVG = "{http://www.w3.org/2000/svg}"


def test_committed_picture_is_current():
    assert draw_method.OUT.read_text(encoding="utf-8") == draw_method.draw()


def test_title_and_description_for_screen_readers():
    root = ET.fromstring(draw_method.draw())
    labels = root.get("aria-labelledby").split()
    named = {element.get("id"): element.text for element in root if element.tag in (f"{SVG}title", f"{SVG}desc")}
    assert root.get("role") == "img"
    assert set(labels) == set(named)
    assert all(word in named["desc"] for word in ("memory bank", "top k", "IRM", "TRM", "momentum", "prediction"))


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast ratio."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("letters", "grounds"),
    [("ink", "bg band cell frozen trained bank text"), ("muted", "bg band cell frozen"), (draw_method.ON_LIT, "lit")],
)
def test_letters_are_readable(theme, letters, grounds):
    colour = draw_method.COLOURS[letters][theme] if letters in draw_method.COLOURS else letters
    for ground in grounds.split():
        assert contrast(colour, draw_method.COLOURS[ground][theme]) >= 4.5, ground


def test_every_class_has_a_rule_in_both_themes():
    svg = draw_method.draw()
    used = set(" ".join(re.findall(r'class="([^"]*)"', svg)).split())
    light, dark = draw_method.style("auto").split("@media (prefers-color-scheme:dark)")
    for name in used:
        assert f".{name}" in light
    for name in draw_method.COLOURS:
        pair = draw_method.COLOURS[name]
        assert pair[0] in light
        assert pair[1] in dark
    assert draw_method.style("dark") == draw_method.style("light").split(".bg{")[0] + dark[1:-1]


def test_lit_tokens_follow_from_both_maps():
    sample, semantic = np.array(draw_method.SAMPLE).ravel(), np.array(draw_method.SEMANTIC).ravel()
    total = sum((scores - scores.mean()) / scores.std() for scores in (sample, semantic))
    assert draw_method.lit_tokens() == np.argsort(-total, kind="stable")[: draw_method.K].tolist()


def test_texts_stay_inside_and_apart():
    """Boxes of all texts, by a generous estimate of letter widths, neither leave the picture nor meet."""
    sizes = {"head1": 19, "title": 15, "number": 14, "label": 12.5, "small": 11.5}
    boxes = []
    for element in ET.fromstring(draw_method.draw()).iter(f"{SVG}text"):
        size = sizes[element.get("class").split()[0]]
        width, x, y = 0.56 * size * len(element.text), float(element.get("x")), float(element.get("y"))
        left = x - width / 2 if element.get("text-anchor") == "middle" else x
        boxes.append((left, y - 0.8 * size, left + width, y + 0.2 * size, element.text))
    for left, top, right, bottom, text in boxes:
        assert 0 <= left <= right <= draw_method.WIDTH, text
        assert 0 <= top <= bottom <= draw_method.HEIGHT, text
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (a[4], b[4])


def test_command_line(tmp_path):
    out = tmp_path / "new" / "picture.svg"
    draw_method.main(["--out", str(out), "--theme", "dark"])
    assert out.read_text(encoding="utf-8") == draw_method.draw("dark")
    assert "@media" not in draw_method.draw("dark")
