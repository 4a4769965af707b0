"""Signals in a block: who answers them, and which wait."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # what ends a sweep: Ctrl-C, kill, a closed terminal


@contextlib.contextmanager
def handling(numbers: Iterable[int], handler: Callable[..., Any]) -> Iterator[None]:
    """Within the block, these signals call the handler."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextlib.contextmanager
def only_blocked(numbers: Iterable[int]) -> Iterator[None]:
    """Within the block, these signals wait, and no others. Processes that are started there inherit it for good."""
    before = signal.pthread_sigmask(signal.SIG_SETMASK, set(numbers))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
