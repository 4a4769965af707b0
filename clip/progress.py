"""How far a long transfer is: a bar on a terminal, a line now and then elsewhere (a log file, a batch job)."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType

from tqdm import tqdm

logger = logging.getLogger(__name__)

STEP = 0.05  # share of the whole between two lines ...
SHORTEST = 1.0  # seconds that lie between two lines at least
LONGEST = 60.0  # seconds after which a line is due in any case


def readable_bytes(count: float) -> str:
    """A number of bytes for people: 999 B, 1.5 MB, 147.9 GB (powers of 1000, as disks are sold)."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5 if unit == "B" else count < 999.95:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


class Progress:
    """A context in which `advance` counts bytes; lines go to the log at level INFO.

    Args:
        label: what is counted, for example a file name.
        total: bytes in all; None: not known.
        initial: bytes that are there before it begins.
        quiet: show nothing.
    """

    def __init__(self, label: str, total: int | None, initial: int = 0, quiet: bool = False) -> None:
        self.label, self.total, self.done, self.initial = label, total, initial, initial
        self.quiet = quiet
        self.bar: tqdm | None = None

    def __enter__(self) -> Progress:
        self.began = self.said = time.monotonic()
        self.said_done = self.done
        if not self.quiet and sys.stderr.isatty():
            self.bar = tqdm(
                total=self.total, initial=self.initial, unit="B", unit_scale=True, desc=self.label, leave=False
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()

    def advance(self, count: int) -> None:
        """`count` more bytes are done."""
        self.done += count
        if self.bar is not None:
            self.bar.update(count)
        elif not self.quiet:
            now = time.monotonic()
            far = self.total is not None and self.done - self.said_done >= STEP * self.total
            if now - self.said >= (SHORTEST if far else LONGEST):
                self.said, self.said_done = now, self.done
                logger.info("%s", self.line(now - self.began))

    def line(self, seconds: float) -> str:
        """One line of state, `seconds` after the beginning."""
        rate = (self.done - self.initial) / seconds if seconds > 0 else 0.0
        if self.total is None:
            return f"{self.label}: {readable_bytes(self.done)}, {readable_bytes(rate)}/s"
        left = f", {(self.total - self.done) / rate:.0f} s left" if rate else ""
        share = 100 * self.done / self.total if self.total else 100.0
        return f"{self.label}: {share:.0f}% of {readable_bytes(self.total)}, {readable_bytes(rate)}/s{left}"
