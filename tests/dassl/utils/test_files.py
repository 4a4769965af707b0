"""Files are whole or not there, whatever interrupts the writing."""

import contextlib
import json
import os
import resource
import signal
import stat

import pytest
import torch

from dassl.utils import files
from dassl.utils.files import atomic_write, remove_leftovers, write_json_file, write_text, write_torch


@contextlib.contextmanager
def full_disk():
    """No file of this process can grow beyond 4 KiB, as on a full disk; not even the one that pytest writes to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_writes_with_missing_folders_and_the_usual_permissions(tmp_path):
    path = tmp_path / "a/b/c.json"
    mask = os.umask(0o027)
    try:
        write_json_file(path, {"x": [1, None]})
    finally:
        os.umask(mask)
    assert json.loads(path.read_text()) == {"x": [1, None]}
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert names(path.parent) == ["c.json"]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")
    with atomic_write(path) as file:
        file.write(b"new and ")
        assert path.read_text() == "old"
        file.write(b"longer")
    assert path.read_text() == "new and longer"


def test_contents_and_folder_are_synced_in_that_order(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace

    def note_sync(handle):
        calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    monkeypatch.setattr(files.os, "fsync", note_sync)
    monkeypatch.setattr(files.os, "replace", lambda a, b: (calls.append("rename"), replace(a, b)))
    write_text(tmp_path / "file", "x")
    assert calls == ["file", "rename", "folder"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_an_interruption_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "file"
    write_text(path, "old")

    def interrupted():
        with atomic_write(path) as file:
            file.write(b"half of the n")
            raise error

    with pytest.raises(error):
        interrupted()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "model"
    write_torch(path, {"small": torch.zeros(8)})
    cannot = r"^Cannot write .*/model \(File too large\); an earlier file .* untouched;"
    with pytest.raises(RuntimeError, match=cannot), full_disk():
        write_torch(path, {"large": torch.zeros(100_000)})
    with pytest.raises(RuntimeError, match="free some space, or choose an OUTPUT_DIR"), full_disk():
        write_text(path, "x" * 10_000)
    assert list(torch.load(path)) == ["small"]
    assert names(tmp_path) == ["model"]


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.os, "open", refuse)
    with pytest.raises(RuntimeError, match=r"Cannot write .*/file \(Permission denied\)"):
        write_text(tmp_path / "file", "x")
    with pytest.raises(RuntimeError, match=r"Cannot write /proc/none/file \(No such file or directory\)"):
        write_text("/proc/none/file", "x")


def test_what_cannot_be_saved_is_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(Exception, match="pickle"):
        write_torch(tmp_path / "file", {"f": lambda: None})
    assert names(tmp_path) == []


def test_numbers_that_json_does_not_know_are_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json_file(tmp_path / "file", {"x": float("nan")})
    assert names(tmp_path) == []


def test_leftovers_of_killed_processes_are_removed(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in (".metrics.json.tmp-77", "sub/.model.pth.tar-5.tmp-123", "sub/model.pth.tar-5", ".hidden"):
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".hidden", "sub"]
    assert names(tmp_path / "sub") == ["model.pth.tar-5"]
