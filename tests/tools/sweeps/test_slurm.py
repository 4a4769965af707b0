"""What a sweep asks of SLURM, with stand-ins for its commands; tests/slurm has the real one."""

from __future__ import annotations

import os
import signal

import pytest

from tools.sweeps import lock, record
from tools.sweeps.plan import read_plan
from tools.sweeps.queue import Book, queue_states

SBATCH = """#!/bin/sh
cat "$1" >> "$FAKE/sbatch"
if [ -e "$FAKE/refuse" ]; then cat "$FAKE/refuse" >&2; exit 1; fi
n=$(($(cat "$FAKE/count" 2>/dev/null || echo 10) + 1))
echo $n > "$FAKE/count"
echo "Submitted batch job $n"
"""
SQUEUE = """#!/bin/sh
test -e "$FAKE/queue" && cat "$FAKE/queue"
"""
TRAIN = "output/base2new/train_base/shapes/shots_16/CoOp/mini_vit8_ep20"


class Fake:
    def __init__(self, folder):
        self.folder = folder

    def queue(self, text):
        (self.folder / "queue").write_text(text)

    def submitted(self):
        """The options of each script that sbatch was given."""
        scripts = (self.folder / "sbatch").read_text().split("#!/bin/bash\n")[1:]
        lines = [script.splitlines() for script in scripts]
        return [
            dict(part.removeprefix("#SBATCH --").partition("=")[::2] for part in s if "#SBATCH" in part) for s in lines
        ]


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Stand-ins for sbatch, squeue and srun; the queue is empty but up."""
    for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE), ("srun", "#!/bin/sh\n")):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.setenv("FAKE", str(tmp_path))
    monkeypatch.setattr("tools.sweeps.slurm.POLL", 0.05)
    monkeypatch.setattr("tools.sweeps.slurm.TICK", 0.01)
    fake = Fake(tmp_path)
    fake.queue("")
    return fake


FLAGS = ("--executor", "slurm", "--no-wait")


def test_trainings_are_an_array_and_tests_wait_for_them(copy, base2new, slurm):
    plan = copy.plan(base2new | {"seeds": [1, 2]})
    more = ("--partition", "gpu", "--account", "me", "--time", "1:30", "--jobs", 8, "--memory", 16, "--cpus", 4)
    code, output = copy.sweep(plan, *FLAGS, *more, "--slurm", "qos=high", "--slurm", "exclusive")
    assert code == 0, output
    array, first, second = slurm.submitted()
    wanted = {
        **{"array": "0-1%2", "partition": "gpu", "account": "me", "time": "90", "mem": "16GB", "cpus-per-task": "4"},
        **{"gpus-per-node": "1", "signal": "USR2@120", "requeue": "", "qos": "high", "exclusive": ""},
        "job-name": "sweep-base2new_train",
    }
    assert wanted.items() <= array.items()
    for n, script in enumerate((first, second)):
        assert script["dependency"] == f"afterok:11_{n}"
        assert script["kill-on-invalid-dep"] == "yes"
        assert "array" not in script
    assert "queued      base2new_train coop shapes 16 shots seed 2: SLURM job 11_1\n" in output
    assert output.endswith("\n4 runs: 4 queued\n")
    assert not (copy.root / TRAIN).exists()  # folders are made by the runs


def test_what_is_in_the_queue_is_not_submitted_again(copy, base2new, slurm):
    plan = copy.plan(base2new)
    copy.sweep(plan, *FLAGS, "--gpus", 0, "--no-requeue")
    first = slurm.submitted()
    assert "gpus-per-node" not in first[0]
    assert {"no-requeue"} <= first[0].keys()
    slurm.queue("11 RUNNING\n12 PENDING\n")
    _, output = copy.sweep(plan, *FLAGS)
    assert "   0 submitted to SLURM" in output
    assert copy.sweep(plan, "--dry-run")[1].endswith("\n2 runs: 2 queued\n")
    slurm.queue("")  # somebody cancelled them
    assert copy.sweep(plan, "--dry-run")[1].endswith("\n2 runs: 2 pending\n")
    copy.sweep(plan, *FLAGS)
    assert len(slurm.submitted()) == 4
    assert set(Book(copy.output / ".sweep/slurm").read()) == {"13", "14"}


def test_a_job_that_ended_without_a_record(copy, base2new, slurm):
    plan = copy.plan(base2new)
    copy.sweep(plan, *FLAGS)
    (copy.output / ".sweep/slurm/11_0_log.err").write_text(
        "srun: some text\nModuleNotFoundError: No module named 'yaml'\n"
    )
    _, output = copy.sweep(plan, *FLAGS)  # what failed is tried again
    assert "queued      base2new_train" in output
    told = record.read_attempt(copy.root / TRAIN / "seed1")
    assert (told.outcome, told.slurm_job, told.executor) == ("failed", "11", "slurm")
    assert told.error == "ModuleNotFoundError: No module named 'yaml'"


def test_a_job_that_was_killed(copy, base2new, slurm):
    plan = copy.plan(base2new)
    copy.sweep(plan, *FLAGS)
    job = read_plan(plan, "output", copy.root)[0]
    token = Book(copy.output / ".sweep/slurm").read()["11"]["attempt"]["token"]
    record.write_attempt(job.folder, record.Attempt(token, "bash …", "slurm", started=record.now()))
    killed = "slurmstepd: error: *** JOB 11 ON node7 CANCELLED AT 2030-01-01T00:00:00 DUE TO TIME LIMIT ***"
    (copy.output / ".sweep/slurm/11_0_log.err").write_text(f"{killed}\n")
    copy.sweep(plan, *FLAGS)
    assert (record.read_attempt(job.folder).outcome, record.read_attempt(job.folder).error) == ("failed", killed)


def test_watching(copy, base2new, slurm, monkeypatch):
    """Until the queue has nothing more of the plan; a test that never ran is left."""
    asked = []

    def states():
        asked.append(1)
        if len(asked) == 3:
            return None  # not now
        if len(asked) < 5:
            return {"11": "RUNNING", "12": "PENDING"}
        job = read_plan(plan, "output", copy.root)[0]
        attempt = {"executor": "slurm", "ended": record.now(), "outcome": "failed", "error": "ValueError: no"}
        record.write_attempt(job.folder, record.Attempt(token=tokens[0], command="bash …", **attempt))
        return {}

    plan = copy.plan(base2new)
    copy.sweep(plan, *FLAGS)
    tokens = [entry["attempt"]["token"] for entry in Book(copy.output / ".sweep/slurm").read().values()]
    monkeypatch.setattr("tools.sweeps.slurm.queue_states", states)
    code, output = copy.sweep(plan, "--executor", "slurm")
    assert code == 1
    assert "\nsqueue does not answer; is this a machine of the cluster, and is SLURM up? Asking again.\n" in output
    assert "failed      base2new_train coop shapes 16 shots seed 1: ValueError: no\n" in output
    assert "blocked     base2new_test coop shapes 16 shots seed 1: its training failed\n" in output
    assert output.endswith("\n2 runs: 1 failed, 1 blocked\n")


def test_ctrl_c_ends_the_watching_alone(copy, base2new, slurm):
    plan = copy.plan(base2new)
    slurm.queue("11 RUNNING\n12 PENDING\n")
    process = copy.start(plan, "--executor", "slurm", "--gpus", 0)
    copy.until(lambda: len(Book(copy.output / ".sweep/slurm").read()) == 2)
    line = ""
    while "submitted to SLURM" not in line:
        line = process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate(timeout=30)[0]
    assert process.returncode == 130
    assert output.endswith(
        "\n2 runs: 2 queued\nstopped; the jobs stay in SLURM's queue; the same command goes on from here\n"
    )


def test_a_training_that_somebody_else_runs(copy, base2new, slurm):
    """Its test is submitted when it is done; if SLURM runs it, the test waits in the queue."""
    plan = copy.plan(base2new)
    held = lock.Lock(copy.root / TRAIN / "seed1", "theirs")
    held.acquire()
    _, output = copy.sweep(plan, *FLAGS)
    assert "   0 submitted to SLURM" in output
    assert output.endswith("\n2 runs: 1 running, 1 pending\n")


def test_refusals(copy, base2new, slurm):
    plan = copy.plan(base2new)
    (slurm.folder / "refuse").write_text("sbatch: error: Invalid generic resource (gres) specification\n")
    code, output = copy.sweep(plan, *FLAGS)
    assert code == 1
    assert output.endswith(
        "\nerror: sbatch refused 1 job: sbatch: error: Invalid generic resource (gres) specification; without GPUs: "
        "--gpus 0\n"
    )
    (slurm.folder / "bin" / "squeue").write_text("#!/bin/sh\nexit 1\n")
    code, output = copy.sweep(plan, *FLAGS)
    assert code == 1
    assert output.endswith("\nerror: squeue does not answer; is this a machine of the cluster, and is SLURM up?\n")


def test_the_queue(slurm, monkeypatch, tmp_path):
    slurm.queue("12_3 RUNNING\n13 PENDING\n\n")
    assert queue_states() == {"12_3": "RUNNING", "13": "PENDING"}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert queue_states() is None
