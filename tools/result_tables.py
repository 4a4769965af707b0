"""From run folders to rows of figures: pairs of base and new runs, means and spreads over seeds, HM, averages.

Works on what `tools/run_reader.py` reads; `tools/result_render.py` shows it. Nothing here prints: a run that is left
out comes back as a `LeftOut`, and the command line names it. HM is the harmonic mean of the *mean* base and the *mean*
new accuracy, as the papers compute it; mean and spread of the seeds' own HMs stand beside it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from tools.run_reader import Run, RunProblem, find_runs, is_older, natural, read_run, tested_other_epoch

# Rows come in the order of the papers' tables; names that are not listed follow alphabetically.
TRAINERS = (
    *("ZeroshotCLIP", "ZeroshotCLIP2", "LinearProbe", "CoOp", "CoCoOp", "VPT", "IVLP", "MaPLe", "PromptSRC", "CLIPFit"),
    *("SPT", "TextRefiner", "PromptKD", "Spotlighter"),
)
DATASETS = (
    *("imagenet", "caltech101", "oxford_pets", "stanford_cars", "oxford_flowers", "food101", "fgvc_aircraft", "sun397"),
    *("dtd", "eurosat", "ucf101", "shapes", "shapes_v2", "shapes_sketch", "shapes_a", "shapes_r"),
)
Seed = int | str


@dataclass(frozen=True)
class LeftOut:
    """A run that no figure contains, and why."""

    folder: Path
    reason: str

    def __str__(self) -> str:
        return f"left out {self.folder}: {self.reason}"


@dataclass(frozen=True)
class Spread:
    """Mean and spread of n values; no spread with one value."""

    mean: float
    spread: float | None
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± " + ("–" if self.spread is None else f"{self.spread:.2f}")


@dataclass(frozen=True)
class Row:
    """One line of a base / new table."""

    dataset: str
    trainer: str
    config: str
    shots: int | None
    base: Spread
    new: Spread
    hm_seeds: Spread | None  # of the seeds' own HMs; None: an average over data sets with different seeds
    per_seed: dict[Seed, tuple[float, float]]  # seed -> (base, new); empty in the same case
    details: dict[str, list] = field(default_factory=dict)  # from metrics.json of the base runs, one item a seed

    @property
    def hm(self) -> float:
        return harmonic_mean(self.base.mean, self.new.mean)

    @property
    def seeds(self) -> list[Seed]:
        return list(self.per_seed)


def summarise(values: Sequence[float], ci95: bool = False) -> Spread:
    """Mean and population standard deviation (ddof 0), or 1.96·std/√n with that same std, as the family prints them.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("expected at least one value to average, got none")
    n, mean = len(values), _mean(values)
    if n == 1:
        return Spread(mean, None, 1)
    std = math.sqrt(_mean((value - mean) ** 2 for value in values))
    return Spread(mean, 1.96 * std / math.sqrt(n) if ci95 else std, n)


def harmonic_mean(base: float, new: float) -> float:
    """2·base·new / (base + new); 0 where one of them is."""
    return 0.0 if base <= 0 or new <= 0 else 2 * base * new / (base + new)


def pair_runs(base: Path, new: Path, keyword: str = "accuracy") -> tuple[list[tuple[Run, Run]], list[LeftOut]]:
    """Read the runs below two folders and pair those with the same path below them.

    Returns:
        pairs (base, new), and what had to be left out: runs that are missing, unfinished or damaged, that evaluated
        other classes than their side says, that tested an older model or another epoch, or that have no usable partner.
    """
    base_runs, base_bad = _usable_runs(base, "base", keyword)
    new_runs, new_bad = _usable_runs(new, "new", keyword)
    left_out = [*base_bad.values(), *new_bad.values()]
    pairs = []
    for tail in sorted(base_runs.keys() | new_runs.keys(), key=natural):
        if tail in base_runs and tail in new_runs:
            trained, tested = base_runs[tail], new_runs[tail]
            if reason := _other_model(tested, trained):
                left_out.append(LeftOut(tested.folder, reason))
            else:
                pairs.append((trained, tested))
        elif tail in base_runs:
            left_out.append(_partnerless(base_runs[tail], "new", new / tail, tail in new_bad))
        else:
            left_out.append(_partnerless(new_runs[tail], "base", base / tail, tail in base_bad))
    return pairs, left_out


def base_new_rows(pairs: Iterable[tuple[Run, Run]], ci95: bool = False) -> list[Row]:
    """One row for each data set, trainer, config and number of shots, in the order of the papers' tables.

    Raises:
        ValueError: two runs for one seed of a row.
    """
    groups: dict[tuple, list[tuple[Run, Run]]] = {}
    for pair in pairs:
        run = pair[0]
        key = (run.dataset or "?", run.trainer or "?", run.config or "?", run.shots)
        groups.setdefault(key, []).append(pair)
    rows = []
    for key, group in groups.items():
        per_seed: dict[Seed, tuple[float, float]] = {}
        for trained, tested in sorted(group, key=lambda pair: natural(pair[0].seed)):
            if trained.seed in per_seed:
                raise ValueError(f"expected one run a seed, got a second one in {trained.folder}; name a folder deeper")
            per_seed[trained.seed] = (trained.value, tested.value)
        rows.append(_row(*key, per_seed, ci95, _details([trained for trained, _ in group])))
    return sorted(rows, key=lambda row: (_rank(DATASETS, row.dataset), _variant(row)))


