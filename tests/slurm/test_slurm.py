"""Sweeps on a real SLURM of one node: the runs of the local executor, bit for bit, though two of them are interrupted.

It runs as root on Debian and its relatives, where SLURM can be installed and started, and takes a minute and
a half on two cores; elsewhere it is skipped, and says why.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tools.sweeps import lock, record

sys.path.insert(0, str(Path(__file__).parent))
from cluster import Cluster, install, obstacle

ROOT = Path(__file__).resolve().parents[2]
PLAN = """\
runs:
  - {protocol: base2new, methods: [coop], datasets: [shapes], seeds: [1, 2], overrides: {brief: {OPTIM.MAX_EPOCH: 25}}}
  - {protocol: zeroshot, methods: [zsclip], datasets: [shapes]}
shots: 1
"""
BROKEN = "{protocol: base2new, methods: [coop], datasets: [shapes], seeds: [1], overrides: {x: {OPTIM.EPOCHS: 3}}}"
TRAINED = "variants/brief/base2new/train_base/shapes/shots_1/CoOp/mini_vit8_ep20"
TESTED = TRAINED.replace("train_base", "test_new")
RUNS = [
    *(f"{side}/seed{seed}" for side in (TRAINED, TESTED) for seed in (1, 2)),
    "zeroshot/shapes/ZeroshotCLIP/mini_vit8/seed1",
]
VOLATILE = ("seconds", "images_per_second", "wall_seconds", "started", "resumed", "model_dir", "OUTPUT_DIR")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    reason = obstacle() or install()
    if reason:
        pytest.skip(f"not tested on SLURM here: {reason}")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # pytest's own folders have too long names for a socket
    try:
        with Cluster(folder) as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def start(*argv: object, **variables: str) -> subprocess.Popen:
    """Start the tool, with one thread a run wherever it runs."""
    command = [sys.executable, "-m", "tools.sweep", *map(str, argv)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'Dassl.pytorch'}"} | variables
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def sweep(*argv: object, **variables: str) -> tuple[int, str]:
    """Run the tool to its end; exit code and output."""
    process = start(*argv, **variables)
    output = process.communicate(timeout=300)[0]
    return process.returncode, output


def until(ready: Callable[[], object], what: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.05)


def measured(folder: Path) -> object:
    """All that a run measured, without what differs between two runs of the same."""

    def without(node: object) -> object:
        if isinstance(node, dict):
            return {key: without(value) for key, value in node.items() if key not in VOLATILE}
        return [without(item) for item in node] if isinstance(node, list) else node

    return without(json.loads((folder / "metrics.json").read_text()))


def interrupt(cluster: Cluster, folder: Path, *command: str) -> str:
    """Interrupt a training after its first epoch; the id of its job."""
    until((folder / record.SAVED).exists, f"the first epoch in {folder}")
    job = lock.look(folder).owner.slurm_job
    cluster.run(*command, job)
    return job


def start_again(cluster: Cluster, job: str) -> None:
    """Let a requeued job start again without the two minutes that SLURM waits."""
    until(lambda: cluster.queue()[job] == "PENDING", f"job {job} to be back in the queue")
    cluster.run("scontrol", "update", f"JobId={job}", "StartTime=now")


def test_slurm_gives_what_the_local_executor_gives(cluster, tmp_path):
    plan, data, here, there = (tmp_path / name for name in ("plan.yaml", "data", "here", "there"))
    plan.write_text(PLAN)
    render = [sys.executable, "-m", "datasets.shapes", "--root", str(data), "--only", "shapes"]
    subprocess.run(render, cwd=ROOT, check=True, capture_output=True)
    flags = (plan, "--data", data, "--output", there, "--executor", "slurm", "--gpus", 0, "--cpus", 1, "--time", 10)
    watching = start(*flags, **cluster.environment)
    try:
        jobs = [
            interrupt(cluster, there / TRAINED / "seed1", "scontrol", "requeue"),  # as preemption does
            interrupt(cluster, there / TRAINED / "seed2", "scancel", "--signal=USR2"),  # as the end of its time does
        ]
        for job in jobs:
            start_again(cluster, job)
        code, output = sweep(plan, "--data", data, "--output", here, "--jobs", 2)
        assert code == 0, output
        output = watching.communicate(timeout=300)[0]
    finally:
        watching.kill()
    assert watching.returncode == 0, f"{output}\n{cluster.logs()}"
    assert output.endswith("\n5 runs: 5 done\n")
    for name in RUNS:
        assert measured(there / name) == measured(here / name), name
    for seed in (1, 2):  # they were interrupted indeed, and went on
        assert json.loads((there / TRAINED / f"seed{seed}" / "metrics.json").read_text())["resumed"] == 1
    assert not list(there.glob(f"**/{lock.FILE}"))
    assert cluster.queue() == {}
    code, output = sweep(*flags, **cluster.environment)
    assert (code, "\n   0 submitted to SLURM; " in output) == (0, True)


def test_a_failure_on_slurm(cluster, tmp_path):
    plan, output = tmp_path / "plan.yaml", tmp_path / "there"
    plan.write_text(BROKEN)
    flags = (plan, "--data", tmp_path / "data", "--output", output)
    slurm = ("--executor", "slurm", "--gpus", 0, "--cpus", 1)
    code, text = sweep(*flags, *slurm, "--no-wait", **cluster.environment)
    assert (code, "\n   2 submitted to SLURM; " in text) == (0, True), text
    code, text = sweep(*flags, *slurm, "--no-wait", **cluster.environment)  # it knows what is in the queue
    assert (code, "\n   0 submitted to SLURM; " in text) == (0, True), text
    states = [line.split()[0] for line in sweep(*flags, "--dry-run", **cluster.environment)[1].splitlines()[2:4]]
    assert states[0] in ("queued", "running")
    assert states[1] == "queued"
    until(lambda: not cluster.queue(), "SLURM to give up the test of a training that failed")
    code, text = sweep(*flags, "--dry-run", **cluster.environment)
    assert "OPTIM.EPOCHS" in text.splitlines()[2]
    assert text.endswith("2 runs: 1 failed, 1 blocked\n")


def test_what_sbatch_refuses(cluster, tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text(BROKEN)
    flags = (plan, "--output", tmp_path / "there", "--executor", "slurm")
    code, text = sweep(*flags, **cluster.environment)  # asks for a GPU
    assert code == 1
    assert "\nerror: sbatch refused 1 job: sbatch: error: " in text
    assert "; without GPUs: --gpus 0\n" in text
