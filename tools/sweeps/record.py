"""`job.json` and `job.log` in a run folder: the newest attempt that a sweep made there, and what it printed.

metrics.json tells what a run measured; this tells what became of the attempt, above all why it failed.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tools.sweeps.files import now, read_json, write_json

FILE, LOG = "job.json", "job.log"
SAVED = "resume.pth.tar"  # of dassl.engine: what an interrupted training goes on from
STOPPED = {130, 143, -signal.SIGINT, -signal.SIGTERM}  # exit codes of a run that was asked to stop
NEWER = 1.0  # seconds by which a file must be younger than an attempt's end to belong to another one
_TAIL = 65536  # bytes at a log's end in which its last error is looked for
_ERROR = re.compile(r"(error|Error|[\w.]*(Error|Exception|Interrupt)): ")


@dataclass(frozen=True)
class Attempt:
    """One attempt at a run.

    Attributes:
        token: different each time.
        command: what a person would type.
        executor: "local" or "slurm".
        slurm_job: id of SLURM's job; "": none.
        host, pid: where it ran.
        started, ended: ISO 8601; "": not ended.
        outcome: "done", "failed", "interrupted"; "": not ended.
        exit: exit code of the script, -N if signal N ended it; None: not ended.
        error: last error line of a failed one.
    """

    token: str
    command: str
    executor: str
    slurm_job: str = ""
    host: str = ""
    pid: int = 0
    started: str = ""
    ended: str = ""
    outcome: str = ""
    exit: int | None = None
    error: str = ""


def read_attempt(folder: Path) -> Attempt | None:
    """The newest attempt at a run; None if no sweep made one."""
    tree = read_json(folder / FILE)
    if tree is None:
        return None
    try:
        return Attempt(**{key: value for key, value in tree.items() if key != "schema"})
    except TypeError:
        return None


def write_attempt(folder: Path, attempt: Attempt) -> None:
    write_json(folder / FILE, {"schema": 1, **asdict(attempt)})


def failure(folder: Path) -> Attempt | None:
    """The newest attempt, if it failed and nobody has tried since, by hand or otherwise."""
    attempt = read_attempt(folder)
    if attempt is None or attempt.outcome != "failed":
        return None
    try:
        ended = datetime.fromisoformat(attempt.ended).timestamp()
    except ValueError:
        return attempt
    touched = [path.stat().st_mtime for name in ("metrics.json", SAVED) if (path := folder / name).is_file()]
    return None if any(moment > ended + NEWER for moment in touched) else attempt


def note_silent_end(folder: Path, attempt: Mapping[str, Any], log: Path) -> None:
    """Record that an attempt ended without a word of its own, such as a process that could not start.

    Args:
        attempt: fields of `Attempt` that are known.
        log: what its executor caught.
    """
    error = last_error(log) or "its process ended without a word"
    write_attempt(folder, Attempt(**attempt, ended=now(), outcome="failed", error=error))


def last_error(log: Path) -> str:
    """The last line of a log that names an error, else its last line; "" if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    errors = [line for line in lines if _ERROR.match(line)]
    return (errors or lines or [""])[-1]


def explain(code: int, log: Path) -> str:
    """Why a script failed: the signal that ended it, or the last error in its log."""
    if code < 0:
        return f"ended by {signal.Signals(-code).name}{', perhaps out of memory' if code == -signal.SIGKILL else ''}"
    return last_error(log) or f"exit code {code}"
