"""Where a step's time goes, as a Chrome trace, and which operator of a step makes the CPU wait for the GPU."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from tools.benchmarks.subjects import Subject
from tools.benchmarks.timing import Step, first_line, synchronise, warm_up

ROOT = Path(__file__).resolve().parents[2]


def write_trace(subject: Subject, path: Path, device: torch.device) -> str:
    """Record a training step and an inference of a subject, warmed up.

    Returns:
        The operators that take most time.
    """
    steps = {"inference": subject.inference}
    if subject.training is not None:
        steps = {"training step": subject.training, **steps}
    warm_up(steps, device)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities) as events:
        for name, step in steps.items():
            with record_function(name):
                step()
                synchronise(device)
    events.export_chrome_trace(str(path))
    key = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    return events.key_averages().table(sort_by=key, row_limit=15, max_name_column_width=40)


def synchronisations(subjects: Sequence[Subject], device: torch.device) -> Iterator[str]:
    """For each subject with a training step, whether a step of it waits for the GPU, and where.

    Raises:
        ValueError: the device is no CUDA GPU.
    """
    if device.type != "cuda":
        raise ValueError(f"--sync-check needs CUDA, and this run computes on {device.type}; add --device cuda.")
    for subject in subjects:
        if subject.training is None:
            continue
        failed = warm_up({subject.name: subject.training}, device)
        yield f"{subject.name}: {failed.get(subject.name) or first_wait(subject.training)}"


def first_wait(step: Step) -> str:
    """Run a step in which waiting for the GPU is an error; where it happened, in this project's code."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    except RuntimeError as error:
        return where(error)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return "no synchronisation in a training step"


def where(error: BaseException) -> str:
    """The last frame of an error in this project, the very last if that is elsewhere, and what the error says."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if Path(frame.filename).is_relative_to(ROOT) and ".venv" not in frame.filename]
    chosen = dict.fromkeys(_frame(frame) for frame in [*inside[-1:], frames[-1]])
    return f"{', then '.join(chosen)} ({first_line(error)})"


def _frame(frame: traceback.FrameSummary) -> str:
    path = Path(frame.filename)
    name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else Path(*path.parts[-3:])
    return f"{name}:{frame.lineno} in {frame.name}: {frame.line}"
