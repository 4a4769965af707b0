"""Show the tables of tools/paper_tables.py: for a terminal, as markdown, CSV, LaTeX (booktabs) and JSON.

Below a line of ours stand the published figures, named so, and the signed difference, ours minus published. Below a
table stand what its figures mean, paired tests, sources and notes of what is published, and commands for what is
missing. CSV has one line a cell. CSV and JSON keep full precision.
"""

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from tools.paper_tables import Cell, Column, Comparison, Line, PaperTable
from tools.result_gaps import Gap
from tools.result_render import HM_NOTE, foot_line, latex, spread_note, to_csv, to_json, to_text

GAP = "–"
WIDTH = 118  # of running text in a terminal
PAGE = 45  # rows that a page holds
MISSING = "Missing, and what makes it (from the root of the repository)"
PUBLISHED, DIFFERENCE = "published", "ours - published"
ENDINGS = {"table": "txt", "markdown": "md", "csv": "csv", "latex": "tex", "json": "json"}
TEST_NOTE = (
    "Pairs are the data sets and seeds that both methods have. p: two-sided; – where there are fewer than two pairs "
    "or nothing varies. With n pairs Wilcoxon's p cannot be below 2/2^n. Seeds of one data set are not independent of "
    "each other, so p is a guide, not a proof."
)


def render(tables: Sequence[PaperTable], fmt: str) -> str:
    """All tables in one format.

    Raises:
        ValueError: unknown format.
    """
    if fmt == "json":
        notes = {"hm": HM_NOTE, "spread": spread_note(), "difference": "ours minus published", "tests": TEST_NOTE}
        return to_json(notes | {"tables": [_json(table) for table in tables]})
    if fmt == "csv":
        return to_csv([record for table in tables for record in records(table)])
    return "\n\n".join(_latex(table) if fmt == "latex" else _text(table, fmt) for table in tables)


def records(table: PaperTable) -> list[dict[str, Any]]:
    """One record a cell, at full precision; a cell that lacks seeds names the commands that make them."""
    return [_record(table, line, column) for line, column in _cells(table)]


def comparison_records(table: PaperTable) -> list[dict[str, Any]]:
    """One record a paired test."""
    return [
        {
            "table": table.name,
            "method": comparison.method,
            "versus": comparison.versus,
            "what": comparison.what,
            "pairs": comparison.test.n,
            "difference": comparison.test.difference,
            "t_test_p": comparison.test.t_test,
            "wilcoxon_p": comparison.test.wilcoxon,
        }
        for comparison in table.comparisons
    ]


def commands(gaps: Iterable[Gap]) -> list[str]:
    """Every command once, with what it is for behind a #."""
    lines: dict[str, str] = {}
    for gap in gaps:
        for command in gap.commands:
            lines.setdefault(command, f"{command}  # {gap}")
    return list(lines.values())


def _text(table: PaperTable, fmt: str) -> str:
    titles, rows, starts = _rows(table)
    lines = to_text(titles, rows, fmt, _n_left(table)).splitlines()
    is_markdown = fmt == "markdown"
    if not is_markdown:
        lines = _divide(lines, 2, starts, "")

    def fill(text: str) -> str:
        return text if is_markdown else textwrap.fill(text, WIDTH)

    def section(title: str, *parts: str) -> str:
        return ("\n\n" if is_markdown else "\n").join([f"### {title}" if is_markdown else title, *parts])

    heading = f"## {table.title}" if is_markdown else table.title
    sections = [heading, "\n".join([*lines, *([""] if is_markdown else []), fill(" ".join(_notes(table)))])]
    if table.comparisons:
        head = ["Method", "Versus", "What", "Pairs", "Difference", "t-test p", "Wilcoxon p"]
        tests = to_text(head, [_test(comparison) for comparison in table.comparisons], fmt, 3)
        sections.append(section("Paired tests", tests, fill(TEST_NOTE)))
    if sources := _sources(table):
        sections.append(section("Published figures", "\n".join(fill(f"- {source}") for source in sources)))
    if table.gaps:
        missing = "\n".join(commands(table.gaps))
        sections.append(section(MISSING, f"```bash\n{missing}\n```" if is_markdown else missing))
    return "\n\n".join(sections)


