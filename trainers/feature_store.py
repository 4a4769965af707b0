"""Features on disk: columns of rows in memory-mapped files, either whole and checked or not there.

A store is a folder `<label>-<key>` with one file of raw numbers and one of CRC-32s (one a row) for each column, and
`manifest.json`, written last. It is written in a folder of another name that takes this one when all is on the disk, so
whatever kills the writer leaves nothing that could be read. Two processes that want the same store: the second waits
for the first one's lock, which dies with its process, and then reads. Sizes are checked when a store is opened, a row's
CRC when the row is first read. Knows arrays and files, but neither models nor images.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import secrets
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from dassl.utils.files import TEMPORARY, sync_folder

MANIFEST = "manifest.json"
GIB = 2**30
NAME = re.compile(r"[a-z_]+(:\d+)?")  # of a column
WAIT = 0.5  # seconds between two looks at a lock


class StoredFeatures:
    """A whole store, open for reading.

    Args:
        place: its folder.
        manifest: what its manifest holds.

    Raises:
        ValueError: a file is not what the manifest says.
        OSError: a file can't be read.
    """

    def __init__(self, place: Path, manifest: Mapping[str, Any]):
        check_manifest(manifest)
        self.place = place
        self.n_rows: int = manifest["rows"]
        self.scalars: dict[str, int] = manifest["scalars"]
        self.dtypes: dict[str, str] = {}  # column -> the type that its values had before they were stored
        self._data: dict[str, np.ndarray] = {}
        self._crcs: dict[str, np.ndarray] = {}
        self._checked: dict[str, np.ndarray] = {}
        for name, column in manifest["columns"].items():
            shape, stored = (self.n_rows, *column["shape"]), np.dtype(column["stored"])
            data, crcs = _files(place, name)
            expected = {data: math.prod(shape) * stored.itemsize, crcs: self.n_rows * 4}
            for path, size in expected.items():
                if path.stat().st_size != size:
                    raise ValueError(f"{path.name} has {path.stat().st_size} bytes instead of {size}")
            self._crcs[name] = np.fromfile(crcs, np.uint32)
            if zlib.crc32(self._crcs[name].data) != column["crc"]:
                raise ValueError(f"{crcs.name} is not what was written")
            self._data[name] = np.asarray(np.memmap(data, stored, "r", shape=shape))
            self._checked[name] = np.zeros(self.n_rows, bool)
            self.dtypes[name] = column["dtype"]

    @property
    def columns(self) -> list[str]:
        return list(self._data)

    def read(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Rows of a column, copied, [B, …].

        Raises:
            RuntimeError: one of them is not what was written.
        """
        values, crcs, checked = self._data[name][rows], self._crcs[name][rows], self._checked[name]
        for i in np.flatnonzero(~checked[rows]):
            if zlib.crc32(values[i].data) != crcs[i]:
                raise RuntimeError(
                    f"The feature cache {self.place} is damaged ('{name}', row {rows[i]} is not what was written); "
                    f"remove it with `python tools/feature_cache.py clear {self.place}` and run again."
                )
        checked[rows] = True
        return values


def open_store(place: Path, facts: Mapping[str, Any]) -> StoredFeatures | None:
    """The store with these facts, or None if it is not there; says so if it is there but damaged."""
    if not place.is_dir():
        return None
    try:
        manifest = json.loads((place / MANIFEST).read_text())
        if manifest["facts"] != facts:
            raise ValueError(f"{MANIFEST} belongs to other features")
        return StoredFeatures(place, manifest)
    except UNREADABLE as error:
        print(f"Note: the feature cache {place} is damaged ({error}) and is made anew")
        return None


UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)  # a damaged store's errors


def check_manifest(manifest: Mapping[str, Any]) -> None:
    """Make sure that a manifest describes columns of plain numbers in files of its own folder.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it does not.
    """
    if not all(isinstance(manifest[part], dict) for part in ("facts", "about")):
        raise ValueError(f"{MANIFEST} does not say whose features they are")
    numbers = [manifest["rows"], *manifest["scalars"].values()]
    for name, column in manifest["columns"].items():
        numbers += [*column["shape"], column["crc"]]
        kinds = [np.dtype(str(column["stored"])).kind, np.dtype(column["dtype"].replace("bfloat", "float")).kind]
        if not NAME.fullmatch(name) or not set(kinds) <= set("fiu"):
            raise ValueError(f"{MANIFEST} names the column {name!r:.40} of {column['stored']!r:.40}")
    if not manifest["columns"] or any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError(f"{MANIFEST} counts with something else than whole numbers")


