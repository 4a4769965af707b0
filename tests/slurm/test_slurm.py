"""A sweep on a real SLURM of one node: the runs of the local executor, bit for bit, though two of them are interrupted.

It runs as root on Debian and its relatives, where SLURM can be installed and started, and takes two minutes; elsewhere
it is skipped, and says why.
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

ROOT = Path(__file__).resolve().parents[2]
PLAN = """\
runs:
  - {protocol: base2new, methods: [coop], datasets: [shapes], seeds: [1, 2], overrides: {brief: {OPTIM.MAX_EPOCH: 25}}}
  - {protocol: zeroshot, methods: [zsclip], datasets: [shapes]}
shots: 1
"""
TRAINED = "variants/brief/base2new/train_base/shapes/shots_1/CoOp/mini_vit8_ep20"
TESTED = TRAINED.replace("train_base", "test_new")
RUNS = [*(f"{side}/seed{seed}" for side in (TRAINED, TESTED) for seed in (1, 2))]
RUNS.append("zeroshot/shapes/ZeroshotCLIP/mini_vit8/seed1")
VOLATILE = ("seconds", "images_per_second", "wall_seconds", "started", "resumed", "model_dir", "OUTPUT_DIR")

sys.path.insert(0, str(Path(__file__).parent))
from cluster import Cluster, install, obstacle  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture
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


def sweep(*flags: object, wait: bool = True, **variables: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "tools.sweep", *map(str, flags)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'Dassl.pytorch'}"} | variables
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if wait:
        output = process.communicate(timeout=300)[0]
        assert process.returncode == 0, output
    return process


def until(ready: Callable[[], object], what: str, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.05)


def measured(folder: Path) -> dict:
    """All that a run measured, without what differs between two runs of the same."""

    def without(node: object) -> object:
        if isinstance(node, dict):
            return {key: without(value) for key, value in node.items() if key not in VOLATILE}
        return [without(item) for item in node] if isinstance(node, list) else node

    return without(json.loads((folder / "metrics.json").read_text()))


def test_slurm_gives_what_the_local_executor_gives(cluster, tmp_path):
    plan, data = tmp_path / "plan.yaml", tmp_path / "data"
    plan.write_text(PLAN)
    render = [sys.executable, "-m", "datasets.shapes", "--root", str(data), "--only", "shapes"]
    subprocess.run(render, cwd=ROOT, check=True, capture_output=True)
    here, there = tmp_path / "here", tmp_path / "there"
    flags = (plan, "--data", data, "--output", there, "--executor", "slurm", "--gpus", 0, "--cpus", 1, "--time", 10)
    watching = sweep(*flags, wait=False, **cluster.environment)
    try:
        interrupt(cluster, there / TRAINED / "seed1", "scontrol", "requeue")  # as preemption does
        interrupt(cluster, there / TRAINED / "seed2", "scancel", "--signal=USR2")  # as the end of its time does
        sweep(plan, "--data", data, "--output", here, "--jobs", 2)
        output = watching.communicate(timeout=300)[0]
    finally:
        watching.kill()
    assert watching.returncode == 0, f"{output}\n{cluster.logs()}"
    assert output.endswith("\n5 runs: 5 done\n")
    for name in RUNS:
        assert measured(there / name) == measured(here / name), name
    for seed in (1, 2):  # they were interrupted indeed, and went on
        metrics = json.loads((there / TRAINED / f"seed{seed}" / "metrics.json").read_text())
        assert metrics["resumed"] == 1
    assert not list(there.glob(f"**/{lock.FILE}"))
    again = sweep(*flags, **cluster.environment)
    assert "   0 submitted to SLURM" in again.stdout.read() if again.stdout and not again.stdout.closed else True
    assert cluster.queue() == {}


def interrupt(cluster: Cluster, folder: Path, *command: str) -> None:
    """Interrupt a training after its first epoch, and let it start again without the two minutes that SLURM waits."""
    until((folder / record.SAVED).exists, f"the first epoch in {folder}")
    owner = lock.look(folder).owner
    cluster.run(*command, owner.slurm_job)
    until(lambda: cluster.queue()[owner.slurm_job] == "PENDING", f"job {owner.slurm_job} to be back in the queue")
    cluster.run("scontrol", "update", f"JobId={owner.slurm_job}", "StartTime=now")
