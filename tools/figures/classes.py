"""Accuracy by class, and which classes are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tools.figures.picture import COLOURS, WIDTH, Picture, Theme, paint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 20  # classes that a confusion matrix can name


@dataclass(frozen=True)
class ClassRow:
    """One class of a test."""

    label: int
    name: str
    n_images: int
    n_correct: int
    taken_for: str  # the class that most of its wrong images were taken for; "" if none was wrong
    n_taken: int

    @property
    def accuracy(self) -> float | None:
        """Percent; None without images."""
        return 100 * self.n_correct / self.n_images if self.n_images else None


def confusion(true: np.ndarray, predicted: np.ndarray, n_cls: int) -> np.ndarray:
    """Numbers of images by true and predicted class, int64 [C, C].

    Args:
        true: labels [n].
        predicted: labels [n].
        n_cls: C.

    Raises:
        ValueError: lists of different length, or a label that is not in 0..C-1.
    """
    true, predicted = np.asarray(true, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    if true.shape != predicted.shape or true.ndim != 1:
        raise ValueError(
            f"true and predicted labels must be two lists of one length, got {true.shape} and {predicted.shape}."
        )
    labels = np.concatenate([true, predicted])
    if len(labels) and (labels.min() < 0 or labels.max() >= n_cls):
        raise ValueError(f"labels must be in 0..{n_cls - 1}, got {labels.min()}..{labels.max()}.")
    return np.bincount(true * n_cls + predicted, minlength=n_cls**2).reshape(n_cls, n_cls)


def class_rows(counts: np.ndarray, names: Sequence[str]) -> list[ClassRow]:
    """A row a class.

    Args:
        counts: as `confusion` gives them, [C, C].
        names: of the C classes.
    """
    wrong = counts - np.diag(np.diag(counts))
    rows = []
    for label, name in enumerate(names):
        other = int(wrong[label].argmax())
        n_taken = int(wrong[label, other])
        taken_for = names[other] if n_taken else ""
        rows.append(ClassRow(label, name, int(counts[label].sum()), int(counts[label, label]), taken_for, n_taken))
    return rows


def most_confused(counts: np.ndarray, limit: int) -> np.ndarray:
    """At most `limit` classes with the most wrong images, given to them or taken from them, in the order of labels."""
    wrong = counts - np.diag(np.diag(counts))
    involved = wrong.sum(0) + wrong.sum(1)
    return np.sort(np.argsort(-involved, kind="stable")[:limit])


def class_pictures(counts: np.ndarray, names: Sequence[str], what: str) -> list[Picture]:
    """Sorted accuracies, and the confusion matrix."""
    rows = [row for row in class_rows(counts, names) if row.n_images]
    accuracies = sorted(row.accuracy or 0.0 for row in rows)
    ranked = sorted(rows, key=lambda row: (row.accuracy or 0.0, row.label))
    worst = ", ".join(f"{row.name} {row.accuracy:.0f} %" for row in ranked[:3])
    best = sum(value == 100 for value in accuracies)
    about = f"{accuracies[0]:.0f} to {accuracies[-1]:.0f} %, median {np.median(accuracies):.0f} %"
    alt = f"Accuracy of {what} by class, sorted: {len(rows)} classes, {about}; lowest: {worst}; {best} at 100 %."
    caption = "Accuracy by class, from the lowest to the highest; the dashed line is the mean of the classes."
    pictures = [paint("accuracy_by_class", alt, caption, lambda theme: draw_accuracies(accuracies, theme))]
    shown = most_confused(counts, SHOWN)
    pairs = sorted(rows, key=lambda row: -row.n_taken)[:3]
    told = "; ".join(f"{row.name} for {row.taken_for}, {row.n_taken} of {row.n_images}" for row in pairs if row.n_taken)
    some = f" of the {len(shown)} classes most involved in mistakes" if len(shown) < len(names) else ""
    alt = f"Confusion matrix of {what}{some}. Most frequent mistakes: {told or 'none'}."
    caption = f"Share of the images of a class (row) that were taken for a class (column){some}; 100 % is a whole row."
    if some:
        caption += " What was taken for a class that is not shown is missing from its row."
    pictures.append(paint("confusion", alt, caption, lambda theme: draw_confusion(counts, names, shown, theme)))
    return pictures


def draw_accuracies(accuracies: Sequence[float], theme: Theme) -> Figure:
    """Bars of sorted accuracies in percent."""
    from matplotlib.figure import Figure

    figure = Figure((WIDTH, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.bar(range(1, len(accuracies) + 1), accuracies, width=0.8, color=COLOURS[0])
    axes.axhline(float(np.mean(accuracies)), color=theme.ink, lw=1, ls="--")
    axes.set(xlabel="class, sorted", ylabel="accuracy in %", ylim=(0, 102), xlim=(0.2, len(accuracies) + 0.8))
    axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


def draw_confusion(counts: np.ndarray, names: Sequence[str], shown: np.ndarray, theme: Theme) -> Figure:
    """The rows and columns `shown` of a confusion matrix, each row as shares of all its images.

    Args:
        counts: [C, C].
        shown: labels, ascending.
    """
    from matplotlib.figure import Figure

    shares = 100 * counts / counts.sum(1, keepdims=True).clip(min=1)
    part = shares[np.ix_(shown, shown)]
    side = min(max(0.14 * len(shown), 1.2), 2.7)
    figure = Figure((WIDTH, side + 1.5), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(part, cmap="cividis", vmin=0, vmax=100)
    labels = [shortened(names[label]) for label in shown]
    axes.set_xticks(range(len(shown)), labels, rotation=90, fontsize=7)
    axes.set_yticks(range(len(shown)), labels, fontsize=7)
    axes.set(xlabel="taken for", ylabel="is")
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
    bar.set_label("% of the row's images", fontsize=8)
    bar.outline.set_edgecolor(theme.muted)
    return figure


def shortened(name: str, limit: int = 18) -> str:
    """A class name that fits beside a figure; matplotlib's formulas are not read from it."""
    text = name if len(name) <= limit else f"{name[: limit - 1]}…"
    return text.replace("$", r"\$")
