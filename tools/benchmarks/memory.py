"""Peak memory of a training step: of the allocator on CUDA, of a fresh process on a CPU; and what is free."""

from __future__ import annotations

import multiprocessing
import re
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from tools.benchmarks.subjects import Frozen, Setting, make_subject
from tools.benchmarks.timing import is_out_of_memory, release_memory, synchronise, why_it_does_not_fit

STEPS = 2  # the optimiser's own tensors are made in the first
SHARE = 0.9  # of the free memory that a run may take on a CPU


class DoesNotFit(RuntimeError):
    """A subject needs more memory than there is."""


@dataclass(frozen=True)
class Request:
    """Whose peak, in which precision and at how many classes; can be sent to another process."""

    what: str | Path  # as for `make_subject`
    setting: Setting
    precision: str
    n_classes: int


def training_peak(request: Request) -> int:
    """Bytes that a subject has at most in its first two training steps, frozen weights included.

    On CUDA the allocator's highest figure; on a CPU by how much a process of its own grows, so that neither other
    subjects nor what they left behind is counted.

    Raises:
        DoesNotFit: there is not enough memory.
        RuntimeError: it failed for another reason.
    """
    device = torch.device(request.setting.device)
    if device.type == "cuda":
        return _peak_on_cuda(request, device)
    if device.type != "cpu":
        raise RuntimeError(f"peak memory is measured on CUDA and on a CPU, not on {device.type}")
    context = multiprocessing.get_context("spawn")  # a fork would start as large as this process
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_send_growth, args=(request, sender, torch.get_num_threads()))
    child.start()
    sender.close()
    try:
        kind, answer = receiver.recv()
    except EOFError:
        kind, answer = "killed", ""
    finally:
        child.join()
        receiver.close()
    if kind == "bytes":
        return answer
    if kind == "memory" or child.exitcode == -9:  # the latter is how Linux ends a process when memory runs out
        raise DoesNotFit(answer or "does not fit in memory: the process was ended")
    raise RuntimeError(f"the process that measures memory failed: {answer or f'exit code {child.exitcode}'}")


def _peak_on_cuda(request: Request, device: torch.device) -> int:
    release_memory(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    try:
        _train(request)
        synchronise(device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise DoesNotFit(why_it_does_not_fit(error)) from None
    finally:
        release_memory(device)
    return torch.cuda.max_memory_allocated(device) - before


def _train(request: Request) -> None:
    frozen = Frozen(request.setting, request.precision)
    subject = make_subject(request.what, request.setting, frozen, request.n_classes)
    if subject.training is None:
        raise RuntimeError(f"{subject.name} has no training step.")
    for _ in range(STEPS):
        subject.training()


def _send_growth(request: Request, sender: Connection, threads: int) -> None:
    """What the child process does: sends ("bytes", n), ("memory", why) or ("error", why)."""
    torch.set_num_threads(threads)
    before = _status("VmRSS") or _highest()
    try:
        with bounded(torch.device("cpu")):
            _train(request)
    except Exception as error:  # every one: the parent has to say it
        lacks_memory = is_out_of_memory(error)
        sender.send(("memory", why_it_does_not_fit(error)) if lacks_memory else ("error", str(error)))
    else:
        sender.send(("bytes", _highest() - before))


def _highest() -> int:
    """Bytes that this process had resident at most."""
    # not ru_maxrss where there is another: on Linux a child inherits its parent's
    unit = 1 if sys.platform == "darwin" else 1024
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(key: str) -> int:
    """Bytes from /proc/self/status; 0 where there is no such line."""
    with suppress(OSError):
        found = re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
        return int(found.group(1)) * 1024 if found else 0
    return 0


def available() -> int:
    """Bytes that this machine, or the container this runs in, has left; 0 where nothing tells."""
    with suppress(OSError, ValueError, AttributeError):
        free = int(re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text()).group(1)) * 1024
        with suppress(OSError, ValueError):  # the limit may be the word "max"
            group = Path("/sys/fs/cgroup")
            limit = int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
            free = min(free, max(limit, 0))
        return free
    return 0


@contextmanager
def bounded(device: torch.device) -> Iterator[None]:
    """Inside, an allocation beyond the free memory is an error and not the end of the process; CPUs on Linux only."""
    free, used = available(), _status("VmData")
    if device.type != "cpu" or not free or not used:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = used + int(SHARE * free)
    known = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([wanted, *known]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
