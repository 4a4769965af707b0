"""A small copy of the repository whose train.py stands for the real one: it can fail, take its time, and stop."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tools import sweep

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = (
    *("datasets/shapes", "datasets/shapes_a", "datasets/shapes_r", "datasets/eurosat", "datasets/imagenet"),
    *("trainers/ZeroshotCLIP/mini_vit8", "trainers/ZeroshotCLIP/vit_b16"),
    *("trainers/CoOp/mini_vit8_ep20", "trainers/CoOp/vit_b16_ep200_ctxv1", "trainers/CoOp/vit_b16_ep50_ctxv1"),
    *("trainers/CoOp/vit_b16", "trainers/CoOp/vit_b16_ep100", "trainers/CoOp/vit_b16_ep50"),
    *("trainers/Spotlighter/mini_vit8_ep15_paper", "trainers/Spotlighter/vit_b16_ep15_paper"),
)
TRAIN_PY = '''\
"""Stands for the real train.py: an epoch is a moment, resume.pth.tar holds how many of the five are done."""
import ast, datetime, json, os, pathlib, re, signal, sys, time
argv = sys.argv[1:]
flag = lambda name: argv[argv.index(name) + 1] if name in argv else None
folder, evaluates = pathlib.Path(flag("--output-dir")), "--eval-only" in argv
matches = lambda name: re.search(os.environ.get(name) or "$^", str(folder)) is not None
with open("calls.jsonl", "a") as calls:
    told = {key: os.environ.get(key) for key in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "SHOTS")}
    calls.write(json.dumps({"argv": argv, "folder": str(folder), "pid": os.getpid(), **told}) + "\\n")
print("one of many lines", flush=True)
if matches("FAILS"):
    print("Traceback …\\nValueError: no such luck\\n  some hint", file=sys.stderr)
    sys.exit(1)
if matches("DIES"):
    os.kill(os.getpid(), signal.SIGKILL)
folder.mkdir(parents=True, exist_ok=True)
stopped = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: stopped.append(number) if not stopped else sys.exit("at once"))
resume = folder / "resume.pth.tar"
begin = done = int(resume.read_text()) if resume.exists() else 0
values = argv[argv.index("DATASET.SUBSAMPLE_CLASSES") + 2 :]
config = {"OPTIM": {"MAX_EPOCH": 5}, "TEST": {"FINAL_MODEL": "last_step"}}
for key, value in zip(values[::2], values[1::2]):
    node, *rest = key.split(".")
    config.setdefault(node, {})[".".join(rest)] = ast.literal_eval(value)
metrics = {
    "schema": 1, "finished": False, "mode": "eval" if evaluates else "train", "config": config, "began_with": begin,
    "started": datetime.datetime.now().astimezone().isoformat(), "wall_seconds": 4.0, "seed": int(flag("--seed")),
    "final": {"epoch": int(flag("--load-epoch") or 5), "metrics": {"accuracy": 60.0 + int(flag("--seed"))}},
}
def write():
    temporary = folder / "metrics.tmp"
    temporary.write_text(json.dumps(metrics | {"epochs": [{"epoch": n + 1} for n in range(done)]}))
    temporary.rename(folder / "metrics.json")
write()
while not evaluates and done < 5:
    time.sleep(float(os.environ.get("EPOCH", 0)) if matches("SLOW") else 0)
    done += 1
    resume.write_text(str(done))
    write()
    if stopped:
        print(f"Stopped by signal {stopped[0]}", flush=True)
        sys.exit(128 + stopped[0])
metrics["finished"] = True
write()
resume.unlink(missing_ok=True)
'''
MAIN = """
import sys
from pathlib import Path
from tools import sweep
from tools.sweeps import local
local.TICK, local.AGAIN = 0.02, 0.2
sys.exit(sweep.main(sys.argv[2:], Path(sys.argv[1])))
"""
OURS = ("DATA", "OUTPUT", "SHOTS", "SOURCE", "CFG", "TRAINER", "LOADEP", "PYTHON", "CUDA_VISIBLE_DEVICES")


class Copy:
    """The copy: writes plans, runs sweeps on them, tells what was run."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]):
        self.root, self.capsys = root, capsys
        self.output = root / "output"

    def plan(self, tree: object, name: str = "plan") -> Path:
        path = self.root / "plans" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree))
        return path

    def sweep(self, *argv: object) -> tuple[int, str]:
        """Run the tool in this process; exit code and output."""
        code = sweep.main([*map(str, argv)], self.root)
        captured = self.capsys.readouterr()
        return code, captured.out + captured.err

    def start(self, *argv: object, into: int = subprocess.PIPE, **variables: str) -> subprocess.Popen:
        """Start the tool as a terminal does: in a process group of its own."""
        env = {key: value for key, value in os.environ.items() if key not in OURS}
        env |= variables
        command = [sys.executable, "-c", MAIN, str(self.root), *map(str, argv)]
        pipes = {"stdout": into, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, cwd=ROOT, env=env, start_new_session=True, **pipes)

    @property
    def calls(self) -> list[dict]:
        path = self.root / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def folders(self) -> list[str]:
        """Run folders below output, in the order of their starts."""
        return [call["folder"].removeprefix("output/") for call in self.calls]

    def until(self, ready: Callable[[], object]) -> None:
        end = time.monotonic() + 60
        while not ready():
            assert time.monotonic() < end, "waited a minute in vain"
            time.sleep(0.02)


@pytest.fixture
def copy(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Copy:
    root = tmp_path / "a repository"  # a space in the path must not matter
    shutil.copytree(ROOT / "scripts", root / "scripts")
    (root / "tools").mkdir()
    for pattern in ("__init__.py", "protocols.py", "run_*.py"):
        for path in (ROOT / "tools").glob(pattern):
            shutil.copy(path, root / "tools")
    (root / "train.py").write_text(TRAIN_PY)
    for name in CONFIGS:
        path = root / "configs" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    for name in OURS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("tools.sweeps.local.TICK", 0.02)
    return Copy(root, capsys)


@pytest.fixture
def base2new() -> dict:
    """A plan of a training and its test."""
    return {"protocol": "base2new", "methods": ["coop"], "datasets": ["shapes"], "seeds": [1]}
