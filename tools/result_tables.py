"""From pairs of base and new runs to rows of figures: means and spreads over seeds, HM, averages over data sets.

Works on what `tools/result_runs.py` collects; `tools/result_render.py` shows it. HM is the harmonic mean of the *mean*
base and the *mean* new accuracy, as the papers compute it; mean and spread of the seeds' own HMs stand beside it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from tools.result_runs import Pair
from tools.result_stats import Spread, harmonic_mean, mean, summarise
from tools.run_names import natural, rank_dataset, rank_method
from tools.run_reader import Run

Seed = int | str


@dataclass(frozen=True)
class Row:
    """One line of a base / new table."""

    dataset: str
    method: str  # `CoOp w/ Spotlighter` where the trainer is Spotlighter
    trainer: str
    config: str
    shots: int | None
    base: Spread
    new: Spread | None  # None: the method knows the base classes only
    hm_seeds: Spread | None  # of the seeds' own HMs; None: no new, or an average over data sets with different seeds
    per_seed: dict[Seed, tuple[float, float | None]]  # seed -> (base, new); empty in the latter case
    details: dict[str, list] = field(default_factory=dict)  # from metrics.json of the base runs, one item a seed

    @property
    def hm(self) -> float | None:
        return None if self.new is None else harmonic_mean(self.base.mean, self.new.mean)

    @property
    def seeds(self) -> list[Seed]:
        return list(self.per_seed)

    @property
    def hms(self) -> dict[Seed, float]:
        """The seeds' own HMs."""
        return {seed: harmonic_mean(base, new) for seed, (base, new) in self.per_seed.items() if new is not None}


def base_new_rows(pairs: Iterable[Pair], ci95: bool = False) -> list[Row]:
    """One row for each data set, method, config and number of shots, in the order of the papers' tables.

    Raises:
        ValueError: two runs for one seed of a row.
    """
    groups: dict[tuple, list[Pair]] = {}
    for pair in pairs:
        run = pair[0]
        key = (run.dataset or "?", run.method, run.trainer or "?", run.config or "?", run.shots)
        groups.setdefault(key, []).append(pair)
    rows = []
    for key, group in groups.items():
        per_seed: dict[Seed, tuple[float, float | None]] = {}
        for trained, tested in sorted(group, key=lambda pair: natural(pair[0].seed)):
            if trained.seed in per_seed:
                raise ValueError(f"expected one run a seed, got a second one in {trained.folder}; name a folder deeper")
            per_seed[trained.seed] = (trained.value, None if tested is None else tested.value)
        rows.append(_row(*key, per_seed, ci95, _details([trained for trained, _ in group])))
    return sorted(rows, key=lambda row: (rank_dataset(row.dataset), _variant(row)))


def average_rows(rows: Sequence[Row], ci95: bool = False) -> list[Row]:
    """For each method, config and number of shots with at least two data sets: the mean over its data sets.

    Its HM is that of the two averaged accuracies, not the average of HMs. The spread is over seeds, each averaged
    over the data sets; it is left open where the data sets have different seeds.
    """
    averages = []
    for _, members in _by_variant(rows):
        row, name = members[0], f"Average of {len(members)}"
        if len(members) == 1:
            continue
        if all(other.seeds == row.seeds for other in members):
            per_seed = {s: (mean(m.per_seed[s][0] for m in members), _mean_new(members, s)) for s in row.seeds}
            averages.append(_row(name, row.method, row.trainer, row.config, row.shots, per_seed, ci95, {}))
        else:
            base = Spread(mean(m.base.mean for m in members), None, 0)
            news = [m.new.mean for m in members if m.new is not None]
            new = Spread(mean(news), None, 0) if news else None
            averages.append(Row(name, row.method, row.trainer, row.config, row.shots, base, new, None, {}))
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


def _mean_new(members: Sequence[Row], seed: Seed) -> float | None:
    """One seed's mean over data sets; None for a method that knows the base classes only."""
    values = [new for member in members if (new := member.per_seed[seed][1]) is not None]
    return mean(values) if values else None


def _row(
    dataset: str,
    method: str,
    trainer: str,
    config: str,
    shots: int | None,
    per_seed: dict,
    ci95: bool,
    details: dict[str, list],
) -> Row:
    base = summarise([b for b, _ in per_seed.values()], ci95)
    both = [(b, n) for b, n in per_seed.values() if n is not None]
    new = summarise([n for _, n in both], ci95) if both else None
    hm_seeds = summarise([harmonic_mean(b, n) for b, n in both], ci95) if both else None
    return Row(dataset, method, trainer, config, shots, base, new, hm_seeds, per_seed, details)


def _details(runs: Sequence[Run]) -> dict[str, list]:
    details: dict[str, list] = {}
    for run in runs:
        metrics: dict[str, Any] = run.metrics or {}
        parameters, final = run.recorded("parameters"), run.recorded("final")
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


def _by_variant(rows: Sequence[Row]) -> list[tuple[tuple, list[Row]]]:
    return [(key, list(group)) for key, group in groupby(sorted(rows, key=_variant), key=_variant)]


def _variant(row: Row) -> tuple:
    return rank_method(row.method), natural(row.config), -1 if row.shots is None else row.shots
