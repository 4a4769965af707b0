"""Jobs in SLURM's queue, through submitit's SLURM executor.

Trainings, and tests whose model is there, are elements of job arrays; tests of a training that is still to come wait
for it in the queue (`afterok`). What is in the queue is noted in OUTPUT/.sweep/slurm, so that a sweep that is started
again knows it. Whether a job still is in the queue, `squeue` says.
"""

from __future__ import annotations

import shlex
import time
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError, JobPaths

from tools.sweeps import lock, record
from tools.sweeps.execution import execution
from tools.sweeps.plan import Job
from tools.sweeps.progress import Progress
from tools.sweeps.queue import Book, SlurmError, queue_states
from tools.sweeps.signals import STOPPING, handling
from tools.sweeps.state import Reader, Status

TICK = 0.2  # seconds between two looks at the clock, a signal and the screen
POLL = 5.0  # seconds between two looks at queue and folders
LARGEST_ARRAY = 1000  # SLURM's own limit is 1001 unless a cluster has another
TIMEOUTS = 20  # times that a job may use up its whole time and go on
SAVING = 120  # seconds before its time is up at which a job is told so
OPEN = ("pending", "resumable", "failed", "blocked")


@dataclass(frozen=True)
class Resources:
    """What each job asks SLURM for.

    Attributes:
        minutes: time limit.
        gpus, cpus: of one job.
        memory: GB; None: the cluster's default.
        parallel: elements of an array that run side by side; None: as many as the cluster gives.
        requeue: whether a job goes on in the queue when its time is up or it is preempted.
        extra: further options of sbatch; True for those without a value.
    """

    partition: str | None = None
    account: str | None = None
    minutes: int = 240
    gpus: int = 1
    cpus: int = 8
    memory: float | None = None
    parallel: int | None = None
    requeue: bool = True
    extra: Mapping[str, str | bool] | None = None

    def parameters(self, name: str, **more: Any) -> dict[str, Any]:
        """Of submitit's AutoExecutor."""
        requeue = {"requeue": True} if self.requeue else {"no-requeue": True}
        return {
            "name": name,
            "timeout_min": self.minutes,
            "gpus_per_node": self.gpus or None,
            "cpus_per_task": self.cpus,
            "mem_gb": self.memory,
            "slurm_partition": self.partition,
            "slurm_account": self.account,
            "slurm_array_parallelism": self.parallel or LARGEST_ARRAY,
            "slurm_signal_delay_s": min(SAVING, self.minutes * 30),
            "slurm_srun_args": [f"--cpus-per-task={self.cpus}"],  # srun no longer takes it from sbatch
            "slurm_additional_parameters": {**requeue, **more, **(self.extra or {})},
        }


