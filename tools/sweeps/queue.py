"""What SLURM's queue holds, and what sweeps have put there.

`squeue` alone is asked, since accounting (`sacct`) is not set up everywhere.
"""

from __future__ import annotations

import getpass
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tools.sweeps.files import read_json, write_json


class SlurmError(RuntimeError):
    """SLURM refused something, or does not answer; the message is one sentence."""


def jobs_in_queue() -> set[str] | None:
    """Ids of this user's jobs that wait or run, elements of arrays by themselves; None if SLURM does not answer."""
    states = queue_states()
    return None if states is None else set(states)


def queue_states() -> dict[str, str] | None:
    """Id -> PENDING, RUNNING, …"""
    if shutil.which("squeue") is None:
        return None
    command = ["squeue", "--noheader", "--array", "--user", getpass.getuser(), "--format", "%i %T"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode != 0:
        return None
    return {words[0]: words[1] for line in done.stdout.splitlines() if (words := line.split())}


class Book:
    """What sweeps on one OUTPUT have put into the queue: a file a submission."""

    def __init__(self, folder: Path):
        self.folder = folder

    def write(self, entries: dict[str, dict[str, Any]]) -> None:
        """Note jobs: SLURM id -> {"key", "attempt": fields of `record.Attempt`}."""
        write_json(self.folder / f"queue-{min(entries)}.json", entries)

    def read(self) -> dict[str, dict[str, Any]]:
        entries: dict[str, dict[str, Any]] = {}
        for path in sorted(self.folder.glob("queue-*.json")):
            entries |= read_json(path) or {}
        return entries

    def forget(self, gone: set[str]) -> None:
        """Take jobs off the book that are no longer in the queue."""
        for path in self.folder.glob("queue-*.json"):
            entries = read_json(path) or {}
            kept = {job: entry for job, entry in entries.items() if job not in gone}
            if not kept:
                path.unlink(missing_ok=True)
            elif len(kept) < len(entries):
                write_json(path, kept)
