"""Run folders written by hand: metrics.json as the engine writes it, log.txt as the family's projects print it."""

import copy
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

import train
from tests.conftest import command_below

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
METRICS = {
    "schema": 1,
    "finished": True,
    "mode": "train",
    "trainer": "CoOp",
    "dataset": "shapes",
    "classes": "base",
    "num_shots": 16,
    "seed": 1,
    "backbone": "Mini-ViT/8",
    "config": {"OPTIM": {"MAX_EPOCH": 20, "LR": 0.02}, "TEST": {"FINAL_MODEL": "last_step"}},
    "versions": {"python": "3.11.7"},
    "device": "cpu",
    "parameters": {"trainable_tensors": 1, "trainable_scalars": 512, "total_scalars": 4000000},
    "class_names": ["red star", "blue ring"],
    "data": {"train_x": 32, "val": 8, "test": 40, "split_digest": None},
    "epochs": [{"epoch": 20, "lr": 1e-5, "train": {"loss": 0.5, "acc": 80.0}, "val": None, "seconds": 0.5}],
    "final": {
        "split": "test",
        "epoch": 20,
        "model_dir": None,
        "metrics": {"accuracy": 75.0, "error_rate": 25.0, "macro_f1": 74.0},
    },
    "started": "2030-01-01T10:00:00",
    "wall_seconds": 12.5,
    "resumed": 0,
}

TRAIN_LOG = """\
Setting fixed seed: 1
epoch [1/20] batch [5/36] time 0.1 (0.1) loss 1.0 (1.0) acc 50.0 (50.0) lr 2e-2 eta 0:00:10
Evaluate on the *val* set
=> result
* accuracy: 99.9%
Finish training
Evaluate on the *test* set
=> result
* total: 1,234
* correct: 944
* accuracy: {accuracy}%
* error: {error}%
* macro_f1: 70.1%
Elapsed: 0:01:00
"""
TEST_LOG = """\
Loading weights
Evaluate on the *test* set
=> result
* total: 1,234
* accuracy: {accuracy}%
* error: {error}%
"""


def with_host(trainer: str, host: str | None) -> dict[str, object]:
    """The recorded config of a run; with the node of a trainer that wraps a host."""
    return METRICS["config"] | ({"TRAINER": {trainer.upper(): {"HOST": host}}} if host else {})


class Runs:
    """Writes run folders below a root."""

    def __init__(self, root: Path):
        self.root = root

    def folder(
        self, side: str, seed: int, dataset: str = "shapes", trainer: str = "CoOp", config: str = "rn50"
    ) -> Path:
        return self.root / side / dataset / "shots_16" / trainer / config / f"seed{seed}"

    def metrics(self, folder: Path, accuracy: object = 75.0, **changes: object) -> Path:
        content = copy.deepcopy(METRICS)
        content["final"]["metrics"]["accuracy"] = accuracy
        content.update(changes)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").write_text(json.dumps(content))
        return folder

    def log(self, folder: Path, accuracy: object = 75.0, text: str = TRAIN_LOG, name: str = "log.txt") -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text.format(accuracy=accuracy, error="24.9"))
        return folder

    def of(
        self,
        below: str,
        accuracy: float,
        seed: int = 1,
        trainer: str = "CoOp",
        config: str = "rn50",
        host: str | None = None,
        **changes: object,
    ) -> Path:
        """A run on all classes at `below/TRAINER/CFG/seedN`, such as `fewshot/dtd/shots_4/CoOp/rn50/seed1`."""
        about = {"seed": seed, "trainer": trainer, "classes": "all", "config": with_host(trainer, host)}
        return self.metrics(self.root / below / trainer / config / f"seed{seed}", accuracy, **about | changes)

    def pair(self, seed: int, base: float, new: float, host: str | None = None, **where: str) -> None:
        """A trained run on base classes and its test on new classes."""
        trainer, dataset = where.get("trainer", "CoOp"), where.get("dataset", "shapes")
        about = {"seed": seed, "trainer": trainer, "dataset": dataset, "config": with_host(trainer, host)}
        self.metrics(self.folder("train_base", seed, **where), base, **about)
        tested = {"mode": "eval", "classes": "new", "started": "2030-01-01T11:00:00"}
        self.metrics(self.folder("test_new", seed, **where), new, **about, **tested)


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


@pytest.fixture
def train_log() -> str:
    return TRAIN_LOG


@pytest.fixture
def test_log() -> str:
    return TEST_LOG


@pytest.fixture(scope="session")
def tiny_runs(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Path:
    """A folder with data/ and output/: CoOp and CoOp w/ Spotlighter, trained on the base classes of the toy data and
    tested on the new ones; tests must not change it.
    """
    folder = tmp_path_factory.mktemp("runs")
    command = command_below(folder, tiny_weights)
    small = ("TRAINER.COOP.N_CTX", "2", "TRAINER.SPOTLIGHTER.TOP_K", "3", "TRAINER.SPOTLIGHTER.N_PROTOTYPES", "2")
    for trainer in ("CoOp", "Spotlighter"):
        base, new = (f"output/base2new/{side}/toy/shots_6/{trainer}/tiny/seed1" for side in ("train_base", "test_new"))
        only = ("DATASET.SUBSAMPLE_CLASSES",)
        tested = ("--eval-only", "--model-dir", str(folder / base), "--load-epoch", "2")
        for arguments in (
            command(*small, *only, "base", trainer=trainer, output=base),
            command(*small, *only, "new", trainer=trainer, output=new, flags=tested),
        ):
            stdout = sys.stdout
            try:
                assert train.run(arguments) == 0
            finally:
                sys.stdout = stdout  # the logger stands in its place after a run
    return folder


@pytest.fixture(scope="module")
def chromium():
    """A browser without a window."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: requirements-browser-test.txt has it")
    if BROWSER is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        options = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # it refuses root otherwise
        browser = playwright.chromium.launch(executable_path=BROWSER, args=options)
        yield browser
        browser.close()
