"""Fetching one file: from the first of its addresses that gives it, resumed, checked, renamed into place when complete.

Beside `<target>` there may be `<target>.part` (what has arrived), `<target>.part.json` (from where, and which version
of it), `<target>.bad` (complete, but the wrong file) and `<target>.lock`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import huggingface_hub.constants
from filelock import FileLock

from .expected import BLOCK, DownloadError, Expected, Source, WrongFileError, sha256
from .transfer import is_web_page, note_path, receive, size_of, web_page

__all__ = [
    "DownloadError",
    "Expected",
    "Receiver",
    "Source",
    "WrongFileError",
    "fetch",
    "fetch_any",
    "may_download",
    "no_downloads",
    "sha256",
]

logger = logging.getLogger(__name__)

Receiver = Callable[[str, Path, bool], None]
"""Fills a file with what an address of its scheme holds (address, file, quiet); RuntimeError with the reason if not."""

_allowed: ContextVar[bool] = ContextVar("allowed", default=True)


@contextmanager
def no_downloads() -> Iterator[None]:
    """Inside, what is not on this machine is an error and not a download, what huggingface_hub fetches included."""
    token, online = _allowed.set(False), huggingface_hub.constants.HF_HUB_OFFLINE
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        _allowed.reset(token)
        huggingface_hub.constants.HF_HUB_OFFLINE = online


def may_download() -> bool:
    """Whether files may be fetched; not so inside `no_downloads`."""
    return _allowed.get()


def fetch(url: str, target: Path, digest: str | None = None) -> Path:
    """Download `url` to `target`; see `fetch_any`.

    Args:
        digest: SHA-256 that the file must have.
    """
    return fetch_any([Source(url, Expected(sha256=digest))], target)


def fetch_any(
    sources: Sequence[Source], target: Path, receivers: Mapping[str, Receiver] | None = None, quiet: bool = False
) -> Path:
    """Download a file from the first of its addresses that gives the right one.

    An interrupted download leaves `<target>.part`, from which the next one goes on. A complete file with another digest
    becomes `<target>.bad`. Several processes may ask for the same file; one downloads, the others wait. A file already
    in place is taken if it is as expected, and replaced if not.

    Args:
        sources: at least one.
        receivers: what downloads addresses of other schemes than http and https, by scheme.
        quiet: no progress.

    Raises:
        WrongFileError: no address gave the file, and at least one gave another file.
        DownloadError: no address gave the file.
        RuntimeError: the disk did not take it.
    """
    if not may_download():
        if target.is_file() and any(source.expected.fault(target) is None for source in sources):
            return target
        raise DownloadError(f"{target} is not there, or not as expected, and nothing is downloaded now.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if target.is_file():
            if any(source.expected.fault(target) is None for source in sources):
                return target
            known = sources[0].expected.digest.partition(" ")[0] or "size"
            logger.warning("%s does not have the %s of %s; downloading it again.", target, known, sources[0].address)
        errors: list[DownloadError] = []
        for source in sources:
            try:
                _fetch_one(source, target, receivers or {}, quiet)
                return target
            except DownloadError as error:
                errors.append(error)
                if len(errors) < len(sources):
                    logger.warning("%s Trying the next address.", error)
    if len(errors) == 1:
        raise errors[0]
    kind = WrongFileError if any(isinstance(error, WrongFileError) for error in errors) else DownloadError
    raise kind(f"None of {len(errors)} addresses gave {target.name}: " + " ".join(map(str, errors)))


def _fetch_one(source: Source, target: Path, receivers: Mapping[str, Receiver], quiet: bool) -> None:
    part = target.with_name(f"{target.name}.part")
    receiver = receivers.get(source.address.partition(":")[0])
    resumed = receiver is None and size_of(part) > 0
    fault = _fill(source, part, receiver, quiet)
    if fault and resumed:  # the part may have been of another file: once more from the start
        part.unlink()
        fault = _fill(source, part, receiver, quiet)
    if fault:
        bad = target.with_name(f"{target.name}.bad")
        os.replace(part, bad)
        raise WrongFileError(f"{source.address} sent a file with {fault}; it is kept as {bad}.")
    os.replace(part, target)
    note_path(part).unlink(missing_ok=True)


def _fill(source: Source, part: Path, receiver: Receiver | None, quiet: bool) -> str | None:
    """Let the whole file arrive in `part`; return what is wrong with it."""
    if receiver is None:
        receive(source, part, quiet)
    else:
        try:
            receiver(source.address, part, quiet)
        except RuntimeError as error:
            raise DownloadError(f"{source.address} could not be downloaded: {error}.") from error
    with part.open("rb") as file:
        head = file.read(BLOCK)
    if is_web_page(head):
        part.unlink()
        raise web_page(source.address)
    return source.expected.fault(part, quiet)
