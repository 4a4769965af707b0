"""One file from one web address, in as many connections as it takes; nothing here renames or checks digests.

Certificates of servers are always checked.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import json
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .expected import BLOCK, DownloadError, Expected, Source, WrongFileError
from .progress import Progress

TRIES = 4
PAUSE = 1.0  # seconds before the second try; doubled for each further one
PATIENCE = 120.0  # seconds that a server may ask to wait (Retry-After); longer counts as a refusal
TIMEOUT = 30.0  # seconds without a byte
FRESH = 1 << 20  # bytes; a connection that brought so many does not count as a failed try
AGENT = "Mozilla/5.0 (compatible; research data download)"  # some hosts refuse the default of urllib


def receive(source: Source, part: Path, quiet: bool = False) -> None:
    """Fill `part` with the bytes behind a web address; what it holds already is gone on from, if that is still valid.

    Raises:
        DownloadError: the server does not give the file; `part` keeps what is right so far.
        WrongFileError: the server announces another size than is expected.
        RuntimeError: the disk did not take it.
    """
    failures, size = 0, source.expected.size
    if size is not None and size_of(part) == size:
        return
    while True:
        before, wait = size_of(part), 0.0
        try:
            _append(source, part, quiet)
            return
        except urllib.error.HTTPError as error:
            if error.code == 416 and before:  # nothing behind the end of `part`
                if _is_whole(error, before, source.expected):
                    return
                part.unlink()  # of another version of the file
            reason = f"HTTP status {error.code} {error.reason}"
            if error.code < 500 and error.code not in (408, 416, 429):
                break
            wait = _retry_after(error)
            if wait > PATIENCE:
                reason += f", and the server asks to wait {wait:.0f} s"
                break
        except (OSError, ValueError, http.client.HTTPException) as error:  # URLError, timeouts, cut connections, ...
            cause = getattr(error, "reason", error)
            reason = str(cause) or type(error).__name__
            if isinstance(cause, ssl.SSLCertVerificationError):
                break
        failures = 1 if size_of(part) - before >= FRESH else failures + 1
        if failures >= TRIES:
            break
        time.sleep(max(wait, PAUSE * 2 ** (failures - 1)))
    raise DownloadError(f"{source.address} could not be downloaded: {reason}.")


def _append(source: Source, part: Path, quiet: bool) -> None:
    """One connection: ask for what `part` lacks, and write it behind what is there."""
    headers, known = _range(source, part)
    request = urllib.request.Request(source.address, headers={"User-Agent": AGENT, **headers})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        if response.headers.get_content_type() == "text/html":
            raise web_page(source.address)
        have, total = _first_byte_and_total(response, size_of(part))
        if have and (have != size_of(part) or (None not in (known, total) and known != total)):
            part.unlink()
            raise ConnectionError("the server went on with another file")
        if None not in (total, source.expected.size) and total != source.expected.size:
            raise WrongFileError(
                f"{source.address} announces {total} bytes where {source.expected.size} were expected."
            )
        block = response.read(BLOCK)
        if not have and is_web_page(block):
            raise web_page(source.address)  # before anything that is there is overwritten
        with _on_disk(part):
            file = part.open("ab" if have else "wb")
        with file, Progress(part.stem, total, have, quiet) as progress:
            if not have:
                _write_note(source, part, response.headers, total)
            while block:
                with _on_disk(part):
                    file.write(block)
                progress.advance(len(block))
                block = response.read(BLOCK)
            with _on_disk(part):
                file.flush()
                os.fsync(file.fileno())
    if total is not None and size_of(part) != total:
        raise ConnectionError(f"the connection ended after {size_of(part)} of {total} bytes")


def _range(source: Source, part: Path) -> tuple[dict[str, str], int | None]:
    """Headers that ask for the rest of `part`, and the length of the whole file if it is known.

    If-Range makes the server send everything when the file is another one by now. Without such a mark the rest is asked
    for only where a digest will tell.
    """
    have = size_of(part)
    if not have:
        return {}, None
    note: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        note = json.loads(note_path(part).read_text(encoding="utf-8"))
    headers = {"Range": f"bytes={have}-"}
    if note.get("address") == source.address:
        if mark := note.get("mark"):
            headers["If-Range"] = mark
        if mark or source.expected.digest or note.get("total") is not None:
            return headers, note.get("total")
    return (headers if source.expected.digest else {}), None


def _write_note(source: Source, part: Path, headers: http.client.HTTPMessage, total: int | None) -> None:
    etag = headers.get("ETag")
    mark = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")  # weak ones may not be used
    with _on_disk(part):
        note = {"address": source.address, "mark": mark, "total": total}
        note_path(part).write_text(json.dumps(note), encoding="utf-8")


def _first_byte_and_total(response: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """Where in the file the answer begins, and the length of the whole file if the server says it."""
    length = response.headers.get("Content-Length")
    if response.status != 206:  # the server sends the whole file
        return 0, int(length) if length is not None else None
    found = re.fullmatch(r"bytes (\d+)-\d*/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if found and found[2] != "*":
        return int(found[1]), int(found[2])
    first = int(found[1]) if found else have
    return first, first + int(length) if length is not None else None


def _is_whole(error: urllib.error.HTTPError, have: int, expected: Expected) -> bool:
    """Whether "range not satisfiable" means that all `have` bytes are there; if nothing tells, the digest decides."""
    found = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", "").strip())
    return int(found[1]) == have if found else bool(expected.digest)


def _retry_after(error: urllib.error.HTTPError) -> float:
    """Seconds that the server asks to wait; 0 if it does not."""
    value = (error.headers.get("Retry-After") or "").strip()
    if value.isdecimal():
        return float(value)
    with contextlib.suppress(TypeError, ValueError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return 0.0


def is_web_page(head: bytes) -> bool:
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()[:9].lower().startswith((b"<!doctype", b"<html"))


def web_page(address: str) -> DownloadError:
    return DownloadError(
        f"{address} sent a web page instead of the file; it may have moved, want a login, or be over its quota."
    )


@contextlib.contextmanager
def _on_disk(path: Path) -> Iterator[None]:
    """Errors of the disk are not those of the connection, so no other try will help."""
    try:
        yield
    except OSError as error:
        raise RuntimeError(f"Cannot write {path} ({error.strerror or error}); what is there is kept.") from error


def size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def note_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")