class FeatureWriter:
    """Writes a store row by row; a context whose end makes the store, unless an exception comes first.

    The caller holds the store's lock.

    Args:
        place: the store's folder; one that is there already, and damaged, is replaced.
        facts: plain data that decides what the features are.
        about: plain data for people.
        n_rows: rows that will be added in all.
        limit: bytes that all stores beside this one and it may take together.
    """

    def __init__(self, place: Path, facts: Mapping[str, Any], about: Mapping[str, Any], n_rows: int, limit: float):
        self.place = place
        self.n_rows = n_rows
        self.limit = limit
        self._tree: dict[str, Any] = {"facts": dict(facts), "about": dict(about), "rows": n_rows}
        self._columns: dict[str, dict[str, Any]] = {}
        self._files: dict[str, Any] = {}
        self._crcs: dict[str, list[int]] = {}
        self._temporary = place.with_name(f".{place.name}{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}")

    def __enter__(self) -> FeatureWriter:
        for leftover in self.place.parent.glob(
            f".{self.place.name}{TEMPORARY}*"
        ):  # of a killed writer: we hold the lock
            shutil.rmtree(leftover, ignore_errors=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            for file in self._files.values():
                with contextlib.suppress(OSError):
                    file.close()
            shutil.rmtree(self._temporary, ignore_errors=True)  # not there any more after a success

    def begin(self, arrays: Mapping[str, np.ndarray], dtypes: Mapping[str, str], scalars: Mapping[str, int]) -> None:
        """Say how much will be written, and make room for it.

        Args:
            arrays: a first batch of every column, [B, …]; it is not written yet.
            dtypes: of each column before it was made ready for storing.
            scalars: what is the same for all rows.

        Raises:
            RuntimeError: it would take more than the limit allows or the disk has, or the folder can't be written.
        """
        self._tree["scalars"] = dict(scalars)
        sizes = {name: self.n_rows * array[0].nbytes for name, array in arrays.items()}
        with disk_errors(self.place.parent), FileLock(self.place.parent / ".limit.lock"):
            self._check_room(sum(sizes.values()) + 4 * self.n_rows * len(sizes), ", ".join(sizes))
            self._temporary.mkdir()
            for name, array in arrays.items():
                column = {"shape": list(array.shape[1:]), "stored": array.dtype.name, "dtype": dtypes[name]}
                self._columns[name], self._crcs[name] = column, []
                self._files[name] = _files(self._temporary, name)[0].open("wb")
                self._files[name].truncate(sizes[name])  # seen by others who ask for room; blocks come with the rows

    def add(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Append a batch of rows to every column.

        Raises:
            RuntimeError: the disk is full, or the folder can't be written any more.
        """
        with disk_errors(self.place.parent):
            for name, array in arrays.items():
                array = np.ascontiguousarray(array)
                self._crcs[name] += [zlib.crc32(row) for row in array]
                self._files[name].write(array.data)

    def _check_room(self, need: int, what: str) -> None:
        folder = self.place.parent
        used, free = folder_bytes(folder), shutil.disk_usage(folder).free
        allowed = self.limit - used
        print(
            f"Feature cache: {need / GIB:.3g} GiB for {self.n_rows:,} rows of {what} "
            f"will be written to {self.place}; {used / GIB:.3g} of {self.limit / GIB:.3g} GiB are in use"
        )
        advice = "take fewer CACHE_VIEWS, CACHE_DTYPE fp16, or remove old caches with tools/feature_cache.py"
        if need > allowed:
            raise RuntimeError(
                f"The feature cache needs {need / GIB:.3g} GiB for {self.n_rows:,} rows, but {folder} holds "
                f"{used / GIB:.3g} GiB and DATALOADER.CACHE_LIMIT allows {self.limit / GIB:.3g}; raise it, {advice}."
            )
        if need > free:
            raise RuntimeError(
                f"The feature cache needs {need / GIB:.3g} GiB for {self.n_rows:,} rows, but the disk of {folder} has "
                f"{free / GIB:.3g} GiB left; {advice}."
            )

    def _finish(self) -> None:
        with disk_errors(self.place.parent):
            for name, column in self._columns.items():
                file, crcs = self._files[name], np.asarray(self._crcs[name], np.uint32)
                assert len(crcs) == self.n_rows, f"{len(crcs)} rows were added instead of {self.n_rows}"
                column["crc"] = zlib.crc32(crcs.data)
                _sync(file)
                with open(_files(self._temporary, name)[1], "wb") as beside:
                    beside.write(crcs.data)
                    _sync(beside)
            with open(self._temporary / MANIFEST, "w", encoding="utf-8") as manifest:
                json.dump({**self._tree, "columns": self._columns}, manifest, indent=2)
                _sync(manifest)
            sync_folder(self._temporary)
            shutil.rmtree(self.place, ignore_errors=True)  # a damaged one; a reader that has it open keeps its files
            os.rename(self._temporary, self.place)
            sync_folder(self.place.parent)


@contextlib.contextmanager
def store_lock(place: Path, stop: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of a store; the folder around it is made if need be.

    Args:
        place: the store.
        stop: called while another process holds the lock; may raise.

    Raises:
        RuntimeError: the folder can't be written.
    """
    lock, waits = FileLock(lock_file(place)), False
    with disk_errors(place.parent):
        place.parent.mkdir(parents=True, exist_ok=True)
        while not lock.is_locked:
            try:
                lock.acquire(timeout=WAIT if waits else 0)
            except Timeout:
                if not waits:
                    print(f"Feature cache: another process is writing {place}; waiting for it")
                waits = True
                stop()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn what the file system refuses into a sentence.

    Raises:
        RuntimeError: in the place of OSError.
    """
    try:
        yield
    except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
        if isinstance(error, Timeout):
            raise
        raise RuntimeError(
            f"Cannot write the feature cache in {folder} ({getattr(error, 'strerror', None) or error}); name a folder "
            "that can be written in DATALOADER.CACHE, or leave it empty."
        ) from error


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder; files that vanish meanwhile count nothing."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += 0 if path.is_dir() else path.stat().st_size
    return total


def _files(place: Path, name: str) -> Sequence[Path]:
    """Data and CRCs of a column."""
    stem = name.replace(":", "_")
    return place / f"{stem}.bin", place / f"{stem}.crc"


def lock_file(place: Path) -> Path:
    """The file whose lock the writer of a store holds; it stays when the store goes."""
    return place.with_name(f".{place.name}.lock")


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
