"""Figures to reach: what a row is, how its figure becomes a verdict, and what the rows share while they are measured.

The rows themselves are in `rows`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from tools.benchmarks.memory import DoesNotFit, bounded
from tools.benchmarks.subjects import BARE, Frozen, Setting, Subject, make_subject
from tools.benchmarks.timing import (
    Ratio,
    Step,
    Times,
    is_out_of_memory,
    release_memory,
    take_turns,
    warm_up,
    why_it_does_not_fit,
)

REACHED, MISSED, UNMEASURED = "reached", "missed", "not measured"
BACKBONE, BATCH = "ViT-B/16", 32  # what the limits are set for


class NotMeasured(RuntimeError):
    """Why a row can't be measured here."""


@dataclass
class Measured:
    """A figure, the lowest and highest of the rounds where there are several, and what else was seen."""

    value: float
    low: float | None = None
    high: float | None = None
    notes: list[str] = field(default_factory=list)
    objection: str = ""  # why the target is missed whatever the figure is

    @classmethod
    def of(cls, ratio: Ratio, notes: list[str], objection: str = "") -> Measured:
        return cls(ratio.median, ratio.low, ratio.high, notes, objection)


@dataclass(frozen=True)
class Target:
    """A row of the table. Ratios have no unit."""

    name: str  # what --targets takes; several precisions of one figure share it
    figure: str  # what is measured, in words
    limit: float
    is_least: bool  # the limit is the least that reaches; otherwise the most
    precision: str
    n_classes: int
    measure: Callable[[Bench, Target], Measured] = field(repr=False)
    unit: str = ""


@dataclass
class Result:
    """A target with its verdict; `reason` says why there is none, or why a good figure does not count."""

    target: Target
    verdict: str
    measured: Measured | None = None
    reason: str = ""

    def record(self) -> dict[str, Any]:
        """For JSON. `margin`: how often the limit is reached, 1 just so, below 1 missed."""
        target = {f.name: getattr(self.target, f.name) for f in fields(Target) if f.name != "measure"}
        seen = self.measured
        return {
            **target,
            "value": seen.value if seen else None,
            "low": seen.low if seen else None,
            "high": seen.high if seen else None,
            "margin": margin(self.target, seen.value) if seen else None,
            "verdict": self.verdict,
            "reason": self.reason,
            "notes": seen.notes if seen else [],
        }


def margin(target: Target, value: float) -> float:
    """How often a figure reaches the limit."""
    if target.is_least:
        return value / target.limit
    return target.limit / value if value else math.inf


def judge(target: Target, measured: Measured) -> Result:
    """Compare a figure with its limit."""
    if measured.objection:
        return Result(target, MISSED, measured, measured.objection)
    value = measured.value
    is_reached = value >= target.limit if target.is_least else value <= target.limit
    return Result(target, REACHED if is_reached else MISSED, measured)


class Bench:
    """Weights, sizes and rounds that the rows share.

    Args:
        setting: its batch is used in training, too.
        repeats: as in `timing.take_turns`.
    """

    def __init__(self, setting: Setting, repeats: int | None = None):
        self.setting, self.repeats = replace(setting, train_batch=setting.batch), repeats
        self.device = torch.device(setting.device)
        self._frozen: dict[str, Frozen] = {}

    def frozen(self, precision: str) -> Frozen:
        """The weights of a precision, made once."""
        if precision not in self._frozen:
            self._frozen[precision] = Frozen(self.setting, precision)
        return self._frozen[precision]

    def clear(self) -> None:
        """Give all weights back."""
        self._frozen.clear()
        release_memory(self.device)

    def config(self, name: str) -> Path:
        return self.setting.configs[name]

    def subject(self, name: str, target: Target) -> Subject:
        """`BARE` or a name of `Setting.configs`."""
        source = name if name == BARE else self.config(name)
        return make_subject(source, self.setting, self.frozen(target.precision), target.n_classes)

    def time(self, steps: Mapping[str, Step], target: Target) -> Times:
        """Warm up and take turns; the step that needs most memory comes first.

        Raises:
            NotMeasured: a step does not fit in memory.
        """
        for name, step in steps.items():
            for why in warm_up({name: step}, self.device).values():
                raise NotMeasured(f"{name} {why}")
        return take_turns(steps, self.repeats, self.device, f"{target.name}, {target.precision}")

    def speeds(self, times: Times) -> str:
        """Images a second of each step."""
        shown = (f"{name} {self.setting.batch / times.median(name):,.1f}" for name in times.seconds)
        return f"images/s: {', '.join(shown)}"


def run_targets(bench: Bench, targets: Sequence[Target]) -> Iterator[Result]:
    """Measure one row after another; to lack memory is no error but a reason."""
    for target in targets:
        try:
            with bounded(bench.device):
                result = judge(target, target.measure(bench, target))
        except (NotMeasured, DoesNotFit) as reason:
            result = Result(target, UNMEASURED, reason=str(reason))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            result = Result(target, UNMEASURED, reason=why_it_does_not_fit(error))
        release_memory(bench.device)
        yield result