def _latex(table: PaperTable) -> str:
    titles, rows, starts = _rows(table)
    lines = to_text(titles, rows, "latex", _n_left(table)).splitlines()
    lines = _divide(lines, lines.index(r"\midrule") + 1, starts, r"\midrule")
    caption = rf"\caption{{{latex(' '.join([f'{table.title}.', *_notes(table)]))}}}"
    comments = [f"Published: {source}" for source in _sources(table)]
    comments += [
        f"{c.method} against {c.versus}, {c.what}: {', '.join(_test(c)[3:])} (pairs, difference, p of t-test, Wilcoxon)"
        for c in table.comparisons
    ]
    comments += [f"Missing: {command}" for command in commands(table.gaps)]
    if len(rows) > PAGE:  # would not fit on a page
        packages = r"\usepackage{booktabs,longtable}"
        lines = [line.replace("{tabular}", "{longtable}") for line in lines]
        lines.insert(1, caption + r" \\")
        lines.insert(lines.index(r"\midrule") + 1, r"\endhead")
        lines = [r"{\small", *lines, "}"]
    else:
        packages = r"\usepackage{booktabs}"
        lines = [r"\begin{table}", r"\centering\small", caption, *lines, r"\end{table}"]
    return "\n".join([f"% needs {packages}", *lines, *(f"% {comment}" for comment in comments)])


def _json(table: PaperTable) -> dict[str, Any]:
    cells = [
        _record(table, line, column) | {"per_seed": line.cells[column.key].per_seed} for line, column in _cells(table)
    ]
    gaps = [
        {
            "method": gap.method,
            "dataset": gap.dataset,
            "shots": gap.shots,
            "seed": gap.seed,
            "reason": gap.reason,
            "commands": list(gap.commands),
        }
        for gap in table.gaps
    ]
    return {
        "table": table.name,
        "title": table.title,
        "notes": list(table.notes),
        "cells": cells,
        "tests": comparison_records(table),
        "gaps": gaps,
    }


def _rows(table: PaperTable) -> tuple[list[str], list[list[str]], list[int]]:
    """Titles, rows of text, and the rows at which another data set or average begins."""
    several = len({line.shots for line in table.lines}) > 1
    titles = [table.group_title, "Method", *(["Shots"] if several else []), "Seeds"]
    titles += [column.title for column in table.columns]
    rows: list[list[str]] = []
    starts: list[int] = []
    last: tuple = ()
    for line in table.lines:
        if (line.group, line.shots) != last:
            last = (line.group, line.shots)
            starts.append(len(rows))
        shots = [GAP if line.shots is None else str(line.shots)] if several else []
        seeds = " ".join(map(str, line.seeds)) or GAP
        rows.append([line.group, line.method, *shots, seeds, *(_show(line, column) for column in table.columns)])
        blank = [""] * len(shots)
        for label, show in ((PUBLISHED, _show_published), (DIFFERENCE, _show_difference)):
            cells = [show(column, line.cells.get(column.key, Cell())) for column in table.columns]
            if any(cells):
                rows.append(["", label, *blank, "", *cells])
    return titles, rows, starts


def _divide(lines: list[str], first: int, starts: Sequence[int], divider: str) -> list[str]:
    """Put a divider above every group of rows but the first one; `first` is the line of the first row."""
    lines = list(lines)
    for start in reversed(starts[1:]):
        lines.insert(first + start, divider)
    return lines


def _n_left(table: PaperTable) -> int:
    return 4 if len({line.shots for line in table.lines}) > 1 else 3


