"""What the builders of the paper's tables ask of collected runs: names, values by seed, published figures, gaps.

A method that has several configs on one data set is several methods in its table, `CoOp (ep20)` and `CoOp (ep50)`;
otherwise its configs are one method, such as one config for ImageNet and another for the other data sets.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tools.paper_tables import Seed
from tools.result_gaps import Gap, Recipe, choose_config
from tools.result_published import Published, PublishedFigures
from tools.result_runs import Collection, Found
from tools.run_layout import EMBEDDED, PROTOCOLS, natural, rank_dataset, rank_method
from tools.run_reader import RunProblem, read_run

NO_RUN = "no run"
ZEROSHOT = ("ZeroshotCLIP", "ZeroshotCLIP2")


class Key(NamedTuple):
    """A method at one place of a protocol, all seeds together."""

    protocol: str
    part: str | None
    label: str  # the method's name in its table
    source: str | None
    dataset: str
    shots: int | None


@dataclass
class Series:
    """The runs of a key, by seed."""

    method: str
    trainer: str
    config: str
    folders: dict[Seed, Path] = field(default_factory=dict)  # unusable runs included
    values: dict[Seed, float] = field(default_factory=dict)  # of finished runs; of base2new, those with a partner
    backbone: str | None = None


class Context:
    """Collected runs with the choices of the command line.

    Args:
        collection: as `collect` gives it.
        figures: published figures; without any, none is joined.
        seeds: that every cell needs; empty: those found in its block.
        versus: label or method that the tests compare with; None: a method's own reference.

    Raises:
        ValueError: two runs for one seed, or no method `versus`.
    """

    def __init__(
        self,
        collection: Collection,
        figures: PublishedFigures | None = None,
        seeds: Sequence[Seed] = (),
        versus: str | None = None,
    ):
        self.collection = collection
        self.figures = figures or PublishedFigures()
        self.seeds = list(seeds)
        self._several = {name: _with_several_configs(self._found(name)) for name in PROTOCOLS}
        self._why = {item.folder: item.reason for item in collection.left_out}
        self.series: dict[Key, Series] = {}
        self._key_of: dict[Path, Key] = {}
        for found in sorted(collection.found, key=lambda found: natural(found.place.seed)):
            self._add(found)
        for run in collection.all_runs():
            series = self.series[self._key_of[run.folder]]
            series.values[run.seed] = run.value
            backbone = (run.metrics or {}).get("backbone")
            series.backbone = series.backbone or (backbone if isinstance(backbone, str) else None)
        seedless = _seedless(collection)
        self.seedless = {key.label for key, series in self.series.items() if series.method in seedless}
        self.versus = self._resolve(versus)

    def _add(self, found: Found) -> None:
        place = found.place
        assert place.protocol is not None
        assert place.dataset is not None
        label = self.label(place.protocol, found.method, place.config)
        key = self._key_of[found.folder] = Key(
            place.protocol, place.part, label, place.source, place.dataset, place.shots
        )
        series = self.series.setdefault(key, Series(found.method, place.trainer or "?", place.config or "?"))
        if place.seed in series.folders:
            raise ValueError(f"expected one run a seed, got a second one in {found.folder}; move one of them away")
        series.folders[place.seed] = found.folder

    def _resolve(self, versus: str | None) -> str | None:
        """The label that a name on the command line means."""
        if versus is None:
            return None
        labels = sorted({key.label for key in self.series}, key=rank_method)
        matches = [label for label in labels if versus.casefold() in (label.casefold(), plain(label).casefold())]
        if not matches:
            raise ValueError(f"no method {versus!r} among the runs; there are: {', '.join(labels)}")
        return matches[0]

    def _found(self, protocol: str) -> list[Found]:
        return [found for found in self.collection.found if found.place.protocol == protocol]

    # ---- what there is --------------------------------------------------------------------------------------------

    def label(self, protocol: str, method: str, config: str | None) -> str:
        """The name of a method in a table."""
        return f"{method} ({config})" if method in self._several[protocol] else method

    def keys(self, protocol: str, part: str | None = None) -> list[Key]:
        """Keys of a protocol's series, in the papers' order; without `part`, of all parts."""
        keys = [key for key in self.series if key.protocol == protocol and part in (None, key.part)]
        return sorted(keys, key=lambda key: (rank_dataset(key.dataset), rank_method(key.label)))

    def get(self, key: Key) -> Series | None:
        """The series of a key, None if no seed was run."""
        return self.series.get(key)

    def values(self, key: Key) -> dict[Seed, float]:
        """Results by seed, in the order of seeds."""
        series = self.series.get(key)
        return {} if series is None else dict(sorted(series.values.items(), key=lambda item: natural(item[0])))

    # ---- published ------------------------------------------------------------------------------------------------

    def published(self, protocol: str, key: Key, metric: str, dataset: str | None = None) -> Published | None:
        """The figure printed for a series' method, on its data set or another one."""
        where = dataset or key.dataset
        return self.figures.find(protocol, plain(key.label), where, metric, key.shots, self._backbone(key.label))

    def published_average(self, protocol: str, key: Key, datasets: Sequence[str], metric: str) -> Published | None:
        """The average printed over these data sets, or the mean of what is printed for them."""
        backbone = self._backbone(key.label)
        return self.figures.average(protocol, plain(key.label), datasets, metric, key.shots, backbone)

    def _backbone(self, label: str) -> str | None:
        """The backbone of a method's runs on real data; of the embedded benchmark nothing is published."""
        found = [s.backbone for key, s in self.series.items() if key.label == label and key.dataset not in EMBEDDED]
        return next((backbone for backbone in found if backbone), None)

    # ---- gaps -----------------------------------------------------------------------------------------------------

    def missing_seeds(self, key: Key, have: Iterable[Seed]) -> list[Seed]:
        """Seeds that a cell needs and lacks; a method that trains nothing needs a single one."""
        have = set(have)
        block = {
            seed
            for other, series in self.series.items()
            if (other.protocol, other.shots) == (key.protocol, key.shots)
            for seed in series.folders
        }
        needed = self.seeds or sorted(block, key=natural) or [1]
        if key.label in self.seedless:
            return [] if have else needed[:1]
        return [seed for seed in needed if seed not in have]

    def problem(self, key: Key, seed: Seed) -> str | None:
        """Why a run cannot be used; None if it can, by itself."""
        series = self.series.get(key)
        folder = series.folders.get(seed) if series else None
        if folder is None:
            return NO_RUN
        try:
            read_run(folder)
        except RunProblem as problem:
            return str(problem)
        return None

    def why(self, key: Key, seed: Seed) -> str:
        """Why no figure contains a run."""
        series = self.series.get(key)
        folder = series.folders.get(seed) if series else None
        return NO_RUN if folder is None else self._why.get(folder, NO_RUN)

    def gap(self, key: Key, seed: Seed, scripts: Sequence[str], reason: str) -> Gap:
        """A missing run with the commands of scripts/ that make it."""
        kin = [(k.dataset, s) for k, s in self.series.items() if (k.protocol, k.label) == (key.protocol, key.label)]
        method, trainer = (kin[0][1].method, kin[0][1].trainer) if kin else (plain(key.label), plain(key.label))
        if key.label != plain(key.label):
            config: str | None = key.label.removeprefix(f"{method} (").removesuffix(")")
        else:
            config = choose_config(trainer, key.dataset, [(dataset, series.config) for dataset, series in kin])
        recipe = Recipe(method, trainer, key.shots, self.collection.root)
        source = key.source if key.part == "test" else None
        commands = tuple(recipe.command(script, key.dataset, seed, config, source) for script in scripts)
        return Gap(key.label, key.dataset, key.shots, seed, reason, commands)


def plain(label: str) -> str:
    """The method of a label, its config left out."""
    return label.split(" (")[0]


def benchmarks(datasets: Sequence[str]) -> list[list[str]]:
    """Data sets over which an average makes sense: real ones, and those of the embedded benchmark."""
    groups = [[d for d in datasets if d not in EMBEDDED], [d for d in datasets if d in EMBEDDED]]
    return [group for group in groups if len(group) > 1]


def _with_several_configs(found: Iterable[Found]) -> set[str]:
    """Methods with more than one config at one place."""
    configs: dict[tuple, set[str | None]] = {}
    for item in found:
        place = item.place
        where = (item.method, place.part, place.source, place.dataset, place.shots)
        configs.setdefault(where, set()).add(place.config)
    return {where[0] for where, names in configs.items() if len(names) > 1}


def _seedless(collection: Collection) -> set[str]:
    """Methods that train nothing, so that every seed gives the same."""
    counts: dict[str, set[object]] = {}
    for run in collection.all_runs():
        count = run.recorded("parameters").get("trainable_scalars")
        counts.setdefault(run.method, set()).add(count if isinstance(count, int) else None)
    return {*ZEROSHOT, *(method for method, found in counts.items() if found == {0})}
