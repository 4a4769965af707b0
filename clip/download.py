"""Fetching one file over HTTP: resumed, checked, renamed into place only when complete."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

logger = logging.getLogger(__name__)

TRIES = 4
PAUSE = 1.0  # seconds before the second try; doubled for each further one
TIMEOUT = 30.0  # seconds without a byte
BLOCK = 1 << 20  # bytes


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def fetch(url: str, target: Path, digest: str | None = None) -> Path:
    """Download `url` to `target`.

    An interrupted download leaves `<target>.part`, from which the next one goes on. Several processes may ask for the
    same file; one downloads, the others wait.

    Args:
        digest: SHA-256 that the file must have; a file already in place is taken if it has it, and replaced if not.

    Raises:
        RuntimeError: the file did not arrive, or arrived with another digest.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if target.is_file():
            if digest is None or sha256(target) == digest:
                return target
            logger.warning("%s does not have the SHA-256 of %s; downloading it again.", target, url)
        part = target.with_name(f"{target.name}.part")
        resumed = _receive(url, part)
        if digest is not None and (found := sha256(part)) != digest:
            part.unlink()
            if resumed:  # the part may have been of another file: once more from the start
                _receive(url, part)
                found = sha256(part)
            if found != digest:
                part.unlink(missing_ok=True)
                raise RuntimeError(f"{url} sent a file with SHA-256 {found} where {digest} was expected.")
        os.replace(part, target)
    return target


def _receive(url: str, part: Path) -> bool:
    """Fill `part` with the bytes behind `url`; True if it had some of them before."""
    resumed = part.is_file() and part.stat().st_size > 0
    reason = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE * 2 ** (attempt - 1))
        try:
            _append(url, part)
            return resumed
        except urllib.error.HTTPError as error:
            if error.code == 416:  # nothing behind the end of `part`: it is complete, or of another file
                return resumed
            reason = f"HTTP status {error.code} {error.reason}"
            if error.code < 500 and error.code != 429:
                break
        except (OSError, http.client.HTTPException) as error:  # URLError, timeouts and cut connections among them
            reason = str(getattr(error, "reason", error)) or type(error).__name__
    raise RuntimeError(f"{url} could not be downloaded: {reason}.")


def _append(url: str, part: Path) -> None:
    """One connection: ask for what `part` lacks, and write it behind what is there."""
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        if response.status != 206:  # the server sends the whole file
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=part.stem, disable=None)
        with bar, part.open("ab" if have else "wb") as file:
            while block := response.read(BLOCK):
                file.write(block)
                bar.update(len(block))
            file.flush()
            os.fsync(file.fileno())
    if total is not None and part.stat().st_size != total:
        raise ConnectionError(f"the connection ended after {part.stat().st_size} of {total} bytes")
