"""How jobs stand, on run folders written by hand."""

import datetime
import json
import os
import time

import pytest

from tools.sweeps import lock, record
from tools.sweeps.plan import expand
from tools.sweeps.state import Reader
from tools.sweeps.table import failures, run_table, time_left, totals


@pytest.fixture
def jobs(copy, base2new):
    """A training and its test."""
    return expand(base2new, "output", copy.root)


def write(job, finished=True, began="2030-01-01T10:00:00+00:00", **changes):
    run = job.run
    metrics = {
        "schema": 1,
        "finished": finished,
        "mode": "train" if run.trains else "eval",
        "seed": run.seed,
        "config": {"OPTIM": {"MAX_EPOCH": 20, "LR": 0.02}},
        "epochs": [{"epoch": 20}] if finished else [{"epoch": n + 1} for n in range(7)],
        "final": {"epoch": 20, "metrics": {"accuracy": 61.234}},
        "started": began,
        "wall_seconds": 40.0,
    }
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / "metrics.json").write_text(json.dumps(metrics | changes))


def failed(job, ago=100.0, error="ValueError: no such luck"):
    ended = datetime.datetime.fromtimestamp(time.time() - ago).astimezone().isoformat()
    record.write_attempt(
        job.folder, record.Attempt("token", "bash …", "local", ended=ended, outcome="failed", exit=1, error=error)
    )


def states(jobs, **reader):
    return [(status.state, status.note) for status in Reader(**reader).statuses(jobs).values()]


def test_nothing_there(jobs):
    assert states(jobs) == [("pending", ""), ("pending", "after its training")]


def test_done(jobs):
    train, test = jobs
    write(train)
    assert states(jobs) == [("done", "61.23%"), ("pending", "")]
    write(test, began="2030-01-01T11:00:00+00:00")
    assert states(jobs) == [("done", "61.23%"), ("done", "61.23%")]


def test_a_model_trained_anew_is_tested_anew(jobs):
    train, test = jobs
    write(train)
    write(test, began="2030-01-01T09:00:00+00:00")
    assert states(jobs)[1] == ("pending", "")
    write(test, began="2030-01-01T11:00:00+00:00", final={"epoch": 5, "metrics": {"accuracy": 1.0}})
    assert states(jobs)[1] == ("pending", "")  # the script tests the epoch that the training ended with


def test_interrupted(jobs):
    train, _ = jobs
    write(train, finished=False)
    assert states(jobs)[0] == ("pending", "")  # nothing saved: it begins again
    (train.folder / "resume.pth.tar").touch()
    assert states(jobs) == [("resumable", "epoch 7 of 20"), ("pending", "after its training")]


def test_failed_and_what_depends_on_it(jobs):
    train, test = jobs
    failed(train)
    assert states(jobs) == [("failed", "ValueError: no such luck"), ("blocked", "its training failed")]
    (train.folder / "resume.pth.tar").touch()  # somebody tried again since
    assert states(jobs)[0][0] == "resumable"
    write(train)
    failed(test)
    assert states(jobs) == [("done", "61.23%"), ("failed", "ValueError: no such luck")]


def test_a_failure_counts_while_nothing_is_newer(jobs):
    train, _ = jobs
    (train.folder).mkdir(parents=True)
    (train.folder / "resume.pth.tar").touch()
    failed(train, ago=0.0)
    assert states(jobs)[0][0] == "failed"
    record.write_attempt(train.folder, record.Attempt("newer", "bash …", "local", started=record.now()))
    assert states(jobs)[0][0] == "resumable"
    (train.folder / record.FILE).write_text("{")
    assert states(jobs)[0][0] == "resumable"


def test_a_finished_run_of_another_config_stays(copy, base2new):
    jobs = expand(base2new | {"overrides": {"low": {"OPTIM.LR": 0.001}}}, "output", copy.root)
    write(jobs[0])
    (train, test) = Reader().statuses(jobs).values()
    assert (train.state, train.final) == ("failed", True)
    assert (
        " holds a finished run with another config (OPTIM.LR: the run has 0.02, now 0.001). Set OUTPUT " in train.note
    )
    assert test.state == "blocked"


def test_a_finished_run_that_cannot_be_read(jobs):
    write(jobs[0], final={"epoch": 20, "metrics": {"accuracy": None}})
    status = next(iter(Reader().statuses(jobs).values()))
    assert (status.state, status.note) == ("failed", "its accuracy is None, not a number that can be averaged")
    assert status.final


def test_running(jobs):
    train, _ = jobs
    write(train, finished=False)
    held = lock.Lock(train.folder, "token")
    held.acquire()
    state, note = states(jobs)[0]
    assert state == "running"
    assert note.startswith(f"epoch 7 of 20, process {os.getpid()} on ")
    held.release()
    assert states(jobs)[0][0] == "pending"


