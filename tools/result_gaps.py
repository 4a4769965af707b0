"""Runs that a table needs and that are not there, and the commands that make them."""

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tools.run_layout import EMBEDDED, host_of

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_SHOTS = 16  # what scripts/common.sh takes without SHOTS
DEFAULT_HOST = "CoOp"
_FOLDERS = {"ZeroshotCLIP": "zsclip", "ZeroshotCLIP2": "zsclip"}  # trainer -> folder of scripts, where names differ


@dataclass(frozen=True)
class Gap:
    """A cell without a finished run."""

    method: str
    dataset: str  # what it is tested on
    shots: int | None
    seed: int | str
    reason: str  # "no run", or why the run cannot be used
    commands: tuple[str, ...]  # from the root of the repository

    def __str__(self) -> str:
        shots = f", {self.shots} shots" if self.shots is not None else ""
        return f"{self.method}, {self.dataset}{shots}, seed {self.seed}: {self.reason}"


@dataclass(frozen=True)
class Recipe:
    """What the commands of one method have in common."""

    method: str
    trainer: str
    shots: int | None
    output: Path  # the folder that the scripts call OUTPUT

    def command(self, script: str, dataset: str, seed: int | str, config: str | None, source: str | None = None) -> str:
        """One line for bash.

        Args:
            script: name without `.sh`.
            config: CFG; None leaves the choice to the script.
            source: the data set that the tested model was trained on.
        """
        settings = {
            "OUTPUT": _output(self.output),
            "SHOTS": None if self.shots in (None, DEFAULT_SHOTS) else str(self.shots),
            "TRAINER": self.trainer if self.trainer == "ZeroshotCLIP2" else None,
            "HOST": _host(self.method),
            "CFG": config,
            "SOURCE": None if source == default_source(dataset) else source,
        }
        words = [f"{name}={shlex.quote(value)}" for name, value in settings.items() if value is not None]
        words += ["bash", f"scripts/{script_folder(self.trainer)}/{script}.sh", shlex.quote(dataset), str(seed)]
        return " ".join(words)


def choose_config(trainer: str, dataset: str, seen: Iterable[tuple[str, str]]) -> str | None:
    """CFG for a command: that of the method's other runs; None where the script's own choice is the same or better.

    Args:
        seen: (data set, config) of the method's runs.
    """
    seen = list(seen)
    here = {config for name, config in seen if name == dataset}
    if here:
        return min(here)
    kin = {config for name, config in seen if (name in EMBEDDED) == (dataset in EMBEDDED)}
    if len(kin) != 1 or kin == {_script_default(trainer, dataset)}:
        return None
    return kin.pop()


def script_folder(trainer: str) -> str:
    """The folder below scripts/ of a trainer."""
    return _FOLDERS.get(trainer, trainer.lower())


def default_source(dataset: str) -> str:
    """What a model is trained on that is tested on another data set."""
    return "shapes" if dataset in EMBEDDED else "imagenet"


def _script_default(trainer: str, dataset: str) -> str | None:
    """The config that a method's scripts take by themselves, as their method.sh says it for most data sets."""
    path = ROOT / "scripts" / script_folder(trainer) / "method.sh"
    found = re.search(r"^METHOD=\((\S+) (\S+) (\S+)\)", path.read_text(), re.MULTILINE) if path.is_file() else None
    return found[2 if dataset in EMBEDDED else 3] if found else None


def _host(method: str) -> str | None:
    host = host_of(method)
    return None if host == DEFAULT_HOST else host


def _output(output: Path) -> str | None:
    """OUTPUT for a command that is given from the root of the repository."""
    path = output.resolve()
    if path == ROOT / "output":
        return None
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
