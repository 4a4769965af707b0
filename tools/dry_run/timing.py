"""Time and memory of a run, from a few steps and one test batch of its own trainer on its own images."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import torch

from dassl import distributed
from dassl.engine import SimpleTrainer, TrainerX, TrainerXU
from dassl.engine.simple import CHOSEN_ON
from tools.dry_run.words import gib
from trainers.base import MethodTrainer

WARM_UP, TIMED = 1, 3  # steps


@dataclass(frozen=True)
class BatchTime:
    """Seconds for one batch: to load it in this process, and to compute; `cpu`: what computing took of all cores."""

    load: float
    compute: float
    cpu: float

    def beside(self, workers: int, cores: int) -> float:
        """Seconds a batch where other processes load: whatever is slowest of computing, loading, and all cores."""
        if workers == 0:
            return self.load + self.compute
        return max(self.compute, self.load / min(workers, cores), (self.cpu + self.load) / cores)


@dataclass(frozen=True)
class Measured:
    """What a run's parts take.

    Attributes:
        step: None where the trainer's epochs are not made of steps that could be measured alone.
        test: a batch of the test.
        text: seconds that the first test batch took longer, mostly for the classes' text.
        memory: bytes at most, so far.
        memory_of: what that counts.
    """

    step: BatchTime | None
    test: BatchTime
    text: float
    memory: int | None
    memory_of: str


def cores() -> int:
    """CPU cores for this process; processes of one machine share them."""
    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, n // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def step_loaders(trainer: Any) -> tuple[Any, ...]:
    """The loaders of a step, in the order of `forward_backward`; () where the trainer has a loop of its own."""
    kind = type(trainer)
    if kind.train is not SimpleTrainer.train or not trainer._models:
        return ()
    if kind.run_epoch is MethodTrainer.run_epoch:
        return (trainer.train_loader_x if trainer.method.learns_from_labels else trainer.train_loader_u,)
    if kind.run_epoch is TrainerX.run_epoch:
        return (trainer.train_loader_x,)
    return (trainer.train_loader_x, trainer.train_loader_u) if kind.run_epoch is TrainerXU.run_epoch else ()


def steps_an_epoch(trainer: Any) -> int:
    """0 where the trainer has a loop of its own."""
    loaders = step_loaders(trainer)
    return trainer._count_batches() if len(loaders) > 1 else sum(map(len, loaders))


def measure(trainer: Any, trains: bool) -> Measured:
    """Measure a trainer that is not used for anything else: it is trained for some steps.

    Args:
        trains: whether there are training steps.

    Raises:
        FloatingPointError: a loss is NaN or infinite.
    """
    if trainer.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(trainer.device)
    step = _measured_steps(trainer) if trains and step_loaders(trainer) else None
    test, text = _measured_test(trainer)
    return Measured(step, test, text, *peak_memory(trainer.device))


def peak_memory(device: torch.device) -> tuple[int | None, str]:
    """Bytes at most since the measurement, or the process, began; None where nobody counts them."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        what = f"of {gib(total)} on {torch.cuda.get_device_name(device)}, tensors at their peak"
        return torch.cuda.max_memory_allocated(device), what
    if sys.platform == "win32":
        return None, "not measured on this system"
    import resource  # here: there is none on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "resident, of this process at its peak"


def _measured_steps(trainer: Any) -> BatchTime:
    trainer.set_model_mode("train")
    if isinstance(trainer, MethodTrainer):
        trainer.ready_to_measure()
    batches, times = _endless_steps(trainer), []
    for _ in range(WARM_UP + TIMED):
        begin = time.perf_counter()
        given = next(batches)
        loaded, cpu = time.perf_counter(), time.process_time()
        trainer.forward_backward(*given)
        _wait(trainer.device)
        times.append(BatchTime(loaded - begin, time.perf_counter() - loaded, time.process_time() - cpu))
    trainer._progress.flush()  # where a loss that is not finite is noticed late
    batches.close()
    distributed.begin_step(None)
    parts = [[getattr(each, name) for each in times[WARM_UP:]] for name in ("load", "compute", "cpu")]
    return BatchTime(*map(statistics.median, parts))


def _endless_steps(trainer: Any) -> Generator[Any, None, None]:
    """Batches of the first epoch; once more where it is shorter than what is measured."""
    loaders = step_loaders(trainer)
    while True:
        yield from trainer.training_steps(steps_an_epoch(trainer), *loaders, endless=len(loaders) > 1)


@torch.no_grad()
def _measured_test(trainer: Any) -> tuple[BatchTime, float]:
    trainer.set_model_mode("eval")
    begin = time.perf_counter()
    batch = next(iter(trainer.test_loader))
    load = time.perf_counter() - begin
    images, _ = trainer.parse_batch_test(batch)
    times = []
    for _ in range(2):
        begin, cpu = time.perf_counter(), time.process_time()
        trainer.model_inference(images)
        _wait(trainer.device)
        times.append((time.perf_counter() - begin, time.process_time() - cpu))
    (first, _), (second, cpu) = times
    return BatchTime(load, second, cpu), max(0.0, first - second)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Estimate:
    """Seconds of a run's parts; `training` is None where it can't be told."""

    step: float | None
    first_look: float
    training: float | None
    evaluation: float
    n_evaluations: int

    @property
    def total(self) -> float | None:
        return None if self.training is None else self.first_look + self.training + self.evaluation


def estimate(
    trainer: Any, measured: Measured, steps: int, workers: int, looks_at: int, trains: bool, epochs: int
) -> Estimate:
    """What the whole run would take.

    Args:
        steps: that are left to do.
        workers: processes that load images, beside each process that computes.
        looks_at: images that the run looks at before its first step.
        epochs: that are left, for their validation.
    """
    cfg, n_cores, n = trainer.cfg, cores(), distributed.world_size()
    batch = measured.test.beside(workers, n_cores)
    chosen_on = CHOSEN_ON[cfg.TEST.FINAL_MODEL] if trains and not cfg.TEST.NO_TEST else None
    loader = trainer.val_loader if chosen_on == "val" and trainer.val_loader is not None else trainer.test_loader
    final = 0 if trains and cfg.TEST.NO_TEST else 1
    tested = trainer.val_loader if cfg.TEST.SPLIT == "val" and trainer.val_loader is not None else trainer.test_loader

    def evaluations(times: int, n_batches: int) -> float:
        return times * (measured.text + batch * -(-n_batches // n))

    evaluation = evaluations(final, len(tested)) + (evaluations(epochs, len(loader)) if chosen_on else 0.0)
    looked = batch * -(-looks_at // cfg.DATALOADER.TEST.BATCH_SIZE) / n
    step = None if measured.step is None else measured.step.beside(workers, n_cores)
    training = 0.0 if not trains else None if step is None else step * steps
    return Estimate(step, looked, training, evaluation, final + (epochs if chosen_on else 0))
