"""Show the tables of tools/paper_tables.py: for a terminal, as markdown, CSV, LaTeX (booktabs) and JSON.

Below a table stand what its figures mean, paired tests, sources and notes of what is published, and commands for what
is missing. CSV has one line a cell. CSV and JSON keep full precision.
"""

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from tools.paper_layout import GAP, WIDTH, Layout, as_printed, for_terminal
from tools.paper_tables import Column, Comparison, Line, PaperTable
from tools.result_gaps import Gap
from tools.result_render import HM_NOTE, foot_line, latex, spread_note, to_csv, to_json, to_text
from tools.run_names import shots_title

FEW = 6  # missing runs that a terminal shows
PAGE = 45  # rows that a page holds
MISSING = "Missing, and what makes it (from the root of the repository)"
TEST_TITLES = ("Method", "Versus", "What", "Pairs", "Difference ± SE", "t-test p", "Wilcoxon p")
ENDINGS = {"table": "txt", "markdown": "md", "csv": "csv", "latex": "tex", "json": "json"}
TEST_NOTE = (
    "Pairs are the data sets and seeds that both methods have. SE: standard error of the mean difference. p: "
    "two-sided; – where there are fewer than two pairs or nothing varies. With n pairs Wilcoxon's p cannot be below "
    "2/2^n. Seeds of one data set are not independent of each other, so p is a guide, not a proof."
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
    if fmt == "latex":
        return "\n\n".join(map(_latex, tables))
    tested = next((i for i, table in enumerate(tables) if _told(table)), None)  # the note once is enough
    return "\n\n".join(_text(table, fmt, explains_tests=i == tested) for i, table in enumerate(tables))


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
            "standard_error": comparison.test.error,
            "t_test_p": comparison.test.t_test,
            "wilcoxon_p": comparison.test.wilcoxon,
        }
        for comparison in table.comparisons
    ]


def commands(gaps: Iterable[Gap]) -> list[str]:
    """Lines for bash: every command once, below a comment that says what it is for."""
    lines: list[str] = []
    for gap in gaps:
        new = [command for command in gap.commands if command not in lines]
        comment = f"# {gap}"
        if new or (gap.obstacle and comment not in lines):
            lines += [comment, *new]
    return lines


def _text(table: PaperTable, fmt: str, explains_tests: bool) -> str:
    is_markdown = fmt == "markdown"

    def fill(text: str, indent: str = "") -> str:
        return text if is_markdown else textwrap.fill(text, WIDTH, subsequent_indent=indent)

    def section(title: str, *parts: str) -> str:
        return ("\n\n" if is_markdown else "\n").join([f"### {title}" if is_markdown else title, *parts])

    heading = f"## {title_of(table)}" if is_markdown else title_of(table)
    layouts = [as_printed(table)] if is_markdown else for_terminal(table)
    body = [_grid(layout, fmt) for layout in layouts]
    sections = [heading, *body[:-1], body[-1] + ("\n\n" if is_markdown else "\n") + fill(" ".join(notes_of(table)))]
    tests = test_cells(table)
    if tests:
        note = [fill(TEST_NOTE)] if explains_tests else []
        sections.append(section("Paired tests", to_text(TEST_TITLES, tests, fmt, 3), *note))
    if sources := sources_of(table):
        sections.append(section("Published figures", "\n".join(fill(f"- {source}", "  ") for source in sources)))
    if table.gaps:
        missing = commands(table.gaps if is_markdown else table.gaps[:FEW])
        if not is_markdown and len(table.gaps) > FEW:
            missing.append(f"# ... and {len(table.gaps) - FEW} more: --commands prints all of them")
        text = "\n".join(missing)
        sections.append(section(MISSING, f"```bash\n{text}\n```" if is_markdown else text))
    return "\n\n".join(sections)


def _grid(layout: Layout, fmt: str) -> str:
    """The rows as text, in a terminal and in LaTeX with a divider above every group but the first."""
    lines = to_text(layout.titles, layout.rows, fmt, layout.n_left).splitlines()
    if fmt == "markdown":
        return "\n".join(lines)
    first = lines.index(r"\midrule") + 1 if fmt == "latex" else len(lines) - len(layout.rows)
    for start in reversed(layout.starts[1:]):
        lines.insert(first + start, r"\midrule" if fmt == "latex" else "")
    return "\n".join(lines)


def _latex(table: PaperTable) -> str:
    layout = as_printed(table)
    lines = _grid(layout, "latex").splitlines()
    caption = rf"\caption{{{latex(' '.join([f'{title_of(table)}.', *notes_of(table)]))}}}"
    comments = [f"Published: {source}" for source in sources_of(table)]
    what = "(pairs, difference ± SE, p of t-test, Wilcoxon)"
    comments += [f"{c.method} against {c.versus}, {c.what}: {', '.join(_test(c)[3:])} {what}" for c in _told(table)]
    comments += [f"Missing: {line}" for line in commands(table.gaps)]
    if len(layout.rows) > PAGE:  # would not fit on a page
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
            "obstacle": gap.obstacle or None,
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


def title_of(table: PaperTable) -> str:
    """The title with the images a class, where they are the same in all lines."""
    (shots, *others) = {line.shots for line in table.lines}
    return table.title if shots is None or others else f"{table.title}, {shots_title(shots)}"


def _told(table: PaperTable) -> list[Comparison]:
    """Paired tests that tell something."""
    return [comparison for comparison in table.comparisons if comparison.test.n > 1]


def test_cells(table: PaperTable) -> list[list[str]]:
    """A row of TEST_TITLES a paired test that tells something."""
    return [_test(comparison) for comparison in _told(table)]


def _test(comparison: Comparison) -> list[str]:
    test = comparison.test
    difference = GAP if test.difference is None else f"{test.difference:+.2f}"
    if test.error is not None:
        difference += f" ± {test.error:.2f}"
    return [
        *(comparison.method, comparison.versus, comparison.what, str(test.n), difference),
        *(_p(test.t_test), _p(test.wilcoxon)),
    ]


def _p(value: float | None) -> str:
    return GAP if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def notes_of(table: PaperTable) -> list[str]:
    """Sentences below a table: what HM and ± mean, and its own."""
    if table.name == "base2new":
        notes = [foot_line(False).replace("\n", " ")]
    else:
        notes = [f"{HM_NOTE}."] if any(column.metric == "hm" for column in table.columns) else []
        notes.append(spread_note())
    if any(line.is_average for line in table.lines) or any(column.key == "average" for column in table.columns):
        notes.append("An average has no spread where the data sets have different seeds.")
    return [*notes, *table.notes]


def sources_of(table: PaperTable) -> list[str]:
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
