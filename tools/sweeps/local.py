"""Jobs on this machine, N at a time, through submitit's local executor."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import submitit

from tools.sweeps import lock, record
from tools.sweeps.execution import execution
from tools.sweeps.plan import Job
from tools.sweeps.progress import Progress
from tools.sweeps.signals import STOPPING, handling, only_blocked
from tools.sweeps.state import Reader, Status, progress_of

TICK = 0.2  # seconds between two looks at the running jobs
AGAIN = 5.0  # seconds between two looks at how far they are, and at the jobs that somebody else runs
FOREVER = 60 * 24 * 365  # minutes: a local job has no limit


@dataclass(frozen=True)
class Started:
    """A job that runs here."""

    job: Job
    token: str
    handle: submitit.Job
    slot: int


class LocalSweep:
    """Runs what is missing of a plan.

    Args:
        jobs: of the plan, each training before its tests.
        reader: tells how they stand.
        variables: environment of the scripts: DATA, PYTHON, …
        slots: what CUDA_VISIBLE_DEVICES is to be for each of the jobs side by side; None: as it is here.
        folder: for submitit's files; removed at the end.
        progress: is told what happens.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        reader: Reader,
        variables: dict[str, str | None],
        slots: Sequence[str | None],
        folder: Path,
        progress: Progress,
    ):
        self.jobs = list(jobs)
        self.reader, self.variables, self.slots, self.folder, self.progress = reader, variables, slots, folder, progress
        self.statuses = reader.statuses(self.jobs)
        self.running: dict[Path, Started] = {}
        self.tried: set[Path] = set()
        self.stopped_by = 0
        self._interrupted: set[str] = set()  # tokens of attempts that were asked to stop
        self._looked = time.monotonic()

    def run(self) -> dict[Path, Status]:
        """Run all that can be run; after a signal, wait until what runs has saved its state.

        Returns:
            how the jobs stand at the end; `stopped_by` has the signal, if one came.
        """
        with handling(STOPPING, self._stop):
            try:
                while True:
                    self._collect()
                    if not self.stopped_by:
                        self._look_again()
                        self._start()
                    if not self.running and (self.stopped_by or not self._waits()):
                        break
                    self.progress.show(self.statuses)
                    time.sleep(TICK)
            finally:
                if not self.running:
                    shutil.rmtree(self.folder, ignore_errors=True)
                    with contextlib.suppress(OSError):
                        self.folder.parent.rmdir()  # unless somebody else has files there
        self.statuses = self.reader.statuses(self.jobs)
        return self.statuses

    # ---- what happens next --------------------------------------------------------------------------------------

    def _ready(self) -> Iterator[Job]:
        for job in self.jobs:
            status = self.statuses[job.key]
            trained = job.needs is None or self.statuses[job.needs].state == "done"
            open_state = status.state in ("pending", "resumable", "failed", "blocked") and not status.final
            if open_state and trained and job.key not in self.tried and job.key not in self.running:
                yield job

    def _waits(self) -> bool:
        """Whether a job here depends on what somebody else runs, or is that job."""
        return any(status.state == "running" for status in self.statuses.values())

    def _start(self) -> None:
        for job in self._ready():
            taken = {started.slot for started in self.running.values()}
            free = [slot for slot in range(len(self.slots)) if slot not in taken]
            if not free:
                return
            status = self._refresh(job)
            if status.state == "done":
                self.progress.tell(job, "done", f"{status.note}, already")
            elif status.state != "running" and not status.final:
                self._submit(job, free[0])

    def _submit(self, job: Job, slot: int) -> None:
        variables = dict(self.variables)
        if self.slots[slot] is not None:
            variables["CUDA_VISIBLE_DEVICES"] = self.slots[slot]
        token = uuid.uuid4().hex
        held = lock.look(job.folder)
        executor = submitit.AutoExecutor(self.folder, cluster="local")
        executor.update_parameters(timeout_min=FOREVER, name=job.run.protocol)
        task = execution(job, token, "local", variables, requeue=False)
        with at_home(), only_blocked((signal.SIGINT, signal.SIGHUP)):  # a terminal's signals are ours
            handle = executor.submit(task)
        self.running[job.key] = Started(job, token, handle, slot)
        self.tried.add(job.key)
        note = f"takes over the lock of {held}" if held is not None else self.statuses[job.key].note
        state = "resumed" if self.statuses[job.key].state == "resumable" else "started"
        self.statuses[job.key] = Status("running", "begins", None, self.statuses[job.key].seconds)
        self.progress.tell(job, state, note if state == "resumed" or held is not None else "")

    def _collect(self) -> None:
        """Take note of the jobs that ended, and pass a stop on to those that run."""
        for key, started in list(self.running.items()):
            if started.handle.done():
                del self.running[key]
                self._conclude(started)
            elif self.stopped_by:
                self._interrupt(started)

    def _conclude(self, started: Started) -> None:
        """Take note of a job whose process is over."""
        job, attempt, status = started.job, record.read_attempt(started.job.folder), self._refresh(started.job)
        returned = started.handle.paths.result_pickle.exists() and started.handle.exception() is None
        if attempt is not None and attempt.token == started.token and attempt.outcome:
            self.progress.tell(job, status.state, status.note)
        elif returned or status.state == "running":  # somebody else was faster, or only the run itself is left
            self.tried.discard(job.key)
            self.progress.tell(job, "left alone", f"run by {lock.look(job.folder) or 'somebody else, who is through'}")
        elif not self.stopped_by:
            about = {"token": started.token, "command": job.run.shell_line(), "executor": "local"}
            record.note_silent_end(job.folder, about, started.handle.paths.stderr)
            self.progress.tell(job, self._refresh(job).state, self.statuses[job.key].note)

    def _look_again(self) -> None:
        """Look again at what runs: how far it is here; elsewhere, it ends, or its owner dies."""
        if time.monotonic() - self._looked < AGAIN:
            return
        self._looked = time.monotonic()
        for job in self.jobs:
            if job.key in self.running:
                progress, seconds = progress_of(job)
                self.statuses[job.key] = Status("running", progress, None, seconds)
            elif self.statuses[job.key].state == "running":
                status = self._refresh(job)
                if status.state != "running":
                    self.progress.tell(job, status.state, f"{status.note} (run by somebody else)".strip())
                    if status.state == "failed":
                        self.tried.add(job.key)

    def _refresh(self, job: Job) -> Status:
        model = None if job.needs is None else self.statuses[job.needs]
        self.statuses[job.key] = self.reader.status(job, model)
        return self.statuses[job.key]

    # ---- stopping -----------------------------------------------------------------------------------------------

    def _stop(self, number: int, *_: object) -> None:
        if self.stopped_by:
            self._interrupted.clear()  # again: a run that is asked a second time ends at once
        self.stopped_by = self.stopped_by or number

    def _interrupt(self, started: Started) -> None:
        """Ask the process that holds the job's lock to stop it; one that has none yet is asked when it has."""
        held = lock.look(started.job.folder)
        if started.token in self._interrupted or held is None or held.owner is None:
            return
        if held.owner.token == started.token:
            self._interrupted.add(started.token)
            with contextlib.suppress(ProcessLookupError):
                os.kill(held.owner.pid, signal.SIGUSR2)


@contextlib.contextmanager
def at_home() -> Iterator[None]:
    """Within the block, stand in the repository, so that `python -m` finds its modules and no others of their names."""
    before = os.getcwd()
    os.chdir(Path(__file__).resolve().parents[2])
    try:
        yield
    finally:
        os.chdir(before)


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may be for one GPU each; torch is not asked, since importing it takes seconds."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [gpu.strip() for gpu in named.split(",") if gpu.strip() and gpu.strip() != "-1"]
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.split() if done.returncode == 0 else []
