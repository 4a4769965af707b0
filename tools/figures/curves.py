"""Learning curves from metrics.json: total loss, its terms, accuracy, learning rate, over epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tools.figures.picture import COLOURS, MARKERS, WIDTH, Picture, Theme, paint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = list[tuple[int, float]]  # epoch, value
KINDS = {"loss": "total loss", "terms": "loss terms, unweighted", "accuracy": "accuracy in %", "lr": "learning rate"}
NOT_TERMS = ("loss", "acc", "agreement")  # of what an epoch records of training


def curves_of(record: Mapping[str, Any]) -> dict[str, dict[str, Curve]]:
    """The curves of a run by kind (a key of KINDS) and name; what is missing or not finite is left out.

    Args:
        record: its metrics.json.
    """
    found: dict[str, dict[str, Curve]] = {kind: {} for kind in KINDS}

    def add(kind: str, name: str, epoch: Any, value: Any) -> None:
        if isinstance(epoch, int) and isinstance(value, (int, float)) and math.isfinite(value):
            found[kind].setdefault(name, []).append((epoch, float(value)))

    for entry in record.get("epochs") or ():
        if not isinstance(entry, Mapping):
            continue
        epoch, train, val = entry.get("epoch"), entry.get("train") or {}, entry.get("val") or {}
        add("lr", "learning rate", epoch, entry.get("lr"))
        add("loss", "training", epoch, train.get("loss"))
        add("accuracy", "training", epoch, train.get("acc"))
        add("accuracy", "agreement with the teacher", epoch, train.get("agreement"))
        add("accuracy", "validation", epoch, val.get("accuracy"))
        for name, value in train.items():
            if name not in NOT_TERMS:
                add("terms", name, epoch, value)
    return found


def curve_pictures(records: Mapping[str, Mapping[str, Any]], what: str) -> list[Picture]:
    """A figure for each kind of curve that the runs have.

    Args:
        records: metrics.json by the name of the run, such as "seed 1": runs that differ in their seed.
        what: the method and its data, for captions.
    """
    curves = {name: curves_of(record) for name, record in records.items()}
    pictures = []
    for kind, title in KINDS.items():
        runs = {run: found[kind] for run, found in curves.items() if found[kind]}
        if kind == "lr":  # the same for all seeds
            runs = dict(list(runs.items())[:1])
        if not runs:
            continue
        alt = f"{title.capitalize()} of {what} by epoch. {describe(runs)}"
        seeds = f"{', '.join(runs)}: thin lines; their mean: thick. " if len(runs) > 1 else ""
        caption = f"{title.capitalize()} over epochs. {seeds}{_notes(kind)}"

        def draw(theme: Theme, runs: Any = runs, kind: str = kind) -> Figure:
            return draw_curves(runs, KINDS[kind], log=kind == "terms")

        pictures.append(paint(f"curves_{kind}", alt, caption.strip(), draw))
    return pictures


def describe(runs: Mapping[str, Mapping[str, Curve]]) -> str:
    """First and last values in words, for those who do not see the curves."""
    parts = []
    for name, curve in means(runs).items():
        (first, start), (last, end) = curve[0], curve[-1]
        parts.append(f"{name}: {start:.4g} in epoch {first}, {end:.4g} in epoch {last}")
    return "; ".join(parts) + "."


def means(runs: Mapping[str, Mapping[str, Curve]]) -> dict[str, Curve]:
    """Curves averaged over the runs, over the epochs that all of those with the curve have."""
    averaged: dict[str, Curve] = {}
    for name in dict.fromkeys(name for curves in runs.values() for name in curves):
        members = [dict(curves[name]) for curves in runs.values() if name in curves]
        epochs = sorted(set.intersection(*(set(member) for member in members)))
        if epochs:
            averaged[name] = [(e, math.fsum(m[e] for m in members) / len(members)) for e in epochs]
    return averaged


def draw_curves(runs: Mapping[str, Mapping[str, Curve]], title: str, log: bool = False) -> Figure:
    """Curves by name: each run's thin, the mean thick.

    Args:
        runs: by run and name of the curve.
        title: of the vertical axis.
        log: logarithmic; what is not above 0 is left out.
    """
    from matplotlib.figure import Figure

    figure = Figure((WIDTH, 3.0), layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(name for curves in runs.values() for name in curves))
    averaged = means(runs)
    for i, name in enumerate(names):
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        if len(runs) > 1:
            for curves in runs.values():
                axes.plot(*zip(*_shown(curves.get(name, []), log), strict=True), color=colour, lw=0.7, alpha=0.6)
        points = _shown(averaged.get(name, []), log)
        x, y = zip(*points, strict=True)
        axes.plot(x, y, color=colour, lw=1.6, marker=marker, markersize=3.5, label=name)
    axes.set_xlabel("epoch")
    axes.set_ylabel(title)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")  # powers as formulas need fonts that may be missing
    axes.grid(alpha=0.25)
    if len(names) > 1:
        figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    return figure


def _shown(curve: Sequence[tuple[int, float]], log: bool) -> list[tuple[float, float]]:
    """Points to draw; a gap where there are none, or where a logarithm has no place for them."""
    return [(e, v if v > 0 or not log else math.nan) for e, v in curve] or [(math.nan, math.nan)]


def _notes(kind: str) -> str:
    if kind == "accuracy":
        return "Training accuracy is that of augmented pictures while the weights still move."
    if kind == "terms":
        return "The total is their weighted sum; values of 0 have no place on this scale."
    return ""
