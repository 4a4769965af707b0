"""What the builders of the paper's tables ask of collected runs: names, values by seed, published figures, gaps.

A method that has several configs on one data set is several methods in its table, `CoOp (ep20)` and `CoOp (ep50)`;
otherwise its configs are one method, such as one config for ImageNet and another for the other data sets.
A few-shot run is also the training run of the tests on other data sets, where those tested its model.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from tools.paper_tables import Seed
from tools.protocols import own_config
from tools.result_gaps import Gap, make_gap
from tools.result_published import Published, PublishedFigures
from tools.result_runs import Collection, Found
from tools.run_layout import PROTOCOLS, Place
from tools.run_names import EMBEDDED, host_of, natural, rank_dataset, rank_method
from tools.run_reader import RunProblem, read_run

NO_RUN = "no run"
ZEROSHOT = ("ZeroshotCLIP", "ZeroshotCLIP2")


class Key(NamedTuple):
    """A method at one place of a protocol, all seeds together."""

    protocol: str  # of run_layout.PROTOCOLS
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
        self._why = {item.folder: item.reason for item in collection.left_out}
        self.series: dict[Key, Series] = {}
        self._keys_of: dict[Path, list[Key]] = {}
        found = by_protocol(collection.found)
        self._several = {family: _with_several_configs(family, found) for family in map(_family, PROTOCOLS)}
        for protocol, items in found.items():
            for item in sorted(items, key=lambda item: natural(item.place.seed)):
                self._add(protocol, item)
        for run in collection.all_runs():
            for key in self._keys_of[run.folder]:
                series = self.series[key]
                series.values[run.seed] = run.value
                backbone = (run.metrics or {}).get("backbone")
                series.backbone = series.backbone or (backbone if isinstance(backbone, str) else None)
        seedless = _seedless(collection)
        self.seedless = {key.label for key, series in self.series.items() if series.method in seedless}
        self.versus = self._resolve(versus)

    def _add(self, protocol: str, found: Found) -> None:
        place = found.place
        assert place.dataset is not None
        source = place.dataset if protocol == "xd_train" else place.source
        key = Key(protocol, self.label(protocol, found.method, place.config), source, place.dataset, place.shots)
        self._keys_of.setdefault(found.folder, []).append(key)
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

    # ---- what there is --------------------------------------------------------------------------------------------

    def label(self, protocol: str, method: str, config: str | None) -> str:
        """The name of a method in a table."""
        return f"{method} ({config})" if method in self._several[_family(protocol)] else method

    def keys(self, *protocols: str) -> list[Key]:
        """Keys of the protocols' series, in the papers' order."""
        keys = [key for key in self.series if key.protocol in protocols]
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
            if (_family(other.protocol), other.shots) == (_family(key.protocol), key.shots)
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

    def gap(self, key: Key, seed: Seed, reason: str, protocols: Sequence[str] = ()) -> Gap:
        """A missing run with the commands that make it.

        Args:
            key: of its cell.
            protocols: of the runs to make, in their order; empty: the key's.
        """
        kin = {
            other: series
            for other, series in self.series.items()
            if (_family(other.protocol), other.label) == (_family(key.protocol), key.label)
        }
        method, trainer = next((series.method, series.trainer) for series in kin.values())
        place = Place(seed, key.protocol, key.source, key.dataset, trainer, _config_of(key, kin), key.shots)
        places = [replace(place, protocol=protocol) for protocol in protocols or [key.protocol]]
        return make_gap(method, key.label, places, self.collection.root, reason)


def plain(label: str) -> str:
    """The method of a label, its config left out."""
    return label.split(" (")[0]


def benchmarks(datasets: Sequence[str]) -> list[list[str]]:
    """Data sets over which an average makes sense: real ones, and those of the embedded benchmark."""
    groups = [[d for d in datasets if d not in EMBEDDED], [d for d in datasets if d in EMBEDDED]]
    return [group for group in groups if len(group) > 1]


def by_protocol(found: Iterable[Found]) -> dict[str, list[Found]]:
    """Runs by protocol; few-shot runs that other data sets are tested with are those of xd_train.

    These stand in few-shot tables, too, where their data set has few-shot runs of its own, or no data set has. Of a
    method with one config for other data sets and another one for few-shot runs, only the runs with the latter do.
    """
    groups: dict[str, list[Found]] = {protocol: [] for protocol in PROTOCOLS}
    for item in found:
        groups[item.place.protocol or ""].append(item)
    fewshot = groups["fewshot"]
    tested = {item.place.model.folder.parent for item in groups["xd_test"] if item.place.model}
    special = {item.folder for item in fewshot if _has_xd_config(item)}
    groups["xd_train"] = [i for i in fewshot if i.folder in special or i.place.folder.parent in tested]
    trained = {item.folder for item in groups["xd_train"]}
    datasets = {item.place.dataset for item in fewshot if item.folder not in trained}
    general = {_where(item) for item in fewshot if item.folder not in special}
    groups["fewshot"] = [
        item
        for item in fewshot
        if (not datasets or item.place.dataset in datasets)
        and (item.folder not in special or _where(item) not in general)
    ]
    return groups


def _has_xd_config(run: Found) -> bool:
    """Whether a few-shot run has the config of its method for other data sets, and not that for few-shot runs."""
    place = run.place
    where = place.dataset or "", place.shots, host_of(run.method)
    xd, fewshot = (own_config(place.trainer or "", key, *where) for key in ("xd", "fewshot"))
    return place.config == xd != fewshot


def _where(run: Found) -> tuple:
    return run.method, run.place.dataset, run.place.shots


def _family(protocol: str) -> str:
    """What protocols have in common that make one table."""
    return PROTOCOLS[protocol].configs


def _with_several_configs(family: str, found: dict[str, list[Found]]) -> set[str]:
    """Methods with more than one config at one place."""
    configs: dict[tuple, set[str | None]] = {}
    for protocol in (protocol for protocol in found if _family(protocol) == family):
        for item in found[protocol]:
            where = (item.method, protocol, item.place.source, item.place.dataset, item.place.shots)
            configs.setdefault(where, set()).add(item.place.config)
    return {where[0] for where, names in configs.items() if len(names) > 1}


def _config_of(key: Key, kin: dict[Key, Series]) -> str:
    """The config of a missing run; "": the one that its method's scripts choose.

    Args:
        kin: the series of its method.
    """
    if key.label != plain(key.label):  # several configs, so it is in the name
        return next(iter(kin.values())).config
    for other, series in kin.items():
        if other._replace(protocol=key.protocol) == key:
            return series.config
    changed = set()  # what all other runs have instead of their scripts' choice
    for other, series in kin.items():
        own = own_config(
            series.trainer, _family(key.protocol), other.source or other.dataset, other.shots, host_of(series.method)
        )
        changed.add("" if series.config == own else series.config)
    return changed.pop() if len(changed) == 1 else ""


def _seedless(collection: Collection) -> set[str]:
    """Methods that train nothing, so that every seed gives the same."""
    counts: dict[str, set[object]] = {}
    for run in collection.all_runs():
        count = run.recorded("parameters").get("trainable_scalars")
        counts.setdefault(run.method, set()).add(count if isinstance(count, int) else None)
    return {*ZEROSHOT, *(method for method, found in counts.items() if found == {0})}
