"""A small copy of the repository whose train.py only writes down how it was called."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = (
    *("datasets/shapes", "datasets/shapes_a", "datasets/eurosat", "datasets/imagenet"),
    *("trainers/ZeroshotCLIP/mini_vit8", "trainers/ZeroshotCLIP/vit_b16"),
    *("trainers/CoOp/mini_vit8_ep20", "trainers/CoOp/vit_b16_ep200_ctxv1", "trainers/CoOp/vit_b16_ep50_ctxv1"),
    *("trainers/CoOp/vit_b16", "trainers/CoOp/vit_b16_ep100", "trainers/CoOp/vit_b16_ep50"),
    *("trainers/Spotlighter/mini_vit8_ep15_paper", "trainers/Spotlighter/vit_b16_ep15_paper"),
    "trainers/Spotlighter/mini_vit8_ep5_maple_paper",
)
OURS = (
    "DATA",
    "OUTPUT",
    "SHOTS",
    "SOURCE",
    "CFG",
    "TRAINER",
    "HOST",
    "LOADEP",
    "NPROC",
    "PYTHON",
    "SEEDS",
    "DATASET",
    "JOBS",
)

TRAIN_PY = '''\
"""Stands for the real train.py: appends its arguments to calls.jsonl and writes metrics.json."""
import datetime, json, os, pathlib, sys
argv = sys.argv[1:]
with open("calls.jsonl", "a") as calls:
    calls.write(json.dumps(argv) + "\\n")
flag = lambda name: argv[argv.index(name) + 1] if name in argv else None
seed, evaluates = int(flag("--seed")), "--eval-only" in argv
code = int(os.environ.get("FAKE_EXIT", 0))
print("one of many lines")
folder = pathlib.Path(flag("--output-dir"))
folder.mkdir(parents=True, exist_ok=True)
classes = argv[argv.index("DATASET.SUBSAMPLE_CLASSES") + 1]
metrics = {
    "schema": 1, "finished": code == 0, "mode": "eval" if evaluates else "train", "trainer": flag("--trainer"),
    "classes": classes, "seed": seed,
    "config": {"OPTIM": {"MAX_EPOCH": 20, "LR": 0.02}, "TEST": {"FINAL_MODEL": "last_step"}},
    "epochs": [] if evaluates else [{"epoch": 20}], "started": datetime.datetime.now().isoformat(), "wall_seconds": 4.2,
    "final": {
        "epoch": int(flag("--load-epoch") or 20),
        "metrics": {"accuracy": (60.0 if classes == "base" else 70.0) + seed},
    },
}
metrics["config"]["TEST"].update(json.loads(os.environ.get("FAKE_TEST", "{}")))
(folder / "metrics.json").write_text(json.dumps(metrics))
sys.exit(code)
'''


class Copy:
    """The copy, and a way to run its scripts with nothing but the given variables of ours in the environment."""

    def __init__(self, root: Path):
        self.root = root

    def run(self, *argv: object, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess:
        env = {key: value for key, value in os.environ.items() if key not in OURS}
        env |= {"PYTHON": sys.executable, "PYTHONDONTWRITEBYTECODE": "1"} | variables
        env = {key: value for key, value in env.items() if value is not None}
        command = ["bash", *map(str, argv)]
        return subprocess.run(command, cwd=cwd or self.root, env=env, capture_output=True, text=True, timeout=300)

    @property
    def calls(self) -> list[list[str]]:
        path = self.root / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    root = tmp_path / "a repository"  # a space in the path must not matter
    shutil.copytree(ROOT / "scripts", root / "scripts")
    (root / "tools").mkdir()
    for pattern in ("__init__.py", "protocols.py", "run_*.py", "result_*.py"):
        for path in (ROOT / "tools").glob(pattern):
            shutil.copy(path, root / "tools")
    shutil.copy(ROOT / "parse_test_res.py", root)
    (root / "train.py").write_text(TRAIN_PY)
    for name in CONFIGS:
        path = root / "configs" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return Copy(root)
