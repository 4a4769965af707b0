"""SIGTERM and SIGINT as a request that the training loop answers between two steps."""

import os
import signal
import threading
from types import FrameType
from typing import Any


class StopSignals:
    """Notes the first SIGTERM or SIGINT; a second one ends the process at once.

    `exit_code` is 128 + signal number, as a shell reports it: 143 after SIGTERM, 130 after SIGINT. Worker processes
    inherit the handlers and ignore the signals, so that Ctrl-C, which goes to the whole group, does not starve the step
    that is under way.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._earlier: dict[signal.Signals, Any] = {}
        self._process = 0

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
        if self.received is not None:
            raise SystemExit(self.exit_code)
        self.received = signal.Signals(number)

    @property
    def requested(self) -> bool:
        return self.received is not None

    @property
    def exit_code(self) -> int:
        return 128 + int(self.received or 0)
