"""How a job stands, read from its run folder: nothing is started or changed here."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.run_reader import RunProblem, load_metrics, read_run
from tools.run_state import OtherConfig, current_state, settings_of, trained_epoch
from tools.sweeps import lock, record
from tools.sweeps.plan import Job

STATES = ("done", "running", "queued", "resumable", "failed", "blocked", "pending")
OPEN = ("resumable", "failed", "pending")  # what a sweep starts


@dataclass(frozen=True)
class Status:
    """How a job stands.

    Attributes:
        state: one of `STATES`. Running: somebody holds its lock; resumable: unfinished, and goes on from where it was
            saved; failed: its newest attempt did; blocked: its training failed; pending: nothing of it is there.
        note: for a person: the result, the error, the progress, the owner.
        value: accuracy in percent of a finished run.
        seconds: of work that metrics.json tells.
        final: failed for good, trying again would not change it.
    """

    state: str
    note: str = ""
    value: float | None = None
    seconds: float = 0.0
    final: bool = False


@dataclass
class Reader:
    """Tells how the jobs of a plan stand.

    Attributes:
        queue: ids of the jobs in SLURM's queue; None if that is not known.
        queued: jobs that wait in it: key -> id.
    """

    queue: Set[str] | None = None
    queued: Mapping[Path, str] = field(default_factory=dict)
    _settings: dict[tuple[Path, Path], dict[str, Any]] = field(default_factory=dict)

    def statuses(self, jobs: list[Job], known: Mapping[Path, Status] | None = None) -> dict[Path, Status]:
        """All jobs of a plan, each training before its tests; those known to be done are not read again."""
        found: dict[Path, Status] = {}
        for job in jobs:
            earlier = (known or {}).get(job.key)
            if earlier is None or earlier.state != "done":
                earlier = self.status(job, None if job.needs is None else found[job.needs])
            found[job.key] = earlier
        return found

    def status(self, job: Job, model: Status | None = None) -> Status:
        """One job.

        Args:
            model: how what it needs stands, its training or its teacher's; None: it needs nothing.
        """
        held = lock.look(job.folder)
        if held is not None and held.alive(self.queue):
            progress, seconds = progress_of(job)
            return Status("running", ", ".join(filter(None, [progress, str(held.owner or "somebody")])), None, seconds)
        if model is None or model.state == "done":
            finished = self._finished(job)
            if finished is not None:
                return finished
        return self._unfinished(job, model)

    def _finished(self, job: Job) -> Status | None:
        """The status of a job that need not run again, or cannot; else None."""
        run, trained, epoch = job.run, None, None
        try:
            if job.model is not None:
                trained = run.root / job.model
                epoch = trained_epoch(load_metrics(trained / "metrics.json"))
            if current_state(job.folder, trained, epoch, run.options, self._settings_of(job)) != "finished":
                return None
            read = read_run(job.folder)
        except (OtherConfig, RunProblem) as problem:
            return Status("failed", str(problem), final=True)
        seconds = (read.metrics or {}).get("wall_seconds") or 0.0
        return Status("done", f"{read.value:.2f}%", read.value, seconds)

    def _unfinished(self, job: Job, model: Status | None) -> Status:
        failed = record.failure(job.folder)
        progress, seconds = progress_of(job)
        if job.key in self.queued:
            return Status("queued", f"SLURM job {self.queued[job.key]}", None, seconds)
        if model is not None and model.state in ("failed", "blocked"):
            return Status("blocked", f"its {'training' if job.model else 'teacher'} failed")
        if failed is not None:
            return Status("failed", failed.error, None, seconds)
        if job.run.trains and (job.folder / record.SAVED).is_file():
            return Status("resumable", progress, None, seconds)
        waits = model is not None and model.state != "done"
        return Status("pending", f"after its {'training' if job.model else 'teacher'}" if waits else "")

    def _settings_of(self, job: Job) -> dict[str, Any]:
        files = (job.run.dataset_file, job.run.config_file)
        if files not in self._settings:  # the same few files for all jobs, and yaml is slow
            self._settings[files] = settings_of(list(files))
        return self._settings[files]


def progress_of(job: Job) -> tuple[str, float]:
    """What an unfinished training has done, for a person, and the seconds of work in it."""
    try:
        metrics = load_metrics(job.folder / "metrics.json")
    except RunProblem:
        return "", 0.0
    if metrics.get("finished") is True:
        return "", 0.0
    seconds = float(metrics.get("wall_seconds") or 0.0)
    if metrics.get("mode") != "train":
        return "", seconds
    total = ((metrics.get("config") or {}).get("OPTIM") or {}).get("MAX_EPOCH")
    return f"epoch {len(metrics.get('epochs') or [])} of {total or '?'}", seconds
