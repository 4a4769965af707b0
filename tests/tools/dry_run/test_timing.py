"""The arithmetic of a dry run's estimate."""

from types import SimpleNamespace

import pytest
import torch

from tools.dry_run import timing
from tools.dry_run.timing import BatchTime, Measured, estimate, peak_memory
from tools.dry_run.words import plural, seconds


@pytest.mark.parametrize(
    ("load", "compute", "cpu", "workers", "cores", "expected"),
    [
        (1.0, 2.0, 2.0, 0, 4, 3.0),  # one after the other
        (1.0, 2.0, 2.0, 2, 4, 2.0),  # loading hides behind computing
        (9.0, 2.0, 2.0, 3, 16, 3.0),  # loading is slowest
        (9.0, 2.0, 2.0, 8, 2, 5.5),  # more workers than cores, which computing needs, too
        (1.0, 2.0, 4.0, 2, 2, 2.5),  # computing takes both cores
    ],
)
def test_a_batch_beside_loading_processes(load, compute, cpu, workers, cores, expected):
    assert BatchTime(load, compute, cpu).beside(workers, cores) == expected


@pytest.fixture
def trainer(monkeypatch):
    """10 test and 4 validation batches of 8 images."""
    monkeypatch.setattr(timing, "cores", lambda: 4)

    def build(final_model="last_step", split="test", no_test=False):
        test = SimpleNamespace(FINAL_MODEL=final_model, SPLIT=split, NO_TEST=no_test)
        loading = SimpleNamespace(TEST=SimpleNamespace(BATCH_SIZE=8))
        cfg = SimpleNamespace(TEST=test, DATALOADER=loading)
        return SimpleNamespace(cfg=cfg, test_loader=[None] * 10, val_loader=[None] * 4)

    return build


MEASURED = Measured(BatchTime(0.5, 2.0, 2.0), BatchTime(1.0, 3.0, 3.0), 5.0, None, "")


@pytest.mark.parametrize(
    ("options", "evaluation"),
    [
        ({}, 5 + 10 * 4),
        ({"split": "val"}, 5 + 4 * 4),
        ({"final_model": "best_val"}, 5 + 10 * 4 + 3 * (5 + 4 * 4)),
        ({"final_model": "released_best_val"}, 4 * (5 + 10 * 4)),
        ({"no_test": True}, 0),
    ],
)
def test_the_whole_run(trainer, options, evaluation):
    found = estimate(trainer(**options), MEASURED, steps=30, workers=0, looks_at=20, trains=True, epochs=3)
    assert found.evaluation == evaluation
    assert (found.step, found.training, found.first_look) == (2.5, 75.0, 3 * 4.0)
    assert found.total == 75 + 12 + evaluation


def test_several_processes_share_the_tests(trainer, monkeypatch):
    monkeypatch.setattr(timing.distributed, "world_size", lambda: 4)
    assert estimate(trainer(), MEASURED, 30, 0, 0, True, 3).evaluation == 5 + 3 * 4


def test_what_is_not_known_is_not_added_up(trainer):
    found = estimate(trainer(), Measured(None, MEASURED.test, 0.0, None, ""), 0, 0, 0, True, 1)
    assert (found.step, found.training, found.total) == (None, None, None)


def test_memory_without_a_counter(monkeypatch):
    monkeypatch.setattr(timing.sys, "platform", "win32")
    assert peak_memory(torch.device("cpu")) == (None, "not measured on this system")


def test_cores_are_shared_by_the_processes_of_a_machine(monkeypatch):
    monkeypatch.setattr(timing.os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    assert timing.cores() == 6
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert timing.cores() == 1


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0123, "0.012 s"),
        (1.25, "1.2 s"),
        (61.7, "62 s"),
        (150.0, "2 min"),
        (7170.0, "2 h 0 min"),
        (9000, "2 h 30 min"),
    ],
)
def test_durations(value, shown):
    assert seconds(value) == shown


def test_numbers_of_things():
    assert [plural(n, "step") for n in (0, 1, 1200)] == ["0 steps", "1 step", "1,200 steps"]
    assert [plural(n, "batch", "batches") for n in (1, 2)] == ["1 batch", "2 batches"]
