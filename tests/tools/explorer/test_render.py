"""Answers as HTML and as pictures."""

import base64
import io
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from tools.explorer.explore import Answer, Looked, Seen
from tools.explorer.overlay import map_picture, tokens_in_words, tokens_picture
from tools.explorer.render import best_classes, refusal, to_html
from trainers.chosen_tokens import TokenChoice
from trainers.predictor import Prediction

NAMES = ("cat", "<b>dog</b>", "cow")


class Reader(HTMLParser):
    """Tags with their attributes, and all text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def said(probabilities, tokens=None, names=NAMES):
    probabilities = np.array(probabilities, dtype=np.float32)
    return Prediction("", names, probabilities, np.log(probabilities), tokens)


@pytest.fixture
def choice():
    """Four patches; 3 and 0 are level 1, 1 is level 2."""
    total = np.array([[1.0, 0.5], [-3.0, 1.5]], np.float32)
    rest = {"sample_map": total, "semantic_map": None, "prototypes": np.array([0, 1, 0]), "class_weights": None}
    numbers = {"level1": np.array([3, 0]), "level2": np.array([1]), "scores": np.array([1.5, 1.0, 0.5])}
    return TokenChoice(grid=2, summed_map=total, matched_class=1, matched_name="cow & calf", **numbers, **rest)


@pytest.fixture
def picture():
    return Image.new("RGB", (32, 32), (200, 40, 40))


def test_side_by_side(picture):
    a, b = (Seen(t, said(p), picture) for t, p in (("A", (0.7, 0.2, 0.1)), ("B & C", (0.1, 0.3, 0.6))))
    assert best_classes([a, b], 1) == [0, 2]  # 0.4 and 0.35 on average
    assert best_classes([a, b], 3) == [0, 2, 1]
    reader = Reader(to_html(Answer([Looked("<i>.png", [a, b])], ["a problem"], ["a note"]), top=3))
    text = [piece for piece in reader.text if piece.strip()]
    start = text.index("Class")
    assert text[start : start + 12] == [
        *("Class", "A", "B & C"),
        *("cat", "70.0%", "10.0%"),
        *("cow", "10.0%", "60.0%"),
        *("<b>dog</b>", "20.0%", "30.0%"),
    ]
    assert text[:3] == ["a problem", "a note", "<i>.png"]
    assert [cell["class"] for cell in reader.all("td")] == ["best", "", "", "best", "", ""]
    assert not reader.all("b")
    assert not reader.all("i")
    assert len(reader.all("img")) == 1  # both see the same
    assert reader.all("p") == [{"class": "message problem", "role": "alert"}, {"class": "message note"}]


def test_every_figure_has_size_and_words(picture, choice):
    other = picture.resize((16, 32))
    seen = [Seen("A", said((0.7, 0.2, 0.1)), other), Seen("S", said((0.7, 0.2, 0.1), choice), picture)]
    reader = Reader(to_html(Answer([Looked("a.png", seen)]), top=2))
    images = reader.all("img")
    assert [image["alt"] for image in images] == [
        "a.png, as A sees it",
        "a.png, as S sees it",
        "a.png, tokens activated by S: 2 by 2 patches; activated, best first, level 1: row 2, column 2; row 1, "
        "column 1. level 2: row 1, column 2. Matched class of the memory bank: cow & calf.",
        "a.png, activation map of S: lightest in row 2, column 2, the token of rank 1",
    ]
    assert [(image["width"], image["height"]) for image in images] == [("280", "560"), *[("280", "280")] * 3]
    for image in images:
        kind, data = image["src"].split(",")
        assert kind == "data:image/jpeg;base64"
        drawn = Image.open(io.BytesIO(base64.b64decode(data)))
        assert drawn.width == 560


def test_several_pictures_are_numbered(picture):
    seen = [Seen("A", said((0.7, 0.2, 0.1)), picture)]
    html = to_html(Answer([Looked("a.png", seen), Looked("a.png", [], "It is & damaged.")]), top=2)
    assert "<h2>1. a.png</h2>" in html
    assert '<h2>2. a.png</h2><p class="message problem" role="alert">It is &amp; damaged.</p>' in html
    assert "<h2>a.png</h2>" in to_html(Answer([Looked("a.png", seen)]), top=2)
    assert "&lt;script&gt;" in refusal("<script>")


def test_tokens_keep_their_colour(picture, choice):
    drawn = np.asarray(tokens_picture(picture, choice)).astype(int)
    assert drawn.shape == (560, 560, 3)
    middles = {patch: drawn[280 * (patch // 2) + 60, 280 * (patch % 2) + 60] for patch in range(4)}
    for patch in (0, 1, 3):
        assert middles[patch].tolist() == [200, 40, 40]
    luma = round(0.299 * 200 + 0.587 * 40 + 0.114 * 40)
    assert np.abs(middles[2] - luma / 2).max() <= 1
    top = {patch: drawn[280 * (patch // 2) + 2, 280 * (patch % 2) :][:280].min(axis=1) > 200 for patch in (0, 1)}
    assert top[0][2:-2].mean() > 0.95  # a solid line
    assert 0.4 < top[1][2:-2].mean() < 0.7  # a broken one


def test_the_map_is_light_where_scores_are_high(picture, choice):
    drawn = np.asarray(map_picture(picture, choice)).astype(int).sum(axis=2)
    lightness = [drawn[280 * (p // 2) + 100, 280 * (p % 2) + 100] for p in range(4)]
    assert np.argsort(lightness).tolist() == [2, 1, 0, 3]
    choice.summed_map[1, 0] = np.nan  # the tower dropped it
    grey = np.asarray(map_picture(picture, choice))[380, 100]
    assert grey.tolist() == [round(0.299 * 200 + 0.587 * 40 + 0.114 * 40)] * 3


def test_levels_that_are_empty_are_not_told(choice):
    bare = TokenChoice(**{**vars(choice), "level2": np.array([], int)})
    told = "2 by 2 patches; activated, best first, level 1: row 2, column 2; row 1, column 1."
    assert tokens_in_words(bare) == told
