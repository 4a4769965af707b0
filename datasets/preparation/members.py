"""What an archive holds, one member after the other: zip and tar, plain or compressed, by content and never by suffix.

A tar that ends in the middle is noticed, which the standard library does not do where it ends between two members.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

BLOCK = 1 << 20  # bytes
HEADER_LIMIT = 16 << 20  # bytes read at once; contents are read by the block, so more is a header that lies
_ZEROS = bytes(tarfile.BLOCKSIZE)
_DAMAGE = (  # what the libraries raise; the last three where a header's number or name makes no sense
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError),
    *(ValueError, OverflowError, struct.error),
)


class ArchiveError(RuntimeError):
    """An archive is damaged, or is not what it should be."""


class UnsafeArchive(ArchiveError):
    """An archive would do something that no archive of pictures needs to do."""


@dataclass(frozen=True)
class Member:
    """One entry. `kind`: "file", "folder", or in words what else it is. `open` gives its bytes."""

    name: str
    size: int  # bytes
    kind: str
    open: Callable[[], IO[bytes]]


@contextlib.contextmanager
def readable(label: str) -> Iterator[None]:
    """Turn what the libraries raise on damaged archives into one error."""
    try:
        yield
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ArchiveError(f"{label} is damaged or incomplete ({reason:.200}); delete it and get it again.") from error
    except NotImplementedError as error:
        raise ArchiveError(f"{label} cannot be read ({error}).") from error


def members(file: IO[bytes], label: str) -> Iterator[Member]:
    """The entries of an open archive, in its order.

    Args:
        file: at its beginning, with `seek`.
        label: what the archive is called in errors.

    Raises:
        ArchiveError: it is no archive, or is damaged.
    """
    with readable(label):
        head = file.read(4)
        file.seek(0)
        if head.startswith(b"PK"):
            yield from _zip_members(file)
            return
        stream = _decompress(file, head)
        tail: Any = _Tail(stream)  # has what tarfile needs of a file
        if stream is file and not _is_tar(file):
            raise ArchiveError(f"{label} is no archive that can be read: it begins with {head!r}.")
        with tarfile.open(fileobj=tail, mode="r:") as tar:
            for info in tar:
                yield Member(info.name, info.size, _tar_kind(info), partial(_content, tar, info))
        if tail.last != _ZEROS:  # a tar ends with blocks of zeros
            raise EOFError("it ends without an end mark")
        while stream.read(BLOCK):  # up to the checksum of the compression
            pass


def _zip_members(file: IO[bytes]) -> Iterator[Member]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            yield Member(info.orig_filename, info.file_size, _zip_kind(info), partial(archive.open, info))


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(info)
    assert content is not None, "only files are opened"
    return content


def _zip_kind(info: zipfile.ZipInfo) -> str:
    mode = info.external_attr >> 16
    if info.flag_bits & 1:
        return "an encrypted file"
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a device, pipe or socket"
    return "folder" if info.is_dir() else "file"


def _tar_kind(info: tarfile.TarInfo) -> str:
    if info.isdir():
        return "folder"
    if info.issparse():
        return "a file with holes"
    if info.isreg():
        return "file"
    return "a symbolic link" if info.issym() else "a hard link" if info.islnk() else "a device, pipe or socket"


def _decompress(file: IO[bytes], head: bytes) -> IO[bytes]:
    if head.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
    if head.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if head.startswith(b"\xfd7zX"):
        return lzma.LZMAFile(file)
    return file


def _is_tar(file: IO[bytes]) -> bool:
    head = file.read(tarfile.BLOCKSIZE)
    file.seek(0)
    return head[257:262] == b"ustar" or (len(head) == tarfile.BLOCKSIZE and _old_header(head))


def _old_header(head: bytes) -> bool:
    """Tar as it was before POSIX, which has no magic number but a checksum."""
    with contextlib.suppress(tarfile.HeaderError):
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
        return True
    return False


class _Tail:
    """A file that remembers what was last read from it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.last = stream, b""

    def read(self, size: int) -> bytes:
        if size > HEADER_LIMIT:
            raise tarfile.ReadError(f"a header of {size} bytes")
        self.last = self.stream.read(size)
        return self.last

    def seekable(self) -> bool:
        return True

    def seek(self, place: int) -> int:
        return self.stream.seek(place)

    def tell(self) -> int:
        return self.stream.tell()
