"""The figure: how far each target is reached, and images a second of each method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tools.benchmarks.report import about, target_cells

REACHED, MISSED, NEUTRAL = "#2a7f62", "#b8442c", "#4a6fa5"
ROW = 0.3  # inches


def draw(found: dict[str, Any], path: Path) -> None:
    """Write the figure; its format is that of the file's name.

    Args:
        found: as `report.content` gives it.

    Raises:
        ValueError: nothing was measured, or matplotlib knows no such format.
    """
    from matplotlib.figure import Figure  # here: it takes a second to import

    targets = [target for target in found["targets"] if target["value"] is not None][::-1]
    tables = [table for table in found["methods"] if any(row["inference_images_per_second"] for row in table["rows"])]
    panels = [len(targets)] * bool(targets) + [len(table["rows"]) for table in tables]
    if not panels:
        raise ValueError(f"Nothing was measured that {path} could show.")
    figure = Figure(figsize=(9, sum(ROW * n + 1.1 for n in panels) + 0.4), layout="constrained")
    axes = list(figure.subplots(len(panels), 1, squeeze=False, height_ratios=panels)[:, 0])
    figure.suptitle(about(found), fontsize=8)
    if targets:
        _targets(axes.pop(0), targets)
    for axis, table in zip(axes, tables, strict=True):
        _speeds(axis, table)
    figure.savefig(path, dpi=150)


def _targets(axis: Any, targets: list[dict[str, Any]]) -> None:
    """Bars from 1, which is just reached, to how often the limit is reached, on a logarithmic scale."""
    names = [f"{target['name']}, {target['precision']}" for target in targets]
    margins = [min(target["margin"], 100.0) for target in targets]
    colours = [REACHED if target["verdict"] == "reached" else MISSED for target in targets]
    axis.barh(names, [m - 1 for m in margins], left=1, color=colours)
    for i, (target, margin) in enumerate(zip(targets, margins, strict=True)):
        _, _, limit, seen, *_ = target_cells(target)
        axis.annotate(f" {seen} (target {limit})", (max(margin, 1), i), va="center", fontsize=7)
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")  # not 10 to a power, which is set in fonts that few machines have
    axis.xaxis.set_minor_formatter("")
    axis.margins(x=0.35)
    axis.set_xlabel("measured against the target; right of 1 it is reached", fontsize=8)
    axis.tick_params(labelsize=7)


def _speeds(axis: Any, table: dict[str, Any]) -> None:
    """Bars of images/s in inference."""
    rows = [row for row in table["rows"] if row["inference_images_per_second"]][::-1]
    bars = axis.barh([row["name"] for row in rows], [row["inference_images_per_second"] for row in rows], color=NEUTRAL)
    axis.bar_label(bars, fmt="%.3g", fontsize=7, padding=2)
    axis.margins(x=0.12)
    axis.set_xlabel(
        f"images/s in inference: {table['n_classes']} classes, {table['precision']}, batch {table['batch']}", fontsize=8
    )
    axis.tick_params(labelsize=7)
