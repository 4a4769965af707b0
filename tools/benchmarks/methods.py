"""Methods side by side: trained tensors, images a second in inference and in training, beside the bare encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from tools.benchmarks.memory import bounded
from tools.benchmarks.subjects import BARE, PLAIN, Frozen, Setting, Subject, make_subject
from tools.benchmarks.timing import Ratio, Step, Times, release_memory, take_turns, warm_up


@dataclass
class MethodRow:
    """What was measured of one subject; None for what it does not do or what did not fit."""

    name: str
    tensors: int
    scalars: int
    train_batch: int
    inference: float | None = None  # images/s, from the median of seconds
    training: float | None = None
    to_bare: Ratio | None = None  # images/s in inference ÷ the bare encoder's
    to_plain: Ratio | None = None  # the same, ÷ the plain path's
    gflop: tuple[float, float | None] | None = None  # of a batch in inference, of a training step
    reason: str = ""  # why something is missing


@dataclass
class MethodTable:
    """Rows that took turns in one process."""

    precision: str
    n_classes: int
    batch: int
    rows: list[MethodRow]

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "precision": self.precision,
            "n_classes": self.n_classes,
            "batch": self.batch,
            "rows": [_record(row) for row in self.rows],
        }


def _record(row: MethodRow) -> dict[str, Any]:
    inference, training = row.gflop or (None, None)
    return {
        "name": row.name,
        "tensors": row.tensors,
        "scalars": row.scalars,
        "train_batch": row.train_batch,
        "inference_images_per_second": row.inference,
        "training_images_per_second": row.training,
        "inference_to_bare": vars(row.to_bare) if row.to_bare else None,
        "inference_to_plain": vars(row.to_plain) if row.to_plain else None,
        "inference_gflop": inference,
        "training_gflop": training,
        "reason": row.reason,
    }


def make_subjects(configs: Sequence[Path], setting: Setting, frozen: Frozen, n_classes: int) -> list[Subject]:
    """The bare encoder, the plain path and the methods of the config files, with names that differ."""
    subjects = [make_subject(what, setting, frozen, n_classes) for what in (BARE, PLAIN, *configs)]
    names = [subject.name for subject in subjects]
    for subject, path in zip(subjects[2:], configs, strict=True):
        if names.count(subject.name) > 1:
            subject.name += f" ({path.stem})"
    return subjects


def measure_methods(
    subjects: Sequence[Subject],
    setting: Setting,
    frozen: Frozen,
    n_classes: int,
    repeats: int | None = None,
    with_training: bool = True,
    with_flops: bool = False,
) -> MethodTable:
    """Time all subjects, first in inference, where nothing trains so that texts stay as they are, then in training."""
    device = frozen.device
    with bounded(device):
        inference, failed = _time({s.name: s.inference for s in subjects}, repeats, device, "inference")
        steps = {s.name: s.training for s in subjects if s.training is not None and with_training}
        training, failed_in_training = _time(steps, repeats, device, "training")
    rows = []
    for subject in subjects:
        name = subject.name
        row = MethodRow(name, len(subject.trained), sum(p.numel() for p in subject.trained), subject.train_batch)
        if name in inference.seconds:
            row.inference = setting.batch / inference.median(name)
            row.to_bare = inference.ratio(BARE, name) if BARE in inference.seconds else None
            row.to_plain = inference.ratio(PLAIN, name) if PLAIN in inference.seconds else None
        if name in training.seconds:
            row.training = subject.train_batch / training.median(name)
        row.reason = failed.get(name) or failed_in_training.get(name, "")
        if with_flops and name in inference.seconds:
            row.gflop = gflop(subject.inference), gflop(steps[name]) if name in training.seconds else None
        rows.append(row)
    release_memory(device)
    return MethodTable(frozen.precision.name, n_classes, setting.batch, rows)


def _time(
    steps: Mapping[str, Step], repeats: int | None, device: torch.device, what: str
) -> tuple[Times, dict[str, str]]:
    """Times of the steps that fit, and why the others do not."""
    failed = warm_up(steps, device)
    return take_turns({n: step for n, step in steps.items() if n not in failed}, repeats, device, what), failed


def gflop(step: Step) -> float:
    """Operations of one run, in billions."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() / 1e9
