"""A plan: methods x data sets x seeds x shots x changed entries of the config, as a list of runs that know their order.

    protocol: base2new              # base2new, fewshot, xd (other data sets and domains) or zeroshot
    methods: [zsclip, coop]         # folders of scripts/; one that knows its own classes only has no new ones;
                                    # spotlighter:MaPLe is spotlighter with HOST=MaPLe
    datasets: [shapes, eurosat]     # files of configs/datasets; of xd, those that the model is tested on
    seeds: [1, 2, 3]                # default: 1 2 3; a method that trains nothing runs once, with the first
    shots: [16]                     # default: 16
    source: imagenet                # xd: what is trained on; default: imagenet, or shapes for its own domains
    configs: {coop: vit_b16_ep100}  # instead of the config that the method has for the protocol
    overrides:                      # each name has its own folder, OUTPUT/variants/NAME
      plain: {}                     # nothing changed: the run itself, in OUTPUT
      slow: {OPTIM.LR: 0.001}

Several such blocks stand in a list under `runs:`; what stands beside it counts for each block that does not say it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from tools.protocols import (
    DEFAULT_SHOTS,
    PROTOCOLS,
    ROOT,
    MethodFiles,
    ProtocolError,
    Run,
    config_stems,
    method_files,
    method_folders,
)

KEYS = ("protocol", "methods", "datasets", "seeds", "shots", "source", "configs", "overrides")
REQUIRED = ("protocol", "methods", "datasets")
VARIANTS = "variants"  # folder below OUTPUT that holds a folder a named override
FAMILIES = {  # what a plan calls a protocol -> its kinds of runs, the training first
    family: tuple(sorted((n for n, p in PROTOCOLS.items() if p.configs == family), key=lambda n: PROTOCOLS[n].after))
    for family in dict.fromkeys(protocol.configs for protocol in PROTOCOLS.values())
}
_VARIANT = re.compile(r"[A-Za-z0-9][\w.+=-]*")
_ENTRY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)*")


class PlanError(ValueError):
    """A plan that cannot be read; the message is one sentence."""


@dataclass(frozen=True)
class Job:
    """One run of a plan.

    Attributes:
        run: with every choice made.
        variant: name of the override; "": none.
    """

    run: Run
    variant: str = ""

    @property
    def key(self) -> Path:
        """The run's folder as the scripts print it; no two jobs of a plan have the same."""
        return self.run.folder

    @property
    def folder(self) -> Path:
        """The run's folder, from wherever one stands."""
        return self.run.root / self.run.folder

    @property
    def model(self) -> Path | None:
        """Key of the training job whose model is tested; None: there is none."""
        return None if self.run.model is None else self.run.model.folder

    @property
    def needs(self) -> Path | None:
        """Key of the job that has to be finished first, the training or, of a training, that of its teacher."""
        if self.run.model is None and self.run.teacher is not None:
            return self.run.teacher.folder
        return self.model

    def __str__(self) -> str:
        run = self.run
        parts = [run.protocol, f"{run.method}:{run.host}" if run.host else run.method, run.dataset]
        if run.protocol != "zeroshot":
            parts += [f"{run.shots} shots", f"seed {run.seed}"]
        return " ".join([*parts, *([self.variant] if self.variant else [])])


def find_plan(name: str, root: Path = ROOT) -> Path:
    """A plan by its path, or by its name in `plans/`.

    Raises:
        PlanError: there is none.
    """
    for path in (Path(name), root / "plans" / name, root / "plans" / f"{name}.yaml"):
        if path.is_file():
            return path
    raise PlanError(f"no plan {name}{_nearest(name, config_stems(root / 'plans'))}")


