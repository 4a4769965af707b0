"""What is known of a file before it is downloaded, and the errors when it does not arrive like that."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from .progress import Progress

BLOCK = 1 << 20  # bytes


class DownloadError(RuntimeError):
    """A file did not arrive."""


class WrongFileError(DownloadError):
    """A file arrived, but not the one that was expected."""


@dataclass(frozen=True)
class Expected:
    """What is known of a file before it arrives: hexadecimal digests, of which SHA-256 goes before MD5, and bytes."""

    sha256: str | None = None
    md5: str | None = None
    size: int | None = None

    @property
    def digest(self) -> str:
        """The digest for people, "SHA-256 ..." or "MD5 ..."; empty if none is known."""
        return f"SHA-256 {self.sha256}" if self.sha256 else f"MD5 {self.md5}" if self.md5 else ""

    def fault(self, path: Path, quiet: bool = True) -> str | None:
        """What is wrong with a file, in words that can follow "has" or "a file with"; None if it is as expected."""
        size = path.stat().st_size
        if self.size is not None and size != self.size:
            return f"{size} bytes where {self.size} were expected"
        for name, kind, digest in (("SHA-256", "sha256", self.sha256), ("MD5", "md5", self.md5)):
            if digest is not None:
                found = _digest(path, kind, quiet)
                return None if found == digest else f"{name} {found} where {digest} was expected"
        return None


@dataclass(frozen=True)
class Source:
    """One address of a file and what the file is if it comes from there."""

    address: str
    expected: Expected = field(default_factory=Expected)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    return _digest(path, "sha256", quiet=True)


def _digest(path: Path, kind: str, quiet: bool) -> str:
    digest = hashlib.new(kind, usedforsecurity=kind != "md5")
    with Progress(f"Checking {path.name}", path.stat().st_size, quiet=quiet) as progress, path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            progress.advance(len(block))
    return digest.hexdigest()
