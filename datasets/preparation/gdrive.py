"""Files of Google Drive, through gdown; it often refuses, because it limits how often a file is fetched."""

from __future__ import annotations

import os
import sys
from pathlib import Path

SCHEME = "gdrive"


def browser_address(address: str) -> str:
    """Where a person can get the file: for `gdrive:ID` the page of the file, other addresses as they are."""
    scheme, _, file_id = address.partition(":")
    return f"https://drive.google.com/file/d/{file_id}/view" if scheme == SCHEME else address


def receive(address: str, part: Path, quiet: bool) -> None:
    """Download `gdrive:ID` to `part`.

    Raises:
        RuntimeError: Google Drive did not give it; the reason.
    """
    import gdown

    temporary = part.with_name(f"{part.name}.gdrive")  # gdown's own partial files begin with this name
    try:
        found = gdown.download(
            id=address.partition(":")[2], output=str(temporary), quiet=quiet or not sys.stderr.isatty(), resume=True
        )
    except Exception as error:  # its own errors, those of requests, and what its parsers trip over
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RuntimeError(f"Google Drive refused it ({reason:.200})") from error
    if found is None or not temporary.is_file():
        raise RuntimeError("Google Drive refused it")
    os.replace(temporary, part)