def read_plan(path: Path, output: str, root: Path = ROOT) -> list[Job]:
    """The jobs of a plan file, each training before its tests; what is asked for twice is there once.

    Args:
        output: folder of all runs, absolute or relative to the repository.

    Raises:
        PlanError: something in the file is not known, or does not fit.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        return expand(tree, output, root)
    except yaml.YAMLError as error:
        raise PlanError(f"{path} is no yaml: {' '.join(str(error).split())}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path} cannot be read: {error}") from None
    except (PlanError, ProtocolError) as error:
        raise PlanError(f"{path}: {error}") from None


def expand(tree: Any, output: str, root: Path = ROOT) -> list[Job]:
    """The jobs of a plan that is read already; see `read_plan`."""
    jobs: dict[Path, Job] = {}
    for block in _blocks(tree):
        for job in _Block(block, output, root).jobs():
            earlier = jobs.setdefault(job.key, job)
            if earlier.run.options != job.run.options:
                raise PlanError(f"the override '{job.variant}' stands for two different things; give one another name")
    if not jobs:
        raise PlanError("it holds no runs")
    return list(jobs.values())


def _blocks(tree: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(tree, Mapping):
        raise PlanError("expected keys such as protocol, methods and datasets, or blocks of them under runs:")
    common = {key: value for key, value in tree.items() if key != "runs"}
    blocks = tree.get("runs", [{}])
    if not isinstance(blocks, list) or not all(isinstance(block, Mapping) for block in blocks):
        raise PlanError("runs must be a list of blocks, each with keys such as protocol, methods and datasets")
    for block in blocks:
        merged = common | dict(block)
        for key in merged:
            _known("key", key, KEYS)
        missing = [key for key in REQUIRED if not merged.get(key)]
        if missing:
            raise PlanError(f"a block does not say {' and '.join(missing)}")
        yield merged


class _Block:
    """One block of a plan, checked."""

    def __init__(self, block: dict[str, Any], output: str, root: Path):
        self.output, self.root = output, root
        there = config_stems(root / "configs/datasets")
        self.family = _known("protocol", block["protocol"], FAMILIES)
        self.methods = [self._method(name) for name in _list(block["methods"])]
        self.datasets = [_known("data set", name, there) for name in _list(block["datasets"])]
        self.seeds = [_number("seeds", seed, 0) for seed in _list(block.get("seeds", [1, 2, 3]))]
        self.shots = [_number("shots", shots, -1) for shots in _list(block.get("shots", [DEFAULT_SHOTS]))]
        self.source = _known("data set", block["source"], there) if block.get("source") else ""
        self.configs = _mapping("configs", block.get("configs"))
        self.overrides = _mapping("overrides", block.get("overrides")) or {"": {}}
        if not self.seeds or not self.shots:
            raise PlanError("seeds and shots must name at least one number each")
        if self.source and self.family != "xd":
            raise PlanError(f"source belongs to xd alone, this block is of {self.family}")
        for name in self.configs:
            _known("method of the block", name, self.methods)
        self.options = {name: _options(name, changed) for name, changed in self.overrides.items()}

    def _method(self, name: Any) -> str:
        """`FOLDER`, or `FOLDER:HOST`, if both are there."""
        folder, _, host = str(name).partition(":")
        _known("method", folder, method_folders(self.root))
        try:
            method_files(folder, self.root).check_host(host)
        except ProtocolError as error:
            raise PlanError(str(error)) from None
        return str(name)

    def jobs(self) -> Iterator[Job]:
        for method in self.methods:
            for name in self._protocols(method):
                self._check_script(method, name)
            for variant, options in self.options.items():
                for dataset in self.datasets:
                    for shots in self.shots:
                        for seed in self._seeds_of(method):
                            run = self._run(FAMILIES[self.family][0], method, dataset, shots, seed, variant, options)
                            yield from self._ordered(run, variant if options else "", dataset)

    def _ordered(self, run: Run, variant: str, dataset: str) -> Iterator[Job]:
        """The jobs of one model: the training, then the test on a data set."""
        for name in self._protocols(run.method):
            job = Job(replace(run, protocol=name, dataset=dataset).resolved(), variant)
            if job.run.teacher is not None:
                yield Job(job.run.teacher)
            if name == "xd_test" and job.run.dataset == job.run.source:
                raise PlanError(
                    f"{dataset} is what xd trains on, its result is in the training run; leave it out of datasets"
                )
            yield job

    def _protocols(self, method: str) -> tuple[str, ...]:
        """The family's kinds of runs that a method can make, the training first.

        Raises:
            ProtocolError: it can make none of them.
        """
        names, files = FAMILIES[self.family], self._files(method)
        if files.transfers or len(names) == 1:
            return names
        files.check_transfer(names[0])
        return names[:1]

    def _run(
        self, protocol: str, method: str, dataset: str, shots: int, seed: int, variant: str, options: tuple[str, ...]
    ) -> Run:
        seedless = "SEED" not in PROTOCOLS[protocol].arguments
        folder, _, host = method.partition(":")
        return Run(
            protocol=protocol,
            method=folder,
            host=host,
            dataset=dataset,
            seed=1 if seedless else seed,
            shots=DEFAULT_SHOTS if seedless else shots,
            config=self._config(method),
            source=self.source,
            output=f"{self.output}/{VARIANTS}/{variant}" if options else self.output,
            options=options,
            root=self.root,
        )

    def _seeds_of(self, method: str) -> list[int]:
        return self.seeds if self._files(method).trains else self.seeds[:1]

    def _files(self, method: str) -> MethodFiles:
        return method_files(method.partition(":")[0], self.root)

    def _config(self, method: str) -> str:
        """The config that the block names for a method; "": the method's own."""
        name = self.configs.get(method)
        if name is None:
            return ""
        folder = self.root / "configs/trainers" / self._files(method).trainer
        return _known(f"config of {method}", name, config_stems(folder))

    def _check_script(self, method: str, protocol: str) -> None:
        script = self.root / "scripts" / method.partition(":")[0] / f"{protocol}.sh"
        if not script.is_file():
            there = [f for f, names in FAMILIES.items() if (script.parent / f"{names[0]}.sh").is_file()]
            raise PlanError(f"{method} has no {script.name}; it has {' and '.join(there) or 'no protocol'}")