class SlurmSweep:
    """Submits what is missing of a plan, and watches it.

    Args:
        jobs: of the plan, each training before its tests.
        variables: environment of the scripts: DATA, PYTHON, …
        folder: for submitit's files and the book; on a disk that the nodes see.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        variables: dict[str, str | None],
        resources: Resources,
        folder: Path,
        progress: Progress,
    ):
        self.jobs, self.variables, self.resources, self.folder = list(jobs), variables, resources, folder
        self.progress, self.book = progress, Book(folder)
        self.by_key = {str(job.key): job for job in self.jobs}
        self.submitted: set[Path] = set()  # by this sweep: a job is tried once
        self.stopped_by = 0
        self.reader = Reader()
        self.statuses: dict[Path, Status] = {}
        self.look()

    # ---- looking ------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Read queue, book and run folders again.

        Raises:
            SlurmError: the queue cannot be asked.
        """
        states = queue_states()
        if states is None:
            raise SlurmError("squeue does not answer; is this a machine of the cluster, and is SLURM up?")
        entries = self.book.read()
        gone = {job for job, entry in entries.items() if job not in states and entry["key"] in self.by_key}
        for slurm_id in gone:
            self._note_end(slurm_id, entries[slurm_id])
        self.book.forget(gone)
        self.ids = {Path(entry["key"]): slurm_id for slurm_id, entry in entries.items() if slurm_id in states}
        self.reader.queue, self.reader.queued = set(states), self.ids
        self.statuses = self.reader.statuses(self.jobs, self.statuses)

    def _note_end(self, slurm_id: str, entry: dict[str, Any]) -> None:
        """A job that left the queue without noting its end was killed, or could not begin; or it was never started."""
        job, log = self.by_key[entry["key"]], JobPaths(self.folder, slurm_id).stderr
        attempt = record.read_attempt(job.folder)
        noted = attempt is not None and attempt.token == entry["attempt"]["token"] and attempt.outcome
        if not noted and record.last_error(log):
            record.note_silent_end(job.folder, entry["attempt"] | {"slurm_job": slurm_id}, log)

    # ---- submitting ---------------------------------------------------------------------------------------------

    def submit(self) -> int:
        """Put into the queue what is missing and can be; how many jobs that were.

        Raises:
            SlurmError: sbatch refuses.
        """
        now, later = [], defaultdict(list)
        for job in self.jobs:
            status = self.statuses[job.key]
            if status.state not in OPEN or status.final or job.key in self.submitted:
                continue
            if job.needs is None or self.statuses[job.needs].state == "done":
                now.append(job)
            else:
                later[job.needs].append(job)
        for first in range(0, len(now), LARGEST_ARRAY):
            self._submit(now[first : first + LARGEST_ARRAY])
        number = len(now)
        for model, jobs in later.items():
            slurm_id = self._id_of(model)
            if slurm_id:  # else somebody runs it outside of the queue, and its tests are submitted when it is done
                self._submit(jobs, dependency=f"afterok:{slurm_id}", **{"kill-on-invalid-dep": "yes"})
                number += len(jobs)
        return number

    def _id_of(self, key: Path) -> str:
        """SLURM's id of a job that waits or runs; "": it is not SLURM's."""
        held = lock.look(self.by_key[str(key)].folder)
        owner = held.owner.slurm_job if held is not None and held.owner is not None else ""
        return self.ids.get(key, owner if self.statuses[key].state == "running" else "")

    def _submit(self, jobs: list[Job], **more: Any) -> None:
        executor = submitit.AutoExecutor(self.folder, cluster="slurm", slurm_max_num_timeout=TIMEOUTS)
        home = Path(__file__).resolve().parents[2]  # where `python -m` finds this repository's modules
        executor.update_parameters(
            **self.resources.parameters(f"sweep-{jobs[0].run.protocol}", **more),
            slurm_setup=[f"cd {shlex.quote(str(home))}"],
        )
        tasks = [execution(job, uuid.uuid4().hex, "slurm", self.variables, self.resources.requeue) for job in jobs]
        try:
            handles = executor.submit_array(tasks)
        except (FailedJobError, FailedSubmissionError) as error:
            reason = (str(error).strip().splitlines() or ["no reason given"])[-1]
            hint = "; without GPUs: --gpus 0" if "gres" in reason.lower() else ""
            number = f"{len(jobs)} job{'s' * (len(jobs) > 1)}"
            raise SlurmError(f"sbatch refused {number}: {reason}{hint}") from None
        self.book.write(
            {
                handle.job_id: {"key": str(job.key), "attempt": task.attempt}
                for handle, job, task in zip(handles, jobs, tasks, strict=True)
            }
        )
        for handle, job in zip(handles, jobs, strict=True):
            self.submitted.add(job.key)
            self.ids[job.key] = handle.job_id
            self.statuses[job.key] = Status("queued", f"SLURM job {handle.job_id}")
            self.progress.tell(job, "queued", f"SLURM job {handle.job_id}")

    # ---- watching -----------------------------------------------------------------------------------------------

    def watch(self) -> dict[Path, Status]:
        """Wait until nothing of the plan is in the queue or runs; a signal ends the waiting, not the jobs."""
        with handling(STOPPING, self._stop):
            looked = time.monotonic()
            while not self.stopped_by:
                self.progress.show(self.statuses)
                time.sleep(TICK)
                if time.monotonic() - looked < POLL:
                    continue
                looked, before = time.monotonic(), self.statuses
                try:
                    self.look()
                except SlurmError as error:  # a controller that is started again, for example
                    self.progress.say(f"{error} Asking again.")
                    continue
                for job in self.jobs:
                    status = self.statuses[job.key]
                    if status.state != before[job.key].state:
                        self.progress.tell(job, status.state, status.note)
                self.submit()
                if not any(status.state in ("queued", "running") for status in self.statuses.values()):
                    break
        return self.statuses

    def _stop(self, number: int, *_: object) -> None:
        self.stopped_by = self.stopped_by or number
