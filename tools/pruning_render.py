"""What tools/pruning_speed.py found: a CSV, a table and a figure of accuracy against speed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib

from tools.ablation_tables import Row
from tools.result_render import to_text

WAYS = {
    "distinct": ("#3b6fb5", "o"),
    "attention": ("#d9822b", "s"),
    "merge": ("#3a8f4d", "D"),
    "none": ("#333333", "*"),
}
SPEED, LOSS = 1.25, 0.5  # the figures to reach


@dataclass
class Point:
    """A row of the ablation: its accuracy, and its speed on each backbone."""

    row: Row
    hm: float
    hm_std: float | None
    tuned: tuple[float, float | None] | None = None  # HM and spread of models that were trained with the same pruning
    ratios: dict[str, list[float]] = field(default_factory=dict)  # backbone -> bare seconds ÷ seconds, round by round
    operations: dict[str, float] = field(default_factory=dict)  # backbone -> bare operations ÷ operations

    @property
    def way(self) -> str:
        return self.row.keys["PRUNE_BY"] if self.row.keys["PRUNE"] else "none"

    def options(self, n_blocks: int) -> list[str]:
        """`KEY VALUE …` for a tower of `n_blocks` blocks; the rows are for four."""
        shares = [[block * n_blocks // 4, share] for block, share in self.row.keys["PRUNE"]]
        node = "TRAINER.SPOTLIGHTER."
        return [node + "PRUNE", str(shares), node + "PRUNE_BY", self.row.keys["PRUNE_BY"]]


def records(points: Sequence[Point], backbones: Sequence[str]) -> list[dict[str, Any]]:
    """A line of the CSV each, at full precision."""
    lines = []
    for point in points:
        line: dict[str, Any] = {"row": point.row.label, "by": point.way, "hm": point.hm, "hm_std": point.hm_std}
        line |= {"hm_loss": points[0].hm - point.hm}
        line |= dict(zip(("hm_tuned", "hm_tuned_std"), point.tuned or (None, None), strict=True))
        for name in backbones:
            ratios = point.ratios[name]
            line |= {
                f"{name} {what}": f(ratios) for what, f in (("ratio", statistics.median), ("low", min), ("high", max))
            }
            line[f"{name} operations"] = point.operations[name]
        lines.append(line)
    return lines


def render(points: Sequence[Point], backbones: Sequence[str], fmt: str) -> str:
    titles = ["Pruned", "HM", "Loss", "HM, tuned so"]
    titles += [title for name in backbones for title in (f"{name}: speed", "operations")]
    cells = []
    for point in points:
        cells.append(
            [point.row.label, with_spread(point.hm, point.hm_std), f"{round(points[0].hm - point.hm, 2) + 0.0:+.2f}"]
        )
        cells[-1].append("" if point.tuned is None else with_spread(*point.tuned))
        for name in backbones:
            ratios = point.ratios[name]
            cells[-1].append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})")
            cells[-1].append(f"{point.operations[name]:.2f}")
    return to_text(titles, cells, fmt, 1)


def with_spread(mean: float, std: float | None) -> str:
    return f"{mean:.2f}" + ("" if std is None else f" ± {std:.2f}")


def draw(points: Sequence[Point], backbones: Sequence[str], caption: str, path: Path) -> None:
    """HM lost against speed-up, a panel each backbone; the figures to reach are dashed."""
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "spotlighter"  # the same file for the same results
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(backbones), figsize=(4.6 * len(backbones), 4), sharey=True, squeeze=False)
    for axes, name in zip(panels[0], backbones, strict=True):
        for way, (colour, marker) in WAYS.items():
            own = [point for point in points if point.way == way]
            x = [statistics.median(point.ratios[name]) for point in own]
            style: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": "none", "markersize": 6}
            axes.plot(x, [points[0].hm - point.hm for point in own], label=way, **style)
            tuned = [(r, points[0].hm - p.tuned[0]) for r, p in zip(x, own, strict=True) if p.tuned is not None]
            if tuned:
                label = f"{way}, tuned so"
                axes.plot(*zip(*tuned, strict=True), label=label, **style, fillstyle="none")
        axes.set_yscale("symlog", linthresh=1)
        axes.set_yticks([-0.5, 0, 0.5, 1, 2, 5, 10, 20], ["-0.5", "0", "0.5", "1", "2", "5", "10", "20"])
        axes.axvline(SPEED, color="#999999", linewidth=0.8, linestyle="--")
        axes.axhline(LOSS, color="#999999", linewidth=0.8, linestyle="--")
        axes.set_xlabel(f"images/s ÷ bare encoder, {name}")
        axes.grid(alpha=0.25)
    panels[0][0].set_ylabel("HM lost on shapes, points")
    panels[0][-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    figure.text(0.01, 0.01, caption, fontsize=7, color="#555555")
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
