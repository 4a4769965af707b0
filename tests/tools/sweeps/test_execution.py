"""One attempt in a process of its own: it stops once however many signals come, and SLURM's time-out requeues it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from tools.sweeps import lock, record
from tools.sweeps.plan import expand

EXECUTE = """
import signal, sys
from pathlib import Path
from tools.sweeps import lock
from tools.sweeps.execution import RunFailed, execution
from tools.sweeps.plan import read_plan
root, executor, requeue, heartbeat = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "True", float(sys.argv[4])
lock.HEARTBEAT = heartbeat
signal.signal(signal.SIGUSR2, lambda number, frame: print("requeued", number, flush=True))
job = read_plan(root / "plans/plan.yaml", "output", root)[0]
task = execution(job, "mine", executor, {"DATA": "data", "PYTHON": sys.executable}, requeue)
try:
    print(task(), flush=True)
except RunFailed as failure:
    print("RunFailed", failure, flush=True)
"""


@pytest.fixture
def attempt(copy, base2new):
    """Starts an attempt at a training; `attempt.folder` is the run's."""
    copy.plan(base2new)

    def start(executor="slurm", requeue=True, heartbeat=30.0, **variables):
        command = [sys.executable, "-c", EXECUTE, str(copy.root), executor, str(requeue), str(heartbeat)]
        env = os.environ | variables
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    start.folder = expand(base2new, "output", copy.root)[0].folder
    start.saved = start.folder / record.SAVED
    return start


def outcome(folder):
    told = record.read_attempt(folder)
    return told.outcome, told.exit


def test_slurm_signals_everybody_and_the_run_saves_once(copy, attempt):
    """Time is nearly up: SIGUSR2, then SIGTERM, to this process and to the run, as proctrack/linuxproc does."""
    process = attempt(SLOW="CoOp", EPOCH="0.3", SLURM_JOB_ID="7")
    copy.until(attempt.saved.exists)
    for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGTERM):
        for pid in (process.pid, copy.calls[0]["pid"]):
            os.kill(pid, number)
    output = process.communicate(timeout=60)[0]
    assert output == f"requeued {int(signal.SIGUSR2)}\nRunFailed interrupted: goes on from where it was saved\n"
    assert "Stopped by signal 2\n" in (attempt.folder / record.LOG).read_text()
    assert outcome(attempt.folder) == ("interrupted", 130)
    assert record.read_attempt(attempt.folder).slurm_job == "7"
    assert not (attempt.folder / lock.FILE).exists()


@pytest.mark.parametrize(("number", "requeue"), [(signal.SIGTERM, True), (signal.SIGUSR2, False)])
def test_what_does_not_requeue(copy, attempt, number, requeue):
    """SIGTERM is `scancel` or a preemption, after which SLURM itself decides; or nobody wants it."""
    process = attempt(requeue=requeue, SLOW="CoOp", EPOCH="0.3", SLURM_JOB_ID="7")
    copy.until(attempt.saved.exists)
    os.kill(process.pid, number)
    assert process.communicate(timeout=60)[0] == "RunFailed interrupted: goes on from where it was saved\n"
    assert outcome(attempt.folder) == ("interrupted", 130)


def test_a_stop_while_bash_still_reads_the_script(copy, attempt):
    common = copy.root / "scripts/common.sh"
    common.write_text("sleep 5 >/dev/null\n" + common.read_text())
    process = attempt("local")
    copy.until(lambda: (held := lock.look(attempt.folder)) and held.owner and held.owner.child)
    os.kill(process.pid, signal.SIGTERM)
    assert process.communicate(timeout=4)[0] == "RunFailed interrupted: goes on from where it was saved\n"
    assert outcome(attempt.folder) == ("interrupted", -9)
    assert copy.calls == []


def test_a_lost_lock_stops_the_run(copy, attempt):
    """Somebody took the lock over, for instance while this machine slept: the run must not be made twice."""
    process = attempt("local", heartbeat=0.1, SLOW="CoOp", EPOCH="0.3")
    copy.until(attempt.saved.exists)
    (attempt.folder / lock.FILE).write_text(json.dumps(vars(lock.myself("theirs"))))
    assert process.communicate(timeout=60)[0].startswith("RunFailed interrupted")
    assert "Stopped by signal 2\n" in (attempt.folder / record.LOG).read_text()
    assert lock.look(attempt.folder).owner.token == "theirs"


def test_busy(copy, attempt):
    held = lock.Lock(attempt.folder, "theirs")
    held.acquire()
    output = attempt("local").communicate(timeout=60)[0]
    assert output.startswith(f"left alone, since it is run by process {os.getpid()} on ")
    assert output.endswith("\nbusy\n")
    assert copy.calls == []
    assert not (attempt.folder / record.FILE).exists()


def test_a_script_that_ends_well_without_a_finished_run(copy, attempt):
    (copy.root / "train.py").write_text("print('nothing to do')\n")
    output = attempt("local").communicate(timeout=60)[0]
    assert output == "RunFailed failed: the script ended well, but its run is not finished\n"
    assert outcome(attempt.folder) == ("failed", 0)