def _show(line: Line, column: Column) -> str:
    if column.key not in line.cells:
        return ""
    cell = line.cells[column.key]
    if cell.value is None:
        return GAP
    text = _number(column, cell.value)
    if column.metric == "hm" or column.unit in ("count", "points") or column.key.endswith("_added"):
        return text
    spread = GAP if cell.spread is None else _number(column, cell.spread)
    few = f" (n={len(cell.per_seed)})" if 0 < len(cell.per_seed) < len(line.seeds) else ""
    return f"{text} ± {spread}{few}"


def _show_published(column: Column, cell: Cell) -> str:
    return "" if cell.published is None else _number(column, cell.published.value)


def _show_difference(column: Column, cell: Cell) -> str:
    return "" if cell.difference is None else _number(column, cell.difference, signed=True)


def _number(column: Column, value: float, signed: bool = False) -> str:
    sign = "+" if signed or column.key.endswith("_added") else ""
    digits = {"count": 0, "images/s": 1}.get(column.unit, 2)
    value = round(value, digits) + 0.0  # no -0.00
    return f"{value:{sign},.{digits}f}"


def _test(comparison: Comparison) -> list[str]:
    test = comparison.test
    difference = GAP if test.difference is None else f"{test.difference:+.2f}"
    return [
        *(comparison.method, comparison.versus, comparison.what, str(test.n), difference),
        *(_p(test.t_test), _p(test.wilcoxon)),
    ]


def _p(value: float | None) -> str:
    return GAP if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def _notes(table: PaperTable) -> list[str]:
    if table.name == "base2new":
        notes = [foot_line(False).replace("\n", " ")]
    else:
        notes = [f"{HM_NOTE}."] if any(column.metric == "hm" for column in table.columns) else []
        notes.append(spread_note())
    if any(line.is_average for line in table.lines) or any(column.key == "average" for column in table.columns):
        notes.append("An average has no spread where the data sets have different seeds.")
    return [*notes, *table.notes]


def _sources(table: PaperTable) -> list[str]:
    """Where the published figures that are shown come from, and what is known against them."""
    methods: dict[str, list[str]] = {}  # source -> methods
    places: dict[tuple[str, str], list[str]] = {}  # (method, note) -> figures
    for line, column in _cells(table):
        figure = line.cells[column.key].published
        if figure is None:
            continue
        methods.setdefault(figure.source, []).append(line.method)
        if figure.note:
            where = column.title if column.dataset else f"{line.group} {column.title}"
            places.setdefault((line.method, figure.note), []).append(where)
    sources = [f"{', '.join(dict.fromkeys(names))}: {source}" for source, names in methods.items()]
    return sources + [f"{method}, {_listed(where)}: {note}" for (method, note), where in places.items()]


def _cells(table: PaperTable) -> list[tuple[Line, Column]]:
    return [(line, column) for line in table.lines for column in table.columns if column.key in line.cells]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} figures"


def _record(table: PaperTable, line: Line, column: Column) -> dict[str, Any]:
    cell = line.cells[column.key]
    figure = cell.published
    dataset = column.dataset or line.dataset
    shots = line.shots if column.shots is None else column.shots
    gaps = [gap for gap in table.gaps if (gap.method, gap.dataset) == (line.method, dataset)]
    return {
        "table": table.name,
        "dataset": dataset,
        "trained_on": line.dataset if column.dataset else None,
        "method": line.method,
        "config": line.config or None,
        "shots": shots,
        "metric": column.metric,
        "unit": column.unit,
        "seeds": list(cell.per_seed),
        "value": cell.value,
        "std": cell.spread,
        "published": figure.value if figure else None,
        "published_source": figure.source if figure else None,
        "published_note": figure.note or None if figure else None,
        "difference": cell.difference,
        "commands": "; ".join(c for gap in gaps if gap.shots in (None, shots) for c in gap.commands) or None,
    }
