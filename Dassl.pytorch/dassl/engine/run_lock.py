"""One process at a time in a run folder: who trains or tests there holds its lock.

The operating system holds the lock for the process, so it dies with it, however that ends, and no stale one blocks.
`.run.owner` beside it says whose it is; both files are gone when the run is over. The processes that torchrun started
are one owner: the first takes the lock for all.
"""

import contextlib
import datetime
import errno
import json
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dassl import distributed

FILE = ".run.lock"
OWNER = ".run.owner"
ORPHANS = 15.0  # seconds that loading processes may outlive a killed process, whose lock they may have inherited
WAIT = 0.2  # seconds between two looks
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # of file systems that have none


@dataclass
class _Hold:
    """A lock of this process.

    Attributes:
        process: id of the process that took it; a forked one inherits this object, but not the lock.
        times: how often it was taken and not given back.
        made_folder: whether the folder was made for it.
    """

    lock: FileLock
    process: int
    times: int
    made_folder: bool


_holds: dict[Path, _Hold] = {}


@contextlib.contextmanager
def run_lock(folder: str | os.PathLike) -> Iterator[None]:
    """Hold the lock of a run folder, which is made if need be; a process may take it several times.

    Of several processes under torchrun all come here.

    Raises:
        RuntimeError: another process holds it, or the folder can't be written.
    """
    place = Path(folder).resolve()
    refusal = distributed.gather_plain(_take(place) if distributed.is_main() else None)[0]
    if refusal is not None:
        raise RuntimeError(refusal)
    try:
        yield
    finally:
        if distributed.is_main():
            _give_back(place)


def _take(place: Path) -> str | None:
    """Take the lock; a sentence that says why it can't be."""
    hold = _holds.get(place)
    if hold is not None and hold.process == os.getpid():
        hold.times += 1
        return None
    lock, made = FileLock(place / FILE), not place.is_dir()
    try:
        place.mkdir(parents=True, exist_ok=True)
        owner = _acquire(lock, place)
        if owner is not None:
            return (
                f"{place} is in use by {owner}; wait until it is through, stop it, or choose another OUTPUT_DIR for "
                "this run."
            )
        mine = {"pid": os.getpid(), "host": platform.node(), "since": f"{datetime.datetime.now():%Y-%m-%d %H:%M:%S}"}
        (place / OWNER).write_text(json.dumps(mine))  # not atomically: half of it names nobody, and harms nobody
    except (OSError, NotImplementedError) as error:
        lock.release()
        reason = getattr(error, "strerror", None) or error
        if isinstance(error, NotImplementedError) or error.errno in NO_LOCKS:
            print(f"Note: {place} can't be locked ({reason}), so nothing keeps a second process out of it")
            return None
        return f"Cannot write in {place} ({reason}); free some space, or choose an OUTPUT_DIR that can be written."
    _holds[place] = _Hold(lock, os.getpid(), 1, made)
    return None


def _acquire(lock: FileLock, place: Path) -> str | None:
    """Wait for the lock as long as a dead process seems to hold it; who else does, None once it is taken."""
    end = time.monotonic() + ORPHANS
    while True:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            owner = _owner(place)
            gone = owner.get("host") == platform.node() and not _runs(owner.get("pid"))
            if not gone or time.monotonic() > end:
                if not owner:
                    return "another process"
                return f"process {owner.get('pid')} on {owner.get('host')} since {owner.get('since')}"
            time.sleep(WAIT)
            continue
        if (place / FILE).exists():
            return None
        lock.release()  # of a file that its owner removed meanwhile


def _owner(place: Path) -> dict[str, Any]:
    """What the owner wrote; {} if that can't be read."""
    try:
        tree = json.loads((place / OWNER).read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _runs(pid: Any) -> bool:
    """Whether there is a process with this id; where that can't be told, there is."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except (OSError, TypeError):
        return True
    return True


def _give_back(place: Path) -> None:
    hold = _holds.get(place)
    if hold is None or hold.process != os.getpid():
        return
    hold.times -= 1
    if hold.times:
        return
    del _holds[place]
    with contextlib.suppress(OSError):
        (place / OWNER).unlink(missing_ok=True)
        (place / FILE).unlink(missing_ok=True)  # still held: who waits for it finds it gone, and opens a new one
    hold.lock.release()
    if hold.made_folder:
        with contextlib.suppress(OSError):
            place.rmdir()  # unless something was written there
