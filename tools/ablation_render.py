"""Show the results of an ablation: a CSV for other programs, a figure as PNG and SVG, and text for a terminal."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib

from tools.ablation_tables import Row, Table
from tools.result_published import read_published
from tools.result_render import HM_NOTE, spread_note, to_csv, to_text
from tools.result_stats import Spread, harmonic_mean, summarise
from tools.run_names import dataset_title

SERIES = {"base": ("Base", "#3b6fb5", "o"), "new": ("New", "#d9822b", "s"), "hm": ("HM", "#333333", "D")}
PUBLISHED_DATASET = "imagenet"  # of the paper's ablations
SIZE = (6.4, 3.6)  # inches


@dataclass(frozen=True)
class Result:
    """A row and its seeds' accuracies on base and new classes, in percent."""

    row: Row
    per_seed: dict[int, tuple[float, float]]  # seed -> (base, new); seeds that failed are left out
    is_default: bool = False

    @property
    def base(self) -> Spread:
        return summarise([base for base, _ in self.per_seed.values()])

    @property
    def new(self) -> Spread:
        return summarise([new for _, new in self.per_seed.values()])

    @property
    def hm(self) -> float:
        return harmonic_mean(self.base.mean, self.new.mean)

    @property
    def hm_seeds(self) -> Spread:
        """Of the seeds' own HMs."""
        return summarise([harmonic_mean(base, new) for base, new in self.per_seed.values()])

    def points(self) -> dict[str, tuple[float, float]]:
        """Mean and spread of each series of the figure; HM's spread is that of the seeds' own HMs."""
        spreads = {"base": self.base, "new": self.new, "hm": self.hm_seeds}
        means = {"base": self.base.mean, "new": self.new.mean, "hm": self.hm}
        return {name: (means[name], spread.spread or 0.0) for name, spread in spreads.items()}


@cache
def _published_rows() -> dict[tuple[str, str], dict[str, float]]:
    """(Table of the paper, row) -> metric -> figure."""
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for figure in read_published():
        if figure.protocol == "ablation" and figure.dataset == PUBLISHED_DATASET:
            rows.setdefault((f"Table {figure.table}", figure.variant), {})[figure.metric] = figure.value
    return rows


def published(table: Table, row: Row) -> dict[str, str]:
    """What the paper prints for a row: `base`, `new` and `hm` with two decimals; empty where it prints nothing."""
    figures = _published_rows().get((table.source, row.label), {})
    return {metric: f"{figures[metric]:.2f}" for metric in SERIES if metric in figures}


def keys_of(row: Row) -> str:
    """The row's settings as one would type them behind train.py."""
    return shlex.join(part for key, value in row.keys.items() for part in (f"TRAINER.SPOTLIGHTER.{key}", str(value)))


def render_csv(table: Table, results: Sequence[Result]) -> str:
    """All rows at full precision, cells of what is not known empty; std is the population's, over seeds."""
    return to_csv([_record(table, result) for result in results])


def _record(table: Table, result: Result) -> dict[str, Any]:
    row, known = result.row, bool(result.per_seed)
    printed = published(table, row)
    return {
        "table": table.name,
        "row": row.label,
        "keys": keys_of(row),
        "is_default": result.is_default,
        "seeds": list(result.per_seed),
        "base_mean": result.base.mean if known else None,
        "base_std": result.base.spread if known else None,
        "new_mean": result.new.mean if known else None,
        "new_std": result.new.spread if known else None,
        "hm": result.hm if known else None,
        "hm_std": result.hm_seeds.spread if known else None,
        "published_in": table.source,
        "published_dataset": dataset_title(PUBLISHED_DATASET) if printed else None,
        **{f"published_{metric}": printed.get(metric) for metric in SERIES},
    }


def render_text(table: Table, results: Sequence[Result], dataset: str) -> str:
    """A table for a terminal, with the paper's figures in columns of their own where it has some."""
    printed = [published(table, result.row) for result in results]
    titles = [table.title, "Seeds", "Base", "New", "HM"]
    if any(printed):
        titles += [f"published: {dataset_title(PUBLISHED_DATASET)} base", "new", "HM"]
    lines = []
    for result, figures in zip(results, printed, strict=True):
        cells = [result.row.label + (" *" if result.is_default else ""), " ".join(map(str, result.per_seed)) or "–"]
        if result.per_seed:
            cells += [str(result.base), str(result.new), f"{result.hm:.2f}"]
        else:
            cells += ["–"] * 3
        if any(printed):
            cells += [figures.get(metric, "–") for metric in SERIES]
        lines.append(cells)
    source = f" ({table.source})" if table.source else ""
    heading = f"{table.name}{source}, on {dataset}; * is the config's own value"
    return f"{heading}\n{to_text(titles, lines, 'table', 2)}"


def foot() -> str:
    """What HM and ± mean, without the column that these tables don't have."""
    return f"{HM_NOTE}.\n{spread_note()}"


def draw(table: Table, results: Sequence[Result], caption: str, stem: Path) -> list[Path]:
    """Write `stem`.png and `stem`.svg: lines over the values of a figure, otherwise a row of dots for each label.

    Dots instead of bars, so that the axis may start near the values without lying about their ratio.
    """
    results = [result for result in results if result.per_seed]
    if not results:
        return []
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "spotlighter"  # the same file for the same results
    from matplotlib import pyplot as plt

    over_numbers = bool(table.axis)
    labels = [f"{r.row.x:g}" if over_numbers else r.row.label for r in results]
    labels = [label + (" *" if r.is_default else "") for label, r in zip(labels, results, strict=True)]
    places = list(range(len(results)))
    figure, axes = plt.subplots(figsize=SIZE if over_numbers else (7.2, 1.7 + 0.42 * len(results)))
    for offset, (name, (title, colour, marker)) in enumerate(SERIES.items()):
        means, spreads = zip(*(r.points()[name] for r in results), strict=True)
        style: dict[str, Any] = {"color": colour, "marker": marker, "label": title, "capsize": 3, "markersize": 5}
        if over_numbers:
            axes.errorbar(places, means, yerr=spreads, **style)
        else:
            shifted = [place + 0.18 * (offset - 1) for place in places]
            axes.errorbar(means, shifted, xerr=spreads, linestyle="none", **style)
    if over_numbers:
        axes.set_xticks(places, labels)
        axes.set_xlabel(table.axis)
        axes.set_ylabel("accuracy in %")
        axes.grid(axis="y", alpha=0.3)
    else:
        axes.set_yticks(places, labels)
        axes.set_ylim(len(results) - 0.5, -0.5)  # the first row on top
        axes.set_xlabel("accuracy in %")
        axes.grid(axis="x", alpha=0.3)
    axes.set_title(table.title, fontsize=11)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    figure.text(0.01, 0.01, caption, fontsize=7, color="#555555")
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    paths = [stem.with_name(f"{stem.name}.{ending}") for ending in ("png", "svg")]
    figure.savefig(paths[0], dpi=150)
    figure.savefig(paths[1], metadata={"Date": None})
    plt.close(figure)
    return paths
