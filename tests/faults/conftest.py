"""Processes that can be killed, stopped, shut into a small disk: forks of this one, so that none costs imports."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import train
from tests.dassl.engine.conftest import (  # noqa: F401 -- fixtures
    killed,
    make,
    no_sync,
    outcome,
    pictures,
    record_of,
    same,
    toys,
)

NEW_USER, NEW_MOUNTS = 0x10000000, 0x00020000  # of unshare(2)
READ_ONLY, REMOUNT, PRIVATE, RECURSIVE = 1, 32, 1 << 18, 1 << 14  # of mount(2)


class Child:
    """A forked process that does one thing; what it prints comes through a pipe, which has no limits and no disk.

    Args:
        action: what it does; its exit code is 0, that of a SystemExit, or 99 after another exception.
    """

    def __init__(self, action: Callable[[], object]):
        self._said: list[bytes] = []
        self._over = False
        source, sink = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._run(action, sink)
        os.close(sink)
        self._listener = threading.Thread(target=self._listen, args=(source,), daemon=True)
        self._listener.start()

    def _listen(self, source: int) -> None:
        with os.fdopen(source, "rb", buffering=0) as pipe:
            self._said.extend(iter(lambda: pipe.read(65536), b""))

    def _run(self, action: Callable[[], object], sink: int) -> None:
        code = 99
        try:
            os.dup2(sink, 1)
            os.dup2(sink, 2)
            sys.stdout = sys.stderr = os.fdopen(sink, "w", buffering=1)
            torch.set_num_threads(1)  # threads of the parent are not here
            action()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)

    def wait(self, seconds: float = 60) -> int:
        """Its exit code, or minus the signal that ended it; it is killed if it takes longer."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._over = True
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        pytest.fail(f"it did not end within {seconds} s; it said: {self.text()}")

    def text(self) -> str:
        """What it has said so far."""
        self._listener.join(0.5 if self._over else 0)
        return b"".join(self._said).decode()

    def end(self) -> None:
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


@pytest.fixture
def child():
    """Starts a `Child`; those that still run at the end of the test are killed."""
    children = []

    def start(action):
        children.append(Child(action))
        return children[-1]

    yield start
    for one in children:
        one.end()


def until(ready: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f"waited {seconds} s in vain"
        time.sleep(0.01)


def mount_disk(where: Path, kib: int) -> bool:
    """Mount an empty disk of this size for the calling process alone; False where that is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_MOUNTS | (0 if os.geteuid() == 0 else NEW_USER)):
        return False
    libc.mount(b"none", b"/", None, PRIVATE | RECURSIVE, None)
    where.mkdir(parents=True, exist_ok=True)
    return libc.mount(b"tmpfs", bytes(where), b"tmpfs", 0, f"size={kib}k".encode()) == 0


def remount(where: Path, kib: int, flags: int = 0) -> None:
    """Give the disk another size, or make it read-only."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"tmpfs", bytes(where), b"tmpfs", REMOUNT | flags, f"size={kib}k".encode()) == 0


@pytest.fixture
def can_mount(child, tmp_path):
    """Whether processes here may have disks of their own."""
    return child(lambda: sys.exit(0 if mount_disk(tmp_path / "disk", 64) else 1)).wait() == 0


@pytest.fixture
def run_in(command):
    """Run train.py in the calling process, as its command line does; gives the exit status."""

    def run(*opts: str, **kwargs: object) -> int:
        stdout = sys.stdout
        try:
            return train.run(command(*opts, **kwargs))
        finally:
            sys.stdout = stdout

    return run
