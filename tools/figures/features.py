"""Image and text features before and after tuning, side by side through t-SNE (the paper's Figure 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tools.figures.classes import shortened
from tools.figures.picture import COLOURS, MARKERS, WIDTH, Picture, Theme, paint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEED = 0
PERPLEXITY = 30.0  # scikit-learn's; less for few points
LIMITS = (
    "t-SNE keeps neighbours together; distances between groups, their sizes and the axes mean nothing, and another "
    "seed or perplexity gives another picture. The silhouette is computed from the features themselves."
)


@dataclass(frozen=True)
class Features:
    """Of one model; all rows are unit vectors."""

    images: np.ndarray  # [n, d]
    texts: np.ndarray | None  # [C, d]; None: the model has no text features, or other ones for each image


@dataclass(frozen=True)
class FeatureSet:
    """The same images before and after tuning."""

    before: Features  # of frozen CLIP with the hand-crafted template
    after: Features  # of the run
    labels: np.ndarray  # [n], 0..C-1
    names: tuple[str, ...]  # of the C classes
    what: str  # what the features after tuning are, in words


def embed(features: np.ndarray, seed: int = SEED, perplexity: float | None = None) -> np.ndarray:
    """t-SNE, [n, d] to [n, 2], for a seed the same each time.

    Args:
        perplexity: None: `fitting_perplexity`.

    Raises:
        ValueError: fewer than 4 points.
    """
    from sklearn.manifold import TSNE  # here: it takes a second to import

    if len(features) < 4:
        raise ValueError(f"t-SNE needs at least 4 points, got {len(features)}.")
    perplexity = perplexity or fitting_perplexity(len(features))
    # scaled points: neighbours of unit vectors are the same by distance and by cosine
    return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(features.astype(np.float32))


def fitting_perplexity(n: int) -> float:
    """30, or a third of the points where that is less."""
    return min(PERPLEXITY, max((n - 1) / 3, 1.0))


def silhouette(features: Features, labels: np.ndarray) -> float | None:
    """How well classes are apart in the features themselves, -1..1; None where no class has two images, or all one."""
    from sklearn.metrics import silhouette_score

    n_classes = len(np.unique(labels))
    if not 1 < n_classes < len(labels):
        return None
    return float(silhouette_score(features.images, labels, metric="cosine"))


def feature_pictures(given: FeatureSet, seed: int = SEED) -> list[Picture]:
    """A figure before tuning, and one after it."""
    pictures = []
    n_classes = len(given.names)
    for name, title, features in (
        ("features_before", "Frozen CLIP, before tuning", given.before),
        ("features_after", "After tuning", given.after),
    ):
        n = len(features.images)
        rows = features.images if features.texts is None else np.concatenate([features.images, features.texts])
        perplexity = fitting_perplexity(len(rows))
        points = embed(rows, seed, perplexity)
        apart = silhouette(features, given.labels)
        score = "" if apart is None else f" Silhouette of the classes (cosine, -1 to 1): {apart:.3f}."
        texts = (
            ", stars: text features of the classes" if features.texts is not None else "; no text features are shown"
        )
        alt = f"t-SNE of {n} image features of {n_classes} classes{texts}. {title}.{score}"
        what = f" {given.what}" if name == "features_after" else ""
        caption = (
            f"{title}: t-SNE of image features (dots){texts}. Perplexity {perplexity:g}, seed {seed}.{score}{what}"
        )

        def draw(theme: Theme, points: np.ndarray = points, n: int = n, title: str = title) -> Figure:
            return draw_features(points[:n], points[n:], given.labels, given.names, title, theme)

        pictures.append(paint(name, alt, caption, draw))
    return pictures


def draw_features(
    images: np.ndarray, texts: np.ndarray, labels: np.ndarray, names: Sequence[str], title: str, theme: Theme
) -> Figure:
    """Points by class.

    Args:
        images: [n, 2].
        texts: [C, 2], or [0, 2] without text features.
        labels: [n], 0..C-1.
        names: of the C classes.
    """
    from matplotlib.figure import Figure

    figure = Figure((WIDTH, 4.9), layout="constrained")
    axes = figure.subplots()
    for label, name in enumerate(names):
        style = {"color": COLOURS[label % len(COLOURS)], "marker": MARKERS[label % len(MARKERS)]}
        mine = images[labels == label]
        axes.scatter(mine[:, 0], mine[:, 1], s=16, linewidths=0, alpha=0.85, label=shortened(name), **style)
    for label, (x, y) in enumerate(texts):
        colour = COLOURS[label % len(COLOURS)]
        axes.scatter(x, y, s=150, marker="*", color=colour, edgecolors=theme.ink, linewidths=1.0, zorder=3)
    axes.set(xticks=[], yticks=[], title=title)
    axes.spines[:].set_visible(True)
    axes.spines[:].set_edgecolor(theme.muted)
    figure.legend(loc="outside lower center", ncols=3, fontsize=7.5, handletextpad=0.1, columnspacing=0.8)
    return figure
