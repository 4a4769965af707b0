"""Draw the tables of tools/paper_tables.py with matplotlib, each figure as PNG and SVG.

| figure | from | shows |
|---|---|---|
| fewshot | fewshot | accuracy over images a class, a panel a data set; published curves dashed |
| base_new | base2new | base against new accuracy, a panel a data set, on lines of equal HM; published points hollow |
| TABLE_minus_published | base2new, cross, domains | bars of ours minus published |
| TABLE_minus_reference | base2new, cross, domains | bars of a method minus its reference method |
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib
import numpy as np

from tools.paper_tables import Cell, Line, PaperTable, default_reference
from tools.result_stats import harmonic_mean
from tools.run_names import rank_method

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind eyes, too. Their number and that of the markers have no common
# divisor, so that the ninth method has the first one's colour with another marker, and hatched bars.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
MARKERS = "osD^vPX"
GREY = "#767676"
PANEL = (2.9, 2.5)  # inches
STAR: dict[str, Any] = {"marker": "*", "markersize": 8, "linestyle": "none"}  # of zero-shot CLIP beside curves
STYLE: Any = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "spotlighter"}


class Bar(NamedTuple):
    """One bar: its group on the axis, its method, and the value."""

    group: str
    method: str
    value: float


def draw_all(tables: Sequence[PaperTable], folder: Path, versus: str | None = None) -> list[Path]:
    """Write the figures of all tables that have some.

    Args:
        versus: reference of the bars; None: a wrapper's host, else CoOp.

    Returns:
        the files written.
    """
    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        return [path for name, figure in figures_of(tables, versus) for path in _write(figure, folder / name)]


def figures_of(tables: Sequence[PaperTable], versus: str | None = None) -> Iterator[tuple[str, Figure]]:
    """Name and figure of all that can be drawn, in the colours of the current rcParams.

    Args:
        versus: as `draw_all` takes it.
    """
    order = sorted({method for table in tables for method in table.methods}, key=rank_method)
    for table in tables:
        several = [line.shots for line in table.lines]
        for shots in dict.fromkeys(several):
            lines = [line for line in table.lines if line.shots == shots]
            suffix = f"_shots{shots}" if len(set(several)) > 1 else ""
            for name, figure in _figures(table, lines, order, versus):
                if figure is not None:
                    yield f"{name}{suffix}", figure


def _figures(
    table: PaperTable, lines: Sequence[Line], order: Sequence[str], versus: str | None
) -> list[tuple[str, Figure | None]]:
    if table.name == "fewshot":
        return [("fewshot", draw_fewshot(table, lines, order))]
    if table.name not in ("base2new", "cross", "domains"):
        return []
    name = table.name if table.name == "base2new" else f"{table.name}_{lines[0].dataset}"
    what = "Base to new, HM" if table.name == "base2new" else f"Trained on {lines[0].group}, accuracy"
    published, reference = differences(table, lines), differences(table, lines, True, versus)
    figures = [
        (f"{name}_minus_published", draw_bars(published, f"{what}: ours minus published", order)),
        (f"{name}_minus_reference", draw_bars(reference, f"{what}: method minus reference", order)),
    ]
    if table.name == "base2new":
        figures.insert(0, ("base_new", draw_base_new(lines, order)))
    return figures


def draw_fewshot(table: PaperTable, lines: Sequence[Line], order: Sequence[str]) -> Figure | None:
    """Accuracy over images a class, a panel for each data set and average; None if nothing is measured.

    Args:
        order: all methods; a method's place in it gives its colour and marker, here as in the other figures.
    """
    columns = [column for column in table.columns if column.shots and column.shots > 0]
    zero = next((column for column in table.columns if column.shots == 0 and column.key == "zero-shot"), None)
    groups = _groups(lines)
    if not any(cell.value is not None for line in lines for cell in line.cells.values()):
        return None
    figure, panels = _grid(list(groups))
    places = [math.log2(column.shots or 1) for column in columns]
    left = min(places, default=0) - 1
    for axes, (group, members) in zip(panels, groups.items(), strict=True):
        for line in members:
            style = _style(order, line.method)
            for is_published in (False, True):
                points = [_point(line.cells.get(column.key), is_published) for column in columns]
                known = [(x, *point) for x, point in zip(places, points, strict=True) if point is not None]
                if known:
                    x, y, error = zip(*known, strict=True)
                    dashed = {"linestyle": "--", "markerfacecolor": _paper()} if is_published else {}
                    axes.errorbar(x, y, yerr=None if is_published else error, capsize=2, lw=1.2, **style | dashed)
            if zero is not None and (point := _point(line.cells.get(zero.key), False)) is not None:
                axes.plot(left, point[0], **style | STAR)
        axes.set_title(group)
        axes.set_xticks([left, *places] if zero else places, [*(["0"] if zero else []), *(c.key for c in columns)])
        axes.grid(alpha=0.25)
    _outer_labels(panels, "images a class", "accuracy in %")
    figure.suptitle("Few-shot classification on all classes (bars: std over seeds)", fontsize=10)
    _legend(figure, order, lines, "dashed: published")
    return figure


def draw_base_new(lines: Sequence[Line], order: Sequence[str]) -> Figure | None:
    """Base against new accuracy, a panel for each data set and average; None if nothing is measured."""
    lines = [line for line in lines if line.cells["hm"].value is not None]
    if not lines:
        return None
    groups = _groups(lines)
    figure, panels = _grid(list(groups))
    for axes, (group, members) in zip(panels, groups.items(), strict=True):
        for line in members:
            style = _style(order, line.method) | {"linestyle": "none"}
            base, new = line.cells["base"], line.cells["new"]
            ours = (base.value or 0.0, new.value or 0.0)
            axes.errorbar(*ours, xerr=base.spread, yerr=new.spread, capsize=2, lw=1, zorder=3, **style)
            if base.published and new.published:
                printed = (base.published.value, new.published.value)
                axes.plot(*zip(ours, printed, strict=True), color=style["color"], lw=0.7, alpha=0.6)
                axes.plot(*printed, **style | {"markerfacecolor": _paper()})
        _isolines(axes)
        axes.set_title(group)
    _outer_labels(panels, "base accuracy in %", "new accuracy in %")
    figure.suptitle("Base against new classes, on lines of equal harmonic mean (HM)", fontsize=10)
    _legend(figure, order, lines, "hollow: published", linestyle="none")
    return figure


def differences(
    table: PaperTable, lines: Sequence[Line], to_reference: bool = False, versus: str | None = None
) -> list[Bar]:
    """Bars of ours minus published, or of methods minus their reference."""
    bars = []
    methods = list(dict.fromkeys(line.method for line in lines))
    for line in lines:
        reference = versus or default_reference(line.method, methods)
        if to_reference and (reference is None or reference == line.method):
            continue
        for group, key in _groups_of(table, line):
            cell = line.cells.get(key, Cell())
            difference = cell.difference
            if to_reference:
                other = next((o for o in lines if (o.method, o.group) == (reference, line.group)), None)
                there = other.cells.get(key, Cell()).value if other else None
                difference = None if cell.value is None or there is None else cell.value - there
            if difference is not None:
                label = f"{line.method} - {reference}" if to_reference else line.method
                bars.append(Bar(group, label, difference))
    return bars


def draw_bars(bars: Sequence[Bar], title: str, order: Sequence[str]) -> Figure | None:
    """Horizontal bars by group, one colour a method; None without bars."""
    if not bars:
        return None
    from matplotlib import pyplot as plt

    groups, labels = list(dict.fromkeys(bar.group for bar in bars)), list(dict.fromkeys(bar.method for bar in bars))
    values = {(bar.group, bar.method): bar.value for bar in bars}
    height = 0.8 / len(labels)
    inches = 1.1 + len(groups) * (0.14 + 0.13 * len(labels))
    figure, axes = plt.subplots(figsize=(6.4, inches), layout="constrained")
    for i, label in enumerate(labels):
        places = [g + (i - (len(labels) - 1) / 2) * height for g in range(len(groups))]
        widths = [values.get((group, label), math.nan) for group in groups]
        turn, i_colour = divmod(order.index(label.split(" - ")[0]), len(COLOURS))
        style: dict[str, Any] = {
            "color": _colour(i_colour),
            "hatch": "////" if turn else "",
            "edgecolor": _paper(),
            "linewidth": 0,
        }
        drawn = axes.barh(places, widths, height * 0.9, label=label, **style)
        texts = ["" if math.isnan(width) else f"{round(width, 2) + 0.0:+.2f}" for width in widths]  # no -0.00
        axes.bar_label(drawn, texts, padding=2, fontsize=6, color=_ink())
    axes.axvline(0, color=_ink(), lw=0.8)
    axes.set_yticks(range(len(groups)), groups)
    axes.set_ylim(len(groups) - 0.45, -0.55)  # the first group on top
    axes.use_sticky_edges = False
    axes.margins(x=0.12)
    axes.set_xlabel("difference in percentage points")
    axes.set_title(title)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    _legend_below(figure, labels)
    return figure


def _groups_of(table: PaperTable, line: Line) -> list[tuple[str, str]]:
    """Groups of bars that a line contributes to, with the key of their cell."""
    if table.name == "base2new":
        return [(line.group, "hm")]
    return [(column.title, column.key) for column in table.columns]


def _groups(lines: Sequence[Line]) -> dict[str, list[Line]]:
    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(line.group, []).append(line)
    return groups


def _grid(names: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """A figure with one panel a name, at most four in a row."""
    from matplotlib import pyplot as plt

    n_columns = min(4, len(names)) if len(names) != 6 else 3
    n_rows = math.ceil(len(names) / n_columns)
    width, height = PANEL if len(names) > 1 else (5.2, 3.6)
    size = (max(5.2, width * n_columns), height * n_rows + 0.8)
    figure, axes = plt.subplots(n_rows, n_columns, figsize=size, squeeze=False, layout="constrained")
    panels = list(axes.flat)
    for extra in panels[len(names) :]:
        extra.set_visible(False)
    return figure, panels[: len(names)]


def _paper() -> str:
    """The colour of what is hollow."""
    return matplotlib.rcParams["axes.facecolor"]


def _ink() -> str:
    """The colour of text."""
    return matplotlib.rcParams["text.color"]


def _colour(i: int) -> str:
    """The colour of method number i; black is the ink, which dark paper does not swallow."""
    colour = COLOURS[i % len(COLOURS)]
    return _ink() if colour == "#000000" else colour


def _style(order: Sequence[str], method: str) -> dict[str, Any]:
    i = order.index(method)
    return {"color": _colour(i), "marker": MARKERS[i % len(MARKERS)], "markersize": 4.5}


def _point(cell: Cell | None, is_published: bool) -> tuple[float, float] | None:
    """Value and spread to draw, None for a gap."""
    if cell is None or (cell.published if is_published else cell.value) is None:
        return None
    return (cell.published.value, 0.0) if is_published and cell.published else (cell.value or 0.0, cell.spread or 0.0)


def _outer_labels(panels: Sequence[Axes], x: str, y: str) -> None:
    for axes in panels:
        place = axes.get_subplotspec()
        if place is not None and place.is_first_col():
            axes.set_ylabel(y)
        axes.set_xlabel(x)


def _isolines(axes: Axes) -> None:
    """Lines of equal HM behind the points, labelled."""
    (left, right), (low, high) = (_widened(*limits) for limits in (axes.get_xlim(), axes.get_ylim()))
    axes.set(xlim=(left, right), ylim=(low, high))
    base, new = np.meshgrid(np.linspace(left, right, 120), np.linspace(low, high, 120))
    equal = np.vectorize(harmonic_mean)(base, new)
    lines = axes.contour(base, new, equal, levels=5, colors="#b0b0b0", linewidths=0.6, zorder=0)
    steps = np.linspace(0.06, 0.94, 200)  # labels stand on the diagonal, away from the edges
    diagonal = np.stack([left + steps * (right - left), low + steps * (high - low)], axis=1)
    along = np.array([harmonic_mean(x, y) for x, y in diagonal])
    seen = [level for level in lines.levels if along[0] < level < along[-1]]
    places = [tuple(diagonal[np.abs(along - level).argmin()]) for level in seen]
    if places:
        axes.clabel(lines, seen, fmt="HM %g", fontsize=6, colors=GREY, manual=places)


def _widened(low: float, high: float) -> tuple[float, float]:
    """Limits of an axis with a margin, at least three points wide and within 0..100."""
    middle, half = (low + high) / 2, max(1.5, 0.62 * (high - low))
    return max(0.0, middle - half), min(100.0, middle + half)


def _legend(figure: Figure, order: Sequence[str], lines: Sequence[Line], meaning: str, linestyle: str = "-") -> None:
    """One legend below all panels; `meaning` says how published figures look, if there are some."""
    from matplotlib.lines import Line2D

    handles = []
    for name in dict.fromkeys(line.method for line in lines):
        style: dict[str, Any] = {"linestyle": linestyle, "lw": 1.2} | _style(order, name)
        if {key for line in lines if line.method == name for key in line.cells} == {"zero-shot"}:
            style |= STAR
        handles.append(Line2D([], [], label=name, **style))
    if any(cell.published is not None for line in lines for cell in line.cells.values()):
        style = {"color": GREY, "linestyle": "--" if linestyle == "-" else linestyle, "marker": "o", "mfc": _paper()}
        handles.append(Line2D([], [], ms=4.5, label=meaning, **style))
    _legend_below(figure, [str(handle.get_label()) for handle in handles], handles=handles)


def _legend_below(figure: Figure, labels: Sequence[str], **options: Any) -> None:
    """A legend with as many columns as fit; the figure grows by its rows, so that panels keep their size."""
    size = matplotlib.rcParams["font.size"] / 72  # inches
    width = max(map(len, labels)) * 0.6 * size + 4.5 * size  # of a column: letters, and what stands before them
    n_columns = max(1, min(5, len(labels), int(figure.get_figwidth() / width)))
    figure.set_figheight(figure.get_figheight() + (math.ceil(len(labels) / n_columns) - 1) * 1.5 * size)
    figure.legend(loc="outside lower center", ncols=n_columns, frameon=False, **options)


def _write(figure: Figure, stem: Path) -> list[Path]:
    from matplotlib import pyplot as plt

    paths = [stem.with_name(f"{stem.name}.{ending}") for ending in ("png", "svg")]
    figure.savefig(paths[0], dpi=150)
    figure.savefig(paths[1], metadata={"Date": None})
    plt.close(figure)
    return paths