def test_queued(jobs):
    train, test = jobs
    failed(train)
    queued = {train.key: "12_0", test.key: "13"}
    assert states(jobs, queue={"12_0", "13"}, queued=queued) == [
        ("queued", "SLURM job 12_0"),
        ("queued", "SLURM job 13"),
    ]


def test_each_config_is_read_once(copy, monkeypatch):
    """What makes a dry run of a thousand runs quick: yaml is slow."""
    tree = {"protocol": "base2new", "methods": ["coop", "spotlighter"], "datasets": ["shapes", "eurosat"]}
    jobs = expand(tree | {"seeds": list(range(1, 26))}, "output", copy.root)
    for job in jobs:
        write(job, began=f"2030-01-01T1{bool(job.model):d}:00:00+00:00")
    read = []
    monkeypatch.setattr("tools.sweeps.state.settings_of", lambda files: read.append(files) or {})
    statuses = Reader().statuses(jobs)
    assert len(jobs) == 200
    assert {status.state for status in statuses.values()} == {"done"}
    assert len(read) == 4


def test_done_is_not_read_again(jobs):
    write(jobs[0])
    reader = Reader()
    known = reader.statuses(jobs)
    (jobs[0].folder / "metrics.json").unlink()
    assert reader.statuses(jobs, known)[jobs[0].key].state == "done"


# ---- the table


def test_table_and_totals(jobs):
    write(jobs[0])
    failed(jobs[1], error="x" * 300)
    statuses = Reader().statuses(jobs)
    head, _, train, test = run_table(jobs, statuses).splitlines()
    assert head.split() == ["State", "Protocol", "Method", "Data", "set", "Shots", "Seed", "Config"]
    assert train.split() == ["done", "base2new_train", "coop", "shapes", "16", "1", "mini_vit8_ep20", "61.23%"]
    assert test.split() == [
        *("failed", "base2new_test", "coop", "shapes", "16", "1", "mini_vit8_ep20", "x" * 99 + "…"),
    ]
    assert totals(statuses) == "2 runs: 1 done, 1 failed"
    assert list(failures(jobs, statuses, "DATA=/d ")) == [
        f"failed: base2new_test coop shapes 16 shots seed 1: {'x' * 300}",
        f"  its output: {jobs[1].folder}/job.log",
        "  by hand:    DATA=/d bash scripts/coop/base2new_test.sh shapes 1",
    ]


def test_time_left(copy):
    tree = {"protocol": "base2new", "methods": ["coop"], "datasets": ["shapes", "eurosat"], "seeds": [1, 2, 3, 4]}
    jobs = expand(tree, "output", copy.root)
    shapes, eurosat = jobs[:8], jobs[8:]
    assert time_left(jobs, Reader().statuses(jobs), 1) is None
    for job, seconds in zip(shapes[:6:2], (10.0, 20.0, 60.0), strict=True):
        write(job, wall_seconds=seconds)
    assert time_left(jobs, Reader().statuses(jobs), 1) is None  # no test is done yet
    write(shapes[1], began="2030-01-01T11:00:00+00:00", wall_seconds=2.0)
    write(eurosat[0], wall_seconds=100.0)
    write(eurosat[2], finished=False, wall_seconds=30.0)
    (eurosat[2].folder / "resume.pth.tar").touch()
    # shapes: one training of 20 (the median), three tests of 2; eurosat: 100 - 30 and 2 x 100, four tests of 2
    assert time_left(jobs, Reader().statuses(jobs), 1) == pytest.approx(20 + 3 * 2 + 70 + 200 + 4 * 2)
    assert time_left(jobs, Reader().statuses(jobs), 4) == pytest.approx((20 + 3 * 2 + 70 + 200 + 4 * 2) / 4)


# ---- the record


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("all went well\nbye\n", "bye"),
        ("Traceback …\nValueError: no such luck\n  some hint\n", "ValueError: no such luck"),
        ("error: first\nother\nError: Data set not found.\n\nUsage: bash …\n", "Error: Data set not found."),
        (
            "epoch 1/5:  10%\rtorch.OutOfMemoryError: CUDA out of memory.\r\n",
            "torch.OutOfMemoryError: CUDA out of memory.",
        ),
        ("", ""),
    ],
)
def test_last_error(tmp_path, text, line):
    (tmp_path / "log").write_bytes(text.encode())
    assert record.last_error(tmp_path / "log") == line


def test_why_a_script_failed(tmp_path):
    assert record.explain(-9, tmp_path / "none") == "ended by SIGKILL, perhaps out of memory"
    assert record.explain(-11, tmp_path / "none") == "ended by SIGSEGV"
    assert record.explain(3, tmp_path / "none") == "exit code 3"
