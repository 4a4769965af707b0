"""The paper's Table IV with what was measured here beside what is published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tools.result_published import Published, read_published
from tools.run_names import host_of

ADDED = "_added"  # end of the metrics of a method that wraps another: what it adds to its host


def table4(tables: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in the paper's order; a method has one for each of the tables it was measured in, at least one.

    Args:
        tables: records of `MethodTable`. Of several variants of a method the first counts.

    Returns:
        Records: the method, published figures as printed ("+21" for what is added to a host), and the measured ones.
    """
    figures = [figure for figure in read_published() if figure.table == "IV" and figure.protocol == "efficiency"]
    rows = []
    for method in dict.fromkeys(figure.method for figure in figures):
        printed = {figure.metric: figure for figure in figures if figure.method == method}
        published = {
            "method": method,
            "published_parameters": _printed(printed, "parameters"),
            "published_images_per_second": _printed(printed, "images_per_second"),
        }
        measured = [found for table in tables if (found := _measured(method, table))]
        rows += [published | found for found in measured or [{}]]
    return rows


def _printed(figures: dict[str, Published], metric: str) -> str:
    sign, figure = ("", figures[metric]) if metric in figures else ("+", figures[metric + ADDED])
    return f"{sign}{figure.value:,.0f}" if metric == "parameters" else f"{sign}{figure.value:,.2f}"


def _measured(method: str, table: dict[str, Any]) -> dict[str, Any]:
    row = _row(method, table)
    if row is None:
        return {}
    host = _row(host_of(method) or "", table)
    found = {key: row[key] for key in ("tensors", "scalars", "inference_images_per_second")}
    found |= {key: table[key] for key in ("precision", "n_classes")}
    return found | {"added_tensors": row["tensors"] - host["tensors"] if host else None}


def _row(method: str, table: dict[str, Any]) -> dict[str, Any] | None:
    named = (row for row in table["rows"] if row["name"] == method or row["name"].startswith(f"{method} ("))
    return next(named, None)
