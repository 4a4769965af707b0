"""What a person sees of a sweep: the table of its runs, the totals, the time that is left."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import median

from tabulate import tabulate

from tools.sweeps import record
from tools.sweeps.files import span
from tools.sweeps.plan import Job
from tools.sweeps.state import STATES, Status

HEADERS = ("State", "Protocol", "Method", "Data set", "Shots", "Seed", "Config")
WIDEST = 100  # characters of a note in the table


def run_table(jobs: Iterable[Job], statuses: Mapping[Path, Status]) -> str:
    """One line a run."""
    jobs = list(jobs)
    variants = any(job.variant for job in jobs)
    rows = []
    for job in jobs:
        run, status = job.run, statuses[job.key]
        shots = "" if run.protocol == "zeroshot" else run.shots
        cells = [status.state, run.protocol, run.method, run.dataset, shots, run.seed, run.config]
        rows.append([*cells, *([job.variant] if variants else []), shorten(status.note, WIDEST)])
    headers = [*HEADERS, *(["Variant"] if variants else []), ""]
    return tabulate(rows, headers, tablefmt="simple", disable_numparse=True)


def group_table(jobs: Iterable[Job], statuses: Mapping[Path, Status]) -> list[str]:
    """Lines of a small table: runs of each kind and method by state."""
    counts: dict[tuple[str, str], Counter] = defaultdict(Counter)
    for job in jobs:
        counts[job.run.protocol, job.run.method][statuses[job.key].state] += 1
    used = [state for state in STATES if any(count[state] for count in counts.values())]
    rows = [[*names, *(count[state] or "" for state in used)] for names, count in counts.items()]
    return tabulate(rows, ("Protocol", "Method", *used), tablefmt="simple", disable_numparse=True).splitlines()


def totals(statuses: Mapping[Path, Status]) -> str:
    """`48 runs: 12 done, 1 failed, 35 pending`"""
    count = Counter(status.state for status in statuses.values())
    parts = [f"{count[state]} {state}" for state in STATES if count[state]]
    return f"{len(statuses)} run{'s' * (len(statuses) != 1)}: {', '.join(parts)}"


def failures(jobs: Iterable[Job], statuses: Mapping[Path, Status], prefix: str = "") -> Iterator[str]:
    """For each failed run its error, where the rest of its output is, and how to run it by hand.

    Args:
        prefix: of the command, such as `DATA=/data `.
    """
    for job in jobs:
        status = statuses[job.key]
        if status.state == "failed":
            yield f"failed: {job}: {status.note}"
            if not status.final:
                yield f"  its output: {job.folder / record.LOG}"
            yield f"  by hand:    {prefix}{job.run.shell_line()}"


def time_left(jobs: Iterable[Job], statuses: Mapping[Path, Status], side_by_side: int) -> float | None:
    """Seconds until all open runs are done, from the median of finished runs of the same kind; None: nobody knows.

    Args:
        side_by_side: runs at a time.
    """
    known: dict[tuple, list[float]] = defaultdict(list)
    jobs = list(jobs)
    for job in jobs:
        if statuses[job.key].state == "done":
            for kind in _kinds(job):
                known[kind].append(statuses[job.key].seconds)
    total = 0.0
    for job in jobs:
        status = statuses[job.key]
        if status.state in ("done", "failed", "blocked"):
            continue
        seconds = next((median(known[kind]) for kind in _kinds(job) if kind in known), None)
        if seconds is None:
            return None
        total += max(0.0, seconds - status.seconds)
    return total / max(1, side_by_side)


def _kinds(job: Job) -> list[tuple]:
    """What runs may have in common that take equally long, the nearest first."""
    run = job.run
    same = (run.protocol, run.trainer, run.config, run.dataset, run.shots, job.variant)
    return [same[:n] for n in (6, 5, 4, 3, 2)]


def shorten(text: str, width: int) -> str:
    """One line of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: max(0, width - 1)]}…"


def remaining(seconds: float | None) -> str:
    return f"about {span(seconds)} left" if seconds else ""
