"""The field's protocols as runs: which data, which classes, which config, and what a person types to make a run.

Where a run lies is said by tools/run_layout.py. A method is a folder of `scripts/` with a `method.yaml`:

    trainer: CoOp                       # registered name
    variants: [CoOp2]                   # other trainers that its scripts run with TRAINER=CoOp2 (default: none)
    trains: true                        # false: everything is an evaluation
    transfers: true                     # false: a trained model knows its own classes only, so there are no new ones
    hosts: {MaPLe: {base2new: {"*": …}}}  # of a method that wraps another: configs around other hosts, asked for with
                                        # HOST=MaPLe; those of `configs` are around its usual one
    configs:                            # protocol -> pattern -> config; the first pattern that fits counts
      base2new: {"shapes*": mini_vit8_ep20, "imagenet": vit_b16_ep50_ctxv1, "*": vit_b16_ep200_ctxv1}
      fewshot: {"shapes*": mini_vit8_ep20, "* 1": vit_b16_ep50, "*": vit_b16}
    teacher:                            # of a distilling method: whose trained model it learns from
      method: promptsrc                 # folder of scripts/
      key: TRAINER.PROMPTKD.TEACHER_DIR  # the entry that names the run folder
      configs: {base2new: {"*": vit_l14_ep20_bs8}}  # as above, for the teacher's training
    published: {xd, fewshot: rn50}      # protocols whose config for real data is that of a paper or its code, or
                                        # the one named here; "MaPLe xd" is that around a host (default: none)
    trains_on: target                   # other data sets and domains: xd_test trains on them itself (default: source)

A pattern stands for a data set, or for a data set and a number of shots.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tools.run_layout import PROTOCOLS, Place

ROOT = Path(__file__).resolve().parent.parent
SOURCE, EMBEDDED_SOURCE = "imagenet", "shapes"  # what is trained on for other data sets and domains
DEFAULT_SHOTS, DEFAULT_OUTPUT = 16, "output"


class ProtocolError(ValueError):
    """Something that cannot be run; the message is one sentence."""


@dataclass(frozen=True)
class TeacherFiles:
    """Whose trained model a distilling method learns from: a folder of `scripts/`, with configs of its own."""

    method: str
    key: str
    configs: dict[str, dict[str, str]]


@dataclass(frozen=True)
class MethodFiles:
    """A folder of `scripts/`: the trainer it runs and its configs by protocol."""

    folder: str
    trainer: str
    trains: bool
    configs: dict[str, dict[str, str]]
    variants: tuple[str, ...] = ()
    transfers: bool = True
    hosts: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    teacher: TeacherFiles | None = None
    trains_on: str = "source"
    published: dict[str, str | None] = field(default_factory=dict)

    def config(self, key: str, dataset: str, shots: int, host: str = "") -> str:
        """Stem of the config of a protocol, a data set and a number of shots, around a host ("": the usual one).

        Raises:
            ProtocolError: the method has none.
        """
        self.check_host(host)
        found = choose(self.hosts[host] if host else self.configs, key, dataset, shots)
        if found is None:
            around = f" around {host}" if host else ""
            raise ProtocolError(f"scripts/{self.folder}/method.yaml names no config for {key} on {dataset}{around}.")
        return found

    def teacher_config(self, key: str, dataset: str, shots: int) -> str:
        """As `config`, of the teacher's training.

        Raises:
            ProtocolError: the method has no teacher, or that has no config.
        """
        found = choose(self.teacher.configs, key, dataset, shots) if self.teacher else None
        if found is None:
            raise ProtocolError(f"scripts/{self.folder}/method.yaml names no teacher's config for {key} on {dataset}.")
        return found

    def check_host(self, host: str) -> None:
        """Refuse a host that the method has no configs for.

        Raises:
            ProtocolError: it has none, or it wraps no host at all.
        """
        if host and host not in self.hosts:
            there = f"HOST can be: {' '.join(self.hosts)}" if self.hosts else "it takes no HOST"
            raise ProtocolError(f"{self.trainer} has no scripts around {host}; {there}")

    def check_transfer(self, protocol: str) -> None:
        """Refuse what a model that is tied to its classes can't do.

        Raises:
            ProtocolError: the protocol tests on other classes, or trains for that.
        """
        if not self.transfers and (PROTOCOLS[protocol].after or PROTOCOLS[protocol].configs == "xd"):
            raise ProtocolError(
                f"{self.trainer} can only tell the classes that it was trained on, so there is no {protocol} of it; "
                f"what it gives are base2new_train (base classes) and fewshot (all classes)"
            )


def choose(configs: dict[str, dict[str, str]], key: str, dataset: str, shots: int) -> str | None:
    """The config of the first pattern that fits; None if none does."""
    for pattern, config in configs.get(key, {}).items():
        if fnmatchcase(dataset, pattern) or fnmatchcase(f"{dataset} {shots}", pattern):
            return config
    return None


@cache
def method_files(folder: str, root: Path = ROOT) -> MethodFiles:
    """Read `scripts/FOLDER/method.yaml`.

    Raises:
        ProtocolError: there is none, or it is damaged.
    """
    path = root / "scripts" / folder / "method.yaml"
    if not path.is_file():
        raise ProtocolError(f"No method '{folder}'; there are: {' '.join(method_folders(root))}.")
    tree: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    try:
        variants = tuple(tree.get("variants", ()))
        teacher = TeacherFiles(**tree["teacher"]) if "teacher" in tree else None
        return MethodFiles(
            folder,
            tree["trainer"],
            tree.get("trains", True),
            tree["configs"],
            variants,
            tree.get("transfers", True),
            tree.get("hosts", {}),
            teacher,
            tree.get("trains_on", "source"),
            tree.get("published", {}),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ProtocolError(f"{path} must name trainer and configs ({error!r}).") from None


def method_folders(root: Path = ROOT) -> list[str]:
    """Folders of `scripts/` that hold a method."""
    return sorted(path.parent.name for path in (root / "scripts").glob("*/method.yaml"))


@cache
def method_of(trainer: str, root: Path = ROOT) -> MethodFiles:
    """The method whose scripts run a trainer.

    Raises:
        ProtocolError: there is none.
    """
    methods = [method_files(folder, root) for folder in method_folders(root)]
    for files in methods:
        if trainer in (files.trainer, *files.variants):
            return files
    there = " ".join(name for files in methods for name in (files.trainer, *files.variants))
    raise ProtocolError(f"no scripts run the trainer {trainer}, only {there}")


def own_config(trainer: str, key: str, dataset: str, shots: int | None, host: str | None = None) -> str:
    """The config that a trainer's scripts choose for a key of `method.yaml`; "" where they choose none.

    Args:
        host: what it wraps; one without configs of its own is the usual one.
        dataset: what is trained on, or evaluated where nothing is trained.
        shots: images a class; None where nothing is trained.
    """
    try:
        files = method_of(trainer)
        around = host if host in files.hosts else ""
        return files.config(key, dataset, DEFAULT_SHOTS if shots is None else shots, around or "")
    except ProtocolError:
        return ""


def transfers(trainer: str) -> bool:
    """Whether a trainer's models can be tested on other classes; so it is of trainers that no scripts run."""
    try:
        return method_of(trainer).transfers
    except ProtocolError:
        return True


