"""The figures of tools/paper_figures.py for a page."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib

from tools.figures.picture import DARK, LIGHT, SCALE, Picture, Theme, png_of, size_of
from tools.paper_figures import STYLE, figures_of
from tools.paper_tables import PaperTable

TOLD = 12  # lines of a table that an alt text repeats
TITLES = {
    "base_new": "Base against new accuracy, on lines of equal harmonic mean",
    "fewshot": "Accuracy over images a class",
}


def table_pictures(tables: Sequence[PaperTable]) -> list[Picture]:
    """All figures that the tables give."""
    drawn = {theme: _draw(tables, theme) for theme in (LIGHT, DARK)}
    pictures = []
    for name, light in drawn[LIGHT].items():
        width, height = size_of(light)
        title = title_of(name)
        alt = f"{title}. {describe(tables, name)}"
        caption = f"{title}. Figures that others published are hollow or dashed."
        if "_minus_" in name:
            caption = f"{title}."
        size = (round(width / SCALE), round(height / SCALE))
        pictures.append(Picture(name, light, drawn[DARK][name], *size, alt, caption))
    return pictures


def title_of(name: str) -> str:
    """What a figure shows, from its name."""
    for start, title in TITLES.items():
        if name.startswith(start) and "_minus_" not in name:
            return title
    what, _, other = name.partition("_minus_")
    against = "published figures" if other.startswith("published") else "each method's reference"
    return f"{'HM, base to new' if what == 'base2new' else f'Accuracy, {what}'}: difference to {against}"


def describe(tables: Sequence[PaperTable], name: str) -> str:
    """The figures of the table that a figure is drawn from, in words."""
    kind = "base2new" if name.startswith("base") else name.split("_")[0]
    lines = [(table, line) for table in tables if table.name == kind for line in table.lines]
    told = []
    for table, line in lines[:TOLD]:
        known = [(column.title, line.cells[column.key].value) for column in table.columns if column.key in line.cells]
        values = ", ".join(f"{title} {value:.2f}" for title, value in known if value is not None)
        if values:
            told.append(f"{line.group}, {line.method}: {values}")
    more = f"; and {len(lines) - TOLD} more lines, which the table has" if len(lines) > TOLD else ""
    return "; ".join(told) + more + "."


def _draw(tables: Sequence[PaperTable], theme: Theme) -> dict[str, bytes]:
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    drawn = {}
    with matplotlib.rc_context({**STYLE, **theme.style(), "font.size": 9}):
        for name, figure in figures_of(tables):
            drawn[name] = png_of(figure, describe(tables, name))
            plt.close(figure)
    return drawn
