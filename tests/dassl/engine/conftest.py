"""The toy trainers of `toy_runs.py`, loaded once, and what two runs are compared by."""

import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("toy_runs.py")


class Killed(BaseException):
    """Stands for a process that ends in the middle of a step."""


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    """Waiting for a busy disk takes longer than these runs, and protects from power cuts only."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture(scope="session")
def toys():
    if "toy_runs" not in sys.modules:
        spec = importlib.util.spec_from_file_location("toy_runs", SCRIPT)
        module = importlib.util.module_from_spec(spec)
        sys.modules["toy_runs"] = module
        spec.loader.exec_module(module)
    return sys.modules["toy_runs"]


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture
def make(toys, pictures, tmp_path):
    """A toy trainer: `make(OPTIM__LR=1.0)`; its run folder is tmp_path / "run" unless `output` is given."""

    def build(output="run", **changes):
        return toys.toy_trainer(pictures, tmp_path / output, **changes)

    return build


@pytest.fixture
def killed():
    """Trains until step `step`, in which the process dies."""

    def run(trainer, step):
        def interrupt(now):
            if now == step:
                raise Killed

        trainer.interrupt = interrupt
        with pytest.raises(Killed):
            trainer.train()

    return run


TIMES = {"started", "wall_seconds", "resumed", "seconds", "images_per_second", "OUTPUT_DIR"}


def without_times(tree):
    if isinstance(tree, dict):
        return {key: without_times(value) for key, value in tree.items() if key not in TIMES}
    return [without_times(item) for item in tree] if isinstance(tree, list) else tree


@pytest.fixture
def record_of(tmp_path):
    return lambda output="run", name="metrics.json": json.loads((tmp_path / output / name).read_text())


@pytest.fixture
def outcome(record_of):
    """All that must not depend on an interruption: weights, optimiser, state outside, generators, metrics, files."""

    def of(trainer, output="run"):
        folder = Path(trainer.output_dir) / "linear"
        saved = {path.name: torch.load(path, weights_only=True) for path in sorted(folder.glob("model*"))}
        return {
            "weights": dict(trainer.model.state_dict()),
            "optimizer": trainer.optim.state_dict(),
            "scheduler": trainer.sched.state_dict(),
            "average": trainer.average,
            "next random number": torch.rand(3),
            "best": trainer.best_result,
            "metrics": without_times(record_of(output)),
            "files": saved,
        }

    return of


def assert_same(a, b, where=""):
    """Equal to the bit, whatever is nested in what."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            assert_same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}/{i}")
    else:
        assert a == b, f"{where}: {a!r} != {b!r}"


@pytest.fixture
def same():
    return assert_same
