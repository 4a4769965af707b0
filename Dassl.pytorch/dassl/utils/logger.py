"""Standard output, copied to a file."""

import contextlib
import datetime
import glob
import os
import sys
from typing import IO, Any, NoReturn

from .tools import mkdir_if_missing

__all__ = ["Logger", "setup_logger"]

STAMP = "%Y-%m-%d-%H-%M-%S"


class Logger:
    """A text stream that writes to the console and to a file.

    Each finished line is handed to the operating system at once, so that a killed run loses none of them. The file is
    UTF-8 whatever the locale. Closing it (or dropping the object) closes the file only; the console stays open and
    later writes go there. Everything else that code asks of a stream (`isatty`, `fileno`, `encoding`, `buffer`, …)
    is answered by the console.

    Args:
        fpath: file to create, with its folder; an existing one is overwritten. None: console only.
    """

    def __init__(self, fpath: str | os.PathLike | None = None):
        self.console: Any = sys.stdout
        self.file: IO[str] | None = None
        if fpath is not None:
            folder = os.path.dirname(os.fspath(fpath))
            if folder:
                mkdir_if_missing(folder)
            self.file = open(fpath, "w", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115

    def __enter__(self) -> "Logger":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        if name == "console":  # not yet set: unpickling, copying
            raise AttributeError(name)
        return getattr(self.console, name)

    def write(self, msg: str) -> int:
        """Write `msg` to both, the file first, so that a broken console costs no line of the log.

        Raises:
            RuntimeError: the file can't be written any more; later writes go to the console alone.
        """
        failure = None
        if self.file is not None:
            try:
                self.file.write(msg)
            except OSError as error:
                failure = error
        try:
            self.console.write(msg)
        except UnicodeEncodeError:  # a console that cannot show the character must not end a run
            encoding = self.console.encoding
            self.console.write(msg.encode(encoding, "backslashreplace").decode(encoding))
        if failure is not None:
            self._give_up(failure)
        return len(msg)

    def _give_up(self, error: OSError) -> NoReturn:
        assert self.file is not None
        file, self.file = self.file, None
        with contextlib.suppress(OSError):
            file.close()  # which tries once more
        raise RuntimeError(
            f"Cannot write the log {file.name} ({error.strerror or error}); free some space, and give the same command "
            "again to go on."
        ) from error

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush both, the file down to the disk."""
        self.console.flush()
        if self.file is not None:
            self.file.flush()
            with contextlib.suppress(OSError):  # not every file can be synchronised: /dev/null, some network drives
                os.fsync(self.file.fileno())

    def close(self) -> None:
        """Close the file. Calling it again does nothing."""
        if self.file is not None:
            self.file.close()
            self.file = None


def setup_logger(output: str | os.PathLike | None = None) -> None:
    """Copy standard output to a log file from now on; None or "" does nothing.

    A path ending in .txt or .log is the file itself, any other a folder that gets `log.txt`. An existing file is kept:
    the new one is then called `log.txt-YYYY-MM-DD-HH-MM-SS`, at least a second later than the newest there, so that
    names tell the order even where the clock went back. A log that an earlier call opened is closed.

    Raises:
        RuntimeError: the file cannot be created.
    """
    if not output:
        return
    fpath = os.fspath(output)
    if not fpath.endswith((".txt", ".log")):
        fpath = os.path.join(fpath, "log.txt")
    if os.path.exists(fpath):
        fpath = f"{fpath}-{_moment_after(fpath):{STAMP}}"
    if isinstance(sys.stdout, Logger):
        earlier = sys.stdout
        earlier.close()
        sys.stdout = earlier.console
    try:
        sys.stdout = Logger(fpath)  # type: ignore[assignment]
    except OSError as error:
        raise RuntimeError(
            f"Cannot write the log {fpath}: {error.strerror}. Choose an output folder that you may write to."
        ) from error


def _moment_after(fpath: str) -> datetime.datetime:
    """Now, or a second after the newest of the logs `<fpath>-<moment>`."""
    moment = datetime.datetime.now()
    for path in glob.glob(f"{glob.escape(fpath)}-*"):
        with contextlib.suppress(ValueError, OverflowError):
            earlier = datetime.datetime.strptime(path[len(fpath) + 1 :], STAMP)
            moment = max(moment, earlier + datetime.timedelta(seconds=1))
    return moment