def average_rows(rows: Sequence[Row], ci95: bool = False) -> list[Row]:
    """For each trainer, config and number of shots with at least two data sets: the mean over its data sets.

    Its HM is that of the two averaged accuracies, not the average of HMs. The spread is over seeds, each averaged
    over the data sets; it is left open where the data sets have different seeds.
    """
    averages = []
    for _, members in _by_variant(rows):
        row, name = members[0], f"Average of {len(members)}"
        if len(members) == 1:
            continue
        if all(other.seeds == row.seeds for other in members):
            per_seed = {
                s: (_mean(m.per_seed[s][0] for m in members), _mean(m.per_seed[s][1] for m in members))
                for s in row.seeds
            }
            averages.append(_row(name, row.trainer, row.config, row.shots, per_seed, ci95, {}))
        else:
            base, new = (Spread(_mean(getattr(m, side).mean for m in members), None, 0) for side in ("base", "new"))
            averages.append(Row(name, row.trainer, row.config, row.shots, base, new, None, {}))
    return averages


def uneven_averages(rows: Sequence[Row]) -> str | None:
    """A sentence if averages are over different data sets, so that they do not compare."""
    averaged = [members for _, members in _by_variant(rows) if len(members) > 1]
    everything = {row.dataset for members in averaged for row in members}
    gaps = []
    for members in averaged:
        lacking = sorted(everything - {row.dataset for row in members})
        if lacking:
            gaps.append(f"{members[0].trainer} {members[0].config} lacks {', '.join(lacking)}")
    return f"averages are over different data sets and do not compare: {'; '.join(gaps)}" if gaps else None


def _row(
    dataset: str, trainer: str, config: str, shots: int | None, per_seed: dict, ci95: bool, details: dict[str, list]
) -> Row:
    base = summarise([b for b, _ in per_seed.values()], ci95)
    new = summarise([n for _, n in per_seed.values()], ci95)
    hm_seeds = summarise([harmonic_mean(b, n) for b, n in per_seed.values()], ci95)
    return Row(dataset, trainer, config, shots, base, new, hm_seeds, per_seed, details)


def _details(runs: Sequence[Run]) -> dict[str, list]:
    details: dict[str, list] = {}
    for run in runs:
        metrics: dict[str, Any] = run.metrics or {}
        parameters, final = metrics.get("parameters") or {}, metrics.get("final") or {}
        found = {
            "backbone": metrics.get("backbone"),
            "tensors": parameters.get("trainable_tensors"),
            "scalars": parameters.get("trainable_scalars"),
            "epoch": final.get("epoch"),
            "seconds": metrics.get("wall_seconds"),
        }
        for key, value in found.items():
            if value is not None:
                details.setdefault(key, []).append(value)
    return details


def _usable_runs(root: Path, classes: str, keyword: str) -> tuple[dict[Path, Run], dict[Path, LeftOut]]:
    usable: dict[Path, Run] = {}
    bad: dict[Path, LeftOut] = {}
    for folder in find_runs(root):
        tail = folder.relative_to(root)
        try:
            run = read_run(folder, keyword)
        except RunProblem as problem:
            bad[tail] = LeftOut(folder, str(problem))
            continue
        evaluated = (run.metrics or {}).get("classes")
        if evaluated in (None, classes):
            usable[tail] = run
        else:
            bad[tail] = LeftOut(folder, f"it evaluated the {evaluated!r} classes, expected {classes!r} on this side")
    return usable, bad


def _other_model(tested: Run, trained: Run) -> str | None:
    """Why a test is not one of the model that the base side measured; None if it is, or if nothing tells."""
    if tested.metrics is None or trained.metrics is None or trained.metrics.get("mode") != "train":
        return None
    if is_older(tested.metrics, than=trained.metrics):
        return "it was tested before its model was trained (anew); test again"
    epoch = (trained.metrics.get("final") or {}).get("epoch")
    if tested_other_epoch(tested.metrics, epoch):
        return (
            f"it tested epoch {tested.metrics['final']['epoch']}, and the base side measured epoch {epoch}; test again"
        )
    return None


def _partnerless(run: Run, classes: str, partner: Path, is_bad: bool) -> LeftOut:
    return LeftOut(run.folder, f"its partner on {classes} classes, {partner}, is {'left out' if is_bad else 'missing'}")


def _by_variant(rows: Sequence[Row]) -> list[tuple[tuple, list[Row]]]:
    return [(key, list(group)) for key, group in groupby(sorted(rows, key=_variant), key=_variant)]


def _variant(row: Row) -> tuple:
    return _rank(TRAINERS, row.trainer), natural(row.config), -1 if row.shots is None else row.shots


def _rank(order: Sequence[str], name: str) -> tuple:
    return (order.index(name), ()) if name in order else (len(order), natural(name))


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return math.fsum(values) / len(values)