def _known(what: str, name: Any, there: Iterable[str]) -> str:
    """The name, if it is one of those that are there.

    Raises:
        PlanError: it is not; the message has the nearest.
    """
    there = list(there)
    if name not in there:
        raise PlanError(f"unknown {what} '{name}'{_nearest(str(name), there)}")
    return name


def _nearest(name: str, there: Sequence[str]) -> str:
    close = get_close_matches(name, there, n=1, cutoff=0.5)
    names = " ".join(there) or "none"
    return f"; did you mean '{close[0]}'? There are: {names}" if close else f"; there are: {names}"


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _number(key: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise PlanError(f"{key} must be whole numbers of at least {least}, got {value!r}")
    return value


def _mapping(key: str, value: Any) -> dict[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise PlanError(f"{key} must be names with what belongs to each, got {value!r}")
    return dict(value or {})


def _options(name: str, changed: Any) -> tuple[str, ...]:
    """`KEY VALUE …` as typed behind a script.

    Raises:
        PlanError: the name is no name of a folder, or the entries are none of a config.
    """
    if name and not _VARIANT.fullmatch(str(name)):
        raise PlanError(f"the override '{name}' names a folder: letters, digits and . _ + = - only")
    if not isinstance(changed, Mapping) or not all(_ENTRY.fullmatch(str(key)) for key in changed):
        raise PlanError(
            f"the override '{name}' must hold entries of the config such as OPTIM.LR: 0.002, got {changed!r}"
        )
    for key, value in changed.items():
        if isinstance(value, Mapping):
            raise PlanError(f"the override '{name}' must write {key} in full, such as {key}.{next(iter(value), 'KEY')}")
    return tuple(part for key, value in changed.items() for part in (key, str(value)))
