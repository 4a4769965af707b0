"""Show rows of `tools/result_tables.py`: text for a terminal, markdown, LaTeX, CSV and JSON.

Text, markdown and LaTeX round to two decimals; CSV and JSON keep full precision for other programs.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from tabulate import LATEX_ESCAPE_RULES, tabulate

from tools.result_runs import LeftOut
from tools.result_tables import Row, average_rows

FORMATS = ("table", "markdown", "csv", "latex", "json")
STYLES = {"table": "simple", "markdown": "pipe", "latex": "latex_booktabs"}  # format -> tabulate's name
HM_NOTE = "HM is the harmonic mean of the mean base and the mean new value, as the papers compute it"
LATEX_SIGNS = {"±": r"$\pm$", "–": "--", "·": r"$\cdot$", "√": r"$\surd$", "≤": r"$\leq$", "…": r"\dots{}"}
# Columns of --details, of the runs on base classes: key of Row.details -> title.
DETAILS = {"backbone": "Backbone", "epoch": "Epoch", "tensors": "Tensors", "scalars": "Scalars", "seconds": "Seconds"}


def render_base_new(
    rows: Sequence[Row],
    fmt: str = "table",
    *,
    ci95: bool = False,
    keyword: str = "accuracy",
    details: bool = False,
    left_out: Sequence[LeftOut] = (),
) -> str:
    """A base / new / HM table with the averages over data sets below it.

    Args:
        rows: as `base_new_rows` gives them, at least one.
        fmt: one of FORMATS.
        ci95: whether the spreads of the rows are 95% confidence intervals.
        keyword: the metric that the rows hold.
        details: add the columns of DETAILS.
        left_out: runs to list in JSON.

    Raises:
        ValueError: unknown format.
    """
    rows = [*rows, *average_rows(rows, ci95)]
    if fmt == "json":
        content = {
            "keyword": keyword,
            "hm": "harmonic mean of the mean base and the mean new value",
            "spread": "1.96*std/sqrt(n)" if ci95 else "population standard deviation",
            "rows": [_record(row, details) | {"per_seed": _per_seed(row)} for row in rows],
            "left_out": [{"folder": str(item.folder), "reason": item.reason} for item in left_out],
        }
        return to_json(content)
    if fmt == "csv":
        return to_csv([_record(row, details) for row in rows])
    hosts = {(row.trainer, row.method) for row in rows}
    several = len(hosts) > len({row.trainer for row in rows})  # one trainer around several hosts
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("Data set", lambda row: row.dataset),
        ("Trainer", lambda row: row.method if several else row.trainer),
        ("Config", lambda row: row.config),
        ("Seeds", lambda row: " ".join(map(str, row.seeds)) or "–"),
        ("Base", lambda row: str(row.base)),
        ("New", lambda row: str(row.new or "–")),
        ("HM", lambda row: "–" if row.hm is None else f"{row.hm:.2f}"),
        ("HM per seed", lambda row: str(row.hm_seeds or "–")),
    ]
    if len({row.shots for row in rows}) > 1:
        columns.insert(3, ("Shots", lambda row: "–" if row.shots is None else str(row.shots)))
    if details:
        columns += [(title, _detail(key)) for key, title in DETAILS.items()]
    titles = [title for title, _ in columns]
    table = to_text(titles, [[show(row) for _, show in columns] for row in rows], fmt, titles.index("Base"))
    foot = foot_line(ci95)
    if fmt == "latex":
        return table + "\n" + "\n".join(f"% {line}" for line in foot.splitlines())
    return table + ("\n\n" if fmt == "markdown" else "\n") + foot


def foot_line(ci95: bool) -> str:
    """What the columns HM and ± mean."""
    return f"{HM_NOTE}; HM per seed is\nthe mean of the seeds' own HMs. {spread_note(ci95)}"


def spread_note(ci95: bool = False) -> str:
    """What ± means."""
    spread = "1.96·std/√n over seeds (95% confidence)" if ci95 else "population standard deviation over seeds"
    return f"± is the {spread}, – with a single seed."


def to_text(titles: Sequence[str], cells: Sequence[Sequence[str]], fmt: str, n_left: int) -> str:
    """Cells as a terminal ("table"), markdown or LaTeX table; columns after the first `n_left` are set to the right.

    Raises:
        ValueError: unknown format.
    """
    if fmt not in STYLES:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {fmt!r}")
    align = ["left"] * n_left + ["right"] * (len(titles) - n_left)
    table = tabulate(cells, titles, tablefmt=STYLES[fmt], colalign=align, disable_numparse=True)
    return _latex_signs(table) if fmt == "latex" else table


def latex(text: str) -> str:
    """Text with what LaTeX would take for commands escaped, and signs that are not ASCII as commands."""
    return _latex_signs("".join(LATEX_ESCAPE_RULES.get(letter, letter) for letter in text))


def _latex_signs(text: str) -> str:
    for sign, command in LATEX_SIGNS.items():
        text = text.replace(sign, command)
    return re.sub(r"(?<=[ &(])-(?=[ \d])", "$-$", text)


def to_csv(records: Sequence[dict[str, Any]]) -> str:
    """Records with the same keys as CSV with a header line; None is an empty cell, a list is joined by spaces."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(records[0]), lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({key: " ".join(map(str, v)) if isinstance(v, list) else v for key, v in record.items()})
    return out.getvalue().rstrip("\n")


def to_json(content: dict[str, Any]) -> str:
    """Indented JSON."""
    return json.dumps(content, indent=2, ensure_ascii=False)


def _record(row: Row, details: bool) -> dict[str, Any]:
    record = {
        "dataset": row.dataset,
        "trainer": row.trainer,
        "config": row.config,
        "shots": row.shots,
        "seeds": row.seeds,
        "base_mean": row.base.mean,
        "base_spread": row.base.spread,
        "new_mean": row.new.mean if row.new else None,
        "new_spread": row.new.spread if row.new else None,
        "hm": row.hm,
        "hm_seeds_mean": row.hm_seeds.mean if row.hm_seeds else None,
        "hm_seeds_spread": row.hm_seeds.spread if row.hm_seeds else None,
    }
    return record | ({key: row.details.get(key, []) for key in DETAILS} if details else {})


def _per_seed(row: Row) -> list[dict[str, Any]]:
    return [{"seed": s, "base": b, "new": n, "hm": row.hms.get(s)} for s, (b, n) in row.per_seed.items()]


def _detail(key: str) -> Callable[[Row], str]:
    def show(row: Row) -> str:
        values = row.details.get(key, [])
        if key == "seconds":  # a mean; the others are the same for all seeds, or all of them are shown
            return f"{sum(values) / len(values):.1f}" if values else "–"
        return " / ".join(dict.fromkeys(map(str, values))) or "–"

    return show
