"""Runs as a page shows them: grouped over seeds, what they change from the defaults, and how to make them again."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from dassl.config import get_cfg_default
from dassl.engine.record import plain
from tools.protocols import ROOT, ProtocolError
from tools.result_gaps import command
from tools.result_stats import Spread, summarise
from tools.run_layout import PROTOCOLS, Place, place_of
from tools.run_names import dataset_name, method_name, natural, rank_dataset, rank_method
from tools.run_reader import Run, RunProblem, find_runs, load_metrics, read_run
from tools.run_state import is_same, settings_of
from trainers.config import extend_cfg

# Where a run lies and goes on, not what it does; and what stands in other columns.
PLACES = ("OUTPUT_DIR", "DATASET.ROOT", "RESUME", "SEED", "TRAINER.NAME", "DATASET.NAME", "VERSION")
BY_SCRIPT = ("DATASET.NUM_SHOTS", "DATASET.SUBSAMPLE_CLASSES")  # that the scripts set from their arguments
UNSET = "–"


@dataclass(frozen=True)
class FoundRun:
    """A run folder, usable or not."""

    folder: Path
    place: Place
    record: dict[str, Any]  # metrics.json; {} where there is none, or a damaged one
    value: float | None  # accuracy in percent; None: not usable
    problem: str = ""  # why not

    @property
    def method(self) -> str:
        return method_name(self.place.trainer or self.record.get("trainer") or "?", self.record.get("config") or {})

    @property
    def dataset(self) -> str:
        return self.place.dataset or dataset_name(self.record.get("dataset")) or "?"

    @property
    def classes(self) -> str:
        return str(self.record.get("classes") or UNSET)


@dataclass
class Group:
    """Runs that differ in their seed only."""

    method: str
    dataset: str
    classes: str
    config: str
    shots: int | None
    trained_on: str  # "" where it is the same data set
    runs: list[FoundRun] = field(default_factory=list)

    @property
    def title(self) -> str:
        shots = "" if self.shots is None or self.shots < 1 else f", {self.shots} shots"
        source = f", trained on {self.trained_on}" if self.trained_on else ""
        config = f" ({self.config})" if self.config != UNSET else ""
        return f"{self.method}{config} on {self.dataset}, {self.classes} classes{shots}{source}"

    @property
    def finished(self) -> list[FoundRun]:
        return [run for run in self.runs if run.value is not None]

    @property
    def result(self) -> Spread | None:
        """Accuracy over seeds; None without a finished run."""
        values = [run.value for run in self.runs if run.value is not None]
        return summarise(values) if values else None

    @property
    def trained(self) -> bool:
        """Whether a run of it has epochs to show."""
        return any(run.record.get("epochs") for run in self.runs)


class Difference(NamedTuple):
    """A key of the configuration that is not at its default."""

    key: str
    value: Any
    default: Any
    set_by: str  # "config file" | "data set's file" | "script" | "command line"


def read_folder(folder: Path) -> list[FoundRun]:
    """All runs at or below a folder, in the order of their paths.

    Raises:
        FileNotFoundError: there is no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}; name a run folder, or a folder of runs.")
    found = [_read(path) for path in find_runs(folder)]
    if not found:
        raise FileNotFoundError(f"{folder} holds no run; name a folder that train.py or a script wrote below.")
    return found


def _read(folder: Path) -> FoundRun:
    try:
        run: Run = read_run(folder)
    except RunProblem as problem:
        record: dict[str, Any] = {}
        if (folder / "metrics.json").is_file():
            try:
                record = load_metrics(folder / "metrics.json")
            except RunProblem:
                record = {}
        return FoundRun(folder, place_of(folder), record, None, str(problem))
    return FoundRun(folder, run.place, run.metrics or {}, run.value)


