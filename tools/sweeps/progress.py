"""A sweep under way: a table that is drawn again on a terminal, a line an event anywhere else."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TextIO

from tools.sweeps.files import span
from tools.sweeps.plan import Job
from tools.sweeps.state import Status
from tools.sweeps.table import group_table, remaining, time_left, totals

EVERY = 1.0  # seconds between two drawings on a terminal
SPARSE = 60.0  # … and between two lines of totals elsewhere


class Progress:
    """Tells what happens.

    Args:
        jobs: of the plan.
        side_by_side: runs at a time, for the time that is left; None: as many as run at the moment.
        stream: where to write; a terminal gets a table.
    """

    def __init__(self, jobs: Sequence[Job], side_by_side: int | None, stream: TextIO | None = None):
        self.jobs, self.side_by_side = list(jobs), side_by_side
        self.stream = sys.stdout if stream is None else stream
        self.live = self.stream.isatty()
        self._drawn = 0  # lines of the table on the screen
        self._news = False
        self._begin = self._when = time.monotonic()

    def tell(self, job: Job, event: str, note: str = "") -> None:
        """One thing happened to a job."""
        self.say(f"{datetime.now():%H:%M:%S}  {event:<10}  {job}{f': {note}' if note else ''}")
        self._news = True

    def say(self, line: str) -> None:
        """A line that stays, above the table if there is one."""
        with contextlib.suppress(OSError):  # the terminal was closed, or `| head` is through: the runs are worth more
            self.clear()
            print(line, file=self.stream, flush=True)
        if self.live:
            self._when = 0.0

    def show(self, statuses: Mapping[Path, Status]) -> None:
        """Draw the table if it is time to; elsewhere than on a terminal, a line of totals if there is news."""
        now = time.monotonic()
        if not self.live:
            if self._news and now - self._when >= SPARSE:
                self.say(self._totals(statuses))
                self._when, self._news = now, False
            return
        if now - self._when < EVERY:
            return
        self._when = now
        size = shutil.get_terminal_size()
        lines = [line[: size.columns - 1] for line in self._lines(statuses)][-(size.lines - 2) :]
        with contextlib.suppress(OSError):
            self.clear()
            print("\n".join(lines), file=self.stream, flush=True)
        self._drawn = len(lines)

    def clear(self) -> None:
        """Take the table off the screen."""
        if self._drawn:
            self.stream.write(f"\x1b[{self._drawn}F\x1b[J")
            self._drawn = 0

    def _lines(self, statuses: Mapping[Path, Status]) -> list[str]:
        running = [(job, statuses[job.key]) for job in self.jobs if statuses[job.key].state == "running"]
        lines = [f"running  {job}: {status.note}" for job, status in running]
        return ["", *group_table(self.jobs, statuses), "", *lines, self._totals(statuses)]

    def _totals(self, statuses: Mapping[Path, Status]) -> str:
        running = sum(status.state == "running" for status in statuses.values())
        parts = [totals(statuses), remaining(time_left(self.jobs, statuses, self.side_by_side or running))]
        return "; ".join(filter(None, [*parts, f"{span(time.monotonic() - self._begin)} so far"]))
