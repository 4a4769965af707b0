"""Files that are either whole or not there: every file of a run is written through `atomic_write`.

Temporary file in the same folder, flush, fsync, rename over the target, fsync of the folder. A reader, a crash or a
full disk therefore meets the earlier file or the new one, never half of one.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch

TEMPORARY = ".tmp-"  # what stands between a target's name and the process id in the name of its temporary file


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """Open a binary file that takes the place of `path` when the block ends without an exception.

    Raises:
        RuntimeError: the folder cannot be made or written, or the disk is full; the earlier file is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}{TEMPORARY}{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise RuntimeError(
            f"Cannot write {path} ({error.strerror or error}); an earlier file of that name is untouched; "
            "free some space, or choose an OUTPUT_DIR that can be written."
        ) from error


def sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the file system can (some network file systems refuse)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_write(path) as file:
        file.write(text.encode())


def write_json_file(path: str | os.PathLike, tree: Any) -> None:
    """Write a JSON file atomically; the tree must hold finite numbers only."""
    write_text(path, json.dumps(tree, indent=2, allow_nan=False) + "\n")


class _DiskErrors:
    """Binary file that remembers its first OSError, which torch would report as an internal failure of its writer."""

    def __init__(self, file: IO[bytes]):
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self.file.flush()


def write_torch(path: str | os.PathLike, state: Any) -> None:
    """`torch.save` the state atomically."""
    with atomic_write(path) as file:
        checked = _DiskErrors(file)
        try:
            torch.save(state, checked)  # type: ignore[arg-type]  # write and flush are all that torch needs
        except RuntimeError:
            if checked.error is not None:
                raise checked.error from None
            raise


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Delete the temporary files that a killed process left in the folder and in the folders below it."""
    for path in Path(folder).glob(f"**/.*{TEMPORARY}*"):
        with contextlib.suppress(OSError):
            path.unlink()
