"""A newcomer's path: the commands of docs/tutorial.md, in their order, on a copy of the repository."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("clip", "trainers", "configs", "datasets", "scripts", "Dassl.pytorch", "tools", "docs", "train.py")
CLASSES = ("gray circle", "gray diamond", "gray hexagon", "gray pentagon", "gray ring")


def commands():
    """The bash blocks; installing, which needs a network, is left to the set-up of the tests."""
    page = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
    text = "\n".join(re.findall(r"^```bash\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL))
    return "\n".join(line for line in text.splitlines() if "pip install" not in line)


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """The folder in which the tutorial was walked through, and what was printed."""
    folder = tmp_path_factory.mktemp("tutorial")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(ROOT / part, folder)
    python = folder / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    clean = {name: value for name, value in os.environ.items() if name not in ("OUTPUT", "SHOTS", "CFG", "PYTHON")}
    env = {**clean, "PYTHONPATH": f"{folder}:{folder / 'Dassl.pytorch'}", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands()], cwd=folder, env=env, capture_output=True, text=True, timeout=900
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    return folder, run.stdout


@pytest.mark.slow
def test_the_tutorial_can_be_walked_through(walked):
    folder, out = walked
    assert "20 pictures in photos" in out
    assert "images      train_x 10, val 5, test 5" in out
    assert len(re.findall(r"^\* total: 5$", out, flags=re.MULTILINE)) == 2
    rows = dict(re.findall(r"^more/(gray \w+)/val_001\.png +(\w+ \w+) \d+\.\d%", out, flags=re.MULTILINE))
    assert list(rows) == list(CLASSES)
    assert set(rows.values()) <= {*CLASSES, "black star"}
    assert "Wrote photos.onnx" in out
    for name in ("report/index.html", "tokens.png", "photos.onnx"):
        assert (folder / name).stat().st_size > 10_000


@pytest.mark.slow
def test_what_the_tutorial_prints_is_what_is_printed(walked):
    """Lines without measured numbers; the rest differs from machine to machine."""
    page = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```\n```text\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    lines = [line for text in shown for line in text.splitlines()]
    steady = [line for line in lines if line != "…" and not re.search(r"\d\.\d|%|row \d|^6, column", line)]
    assert len(steady) > 8
    printed = " ".join(walked[1].split())
    missing = [line for line in steady if " ".join(line.split()) not in printed]
    assert not missing
