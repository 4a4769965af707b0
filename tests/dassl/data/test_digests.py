"""Digests of files are those of their content now, and are computed again only where a file may have changed."""

import hashlib
import os
import time

import pytest

import dassl.data.digests as module
from dassl.data.digests import file_digests


@pytest.fixture
def files(tmp_path):
    """Three files that were last changed a while ago."""
    paths = []
    for name in "abc":
        path = tmp_path / name
        path.write_bytes(name.encode() * 100)
        paths.append(str(path))
    return paths


@pytest.fixture
def read(monkeypatch):
    """Paths that are read from now on."""
    paths, digest = [], module._digest

    def noting(path):
        paths.append(path)
        return digest(path)

    monkeypatch.setattr(module, "_digest", noting)
    return paths


def sha256(path):
    return hashlib.sha256(open(path, "rb").read()).hexdigest()


def settle(monkeypatch):
    """Let all files that exist look as if they had been changed long before they are read."""
    monkeypatch.setattr(module, "_SETTLED", -(10**12))


def test_content_is_what_counts(files, tmp_path):
    assert file_digests(files, tmp_path / "memo") == [sha256(path) for path in files]
    copy = tmp_path / "copy"
    copy.write_bytes(b"a" * 100)
    assert file_digests([str(copy)], tmp_path / "memo") == [sha256(files[0])]


def test_an_unchanged_file_is_read_once(files, tmp_path, read, monkeypatch):
    settle(monkeypatch)
    first = file_digests(files, tmp_path / "memo")
    assert sorted(read) == files
    assert file_digests(files, tmp_path / "memo") == first
    assert sorted(read) == files


def test_a_file_that_was_changed_just_now_is_read_again(files, tmp_path, read):
    file_digests(files, tmp_path / "memo")
    file_digests(files, tmp_path / "memo")
    assert sorted(read) == sorted(files * 2)


def test_a_change_that_keeps_size_and_time_is_noticed(files, tmp_path, read, monkeypatch):
    settle(monkeypatch)
    times = os.stat(files[1]).st_atime_ns, os.stat(files[1]).st_mtime_ns
    file_digests(files, tmp_path / "memo")
    read.clear()
    time.sleep(0.02)  # one tick of the file system's clock
    with open(files[1], "wb") as file:
        file.write(b"x" * 100)
    os.utime(files[1], ns=times)
    assert file_digests(files, tmp_path / "memo") == [sha256(path) for path in files]
    assert read == [files[1]]


def test_a_damaged_memo_is_forgotten(files, tmp_path, monkeypatch):
    settle(monkeypatch)
    expected = file_digests(files, tmp_path / "memo")
    (memo,) = (tmp_path / "memo").iterdir()
    for content in ("", "[]", '{"format": 1, "files": []}', '{"format": 0, "files": {}}'):
        memo.write_text(content)
        assert file_digests(files, tmp_path / "memo") == expected


def test_a_memo_that_cannot_be_written_is_done_without(files, tmp_path, monkeypatch):
    settle(monkeypatch)
    assert file_digests(files, tmp_path / "a" / "memo") == [sha256(path) for path in files]  # "a" is a file


def test_a_missing_file_is_a_sentence(files, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'No image at ".*/gone"; check the data root and that the data set'):
        file_digests([*files, str(tmp_path / "gone")], tmp_path / "memo")
