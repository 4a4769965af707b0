"""Seconds of steps that take turns, and what is said about them: medians, and medians of paired ratios."""

from __future__ import annotations

import gc
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from tqdm import tqdm

Step = Callable[[], object]
WARM_UPS = {"cpu": 1, "other": 5}  # runs of each step before it is timed; a GPU chooses kernels, a graph is recorded
REPEATS = {"cpu": 5, "other": 20}  # rounds, where the user asks for no number
PATIENCE = {"cpu": 20.0, "other": 4.0}  # seconds after which a comparison ends early, where the user asks for no number
LEAST_ROUNDS = 3  # of one that ends early


@dataclass(frozen=True)
class Ratio:
    """Median of paired ratios with the lowest and the highest of them."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g}–{self.high:.3g})"


@dataclass
class Times:
    """Seconds of each step, a figure a round, in the order of the rounds."""

    seconds: dict[str, list[float]]

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    def ratio(self, above: str, below: str) -> Ratio:
        """Seconds of `above` ÷ seconds of `below`, round by round."""
        return paired(self.seconds[above], self.seconds[below])


def paired(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """Ratios of figures that belong together."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def of_device(choices: Mapping[str, float], device: torch.device) -> float:
    return choices["cpu" if device.type == "cpu" else "other"]


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given; nothing to wait for on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def seconds(step: Step, device: torch.device) -> float:
    """Of one run, from an idle device to an idle device."""
    synchronise(device)
    begin = time.perf_counter()
    step()
    synchronise(device)
    return time.perf_counter() - begin


def warm_up(steps: Mapping[str, Step], device: torch.device) -> dict[str, str]:
    """Run each step a few times, not timed: caches fill, text is computed, kernels are chosen.

    Returns:
        For each step that needs more memory than there is, why it can't be measured.
    """
    failed = {}
    for name, step in steps.items():
        try:
            for _ in range(int(of_device(WARM_UPS, device))):
                step()
            synchronise(device)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failed[name] = why_it_does_not_fit(error)
        if name in failed:
            release_memory(device)  # here: the error, which holds the step's tensors, is gone
    return failed


def take_turns(steps: Mapping[str, Step], repeats: int | None, device: torch.device, what: str = "rounds") -> Times:
    """Run all steps in each round, in alternating order, so that a busy machine slows all of them.

    Args:
        steps: by name, warmed up.
        repeats: rounds; None for `REPEATS`, ended early after `PATIENCE` seconds.
        what: the progress bar's title.
    """
    times = Times({name: [] for name in steps})
    patience, begin = of_device(PATIENCE, device), time.perf_counter()
    for i in tqdm(range(repeats or int(of_device(REPEATS, device))), desc=what, disable=None, leave=False):
        if repeats is None and i >= LEAST_ROUNDS and time.perf_counter() - begin > patience:
            break
        for name in list(steps) if i % 2 == 0 else list(steps)[::-1]:
            times.seconds[name].append(seconds(steps[name], device))
    return times


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; on a CPU torch has no class for it."""
    known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return known or any(words in str(error) for words in ("can't allocate memory", "bad_alloc", "out of memory"))


def why_it_does_not_fit(error: BaseException) -> str:
    """What an error about memory says, in a few words."""
    asked = re.search(r"ried to allocate ([\d.]+ ?\w+)", str(error))
    return "does not fit in memory" + (f": no room for another {asked.group(1)}" if asked else "")


def first_line(error: BaseException) -> str:
    """What an error says, without the advice below it."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def release_memory(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
