"""Sweeps on this machine with a stand-in for train.py: what runs when, what a failure or a signal does."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess

import pytest

from tools.sweeps import lock, record
from tools.sweeps.local import visible_gpus

TRAIN = "base2new/train_base/shapes/shots_16/CoOp/mini_vit8_ep20"
TEST = "base2new/test_new/shapes/shots_16/CoOp/mini_vit8_ep20"


def attempt(copy, folder):
    return json.loads((copy.output / folder / record.FILE).read_text())


def test_trains_then_tests_and_then_there_is_nothing_to_do(copy, base2new):
    plan = copy.plan(base2new)
    code, output = copy.sweep(plan, "--data", "/my data")
    assert code == 0, output
    assert copy.folders() == [f"{TRAIN}/seed1", f"{TEST}/seed1"]
    assert copy.calls[0]["argv"] == [
        *("--root", "/my data", "--seed", "1", "--trainer", "CoOp"),
        *("--dataset-config-file", "configs/datasets/shapes.yaml"),
        *("--config-file", "configs/trainers/CoOp/mini_vit8_ep20.yaml", "--output-dir", f"output/{TRAIN}/seed1"),
        *("DATASET.NUM_SHOTS", "16", "DATASET.SUBSAMPLE_CLASSES", "base"),
    ]
    lines = [line.split(None, 1)[-1] for line in output.splitlines() if line[2:3] == ":"]
    assert [" ".join(line.split()) for line in lines] == [
        "started base2new_train coop shapes 16 shots seed 1",
        "done base2new_train coop shapes 16 shots seed 1: 61.00%",
        "started base2new_test coop shapes 16 shots seed 1",
        "done base2new_test coop shapes 16 shots seed 1: 61.00%",
    ]
    assert output.endswith("\n\n2 runs: 2 done\n")
    told = attempt(copy, f"{TRAIN}/seed1")
    assert told | {"command": "bash scripts/coop/base2new_train.sh shapes 1", "outcome": "done", "exit": 0} == told
    assert sorted(os.listdir(copy.output / TRAIN / "seed1")) == ["job.json", "job.log", "metrics.json"]
    assert os.listdir(copy.output) == ["base2new"]  # nothing of submitit's is left
    code, output = copy.sweep(plan)
    assert (code, len(copy.calls)) == (0, 2)
    assert output.endswith("at a time\n\n2 runs: 2 done\n")


def test_a_dry_run_changes_nothing(copy, base2new):
    code, output = copy.sweep(copy.plan(base2new), "--dry-run")
    assert code == 0
    assert output.endswith("\n\n2 runs: 2 pending\n")
    assert not copy.output.exists()
    assert copy.calls == []


def test_a_failure_stops_nothing_but_its_tests(copy, base2new, monkeypatch):
    plan = copy.plan(base2new | {"seeds": [1, 2]})
    monkeypatch.setenv("FAILS", "train_base.*seed1")
    code, output = copy.sweep(plan)
    assert code == 1
    assert copy.folders() == [f"{TRAIN}/seed1", f"{TRAIN}/seed2", f"{TEST}/seed2"]
    assert output.endswith(
        "\n\nfailed: base2new_train coop shapes 16 shots seed 1: ValueError: no such luck\n"
        f"  its output: {copy.output}/{TRAIN}/seed1/job.log\n"
        "  by hand:    bash scripts/coop/base2new_train.sh shapes 1\n"
        "4 runs: 2 done, 1 failed, 1 blocked\n"
    )
    told = attempt(copy, f"{TRAIN}/seed1")
    assert (told["outcome"], told["exit"], told["error"]) == ("failed", 1, "ValueError: no such luck")
    code, output = copy.sweep(plan, "--dry-run")
    assert [line.split()[0] for line in output.splitlines()[2:6]] == ["failed", "blocked", "done", "done"]
    monkeypatch.delenv("FAILS")
    code, output = copy.sweep(plan)  # tries again what is missing, and no more
    assert code == 0, output
    assert copy.folders()[3:] == [f"{TRAIN}/seed1", f"{TEST}/seed1"]


def test_a_run_that_is_killed(copy, base2new, monkeypatch):
    monkeypatch.setenv("DIES", "train_base")
    code, output = copy.sweep(copy.plan(base2new))
    assert code == 1
    assert "seed 1: ended by SIGKILL, perhaps out of memory\n" in output
    assert output.endswith("2 runs: 1 failed, 1 blocked\n")


def test_a_job_that_cannot_even_begin(copy, base2new, monkeypatch):
    """The process of the executor dies before it has the lock: what it printed is the error."""
    monkeypatch.setattr("tools.sweeps.local.at_home", contextlib.nullcontext)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir("/")
    code, output = copy.sweep(copy.plan(base2new))
    assert code == 1
    assert "seed 1: ModuleNotFoundError: No module named 'tools'\n" in output
    assert output.endswith("2 runs: 1 failed, 1 blocked\n")


def test_overrides_and_variables(copy, base2new, monkeypatch):
    monkeypatch.setenv("SHOTS", "4")  # of the shell: the plan alone decides
    monkeypatch.setenv("OUTPUT", str(copy.root / "elsewhere"))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    code, output = copy.sweep(copy.plan(base2new | {"overrides": {"low": {"OPTIM.LR": 0.001}}}))
    assert code == 0, output
    folder = f"elsewhere/variants/low/{TRAIN}/seed1"
    assert copy.folders()[0] == folder
    call = copy.calls[0]
    assert call["argv"][-6:] == ["DATASET.NUM_SHOTS", "16", "DATASET.SUBSAMPLE_CLASSES", "base", "OPTIM.LR", "0.001"]
    assert (call["SHOTS"], call["OMP_NUM_THREADS"], call["CUDA_VISIBLE_DEVICES"]) == (None, "3", None)


def test_each_job_has_a_gpu(copy, monkeypatch, tmp_path):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nprintf '0\\n1\\n'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert visible_gpus() == ["0", "1"]
    monkeypatch.setenv("SLOW", "CoOp")
    monkeypatch.setenv("EPOCH", "0.1")
    tree = {"protocol": "fewshot", "methods": ["coop"], "datasets": ["shapes"], "seeds": [1, 2, 3, 4]}
    code, output = copy.sweep(copy.plan(tree))
    assert code == 0, output
    assert "   here, 2 at a time, GPUs 0 1\n" in output
    assert sorted({call["CUDA_VISIBLE_DEVICES"] for call in copy.calls}) == ["0", "1"]


def test_gpus_that_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5a")
    assert visible_gpus() == ["3", "GPU-5a"]
    for nothing in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", nothing)
        assert visible_gpus() == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == []
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert visible_gpus() == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_leaves_all_resumable(copy, base2new, number, code):
    """Ctrl-C goes to the whole group of the terminal: the runs are asked once, and save."""
    plan = copy.plan(base2new | {"seeds": [1, 2, 3]})
    saved = [copy.output / TRAIN / f"seed{seed}" / record.SAVED for seed in (1, 2)]
    process = copy.start(plan, "--jobs", 2, SLOW="train_base", EPOCH="0.3")
    copy.until(lambda: all(path.exists() for path in saved))
    os.killpg(process.pid, number)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == code, output
    assert output.endswith("\n6 runs: 2 resumable, 4 pending\nstopped; the same command goes on from here\n")
    assert [int(path.read_text()) in (1, 2, 3, 4) for path in saved] == [True, True]
    assert attempt(copy, f"{TRAIN}/seed1")["outcome"] == "interrupted"
    assert "Stopped by signal 2" in (copy.output / TRAIN / "seed1" / record.LOG).read_text()
    assert not list(copy.output.glob(f"**/{lock.FILE}"))
    done = int(saved[0].read_text())
    code, output = copy.sweep(plan)
    assert code == 0, output
    assert f"resumed     base2new_train coop shapes 16 shots seed 1: epoch {done} of 5\n" in output
    metrics = json.loads((copy.output / TRAIN / "seed1" / "metrics.json").read_text())
    assert metrics["began_with"] == done


def test_a_second_ctrl_c_ends_at_once(copy, base2new):
    process = copy.start(copy.plan(base2new), SLOW="train_base", EPOCH="30")
    copy.until(lambda: copy.calls and (copy.output / TRAIN / "seed1" / "metrics.json").exists())
    os.killpg(process.pid, signal.SIGINT)
    copy.until(lambda: attempt(copy, f"{TRAIN}/seed1")["started"])
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate(timeout=20)[0]
    assert process.returncode == 130
    assert output.endswith("\n2 runs: 2 pending\nstopped; the same command goes on from here\n")


def test_two_sweeps_share_the_runs(copy, base2new):
    plan = copy.plan(base2new | {"seeds": [1, 2, 3]})
    processes = [copy.start(plan, "--jobs", 2, SLOW="train_base", EPOCH="0.2") for _ in range(2)]
    outputs = [process.communicate(timeout=100)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sorted(copy.folders()) == sorted(f"{side}/seed{seed}" for side in (TRAIN, TEST) for seed in (1, 2, 3))
    assert all(output.endswith("6 runs: 6 done\n") for output in outputs)


def test_a_dead_owners_lock_is_taken_over_and_said_so(copy, base2new):
    folder = copy.output / TRAIN / "seed1"
    held = lock.Lock(folder, "theirs")
    held.acquire()
    owner = vars(held.owner) | {"born": 1}
    (folder / lock.FILE).write_text(json.dumps(owner))
    code, output = copy.sweep(copy.plan(base2new))
    assert code == 0, output
    line = f"started     base2new_train coop shapes 16 shots seed 1: takes over the lock of process {os.getpid()} on "
    assert line in output
    assert (folder / record.LOG).read_text().startswith(f"== lock taken over from process {os.getpid()} on ")


def test_a_run_that_outlives_its_process_is_waited_for(copy, base2new):
    """Somebody killed the process between the sweep and the run, which goes on and holds the lock by itself."""
    process = copy.start(copy.plan(base2new), SLOW="train_base", EPOCH="0.4")
    copy.until((copy.output / TRAIN / "seed1" / record.SAVED).exists)
    os.kill(lock.look(copy.output / TRAIN / "seed1").owner.pid, signal.SIGKILL)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    assert "left alone  base2new_train coop shapes 16 shots seed 1: run by process " in output
    assert copy.folders() == [f"{TRAIN}/seed1", f"{TEST}/seed1"]
    assert output.endswith("\n2 runs: 2 done\n")


def test_a_sweep_that_is_killed_loses_nothing(copy, base2new):
    """Its run goes on and holds the lock; another sweep waits for it and does what is left."""
    plan = copy.plan(base2new)
    process = copy.start(plan, SLOW="train_base", EPOCH="0.4")
    copy.until((copy.output / TRAIN / "seed1" / record.SAVED).exists)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    code, output = copy.sweep(plan)
    assert code == 0, output
    assert copy.folders() == [f"{TRAIN}/seed1", f"{TEST}/seed1"]
    assert json.loads((copy.output / TRAIN / "seed1" / "metrics.json").read_text())["began_with"] == 0
    assert output.endswith("\n2 runs: 2 done\n")
    assert not list(copy.output.glob(f"**/{lock.FILE}"))


def test_a_living_owner_is_waited_for(copy, base2new):
    folder = copy.output / TRAIN / "seed1"
    held = lock.Lock(folder, "theirs")
    held.acquire()
    process = copy.start(copy.plan(base2new))
    try:
        line = process.stdout.readline() + process.stdout.readline()
        assert "2 runs" in line
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.5)
        assert copy.calls == []
    finally:
        held.release()
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    assert "pending     base2new_train coop shapes 16 shots seed 1: (run by somebody else)\n" in output
    assert copy.folders() == [f"{TRAIN}/seed1", f"{TEST}/seed1"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["plans"], "error: no plan plans; did you mean 'plan'? There are: plan"),
        (["plan", "--jobs", "0"], "argument --jobs: must be at least 1, got 0"),
        (["plan", "--time", "soon"], "argument --time: must be minutes or H:MM, at least a minute, got 'soon'"),
        (["plan", "--time", "0:00"], "argument --time: must be minutes or H:MM, at least a minute, got '0:00'"),
        (["plan", "--slurm", "a b"], "argument --slurm: must be an option of sbatch such as qos=high, got 'a b'"),
        (["plan", "--output", "/proc/nowhere"], "error: the output folder /proc/nowhere cannot be made (No such file"),
    ],
)
def test_wrong_usage(copy, base2new, capsys, argv, message):
    copy.plan(base2new)
    with pytest.raises(SystemExit) as caught:
        copy.sweep(*argv)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_help(copy, capsys):
    with pytest.raises(SystemExit):
        copy.sweep("--help")
    text = capsys.readouterr().out
    assert "python -m tools.sweep shapes_all --dry-run" in text
    assert "overrides:" in text  # how a plan is written


def test_a_terminal_gets_a_table(copy, base2new):
    plan = copy.plan(base2new)
    leader, follower = pty.openpty()
    process = copy.start(plan, SLOW="train_base", EPOCH="0.5", into=follower)
    os.close(follower)
    text = b""
    while True:
        try:
            part = os.read(leader, 4096)
        except OSError:  # all writers are gone
            break
        if not part:
            break
        text += part
    assert process.wait(30) == 0
    shown = text.decode()
    assert "running  base2new_train coop shapes 16 shots seed 1: begins" in shown
    assert "\x1b[" in shown
    assert "2 runs: 1 running, 1 pending; " in shown
    assert shown.endswith("2 runs: 2 done\r\n")
