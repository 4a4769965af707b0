"""Runs that a table needs and that are not there, and the commands that make them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tools.protocols import DEFAULT_OUTPUT, DEFAULT_SHOTS, ROOT, ProtocolError, Run, method_of
from tools.run_layout import PROTOCOLS, Place
from tools.run_names import host_of, shots_title
from tools.run_state import settings_of

DEFAULT_HOST = "CoOp"  # of a wrapper whose config names none


@dataclass(frozen=True)
class Gap:
    """A cell without a finished run."""

    method: str
    dataset: str  # what it is tested on
    shots: int | None
    seed: int | str
    reason: str  # "no run", or why the run cannot be used
    commands: tuple[str, ...]  # from the root of the repository
    obstacle: str = ""  # why no command makes it

    def __str__(self) -> str:
        shots = f", {shots_title(self.shots)}" if self.shots is not None else ""
        obstacle = f"; {self.obstacle}" if self.obstacle else ""
        return f"{self.method}, {self.dataset}{shots}, seed {self.seed}: {self.reason}{obstacle}"


def make_gap(method: str, label: str, places: Sequence[Place], output: Path, reason: str) -> Gap:
    """A gap with the commands that fill it, or the sentence that says why there is none.

    Args:
        method: as `run_names.method_name` gives it.
        label: how the table calls it.
        places: of the runs to make, in their order; the last one is that of the cell.
        output: the folder that the scripts call OUTPUT.
    """
    last = places[-1]
    found = Gap(label, last.dataset or "?", last.shots, last.seed, reason, ())
    try:
        return replace(found, commands=tuple(command(method, place, output) for place in places))
    except ProtocolError as error:
        return replace(found, obstacle=str(error))


def command(method: str, place: Place, output: Path) -> str:
    """What a person types in the repository to make a run.

    Args:
        method: as `run_names.method_name` gives it.
        place: of the run; without a config, the method's own.
        output: the folder that the scripts call OUTPUT.

    Raises:
        ProtocolError: no scripts run the trainer, they do not know the protocol, or there is no such config.
    """
    assert place.protocol is not None
    assert place.trainer is not None
    files, host = method_of(place.trainer), host_of(method) or ""
    run = Run(
        protocol=place.protocol,
        method=files.folder,
        host=host if host in files.hosts else "",
        dataset=place.dataset or "",
        seed=int(place.seed) if "SEED" in PROTOCOLS[place.protocol].arguments else 1,
        shots=DEFAULT_SHOTS if place.shots is None else place.shots,
        config=place.config or "",
        trainer=place.trainer,
        source=place.source or "",
        output=_output(output),
    ).resolved()
    key = f"TRAINER.{place.trainer.upper()}.HOST"
    if host and host != settings_of([run.config_file]).get(key, DEFAULT_HOST):
        run = replace(run, options=(key, host))
    return run.shell_line()


def _output(output: Path) -> str:
    """OUTPUT for a command that is given from the root of the repository."""
    path = output.resolve()
    if path == ROOT / DEFAULT_OUTPUT:
        return DEFAULT_OUTPUT
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