def default_source(dataset: str) -> str:
    """What a model is trained on that is tested on another data set or domain."""
    return EMBEDDED_SOURCE if dataset.startswith(EMBEDDED_SOURCE) else SOURCE


def config_stems(folder: Path) -> list[str]:
    """Names of the yaml files of a folder."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


@dataclass(frozen=True)
class Run:
    """One run of a protocol.

    Attributes:
        protocol: key of `PROTOCOLS`.
        method: folder of `scripts/`.
        dataset: stem of a file in `configs/datasets`; that of the test, where a model is tested elsewhere.
        config: stem of a file in `config_folder`; "": the method's own for this protocol.
        trainer: registered name; "": the method's.
        host: what the method wraps, one of its `hosts`; "": the usual one.
        source: data set of the training for other data sets and domains; "": ImageNet, or `shapes` on its domains.
        output: folder of all runs.
        options: entries of the config to change, KEY VALUE ….
        teacher_seed: of the teacher's training; one teacher serves all seeds of its students.
    """

    protocol: str
    method: str
    dataset: str
    seed: int = 1
    shots: int = DEFAULT_SHOTS
    config: str = ""
    trainer: str = ""
    host: str = ""
    source: str = ""
    output: str = DEFAULT_OUTPUT
    options: tuple[str, ...] = ()
    root: Path = ROOT
    teacher_seed: int = 1

    def resolved(self) -> Run:
        """The run with every choice made.

        Raises:
            ProtocolError: there is no such method, protocol, data set or config.
        """
        files = method_files(self.method, self.root)
        if self.protocol not in PROTOCOLS:
            raise ProtocolError(f"No protocol '{self.protocol}'; there are: {' '.join(PROTOCOLS)}.")
        files.check_transfer(self.protocol)
        protocol = PROTOCOLS[self.protocol]
        source = self.source or default_source(self.dataset)
        dataset = source if self.protocol == "xd_train" else self.dataset
        for name in {dataset, source} if protocol.configs == "xd" else {dataset}:
            if not (self.root / "configs/datasets" / f"{name}.yaml").is_file():
                there = " ".join(config_stems(self.root / "configs/datasets"))
                raise ProtocolError(f"unknown data set '{name}'; there are: {there}")
        source_decides = protocol.configs == "xd" and self.basis.trains_on == "source"
        own = files.config(protocol.configs, source if source_decides else dataset, self.shots, self.host)
        run = replace(self, dataset=dataset, source=source, config=self.config or own)
        run = replace(run, trainer=self.trainer or files.trainer)
        if not run.config_file.is_file():
            there = " ".join(config_stems(run.config_file.parent)) or "none"
            raise ProtocolError(f"no config {run.config_file.relative_to(self.root)}; CFG can be: {there}")
        return run

    @property
    def basis(self) -> MethodFiles:
        """The files that say what is trained on, and by whom one is taught: the host's, if there is one."""
        return method_of(self.host, self.root) if self.host else method_files(self.method, self.root)

    @property
    def trains(self) -> bool:
        return method_files(self.method, self.root).trains and not self.after

    @property
    def after(self) -> str:
        """The protocol whose model this run tests; "": it trains itself, if the method does."""
        if self.protocol == "xd_test" and self.basis.trains_on == "target":
            return ""
        return PROTOCOLS[self.protocol].after

    @property
    def classes(self) -> str:
        return PROTOCOLS[self.protocol].classes

    @property
    def config_file(self) -> Path:
        """A trainer without configs of its own is a variant of the method, and uses the method's."""
        folder = self.root / "configs/trainers" / self.trainer
        if not folder.is_dir():
            folder = folder.with_name(method_files(self.method, self.root).trainer)
        return folder / f"{self.config}.yaml"

    @property
    def dataset_file(self) -> Path:
        return self.root / "configs/datasets" / f"{self.dataset}.yaml"

    @property
    def folder(self) -> Path:
        """Where the run lies; of a resolved run."""
        place = Place(self.seed, self.protocol, self.source, self.dataset, self.trainer, self.config, self.shots)
        return Path(self.output, place.folder)

    @property
    def model(self) -> Run | None:
        """The training run whose model this one tests; None if there is nothing to load."""
        after = self.after
        if not after or not method_files(self.method, self.root).trains:
            return None
        return replace(self, protocol=after, dataset=self.source if after == "xd_train" else self.dataset)

    @property
    def teacher(self) -> Run | None:
        """The training run whose model this one learns from or takes its classifier from; None without a teacher."""
        files = self.basis
        if files.teacher is None:
            return None
        protocol = PROTOCOLS[self.protocol].after or self.protocol
        dataset = self.source if protocol == "xd_train" else self.dataset
        config = files.teacher_config(PROTOCOLS[protocol].configs, dataset, self.shots)
        seed, where = self.teacher_seed, {"source": self.source, "output": self.output, "root": self.root}
        return Run(protocol, files.teacher.method, dataset, seed, self.shots, config, **where).resolved()

    def script(self) -> list[str]:
        """The script of this run and its arguments, as a person types them."""
        values = {"DATASET": self.dataset, "SEED": str(self.seed), "SHOTS": str(self.shots)}
        arguments = [values[name] for name in PROTOCOLS[self.protocol].arguments]
        return [f"scripts/{self.method}/{self.protocol}.sh", *arguments]

    def environment(self) -> dict[str, str]:
        """Variables that the script needs to make this run: those that are not at their defaults."""
        plain = replace(self, config="", trainer="").resolved()
        named = {"HOST": (self.host, ""), "CFG": (self.config, plain.config), "TRAINER": (self.trainer, plain.trainer)}
        if self.protocol == "xd_train":
            named["SOURCE"] = (self.source, SOURCE)
        elif self.protocol == "xd_test":
            named["SOURCE"] = (self.source, default_source(self.dataset))
        if "SHOTS" not in PROTOCOLS[self.protocol].arguments:
            named["SHOTS"] = (str(self.shots), str(DEFAULT_SHOTS))
        named["TEACHER_SEED"] = (str(self.teacher_seed), "1")
        named["OUTPUT"] = (self.output, DEFAULT_OUTPUT)
        return {name: value for name, (value, default) in named.items() if value != default}

    def shell_line(self) -> str:
        """What a person types in the repository to make this run."""
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.environment().items()]
        return " ".join([*variables, "bash", *self.script(), *map(shlex.quote, self.options)])


def main(argv: list[str] | None = None) -> int:
    """Print the config that a method has for a protocol: METHOD KEY DATASET SHOTS [teacher], for scripts."""
    method, key, dataset, shots, *whose = sys.argv[1:] if argv is None else argv
    try:
        files = method_files(method)
        config = files.teacher_config if whose == ["teacher"] else files.config
        print(config(key, dataset, int(shots)))
    except ProtocolError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
