"""One attempt at a job, in the process that an executor started for it: lock, script, signals, record.

A stop must reach the run exactly once, since its second signal ends a run without saving. Some SLURM set-ups send their
signals to every process of a job, others to the first one only, and a terminal sends Ctrl-C to its whole group. So the
run is deaf to SIGTERM, SIGUSR2 and SIGHUP and in a session of its own, and this process asks it to stop, by SIGINT.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any

from submitit.helpers import DelayedSubmission

from tools.run_state import state_of
from tools.sweeps import lock, record
from tools.sweeps.files import now
from tools.sweeps.plan import Job
from tools.sweeps.queue import jobs_in_queue
from tools.sweeps.signals import only_blocked

# what asks an attempt to stop; the second is a sweep's own, and what submitit has SLURM send before a job's time is up
ASKED = (signal.SIGTERM, signal.SIGUSR2)
DEAF = (*ASKED, signal.SIGHUP)
OURS = ("DATA", "OUTPUT", "SHOTS", "SOURCE", "CFG", "TRAINER", "LOADEP", "NPROC", "PYTHON", "CALLER_DIR")


class RunFailed(RuntimeError):
    """The run ended, but is not finished; so the executor's own job has failed, too."""


@dataclass
class Execution:
    """What an executor is given: picklable, called once in a process of its own.

    Attributes:
        root: repository.
        folder: of the run.
        script: what stands behind `bash`.
        variables: environment of the script; None takes one away.
        attempt: fields of `record.Attempt` that are known before it starts.
        requeue: whether SIGUSR2 puts the SLURM job back into the queue once its state is saved.
    """

    root: Path
    folder: Path
    script: list[str]
    variables: dict[str, str | None]
    attempt: dict[str, Any]
    requeue: bool = False
    _child: subprocess.Popen | None = field(default=None, repr=False)
    _received: list[int] = field(default_factory=list)  # signals that asked for a stop
    _asked: bool = False  # whether that was passed on
    _log: Path | None = None  # what the run prints, …
    _before: int = 0  # … and how long it was before

    def __call__(self) -> str:
        """Run the job's script to its end.

        Returns:
            "done", or "busy": somebody else runs it.

        Raises:
            RunFailed: it failed or was interrupted.
        """
        requeued = signal.getsignal(signal.SIGUSR2)  # submitit's: it saves this object and calls `scontrol requeue`
        for number in ASKED:
            signal.signal(number, self._stop)
        signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C goes to the sweep, which then sends SIGUSR2
        held = lock.Lock(self.folder, self.attempt["token"])
        busy = held.acquire(jobs_in_queue)
        if busy is not None:
            print(f"left alone, since it is run by {busy}", flush=True)
            return "busy"
        try:
            attempt = self._run(held)
        finally:
            held.release()
        timed_out = attempt.outcome == "interrupted" and self._received[:1] == [signal.SIGUSR2]
        if timed_out and self.requeue and callable(requeued):
            requeued(signal.SIGUSR2, None)
        if attempt.outcome != "done":
            raise RunFailed(f"{attempt.outcome}: {attempt.error or 'goes on from where it was saved'}")
        return "done"

    def checkpoint(self) -> DelayedSubmission:
        """What SLURM starts again; called by submitit, the run itself is saved already."""
        self._child, self._received, self._asked = None, [], False
        return DelayedSubmission(self)

    def _run(self, held: lock.Lock) -> record.Attempt:
        about = {"slurm_job": lock.slurm_job(), "host": platform.node(), "pid": os.getpid(), "started": now()}
        attempt = self.attempt | about
        record.write_attempt(self.folder, record.Attempt(**attempt))
        self._log = log = self.folder / record.LOG
        with log.open("w", encoding="utf-8") as output:
            if held.taken_from is not None:
                print(f"== lock taken over from {held.taken_from}", file=output, flush=True)
            self._before = log.stat().st_size
            code = self._run_script(held, output)
        finished = state_of(self.folder) == "finished"
        if code == 0 and finished:
            end: dict[str, Any] = {"outcome": "done"}
        elif self._received or code in record.STOPPED:
            end = {"outcome": "interrupted"}
        else:
            error = record.explain(code, log) if code else "the script ended well, but its run is not finished"
            end = {"outcome": "failed", "error": error}
        ended = record.Attempt(**attempt, ended=now(), exit=code, **end)
        if held.is_mine():
            record.write_attempt(self.folder, ended)
        return ended

    def _run_script(self, held: lock.Lock, output: IO[str]) -> int:
        """Exit code of the script; it is started at all only if nothing asked for a stop before."""
        if self._received:
            return -self._received[0]
        environment = {key: value for key, value in os.environ.items() if key not in OURS}
        environment |= {key: value for key, value in self.variables.items() if value is not None}
        for key in [key for key, value in self.variables.items() if value is None]:
            environment.pop(key, None)
        with only_blocked(DEAF):  # which the child inherits; what comes meanwhile is answered behind this block
            self._child = subprocess.Popen(
                ["bash", *self.script],
                cwd=self.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            held.has_child(self._child.pid)
        if self._received and not self._asked:  # another thread took the signal within the block
            self._ask()
        while True:
            try:
                return self._child.wait(timeout=lock.HEARTBEAT)
            except subprocess.TimeoutExpired:
                if not held.beat():
                    self._stop(signal.SIGTERM)

    def _stop(self, number: int, frame: FrameType | None = None) -> None:
        """Answer a signal. All of them mean the same, however many come; only a sweep that asks again is in a hurry."""
        urgent = number == signal.SIGUSR2 and number in self._received and not lock.slurm_job()
        self._received.append(number)
        if urgent or not self._asked:
            self._ask()

    def _ask(self) -> None:
        """Pass a stop on to the run."""
        if self._child is None or self._log is None or self._child.poll() is not None:
            return
        self._asked = True
        # as long as nothing is printed, bash has not handed over, and it would go on after a SIGINT
        begun = self._log.stat().st_size > self._before
        with contextlib.suppress(ProcessLookupError):
            self._child.send_signal(signal.SIGINT if begun else signal.SIGKILL)


def execution(job: Job, token: str, executor: str, variables: dict[str, str | None], requeue: bool) -> Execution:
    """The attempt at a job that an executor runs.

    Args:
        variables: DATA, PYTHON and what else the script's environment needs; those of the run are added.
    """
    run = job.run
    attempt = {"token": token, "command": run.shell_line(), "executor": executor}
    script = [*run.script(), *run.options]
    environment = variables | {"OUTPUT": run.output} | run.environment()
    return Execution(run.root, job.folder, script, environment, attempt, requeue)
