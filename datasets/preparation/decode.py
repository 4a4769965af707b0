"""Decode pictures completely, in several processes, and say of each that cannot be read why.

Opening a picture, or Pillow's `verify`, does not notice that a JPEG breaks off; only decoding it does.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from dassl.utils.tools import ImageReadError, read_image

CHUNK = 32  # pictures a task: a fraction of a second, so that the bar moves and Ctrl-C is quick
EMPTY = "empty file (0 bytes)"


class Unreadable(NamedTuple):
    """A picture that cannot be used: path relative to the image folder, and why."""

    path: str
    reason: str


def unreadable_images(
    images: Path, paths: Sequence[str], workers: int | None = None, title: str = ""
) -> list[Unreadable]:
    """Decode pictures as a run does, with a progress bar; those that cannot be, in the order of the paths.

    Args:
        paths: relative to `images`.
        workers: processes; 0 decodes in this one; None starts one a CPU.
        title: of the bar.

    Raises:
        RuntimeError: a process was killed from outside, or killed itself on a picture.
    """
    if not paths:
        return []
    chunks = [paths[at : at + CHUNK] for at in range(0, len(paths), CHUNK)]
    processes = n_cpus() if workers is None else workers
    unreadable: list[Unreadable] = []
    with contextlib.ExitStack() as stack:
        if processes and len(chunks) > 1:
            results = stack.enter_context(_in_processes(images, chunks, min(processes, len(chunks))))
        else:
            results = (decode(str(images), chunk) for chunk in chunks)
        bar = stack.enter_context(tqdm(total=len(paths), desc=title, unit=" images", leave=False, disable=None))
        for chunk, found in zip(chunks, results, strict=True):
            unreadable += found
            bar.update(len(chunk))
    return unreadable


def n_cpus() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def _in_processes(images: Path, chunks: Sequence[Sequence[str]], processes: int) -> Iterator[Iterator]:
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(processes, initializer=_leave_interrupts_to_parent)
    try:
        yield pool.map(decode, [str(images)] * len(chunks), chunks)
    except BrokenProcessPool:
        for child in set(multiprocessing.active_children()) - others:
            child.kill()  # the pool forgets one that it was just starting, and would wait for it at exit
        raise RuntimeError(
            f"A process that decoded pictures of {images} was killed, perhaps for want of memory; try again with "
            f"fewer --workers."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)  # on Ctrl-C: what has not begun never will


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal


def decode(images: str, paths: Sequence[str]) -> list[Unreadable]:
    """Those of the pictures that cannot be decoded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd EXIF or palettes, which do no harm
        reasons = [why_unreadable(f"{images}/{path}") for path in paths]
    return [Unreadable(path, reason) for path, reason in zip(paths, reasons, strict=True) if reason]


def why_unreadable(path: str) -> str | None:
    """Why a run could not read a picture, in a few words; None if it can."""
    try:
        read_image(path)
    except FileNotFoundError:
        return "there is no such file"
    except ImageReadError as error:
        return error.reason
    return None
