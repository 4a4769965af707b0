"""SIGTERM and SIGINT as a request that the training loop answers between two steps."""

import os
import signal
import threading
from types import FrameType
from typing import Any

import torch

from dassl import distributed


class StopSignals:
    """Notes the first SIGTERM or SIGINT; a second one ends the process at once.

    `exit_code` is 128 + signal number, as a shell reports it: 143 after SIGTERM, 130 after SIGINT. Worker processes
    inherit the handlers and ignore the signals, so that Ctrl-C, which goes to the whole group, does not starve the step
    that is under way.

    Of several processes all stop where one is asked to: they answer after an agreement. A second signal is then
    ignored, since torchrun repeats to its processes what a terminal or a batch system has sent them already.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._earlier: dict[signal.Signals, Any] = {}
        self._process = 0
        self._vote: distributed.Vote | None = None  # of the last step

    def install(self) -> None:
        """Take over both signals. Only a process's main thread can; elsewhere nothing happens."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._process = os.getpid()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._earlier[number] = signal.signal(number, self._note)

    def restore(self) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
        self._earlier.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return
        if self.received is None:
            self.received = signal.Signals(number)
        elif distributed.world_size() == 1:
            raise SystemExit(self.exit_code)

    @property
    def requested(self) -> bool:
        return self.received is not None

    @property
    def exit_code(self) -> int:
        return 128 + int(self.received or 0)

    def agree_in_step(self, save: bool) -> tuple[bool, bool]:
        """Whether to stop, and whether to save the run's state, after this step.

        Of several processes all get the same answer: whether any of them wished so after the step before, so that none
        has to wait for the others.

        Args:
            save: whether this process finds that it is time to save.
        """
        if distributed.world_size() == 1:
            return self.requested, save
        stop, saves = (0, 0) if self._vote is None else self._vote.result()
        self._vote = distributed.Vote(int(self.received or 0), int(save and not saves))
        self._take(stop)
        return stop > 0, saves > 0

    def agree(self, stop: bool) -> bool:
        """Whether any process, each of which comes here, wants to stop; the others wait."""
        if distributed.world_size() == 1:
            return stop
        self._vote = None
        number = int(distributed.max_all(torch.tensor(int(self.received or 0) if stop else 0)))
        self._take(number)
        return number > 0

    def _take(self, number: int) -> None:
        """Make another process's signal this one's own."""
        if number and self.received is None:
            self.received = signal.Signals(number)
