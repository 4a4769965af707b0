"""tools/figures: numbers against independent ones, drawings read back from matplotlib's objects and from PNG files."""

import io
import math

import matplotlib.colors
import matplotlib.figure
import matplotlib.patches
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix

from tools.figures import classes, curves, features, tokens, words
from tools.figures.picture import COLOURS, DARK, LIGHT, draw_png, paint, size_of


def contrast(first, second):
    """Contrast of two colours as WCAG 2 defines it, 1..21."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted([luminance(first), luminance(second)])
    return (high + 0.05) / (low + 0.05)


# --- pictures


def test_a_picture_holds_both_themes_and_its_words():
    def draw(theme):
        figure = matplotlib.figure.Figure((2, 1))
        figure.text(0.5, 0.5, "x", color=theme.ink)
        return figure

    picture = paint("name", "A letter: ±, “x”", "caption", draw)
    for png, paper in ((picture.light, 255), (picture.dark, 0x17)):
        image = Image.open(io.BytesIO(png))
        assert image.info["Description"] == "A letter: ±, “x”"
        assert "Software" not in image.info
        assert image.convert("RGB").getpixel((0, 0))[0] == paper
        assert image.size == size_of(png) == (288, 144)
    assert (picture.width, picture.height) == (192, 96)
    assert draw_png(draw, LIGHT, "A letter: ±, “x”") == picture.light


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_colours_stand_out(theme):
    assert contrast(theme.ink, theme.paper) > 7
    assert contrast(theme.muted, theme.paper) > 4.5
    assert [colour for colour in COLOURS if contrast(colour, theme.paper) < 3] == []


# --- curves

EPOCHS = [
    {"epoch": 1, "lr": 0.1, "train": {"loss": 2.0, "acc": 50.0, "ce": 1.0, "kl": 0.0}, "val": {"accuracy": 40.0}},
    {"epoch": 2, "lr": 0.05, "train": {"loss": 1.0, "acc": 70.0, "ce": 0.5, "kl": 0.1}, "val": None},
    {"epoch": 3, "lr": None, "train": {"loss": None, "acc": 80.0}, "val": None},
    "damaged",
]


def test_curves_of_a_record():
    found = curves.curves_of({"epochs": EPOCHS})
    assert found["loss"] == {"training": [(1, 2.0), (2, 1.0)]}
    assert found["accuracy"] == {"training": [(1, 50.0), (2, 70.0), (3, 80.0)], "validation": [(1, 40.0)]}
    assert found["terms"] == {"ce": [(1, 1.0), (2, 0.5)], "kl": [(1, 0.0), (2, 0.1)]}
    assert found["lr"] == {"learning rate": [(1, 0.1), (2, 0.05)]}
    assert curves.curves_of({}) == {"loss": {}, "terms": {}, "accuracy": {}, "lr": {}}


def test_the_mean_is_over_common_epochs():
    runs = {"seed 1": {"a": [(1, 1.0), (2, 2.0)]}, "seed 2": {"a": [(2, 4.0), (3, 9.0)]}, "seed 3": {"b": [(1, 5.0)]}}
    assert curves.means(runs) == {"a": [(2, 3.0)], "b": [(1, 5.0)]}


def test_curves_are_drawn_with_gaps_for_zeros_of_a_logarithm():
    figure = curves.draw_curves({"seed 1": curves.curves_of({"epochs": EPOCHS})["terms"]}, "terms", log=True)
    lines = {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].get_lines()}
    assert lines["ce"] == [1.0, 0.5]
    assert math.isnan(lines["kl"][0])
    assert lines["kl"][1] == 0.1
    assert figure.axes[0].get_yscale() == "log"


def test_each_kind_has_a_figure_with_words():
    pictures = curves.curve_pictures({"seed 1": {"epochs": EPOCHS}, "seed 2": {"epochs": EPOCHS}}, "CoOp on toy")
    assert [picture.name for picture in pictures] == ["curves_loss", "curves_terms", "curves_accuracy", "curves_lr"]
    assert pictures[0].alt == "Total loss of CoOp on toy by epoch. training: 2 in epoch 1, 1 in epoch 2."
    assert pictures[0].caption == "Total loss over epochs. seed 1, seed 2: thin lines; their mean: thick."
    assert pictures[3].caption == "Learning rate over epochs."
    assert curves.curve_pictures({"seed 1": {"epochs": []}}, "x") == []


# --- classes


def test_confusion_is_that_of_scikit_learn():
    generator = np.random.default_rng(0)
    true, predicted = generator.integers(0, 7, (2, 200))
    expected = confusion_matrix(true, predicted, labels=range(8))
    np.testing.assert_array_equal(classes.confusion(true, predicted, 8), expected)
    assert classes.confusion(np.array([]), np.array([]), 2).tolist() == [[0, 0], [0, 0]]


def test_confusion_refuses_what_cannot_be():
    with pytest.raises(ValueError, match=r"two lists of one length, got \(2,\) and \(3,\)\."):
        classes.confusion(np.zeros(2), np.zeros(3), 4)
    with pytest.raises(ValueError, match=r"labels must be in 0\.\.3, got 0\.\.4\."):
        classes.confusion(np.array([0, 1]), np.array([4, 1]), 4)


COUNTS = np.array([[5, 0, 1, 0], [2, 2, 0, 0], [0, 0, 0, 0], [1, 0, 3, 4]])


def test_rows_by_class():
    rows = classes.class_rows(COUNTS, ["a", "b", "c", "d"])
    assert [(r.n_images, r.n_correct, r.taken_for, r.n_taken) for r in rows] == [
        (6, 5, "c", 1),
        (4, 2, "a", 2),
        (0, 0, "", 0),
        (8, 4, "c", 3),
    ]
    assert [r.accuracy for r in rows] == [pytest.approx(500 / 6), 50.0, None, 50.0]
    # wrong images given or taken: a 1+3, b 2, c 4, d 4
    assert classes.most_confused(COUNTS, 3).tolist() == [0, 2, 3]


def test_the_confusion_matrix_shows_shares_of_whole_rows():
    figure = classes.draw_confusion(COUNTS, ["a$b$", "b", "c", "d"], np.array([0, 2, 3]), LIGHT)
    image = figure.axes[0].get_images()[0]
    np.testing.assert_allclose(image.get_array(), [[500 / 6, 100 / 6, 0], [0, 0, 0], [12.5, 37.5, 50]])
    assert figure.axes[0].get_xticklabels()[0].get_text() == r"a\$b\$"
    accuracies, confused = classes.class_pictures(COUNTS, ["a", "b", "c", "d"], "the run")
    assert "3 classes, 50 to 83 %, median 50 %; lowest: b 50 %, d 50 %, a 83 %; 0 at 100 %" in accuracies.alt
    assert "d for c, 3 of 8; b for a, 2 of 4; a for c, 1 of 6" in confused.alt
    assert classes.shortened("a rather long name of a class") == "a rather long nam…"


# --- features


def clusters(n):
    """n points around each of two far unit vectors."""
    generator = np.random.default_rng(1)
    centres = np.eye(8)[[0, 5]]
    points = np.repeat(centres, n, axis=0) + 0.05 * generator.standard_normal((2 * n, 8))
    return points / np.linalg.norm(points, axis=1, keepdims=True), np.repeat([0, 1], n)


def test_t_sne_repeats_and_keeps_neighbours():
    points, labels = clusters(10)
    flat = features.embed(points)
    assert flat.shape == (20, 2)
    np.testing.assert_array_equal(flat, features.embed(points))
    distance = np.linalg.norm(flat[:, None] - flat[None], axis=2) + np.diag(np.full(20, np.inf))
    assert (labels[distance.argmin(axis=1)] == labels).all()
    with pytest.raises(ValueError, match=r"t-SNE needs at least 4 points, got 3\."):
        features.embed(points[:3])


@pytest.mark.parametrize(("n", "perplexity"), [(4, 1.0), (20, 19 / 3), (91, 30.0), (1000, 30.0)])
def test_perplexity_fits_the_points(n, perplexity):
    assert features.fitting_perplexity(n) == pytest.approx(perplexity)


def test_features_before_and_after():
    points, labels = clusters(10)
    given = features.FeatureSet(
        features.Features(points, points[[0, 10]]), features.Features(points, None), labels, ("a", "b"), "More."
    )
    before, after = features.feature_pictures(given)
    assert before.caption.startswith(
        "Frozen CLIP, before tuning: t-SNE of image features (dots), stars: text features of the classes. "
        "Perplexity 7, seed 0. Silhouette of the classes (cosine, -1 to 1): 0.9"
    )
    assert after.caption.endswith("More.")
    assert "no text features are shown. Perplexity 6.33333" in after.caption
    assert before.alt.startswith("t-SNE of 20 image features of 2 classes, stars")
    assert features.silhouette(given.after, np.zeros(20)) is None


def test_points_have_the_colour_of_their_class():
    figure = features.draw_features(np.zeros((4, 2)), np.ones((2, 2)), np.array([0, 1, 1, 1]), ["a", "b"], "t", LIGHT)
    sizes = [len(drawn.get_offsets()) for drawn in figure.axes[0].collections]
    assert sizes == [1, 3, 1, 1]
    colours = [matplotlib.colors.to_hex(drawn.get_facecolor()[0]).upper() for drawn in figure.axes[0].collections]
    assert colours == [COLOURS[0], COLOURS[1], COLOURS[0], COLOURS[1]]


# --- words


def test_nearest_words_against_distances_by_hand():
    generator = np.random.default_rng(2)
    rows, vocabulary = generator.standard_normal((3, 6)), generator.standard_normal((40, 6))
    index, distance = words.nearest(rows, vocabulary, 4)
    for i in range(3):
        by_hand = [math.dist(rows[i], word) for word in vocabulary]
        order = sorted(range(40), key=by_hand.__getitem__)[:4]
        assert index[i].tolist() == order
        np.testing.assert_allclose(distance[i], [by_hand[j] for j in order])


def test_words_are_readable_and_no_special_tokens():
    vocabulary = np.array([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0]])
    listed = ["<start_of_text>", "pho", "photo</w>"]
    (near,) = words.neighbours({"": np.array([[0.1, 0.0]])}, vocabulary, listed, 2)
    assert (near.row, near.words) == ("1", ("pho-", "photo"))
    assert near.distances == pytest.approx((0.9, 2.9))
    (named,) = words.neighbours({"red star": np.array([[0.1, 0.0]])}, vocabulary, listed, 1)
    assert named.row == "red star, 1"
    assert words.yardstick(vocabulary) == pytest.approx(1.0)  # of 1, 1 and 2


def test_nearest_words_refuse_what_cannot_be():
    with pytest.raises(
        ValueError, match=r"rows and vocabulary must be \[M, w\] and \[V, w\], got \(1, 2\) and \(3, 4\)"
    ):
        words.nearest(np.zeros((1, 2)), np.zeros((3, 4)), 1)
    with pytest.raises(ValueError, match=r"k must be in 1\.\.3, the number of words, got 4\."):
        words.nearest(np.zeros((1, 2)), np.zeros((3, 2)), 4)


# --- tokens

PIXELS = np.arange(12 * 12 * 3, dtype=np.uint8).reshape(12, 12, 3)


@pytest.fixture
def view():
    total = np.arange(16.0).reshape(4, 4)
    total[0, 0] = np.nan
    near = tokens.Neighbour(PIXELS[:9, :9], "red $tar", 0.5)
    matched = tokens.Prototype(2, (1, 3), (PIXELS[:9, :9], PIXELS[:9, :9]), (near, near))
    maps = {"sample": total - 1, "semantic": total * 2, "summed": total}
    levels = {"level1": np.array([15, 7]), "level2": np.array([4])}
    return tokens.TokenView(PIXELS, 4, maps, levels, "x.png: a $b$", "red $tar", (matched,))


def test_a_crop_is_centred_on_its_patch():
    part = tokens.crop(PIXELS, 5, 4)  # row 1, column 1; patches of three pixels
    np.testing.assert_array_equal(part, PIXELS[0:9, 0:9])
    corner = tokens.crop(PIXELS, 15, 4)
    assert corner.shape == (9, 9, 3)
    np.testing.assert_array_equal(corner[:6, :6], PIXELS[6:, 6:])
    assert (corner[6:] == 127).all()
    odd = tokens.crop(np.zeros((10, 10, 3), np.uint8), 2, 3)  # patches that are no whole number of pixels
    assert odd.shape == (12, 12, 3)


def test_ranks_and_words(view):
    assert view.ranks() == [(1, "level1", 15), (2, "level1", 7), (3, "level2", 4)]
    assert view.describe() == (
        "x.png: a $b$. The picture in 4 by 4 patches with activation maps (sample-wise, semantic-wise, sum). Activated "
        "tokens, best first, level 1: row 4, column 4; row 2, column 4; level 2: row 2, column 1. Matched class of the "
        "memory bank: red $tar."
    )


def test_maps_are_drawn_where_they_are(view):
    figure = tokens.draw_maps(view, LIGHT)
    shown = figure.axes[3].get_images()
    np.testing.assert_array_equal(shown[1].get_array().mask[0], [True, False, False, False])  # dropped: grey picture
    assert shown[1].get_array()[3, 3] == 15
    assert shown[1].get_cmap().name == "cividis"
    frames = [patch for patch in figure.axes[0].patches if isinstance(patch, matplotlib.patches.Rectangle)]
    assert [(frame.get_x(), frame.get_y()) for frame in frames] == [(3, 3), (3, 1), (0, 1)]
    assert [frame.get_linestyle() == "solid" or frame.get_linestyle() == "-" for frame in frames] == [True, True, False]
    assert [text.get_text() for text in figure.axes[0].texts] == ["1", "2", "3"]


def test_every_arrangement_can_be_drawn(view):
    alone = tokens.TokenView(PIXELS, 4, {"sample": np.zeros((4, 4))}, {"level1": [1]}, "y.png")
    for views in ([view], [view, alone], [alone]):
        assert draw_png(lambda theme, views=views: tokens.draw_grid(views, theme), DARK, "alt")[:4] == b"\x89PNG"
    assert draw_png(lambda theme: tokens.draw_maps(alone, theme), LIGHT, "alt")
    figure = tokens.draw_prototypes(view, LIGHT)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["token 1", "token 3", "red \\$tar\n0.50", "red \\$tar\n0.50"]
