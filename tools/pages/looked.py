"""What the page shows of single runs that were looked at: classes, features, words, tokens."""

from __future__ import annotations

from collections.abc import Sequence

from tools.figures.run_view import RunView
from tools.figures.words import LIMITS
from tools.pages.html import Html, figures, folded, join, paragraphs, table, tag
from tools.pages.runs import Group

TITLES = {"classes": "By class", "features": "Features before and after tuning", "tokens": "Activated tokens"}


def closer_look(views: Sequence[tuple[Group, RunView]], n_left: int) -> Html:
    """A part a run.

    Args:
        views: runs with the group that they are of.
        n_left: finished runs that nobody looked at.
    """
    parts: list[Html] = []
    if n_left:
        parts.append(tag("p", f"{n_left} more finished runs were not looked at; --look says how many are."))
    if not views:
        parts.append(tag("p", "No run was looked at in detail."))
    for group, view in views:
        seed = next((run.place.seed for run in group.runs if run.folder == view.folder), "?")
        parts += [tag("h3", f"{group.title}, seed {seed}"), paragraphs(view.notes)]
        if view.classes:
            parts += [tag("h4", TITLES["classes"]), class_table(view, f"{group.title}, seed {seed}")]
            parts.append(figures(view.pictures["classes"]))
        for part in ("features", "tokens"):
            if part in view.pictures:
                parts += [tag("h4", TITLES[part]), figures(view.pictures[part])]
        if view.words:
            parts += [tag("h4", "Nearest words of the learned context"), words(view)]
    return join(parts)


def class_table(view: RunView, what: str) -> Html:
    """A row a class, which the reader can sort."""
    titles = ["Class", "Images", "Right", "Accuracy in %", "Most often taken for", "Times"]
    rows = []
    for row in view.classes:
        accuracy = "–" if row.accuracy is None else f"{row.accuracy:.2f}"
        rows.append([row.name, row.n_images, row.n_correct, accuracy, row.taken_for or "–", row.n_taken])
    shown = table(f"Results by class, {what}", titles, rows, 1, sortable=True)
    return folded(f"Table of {len(rows)} classes", shown, is_open=len(rows) <= 20)


def words(view: RunView) -> Html:
    """The nearest words of every context row."""
    k = len(view.words[0].words)
    titles = ["Row", *(f"Nearest {i + 1}" for i in range(k))]
    rows = [
        [near.row, *(f"{word} ({distance:.3f})" for word, distance in zip(near.words, near.distances, strict=True))]
        for near in view.words
    ]
    yardstick = f"A word lies {view.word_distance:.3f} from its nearest other word (median). {LIMITS}"
    return join(table("Nearest words, with their Euclidean distance", titles, rows, k + 1), tag("p", yardstick))
