"""Lay a table of tools/paper_tables.py out as rows of text: as the papers print it, or for a terminal.

The papers have a row a method. Most tables would be too wide that way for a terminal: there they have a column a method
and, where the methods are many, several parts, one below the other.
"""

from collections.abc import Iterator, Sequence
from itertools import compress
from typing import NamedTuple

from tools.paper_tables import Column, Line, PaperTable, Seed

GAP = "–"
WIDTH = 118  # of a terminal
OURS, PUBLISHED, DIFFERENCE = "", "published", "ours - published"  # figures and how rows are marked
TRANSFER = ("cross", "domains")  # tables of one source
# Tables with a column a method in a terminal -> what their rows are.
TALL = {"fewshot": "Images a class", "cross": "Data set", "domains": "Data set", "efficiency": "Quantity"}


class Layout(NamedTuple):
    """Rows of text."""

    titles: list[str]  # of columns; may have several lines
    rows: list[list[str]]
    starts: list[int]  # rows at which another data set, average or number of shots begins
    n_left: int  # columns of names


def for_terminal(table: PaperTable) -> list[Layout]:
    """The table in parts that fit a terminal where possible."""
    return list(_tall(table)) if table.name in TALL else [as_printed(table)]


def as_printed(table: PaperTable) -> Layout:
    """A row a method; published figures and the difference to them stand below it."""
    several = _has_several_shots(table)
    names = [table.group_title, "Method", *(["Shots"] if several else []), "Seeds"]
    rows: list[list[str]] = []
    starts: list[int] = []
    last: tuple = ()
    for line in table.lines:
        if (line.group, line.shots) != last:
            last = (line.group, line.shots)
            starts.append(len(rows))
        shots = [_number_of(line.shots)] if several else []
        ours = [_show(line, column, OURS, line.seeds) for column in table.columns]
        rows.append([line.group, line.method, *shots, " ".join(map(str, line.seeds)) or GAP, *ours])
        for figure in (PUBLISHED, DIFFERENCE):
            cells = [_show(line, column, figure) for column in table.columns]
            if any(cells):
                rows.append(["", figure, *[""] * (len(names) - 2), *cells])
    return Layout([*names, *(column.title for column in table.columns)], rows, starts, len(names))


def _tall(table: PaperTable) -> Iterator[Layout]:
    """A column a method, with its seeds in the title; rows are the table's columns, for each data set."""
    lines = {(line.group, line.shots, line.method): line for line in table.lines}
    seeds = {method: _seeds_of(table, method) for method in table.methods}
    is_compared = any(cell.published is not None for line in table.lines for cell in line.cells.values())
    told = [table.name not in TRANSFER, _has_several_shots(table), True, is_compared]
    titles = list(compress([table.group_title, "Shots", TALL[table.name], ""], told))
    n_left = len(titles)
    titles += [_title(method, seeds[method]) for method in table.methods]
    rows: list[list[str]] = []
    starts: list[int] = []
    for group, shots in dict.fromkeys((line.group, line.shots) for line in table.lines):
        starts.append(len(rows))
        names = [group, _number_of(shots)]
        for column in table.columns:
            is_source = table.name in TRANSFER and column.title == group
            names = [*names[:2], f"{column.title} (source)" if is_source else column.title]
            for figure in (OURS, PUBLISHED, DIFFERENCE):
                members = [(lines.get((group, shots, method)), seeds[method]) for method in table.methods]
                cells = ["" if line is None else _show(line, column, figure, s) for line, s in members]
                if any(cells):
                    rows.append([*compress([*names, figure], told), *cells])
                    names = [""] * 3
    for part in _parts(titles, rows, n_left):
        yield Layout([titles[i] for i in part], [[row[i] for i in part] for row in rows], starts, n_left)


def _parts(titles: Sequence[str], rows: Sequence[Sequence[str]], n_left: int) -> list[list[int]]:
    """Columns by part: in each those of names, and as many of the others as fit."""
    widths = [  # with two spaces beside a title, and two between columns
        4 + max(map(len, [*title.splitlines(), *(row[i] for row in rows), ""])) for i, title in enumerate(titles)
    ]
    names = list(range(n_left))
    parts = [[*names]]
    for i in range(n_left, len(titles)):
        if len(parts[-1]) > n_left and sum(widths[j] for j in [*parts[-1], i]) > WIDTH:
            parts.append([*names])
        parts[-1].append(i)
    return parts


def _seeds_of(table: PaperTable, method: str) -> list[Seed]:
    return list(dict.fromkeys(seed for line in table.lines if line.method == method for seed in line.seeds))


def _title(method: str, seeds: Sequence[Seed]) -> str:
    """The title of a method's column, in lines."""
    name = method.replace(" w/ ", "\nw/ ").replace(" (", "\n(")
    return f"{name}\n{'seed' if len(seeds) == 1 else 'seeds'} {' '.join(map(str, seeds)) or GAP}"


def _has_several_shots(table: PaperTable) -> bool:
    return len({line.shots for line in table.lines}) > 1


def _number_of(shots: int | None) -> str:
    return GAP if shots is None else str(shots)


def _show(line: Line, column: Column, figure: str, seeds: Sequence[Seed] = ()) -> str:
    """A cell; `seeds` are those that its row or column names."""
    if column.key not in line.cells:
        return ""
    cell = line.cells[column.key]
    if figure == PUBLISHED:
        return "" if cell.published is None else _number(column, cell.published.value)
    if figure == DIFFERENCE:
        return "" if cell.difference is None else _number(column, cell.difference, signed=True)
    if cell.value is None:
        return GAP
    text = _number(column, cell.value)
    if column.metric == "hm" or column.unit in ("count", "points") or column.key.endswith("_added"):
        return text
    spread = GAP if cell.spread is None else _number(column, cell.spread)
    few = f" (n={len(cell.per_seed)})" if 0 < len(cell.per_seed) < len(seeds) else ""
    return f"{text} ± {spread}{few}"


def _number(column: Column, value: float, signed: bool = False) -> str:
    sign = "+" if signed or column.key.endswith("_added") else ""
    digits = {"count": 0, "images/s": 1}.get(column.unit, 2)
    value = round(value, digits) + 0.0  # no -0.00
    return f"{value:{sign},.{digits}f}"
