"""kill -9 at the worst moments, SIGTERM with ten seconds' grace: what was saved is whole, and no step is repeated."""

import itertools
import os
import signal
import time

import pytest
import torch

from dassl.utils import files
from tests.faults.conftest import until

EVERY_STEP = {"TRAIN__CHECKPOINT_SECONDS": 1e-9, "TRAIN__CHECKPOINT_FREQ": 1}


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


class Torn:
    """A file whose process is killed when half of a chunk is written."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        self.file.__enter__()
        return self

    def __exit__(self, *error):
        return self.file.__exit__(*error)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, data):
        os.write(self.file.fileno(), bytes(data)[: len(data) // 2])
        die()


def half_written(number, patch):
    """Die within the file that is written as number `number`."""
    numbers, fdopen = itertools.count(), os.fdopen
    patch.setattr(files.os, "fdopen", lambda *a: Torn(fdopen(*a)) if next(numbers) == number else fdopen(*a))


def before_its_rename(number, patch):
    numbers, replace = itertools.count(), os.replace
    patch.setattr(files.os, "replace", lambda *a: die() if next(numbers) == number else replace(*a))


def after_its_rename(number, patch):
    numbers, replace = itertools.count(), os.replace
    patch.setattr(files.os, "replace", lambda *a: (replace(*a), next(numbers) == number and die()))


@pytest.fixture
def expected(make, outcome):
    whole = make("whole", **EVERY_STEP)
    whole.train()
    return outcome(whole, "whole")


@pytest.mark.parametrize("moment", [half_written, before_its_rename, after_its_rename], ids=lambda f: f.__name__)
def test_kill_9_while_a_file_is_written(child, make, outcome, same, expected, tmp_path, monkeypatch, moment):
    """Any of those of an epoch: three states of steps, then model and its pointer, the epoch's state, the record."""
    for number in range(1, 8):
        folder = f"killed{number}"

        def train(number=number, folder=folder):
            moment(number, monkeypatch)
            make(folder, **EVERY_STEP).train()

        process = child(train)
        assert process.wait() == -signal.SIGKILL, process.text()
        left = {path.name for path in (tmp_path / folder).rglob("*") if files.TEMPORARY in path.name}
        assert bool(left) is (moment is not after_its_rename)
        for path in (tmp_path / folder).rglob("*.pth.tar*"):
            if files.TEMPORARY not in path.name:
                torch.load(path, weights_only=True)  # is whole
        again = make(folder, **EVERY_STEP)
        again.train()
        same(outcome(again, folder), expected, f"killed at file {number}")
        assert again.steps >= 12 - number
        assert not [path for path in (tmp_path / folder).rglob("*") if files.TEMPORARY in path.name]


@pytest.mark.parametrize("workers", [0, 2])
def test_preemption_with_ten_seconds_of_grace(child, make, outcome, same, tmp_path, workers):
    """The signal comes at any moment, from outside; whoever is still there ten seconds later is killed."""
    whole = make("whole", TEST__FINAL_MODEL="best_val")
    whole.train()
    expected = outcome(whole, "whole")

    def train():
        trainer = make(TEST__FINAL_MODEL="best_val", DATALOADER__NUM_WORKERS=workers)
        trainer.interrupt = lambda step: ((tmp_path / f"step{step}").touch(), time.sleep(0.1))
        trainer.train()

    process = child(train)
    until((tmp_path / "step4").exists)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(10) == 143, process.text()
    assert (
        process.text().splitlines()[-1].startswith("Stopped by SIGTERM after epoch 2, batch 2 of 3; the same command")
    )
    again = make(TEST__FINAL_MODEL="best_val")
    again.train()
    assert again.steps == 7  # none is repeated
    same(outcome(again), expected)


def test_kill_9_in_the_final_test_leaves_only_that_to_do(child, make, record_of):
    def train():
        trainer = make()
        trainer.model_inference = die
        trainer.train()

    assert child(train).wait() == -signal.SIGKILL
    assert not record_of()["finished"]
    again = make()
    again.train()
    assert again.steps == 0
    assert record_of()["finished"]
