"""One owner a run folder: `job.lock` says who runs it, since when, and shows by its time that the owner still lives.

Whoever runs a job holds its lock. The lock of a dead owner is taken over: on the same host its processes are gone, on
another one its last sign of life is older than `STALE` seconds. A job of SLURM's that started again owns its own
earlier lock, and one that has left the queue is dead. Creating the file is what only one can do; replacing a dead
owner's file is guarded by a second file that only one can create.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Callable, Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tools.sweeps.files import now, read_json, span, write_json

FILE = "job.lock"
HEARTBEAT = 30.0  # seconds between two signs of life
STALE = 600.0  # seconds without one after which an owner on another host is dead
PROC = Path("/proc")  # of Linux; elsewhere a process is told by its id alone


@dataclass(frozen=True)
class Owner:
    """Who holds a lock.

    Attributes:
        token: of the attempt, different each time.
        host: name of the machine.
        space: of process ids on it; containers of one machine have their own.
        pid, born: the process, and when it began in ticks since the machine did, since ids are used again.
        child, child_born: the run's own process, which may survive its parent; 0: not started yet.
        slurm_job: id of SLURM's job; "": none.
        since: when it took the lock.
    """

    token: str
    host: str
    space: str
    pid: int
    born: int
    child: int
    child_born: int
    slurm_job: str
    since: str

    def __str__(self) -> str:
        job = f", SLURM job {self.slurm_job}" if self.slurm_job else ""
        return f"process {self.pid} on {self.host}{job}, since {self.since}"


def myself(token: str) -> Owner:
    """This process as an owner."""
    pid = os.getpid()
    return Owner(token, platform.node(), _space(), pid, birth(pid), 0, 0, slurm_job(), now())


def slurm_job() -> str:
    """Id of the SLURM job that this process belongs to, as `squeue` writes it; "": none."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")


@dataclass(frozen=True)
class Held:
    """A lock as found: its owner, None where the file does not tell, and the seconds since its last sign of life."""

    owner: Owner | None
    age: float

    def alive(self, queue: Set[str] | None = None) -> bool:
        """Whether the owner still runs.

        Args:
            queue: ids of the jobs in SLURM's queue; None if that is not known.
        """
        owner = self.owner
        if owner is None:
            return self.age < STALE
        if owner.slurm_job and owner.slurm_job == slurm_job():
            return owner.pid == os.getpid()  # else an earlier start of this very job
        if (owner.host, owner.space) == (platform.node(), _space()):
            return _runs(owner.pid, owner.born) or _runs(owner.child, owner.child_born)
        if owner.slurm_job and queue is not None:
            return owner.slurm_job in queue
        return self.age < STALE

    def __str__(self) -> str:
        return f"{self.owner or 'somebody'}, last sign of life {span(self.age)} ago"


def look(folder: Path) -> Held | None:
    """The lock of a run folder; None if nobody holds it."""
    path = folder / FILE
    try:
        age = time.time() - path.stat().st_mtime
    except OSError:
        return None
    tree = read_json(path) or {}
    try:
        return Held(Owner(**tree), age)
    except TypeError:  # being written at this moment, damaged, or of another version
        return Held(None, age)


class Lock:
    """The lock of one run folder for this process.

    Args:
        folder: of the run; made if need be.
        token: of the attempt.
    """

    def __init__(self, folder: Path, token: str):
        self.path = folder / FILE
        self.owner = myself(token)

    def acquire(self, queue: Callable[[], Set[str] | None] = lambda: None) -> Held | None:
        """Take the lock, or a dead owner's.

        Args:
            queue: asks for the jobs in SLURM's queue; called only if one of them holds the lock, since it may be slow.

        Returns:
            The living owner, if there is one: then the lock is not taken. `taken_from` has the dead one, if any.
        """
        self.taken_from: Held | None = None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while not self._create(self.path):
            held = look(self.path.parent)
            if held is None:
                continue  # given back in this moment
            asked = queue() if held.owner is not None and held.owner.slurm_job else None
            if held.alive(asked) or not self._replace(held):
                return look(self.path.parent) or held
            self.taken_from = held
            return None
        return None

    def _create(self, path: Path) -> bool:
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(asdict(self.owner), file, indent=2)
        return True

    def _replace(self, dead: Held) -> bool:
        """Put this owner in a dead one's place; whether it was this process that did."""
        token = dead.owner.token if dead.owner else "unknown"
        claim = self.path.with_name(f".{FILE}.{token}")
        with contextlib.suppress(OSError):
            if time.time() - claim.stat().st_mtime > STALE:
                claim.unlink()  # of somebody who died right here
        if not self._create(claim):
            return False
        try:
            found = look(self.path.parent)
            if found is None or found.owner != dead.owner:
                return False  # somebody else was faster
            write_json(self.path, asdict(self.owner))
            return True
        finally:
            claim.unlink(missing_ok=True)

    def has_child(self, pid: int) -> None:
        """Note the run's own process, so that the lock holds as long as it runs."""
        self.owner = replace(self.owner, child=pid, child_born=birth(pid))
        if self.is_mine():
            write_json(self.path, asdict(self.owner))

    def beat(self) -> bool:
        """Give a sign of life; False if somebody else has the lock now."""
        if not self.is_mine():
            return False
        with contextlib.suppress(OSError):
            os.utime(self.path)
        return True

    def is_mine(self) -> bool:
        return (read_json(self.path) or {}).get("token") == self.owner.token

    def release(self) -> None:
        if self.is_mine():
            self.path.unlink(missing_ok=True)


def birth(pid: int) -> int:
    """When a process began, in ticks since the machine did; 0 if it is gone, or where that is not told."""
    fields = _stat(pid)
    return int(fields[19]) if len(fields) > 19 and fields[0] != "Z" else 0


def _runs(pid: int, born: int) -> bool:
    if pid <= 0:
        return False
    if PROC.joinpath("self", "stat").exists():
        return birth(pid) == born != 0
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat behind the program's name, which may hold spaces: state, parent, …"""
    try:
        return PROC.joinpath(str(pid), "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _space() -> str:
    try:
        return os.readlink(PROC / "self/ns/pid")
    except OSError:
        return ""
