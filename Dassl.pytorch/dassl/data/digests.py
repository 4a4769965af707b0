"""Digests of files by content; a file is read again only when its size or one of its times has changed."""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dassl.utils.files import write_text

__all__ = ["file_digests"]

_FORMAT = 1
_SETTLED = 2_000_000_000  # ns; a file changed later than this before it was read could change again in the same tick
_THREADS = 8  # reading waits for the disk, and hashing releases Python's lock


def file_digests(paths: Sequence[str], memo: str | os.PathLike) -> list[str]:
    """SHA-256 (hex) of each file's content.

    Args:
        paths: the files.
        memo: folder that remembers digests, a file for each list of paths; one that can't be written only costs time.

    Raises:
        FileNotFoundError: a file is missing.
    """
    absolute = [os.path.abspath(path) for path in paths]
    where = Path(memo) / f"{hashlib.sha256(chr(10).join(absolute).encode()).hexdigest()[:16]}.json"
    known, begin = _read(where), time.time_ns()
    # stamps before contents, so that a change while a file is read is noticed later
    stamps = [_stamp(i, path) for i, path in enumerate(absolute)]
    with ThreadPoolExecutor(_THREADS) as pool:
        read = [known.get(stamp) or pool.submit(_digest, path) for path, stamp in zip(absolute, stamps, strict=True)]
        found = [digest if isinstance(digest, str) else digest.result() for digest in read]
    pairs = zip(stamps, found, strict=True)
    settled = {stamp: digest for stamp, digest in pairs if _changed(stamp) < begin - _SETTLED}
    if settled != known:
        with contextlib.suppress(RuntimeError):
            write_text(where, json.dumps({"format": _FORMAT, "files": settled}))
    return found


def _stamp(index: int, path: str) -> str:
    """Place in the list, size, time of the content, and time of the inode, which nobody can set.

    Strings, since thousands of small lists would each time make Python's garbage collector look at everything.
    """
    try:
        s = os.stat(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'No image at "{path}"; check the data root and that the data set is complete.'
        ) from error
    return f"{index} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns}"


def _changed(stamp: str) -> int:
    """The later one of a stamp's times, in nanoseconds."""
    return max(map(int, stamp.split()[2:]))


def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _read(where: Path) -> dict[str, str]:
    """Remembered digests by stamp."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        tree = json.loads(where.read_text())
        if tree["format"] == _FORMAT:
            return {str(stamp): str(digest) for stamp, digest in tree["files"].items()}
    return {}
