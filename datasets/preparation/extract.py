"""Unpacking archives that others made: only files, only below one folder, only as much as was to be expected.

Nothing of an archive is in place before all of it has been read: the caller gives a temporary folder and renames.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Union

from clip.progress import Progress, readable_bytes
from datasets.preparation.members import BLOCK, ArchiveError, Member, UnsafeArchive, members, readable

__all__ = ["ArchiveError", "Place", "UnsafeArchive", "unpack"]

MEMBERS = 2_000_000  # the largest archive, SUN397, has about 110,000; the training pictures of ImageNet are 1.3 million
SLACK = 1.5  # times the size that an archive is expected to have when unpacked
RATIO = 100  # times the size of the archive; pictures do not become smaller by packing
SMALL = 64 << 20  # bytes; below, a high ratio may be a list of names
JUNK_NAMES = {"__MACOSX", ".DS_Store", "Thumbs.db"}
JUNK_SUFFIXES = {
    *(".pkl", ".pickle", ".pt", ".pth"),  # loading them would run code
    *(".py", ".pyc", ".sh", ".bash", ".bat", ".cmd", ".ps1", ".vbs", ".js", ".m"),
    *(".exe", ".com", ".dll", ".so", ".jar", ".app", ".msi"),
}

Place = Callable[[str], Union[str, "Place", None]]
"""Where a member goes: a path below the folder; None: nowhere; a `Place`: it is an archive, and that unpacks it."""


def unpack(archive: Path, folder: Path, place: Place, expected: int, quiet: bool = False) -> None:
    """Unpack what `place` wants of an archive; modes, owners and times in it are ignored.

    Args:
        archive: zip or tar, plain or compressed with gzip, bzip2 or xz, whatever its name is.
        folder: where to; exists, and is thrown away by the caller after an error.
        place: called with the name of each file, without a leading "./".
        expected: bytes that the files should have in all, roughly.

    Raises:
        UnsafeArchive: a member would land elsewhere or is no regular file, two names differ in case only, or there is
            far more in it than expected.
        ArchiveError: it is no archive, or it is damaged.
        RuntimeError: the disk did not take it.
    """
    unpacking = _Unpacking(archive, folder, int(SLACK * expected))
    with (
        Progress(f"Unpacking {archive.name}", archive.stat().st_size, quiet=quiet) as progress,
        archive.open("rb") as file,
    ):
        unpacking.read(file, str(archive), place, lambda: progress.advance(max(0, file.tell() - progress.done)))


class _Unpacking:
    def __init__(self, archive: Path, folder: Path, limit: int) -> None:
        self.archive, self.folder, self.limit = archive, folder, limit
        self.packed = archive.stat().st_size
        self.count = self.total = 0
        self.folders: set[Path] = set()

    def read(self, file: IO[bytes], label: str, place: Place, step: Callable[[], None]) -> None:
        seen: dict[str, str] = {}
        for member in members(file, label):
            name = _checked_name(member, label)
            if member.kind == "folder" or not name:
                continue
            wanted = None if _is_junk(name) else place(name)
            self._count(member, label, nested=callable(wanted))
            if wanted is None:
                continue
            _check_case(name if callable(wanted) else wanted, seen, label)
            with readable(label):
                content = member.open()
            with content:
                if callable(wanted):
                    self.read(content, f"{label}: {name}", wanted, step)
                else:
                    self._write(content, member, wanted, label)
            step()

    def _count(self, member: Member, label: str, nested: bool) -> None:
        self.count += 1
        self.total += 0 if nested else member.size
        if self.count > MEMBERS:
            raise UnsafeArchive(f"{label} has more than {MEMBERS} members; it is not what it should be.")
        if self.total > self.limit:
            raise UnsafeArchive(
                f"{label} holds more than {readable_bytes(self.limit)}, far more than expected; it is not what it "
                f"should be."
            )
        if self.total > max(SMALL, RATIO * self.packed):
            raise UnsafeArchive(f"{label} unpacks to more than {RATIO} times its size; it is not what it should be.")

    def _write(self, content: IO[bytes], member: Member, to: str, label: str) -> None:
        path = self.folder / to
        written = 0
        try:
            if path.parent not in self.folders:
                path.parent.mkdir(parents=True, exist_ok=True)
                self.folders.add(path.parent)
            with path.open("xb") as file:
                while True:
                    with readable(label):
                        block = content.read(BLOCK)
                    if not block:
                        break
                    written += len(block)
                    file.write(block)
        except FileExistsError:
            raise UnsafeArchive(f"{label} holds {to} twice; it is not what it should be.") from None
        except OSError as error:
            raise RuntimeError(f"Cannot write {path} ({error.strerror or error}).") from error
        if written != member.size:
            raise ArchiveError(
                f"{label} is damaged or incomplete ({member.name!r:.200} is too short); delete it and get it again."
            )


def _checked_name(member: Member, label: str) -> str:
    """The name without "." and doubled slashes; "" for the folder itself.

    Raises:
        UnsafeArchive: it leads out of the folder, or is no plain file or folder.
    """
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    if (
        member.name.startswith("/")
        or ".." in parts
        or re.search(r"[\\\0]", member.name)
        or (parts and re.match(r"[A-Za-z]:", parts[0]))
    ):
        raise UnsafeArchive(f"{label} would write to {member.name!r:.200}; nothing of it is used, do not trust it.")
    if member.kind not in ("file", "folder"):
        raise UnsafeArchive(f"{label} holds {member.kind}, {member.name!r:.200}; nothing of it is used.")
    return "/".join(parts)


def _is_junk(name: str) -> bool:
    path = PurePosixPath(name)
    return (
        path.suffix.lower() in JUNK_SUFFIXES
        or not JUNK_NAMES.isdisjoint(path.parts)
        or any(part.startswith("._") for part in path.parts)
    )


def _check_case(name: str, seen: dict[str, str], label: str) -> None:
    """Files or folders whose names differ in case only would be one on some disks."""
    for path in (name, *map(str, PurePosixPath(name).parents[:-1])):
        other = seen.setdefault(unicodedata.normalize("NFC", path).casefold(), path)
        if other != path:
            raise UnsafeArchive(f"{label} holds {other} and {path}, which are the same name on some disks.")
