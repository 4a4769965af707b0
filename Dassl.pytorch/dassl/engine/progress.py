"""What a training loop reports: losses, times, log lines, TensorBoard scalars, and the check that losses are finite.

On a GPU, reading a loss waits for the device. So the values of each step stay there as one small tensor and are read
together, at the latest with the next log line, at the end of the epoch, and before anything is saved. On a CPU they are
read in the step itself.
"""

import datetime
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from tqdm import tqdm

from dassl.utils import AverageMeter, MetricMeter

FLUSH_SECONDS = 1.0  # with fewer batches than PRINT_FREQ every batch has a line; lines of one second are read together


@dataclass
class Step:
    """One step as the loop saw it; `values` may still be on the device."""

    batch: int
    names: list[str]
    values: torch.Tensor | list[float]
    lr: float = 0.0
    batch_seconds: float = 0.0
    data_seconds: float = 0.0
    images: int = 0
    checked_only: bool = False  # from `watch`: to be finite, not to be reported


@dataclass
class Progress:
    """The report of one epoch.

    Args:
        epoch, max_epoch, num_batches: as in the trainer, from 0.
        print_freq: batches between two log lines; every batch if the epoch has fewer.
        write_scalar: `(tag, value, step)`, for TensorBoard.
        advice: called when a loss is not finite, for the end of the message.
    """

    epoch: int
    max_epoch: int
    num_batches: int
    print_freq: int
    write_scalar: Callable[[str, float, int], None]
    advice: Callable[[], str]
    batch_time: AverageMeter = field(default_factory=AverageMeter)
    data_time: AverageMeter = field(default_factory=AverageMeter)
    metrics: MetricMeter = field(default_factory=MetricMeter)
    images: int = 0
    seconds: float = 0.0  # spent in steps, over all interruptions
    lr: float | None = None  # during the first batch, so before the scheduler's step
    _pending: list[Step] = field(default_factory=list)
    _read_at: float = field(default_factory=time.monotonic)

    def watch(self, batch: int, terms: dict[str, Any]) -> None:
        """Have loss terms checked: now if they are on the CPU, else when the values are read next."""
        names, values = numbers(terms)
        self._pending.append(Step(batch, names, values, checked_only=True))
        if not isinstance(values, torch.Tensor):
            self.flush()

    def add(self, batch: int, losses: dict[str, Any] | None, lr: float, data: float, total: float, images: int) -> None:
        """Report one finished step.

        Args:
            losses: what `forward_backward` returned: names to numbers or one-element tensors, or None.
            lr: learning rate after the step.
            data, total: seconds spent waiting for the batch, and in all.
        """
        if losses is not None and not isinstance(losses, dict):
            raise TypeError(f"forward_backward must return a dict of losses or None, got {type(losses).__name__}.")
        names, values = numbers(losses or {})
        self._pending.append(Step(batch, names, values, lr, total, data, images))
        on_device = isinstance(values, torch.Tensor)
        soon = time.monotonic() - self._read_at < FLUSH_SECONDS
        if not on_device or (batch + 1) % self.print_freq == 0 or (self._prints(batch) and not soon):
            self.flush()

    def flush(self) -> None:
        """Read what is pending, in one transfer; update the averages, print the lines, write the scalars.

        Raises:
            FloatingPointError: a loss is NaN or infinite; the message names the first such step.
        """
        steps, self._pending = self._pending, []
        self._read_at = time.monotonic()
        unread = [step.values for step in steps if isinstance(step.values, torch.Tensor)]
        begin = time.perf_counter()
        numbers = iter(torch.cat(unread).tolist() if unread else [])
        if unread:
            _share_wait(steps, time.perf_counter() - begin)
        for step in steps:
            values = step.values
            if isinstance(values, torch.Tensor):
                values = [next(numbers) for _ in step.names]
            losses = dict(zip(step.names, values, strict=True))
            if not all(math.isfinite(value) for value in losses.values()):
                raise FloatingPointError(self._not_finite(step.batch, losses))
            if not step.checked_only:
                self._account(step, losses)

    def _account(self, step: Step, losses: dict[str, float]) -> None:
        self.metrics.update(losses)
        self.batch_time.update(step.batch_seconds)
        self.data_time.update(step.data_seconds)
        self.images += step.images
        self.seconds += step.batch_seconds
        position = self.epoch * self.num_batches + step.batch
        for name, meter in self.metrics.meters.items():
            self.write_scalar(f"train/{name}", meter.avg, position)
        self.write_scalar("train/lr", step.lr, position)
        if self._prints(step.batch):
            with tqdm.external_write_mode():  # a bar on the terminal makes room for the line
                print(self._line(step))

    def _prints(self, batch: int) -> bool:
        return (batch + 1) % self.print_freq == 0 or self.num_batches < self.print_freq

    def _line(self, step: Step) -> str:
        left = self.num_batches - step.batch - 1 + (self.max_epoch - self.epoch - 1) * self.num_batches
        parts = [
            f"epoch [{self.epoch + 1}/{self.max_epoch}]",
            f"batch [{step.batch + 1}/{self.num_batches}]",
            f"time {self.batch_time.val:.3f} ({self.batch_time.avg:.3f})",
            f"data {self.data_time.val:.3f} ({self.data_time.avg:.3f})",
            str(self.metrics),
            f"lr {step.lr:.4e}",
            f"eta {datetime.timedelta(seconds=int(self.batch_time.avg * left))}",
        ]
        return " ".join(part for part in parts if part)

    def _not_finite(self, batch: int, losses: dict[str, float]) -> str:
        terms = ", ".join(f"{name} {value:.6g}" for name, value in losses.items())
        return (
            f"Loss is infinite or NaN in epoch {self.epoch + 1}, batch {batch + 1} of {self.num_batches} ({terms}); "
            f"{self.advice()}"
        )

    def averages(self) -> dict[str, float]:
        """Mean of each reported value over the epoch."""
        return {name: meter.avg for name, meter in self.metrics.meters.items()}

    def state_dict(self) -> dict[str, Any]:
        """Plain data for the resume file; nothing may be pending."""
        return {
            "metrics": {name: meter.state_dict() for name, meter in self.metrics.meters.items()},
            "batch_time": self.batch_time.state_dict(),
            "data_time": self.data_time.state_dict(),
            "images": self.images,
            "seconds": self.seconds,
            "lr": self.lr,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, meter in state["metrics"].items():
            self.metrics.meters[name].load_state_dict(meter)
        self.batch_time.load_state_dict(state["batch_time"])
        self.data_time.load_state_dict(state["data_time"])
        self.images, self.seconds, self.lr = state["images"], state["seconds"], state["lr"]


def _share_wait(steps: list[Step], seconds: float) -> None:
    """Count the wait for the device, which may be far behind the loop, to the steps whose work it was."""
    reported = [step for step in steps if not step.checked_only]
    for step in reported:
        step.batch_seconds += seconds / len(reported)


def numbers(terms: dict[str, Any]) -> tuple[list[str], torch.Tensor | list[float]]:
    """Names and values of what is not None; the values as one tensor if any of them is on a GPU."""
    given = {name: value for name, value in terms.items() if value is not None}
    for name, value in given.items():
        if isinstance(value, torch.Tensor) and value.numel() != 1:
            raise ValueError(f"{name!r} must be one number, got a tensor of shape {list(value.shape)}.")
    given = {name: v.detach() if isinstance(v, torch.Tensor) else v for name, v in given.items()}
    away = [v.device for v in given.values() if isinstance(v, torch.Tensor) and v.device.type != "cpu"]
    if not away:
        return list(given), [float(value) for value in given.values()]
    dtype = torch.float32 if away[0].type == "mps" else torch.float64
    values = [
        v.to(away[0], dtype).reshape(())
        if isinstance(v, torch.Tensor) and v.device.type != "cpu"
        else torch.full((), float(v), dtype=dtype, device=away[0])  # no copy from the CPU that could be waited for
        for v in given.values()
    ]
    return list(given), torch.stack(values)