def grouped(runs: Iterable[FoundRun]) -> list[Group]:
    """Groups in the order of the papers' tables; unusable runs belong to those of their path."""
    groups: dict[tuple, Group] = {}
    for run in runs:
        place = run.place
        config = place.config or UNSET
        outside = "" if place.protocol else str(run.folder.parent)  # laid out otherwise: a folder is a group
        source = place.source if place.source and place.source != run.dataset else ""
        shots = run.record.get("num_shots") if place.shots is None else place.shots
        classes = PROTOCOLS[place.protocol].classes if place.protocol else run.classes
        key = (run.method, run.dataset, classes, config, shots, source, outside)
        group = groups.setdefault(key, Group(run.method, run.dataset, classes, config, shots, source))
        group.runs.append(run)
    for group in groups.values():
        group.runs.sort(key=lambda run: natural(run.place.seed))
    return sorted(
        groups.values(),
        key=lambda g: (rank_dataset(g.dataset), rank_method(g.method), natural(g.config), str(g.shots), g.classes),
    )


def defaults() -> dict[str, Any]:
    """All keys with the defaults of the code, `A.B.C` -> value."""
    cfg = get_cfg_default()
    extend_cfg(cfg)
    return flat(plain(cfg))


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree of dictionaries as `A.B.C` -> value."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        found.update(flat(value, name) if isinstance(value, Mapping) else {name: value})
    return found


def differences(run: FoundRun, default: Mapping[str, Any]) -> list[Difference]:
    """What a run's configuration changes, and who said so; keys of PLACES are passed over.

    Args:
        default: as `defaults` gives it.
    """
    config = run.record.get("config")
    here = flat(config) if isinstance(config, dict) else {}
    of_method, of_data = _files(run.place)
    found = []
    for key, value in here.items():
        if key in PLACES or value == default.get(key):
            continue
        set_by = "script" if run.place.protocol and key in BY_SCRIPT else "command line"
        for name, settings in (("config file", of_method), ("data set's file", of_data)):
            if key in settings and is_same(value, settings[key]):
                set_by = name
                break
        found.append(Difference(key, value, default.get(key, UNSET), set_by))
    return found


def _files(place: Place) -> tuple[dict[str, Any], dict[str, Any]]:
    """Entries of the config files that a run's folder names; {} where it names none that is here."""
    found = []
    for path in (f"trainers/{place.trainer}/{place.config}.yaml", f"datasets/{place.dataset}.yaml"):
        file = ROOT / "configs" / path
        try:
            found.append(settings_of([file]) if file.is_file() else {})
        except RunProblem:
            found.append({})
    return found[0], found[1]


def repeat_command(run: FoundRun, changed: Sequence[Difference]) -> str:
    """What a person types in the repository to make the run again.

    Args:
        changed: as `differences` gives them.
    """
    typed = [d for d in changed if d.set_by == "command line"]
    if run.place.protocol and run.place.trainer:
        depth = len(run.place.folder.parts)
        output = Path(*run.folder.absolute().parts[:-depth])
        try:
            line = command(run.method, run.place, output)
            host = f"TRAINER.{run.place.trainer.upper()}.HOST"  # the command has it already
            return " ".join([line, *_options(d for d in typed if d.key != host)])
        except ProtocolError:
            pass  # a config or method that the scripts do not know
    return _by_hand(run, changed)


def _by_hand(run: FoundRun, changed: Sequence[Difference]) -> str:
    """The same with train.py alone: every key that is not at its default."""
    config = run.record.get("config") or {}
    data = config.get("DATASET") or {}
    words = ["python", "train.py", "--root", str(data.get("ROOT") or "data"), "--seed", str(config.get("SEED", 1))]
    words += ["--trainer", str(run.record.get("trainer")), "--output-dir", str(run.folder)]
    if run.record.get("mode") == "eval":
        model = (run.record.get("final") or {}).get("model_dir")
        words += ["--eval-only", *(["--model-dir", str(model)] if model else [])]
    name = [Difference("DATASET.NAME", data.get("NAME"), None, "")]
    return " ".join([*map(shlex.quote, words), *_options([*name, *changed])])


def _options(changed: Iterable[Difference]) -> list[str]:
    return [shlex.quote(part) for d in changed for part in (d.key, str(d.value))]
