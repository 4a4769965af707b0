"""Processes that are killed or asked to stop, and continued by the same command."""

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from dassl.engine.signals import StopSignals

SCRIPT = Path(__file__).with_name("toy_runs.py")
EVERY_STEP = ("TRAIN__CHECKPOINT_SECONDS", "1e-9")


@pytest.fixture
def process(pictures, tmp_path):
    """Runs the toy script in a process of its own."""

    def run(output, *pairs, **environment):
        paths = os.pathsep.join(p for p in sys.path if p)
        return subprocess.run(
            [sys.executable, str(SCRIPT), str(pictures), str(tmp_path / output), *pairs],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, **environment},
            capture_output=True,
            text=True,
            start_new_session=True,
            check=False,
        )

    return run


def final_state(tmp_path, output):
    return torch.load(tmp_path / output / "linear/model.pth.tar-4", weights_only=True)


@pytest.fixture
def whole(make, tmp_path):
    """Final checkpoint of the uninterrupted run, made in this process with the given settings."""

    def run(**settings):
        make("whole", **settings).train()
        return final_state(tmp_path, "whole")

    return run


@pytest.mark.slow
@pytest.mark.parametrize("pairs", [(), EVERY_STEP], ids=["saved per epoch", "saved per step"])
def test_kill_9_at_a_random_step(process, whole, make, same, tmp_path, pairs):
    step = random.SystemRandom().randrange(12)
    ended = process("run", *pairs, INTERRUPT=f"SIGKILL@{step}")
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    make(**({"TRAIN__CHECKPOINT_SECONDS": 1e-9} if pairs else {})).train()
    same(final_state(tmp_path, "run"), whole(), f"killed in step {step}")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_saves_at_the_next_step_and_says_how_to_continue(process, whole, make, same, tmp_path, name, code):
    step = random.SystemRandom().randrange(12)
    ended = process("run", INTERRUPT=f"{name}@{step}")
    assert ended.returncode == code, ended.stderr
    where = f"after epoch {step // 3 + 1}, batch {step % 3 + 1} of 3"
    path = tmp_path / "run/resume.pth.tar"
    assert ended.stdout.splitlines()[-1] == f"Stopped by {name} {where}; the same command continues from {path}"
    assert "Traceback" not in ended.stderr
    again = make()
    again.train()
    assert again.steps == 12 - step - 1  # the step under way was finished, and none is repeated
    same(final_state(tmp_path, "run"), whole())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_to_the_whole_group_with_workers_loses_nothing(process, whole, make, same, tmp_path, name, code):
    ended = process("run", "DATALOADER__NUM_WORKERS", "2", INTERRUPT=f"{name}@4", GROUP="1")
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    make().train()
    same(final_state(tmp_path, "run"), whole())


def test_a_signal_in_the_final_test_leaves_only_the_test_to_do(make, monkeypatch, record_of, capsys):
    trainer = make()
    infer = trainer.model_inference
    monkeypatch.setattr(
        trainer, "model_inference", lambda input: (os.kill(os.getpid(), signal.SIGTERM), infer(input))[1]
    )
    with pytest.raises(SystemExit) as stop:
        trainer.train()
    assert stop.value.code == 143
    assert "Stopped by SIGTERM in the test; the same command continues from" in capsys.readouterr().out
    assert not record_of()["finished"]
    again = make()
    again.train()
    assert again.steps == 0
    assert record_of()["finished"]
    assert record_of()["final"]["epoch"] == 4


def test_a_signal_in_an_evaluation_ends_it(make, monkeypatch, capsys):
    trainer = make()
    monkeypatch.setattr(trainer, "model_inference", lambda input: os.kill(os.getpid(), signal.SIGINT))
    monkeypatch.setattr(trainer.evaluator, "process", lambda output, label: None)
    with pytest.raises(SystemExit) as stop:
        trainer.evaluate()
    assert stop.value.code == 130
    assert "Stopped by SIGINT in the test; the same command starts again" in capsys.readouterr().out


def test_a_worker_that_dies_of_the_signal_within_a_step_spoils_nothing(make, tmp_path, outcome, same, capsys):
    whole = make("whole")
    whole.train()
    expected = outcome(whole, "whole")
    trainer = make()

    def interrupt(step):
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
            raise RuntimeError("DataLoader worker (pid 77) is killed by signal: Terminated.")

    trainer.interrupt = interrupt
    with pytest.raises(SystemExit) as stop:
        trainer.train()
    assert stop.value.code == 143
    assert "Stopped by SIGTERM within a step; the same command continues from" in capsys.readouterr().out
    again = make()
    again.train()
    assert again.steps == 9  # from the last state that was saved, the end of the first epoch
    same(outcome(again), expected)


def test_a_worker_that_dies_of_the_signal_between_steps_costs_no_step(make, outcome, same):
    whole = make("whole")
    whole.train()
    expected = outcome(whole, "whole")
    trainer = make()
    batches = iter(trainer.train_loader_x)

    def dying():
        yield next(batches)
        os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError("DataLoader worker (pid 77) is killed by signal: Terminated.")

    loader = type(trainer.train_loader_x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "__iter__", lambda self: dying())
        with pytest.raises(SystemExit) as stop:
            trainer.train()
    assert stop.value.code == 143
    again = make()
    again.train()
    assert again.steps == 11
    same(outcome(again), expected)


def test_other_errors_of_a_loader_are_passed_on(make, monkeypatch):
    trainer = make()
    monkeypatch.setattr(trainer, "parse_batch_train", lambda batch: (_ for _ in ()).throw(RuntimeError("broken image")))
    with pytest.raises(RuntimeError, match="broken image"):
        trainer.train()


def test_handlers_are_given_back_after_training(make):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    during = []
    trainer = make()
    trainer.interrupt = lambda step: during.append(signal.getsignal(signal.SIGTERM))
    trainer.train()
    assert during[0] not in before
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_second_signal_ends_at_once():
    stop = StopSignals()
    stop.install()
    try:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        with pytest.raises(SystemExit) as second:
            os.kill(os.getpid(), signal.SIGTERM)
        assert second.value.code == 130  # that of the first
    finally:
        stop.restore()


def test_outside_the_main_thread_the_signals_are_left_alone():
    stop, before = StopSignals(), signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=stop.install)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before
