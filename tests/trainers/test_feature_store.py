"""Stores of features under real faults: killed and concurrent writers, damaged files, full disks, closed folders."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from trainers.feature_store import GIB, FeatureWriter, open_store, store_lock

FACTS = {"images": "abc", "views": 0}
ROWS = 7


def columns():
    numbers = np.random.default_rng(3)
    return {
        "pooled": numbers.normal(size=(ROWS, 4)).astype(np.float32),
        "hidden:1": numbers.normal(size=(ROWS, 3, 2)).astype(np.float16),
        "kept": numbers.integers(0, 9, (ROWS, 5)).astype(np.int32),
    }


def fill(place, data=None, limit=GIB, between=lambda rows: None):
    """Write a store in batches of three rows; `between` is called after each."""
    data = data or columns()
    dtypes = {name: array.dtype.name for name, array in data.items()}
    with store_lock(place, lambda: None), FeatureWriter(place, FACTS, {"dataset": "Toy"}, ROWS, limit) as writer:
        for start in range(0, ROWS, 3):
            batch = {name: array[start : start + 3] for name, array in data.items()}
            if start == 0:
                writer.begin(batch, dtypes, {"n_fused": 0})
            writer.add(batch)
            between(start)


def assert_whole(place):
    store = open_store(place, FACTS)
    assert store is not None
    for name, expected in columns().items():
        np.testing.assert_array_equal(store.read(name, np.arange(ROWS)), expected)


def child(action):
    """Run `action` in a forked process; its exit code, or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return pid


def exit_code(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def visible(folder):
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


@pytest.fixture
def place(tmp_path):
    return tmp_path / "cache" / "Toy-plain-0123"


def test_what_was_written_is_read_in_any_order(place):
    fill(place)
    store = open_store(place, FACTS)
    rows = np.array([5, 0, 5, 2])
    for name, expected in columns().items():
        values = store.read(name, rows)
        assert values.dtype == expected.dtype
        np.testing.assert_array_equal(values, expected[rows])
    assert store.columns == list(columns())
    assert store.scalars == {"n_fused": 0}
    assert store.dtypes["hidden:1"] == "float16"
    assert visible(place.parent) == {place.name}


def test_values_are_mapped_and_what_is_read_is_a_copy(place):
    fill(place)
    store = open_store(place, FACTS)
    store.read("pooled", np.arange(ROWS))[:] = 0
    assert_whole(place)


# --- writers that die


@pytest.mark.parametrize("moment", ["first batch", "last batch", "before the rename"])
def test_a_killed_writer_leaves_nothing_that_is_read(place, monkeypatch, moment):
    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    def write():
        if moment == "before the rename":
            monkeypatch.setattr(os, "rename", die)
            fill(place)
        else:
            fill(place, between=lambda start: start == (0 if moment == "first batch" else 6) and die())

    assert exit_code(child(write)) == -signal.SIGKILL
    (left,) = visible(place.parent)
    assert left.startswith(f".{place.name}.tmp-")
    assert open_store(place, FACTS) is None
    fill(place)  # the lock died with its process, and what was left is removed
    assert_whole(place)
    assert visible(place.parent) == {place.name}


def test_an_exception_leaves_nothing(place):
    def interrupt(start):
        raise SystemExit(143)

    with pytest.raises(SystemExit):
        fill(place, between=interrupt)
    assert visible(place.parent) == set()


def test_two_writers_make_one_store(place, tmp_path):
    log = tmp_path / "log"

    def write_if_need_be():
        with store_lock(place, lambda: None):
            if open_store(place, FACTS) is None:
                with log.open("a") as file:
                    file.write("filled\n")
                with FeatureWriter(place, FACTS, {}, ROWS, GIB) as writer:
                    writer.begin(columns(), {name: array.dtype.name for name, array in columns().items()}, {})
                    time.sleep(0.3)
                    writer.add(columns())
        assert_whole(place)

    writers = [child(write_if_need_be) for _ in range(3)]
    assert [exit_code(pid) for pid in writers] == [0, 0, 0]
    assert log.read_text() == "filled\n"
    assert_whole(place)
    assert visible(place.parent) == {place.name}


def test_who_waits_says_so_and_can_be_stopped(place, capsys):
    place.parent.mkdir()
    ready = place.parent / "ready"

    def hold():
        with store_lock(place, lambda: None):
            ready.touch()
            time.sleep(60)

    holder = child(hold)
    while not ready.exists():
        time.sleep(0.01)

    def stop():
        raise SystemExit(143)

    with pytest.raises(SystemExit), store_lock(place, stop):
        pass
    os.kill(holder, signal.SIGKILL)
    exit_code(holder)
    assert capsys.readouterr().out == f"Feature cache: another process is writing {place}; waiting for it\n"
    with store_lock(place, stop):  # free again
        pass


# --- files that are not what they were


@pytest.mark.parametrize("file", ["pooled.bin", "hidden_1.bin", "kept.crc", "manifest.json"])
def test_a_truncated_file_is_noticed_and_the_store_made_anew(place, capsys, file):
    fill(place)
    os.truncate(place / file, (place / file).stat().st_size - 2)
    capsys.readouterr()
    assert open_store(place, FACTS) is None
    said = capsys.readouterr().out
    assert re.fullmatch(rf"Note: the feature cache {place} is damaged \(.+\) and is made anew\n", said)
    fill(place)
    assert_whole(place)


def test_a_missing_file_is_noticed(place):
    fill(place)
    (place / "pooled.bin").unlink()
    assert open_store(place, FACTS) is None


def test_a_manifest_of_other_features_is_noticed(place, capsys):
    fill(place)
    tree = json.loads((place / "manifest.json").read_text())
    tree["facts"]["views"] = 3
    (place / "manifest.json").write_text(json.dumps(tree))
    assert open_store(place, FACTS) is None
    assert "(manifest.json belongs to other features)" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "file"), [("pooled", "pooled.bin"), ("hidden:1", "hidden_1.bin")])
def test_a_flipped_bit_is_noticed_when_its_row_is_read(place, name, file):
    fill(place)
    content = bytearray((place / file).read_bytes())
    content[-1] ^= 4  # in the last row
    (place / file).write_bytes(content)
    store = open_store(place, FACTS)
    np.testing.assert_array_equal(store.read(name, np.arange(ROWS - 1)), columns()[name][:-1])
    with pytest.raises(RuntimeError) as caught:
        store.read(name, np.array([2, ROWS - 1]))
    assert str(caught.value) == (
        f"The feature cache {place} is damaged ('{name}', row 6 is not what was written); remove it with "
        f"`python tools/feature_cache.py clear {place}` and run again."
    )


def test_flipped_checksums_are_noticed(place, capsys):
    fill(place)
    content = bytearray((place / "pooled.crc").read_bytes())
    content[0] ^= 1
    (place / "pooled.crc").write_bytes(content)
    assert open_store(place, FACTS) is None
    assert "(pooled.crc is not what was written)" in capsys.readouterr().out


# --- room


def test_a_store_beyond_the_limit_is_refused_before_it_is_written(place, capsys):
    need = sum(array.nbytes + 4 * ROWS for array in columns().values())
    with pytest.raises(RuntimeError) as caught:
        fill(place, limit=need - 1)
    assert str(caught.value) == (
        f"The feature cache needs {need / GIB:.3g} GiB for 7 rows, but {place.parent} holds 0 GiB and "
        f"DATALOADER.CACHE_LIMIT allows {(need - 1) / GIB:.3g}; raise it, take fewer CACHE_VIEWS, CACHE_DTYPE fp16, or "
        "remove old caches with tools/feature_cache.py."
    )
    assert visible(place.parent) == set()
    assert capsys.readouterr().out == (
        f"Feature cache: {need / GIB:.3g} GiB for 7 rows of pooled, hidden:1, kept will be written to {place}; 0 of "
        f"{(need - 1) / GIB:.3g} GiB are in use\n"
    )
    fill(place, limit=need)
    assert_whole(place)


def test_other_stores_and_unfinished_ones_count(place):
    need = sum(array.nbytes + 4 * ROWS for array in columns().values())
    sibling = place.with_name("Toy-plain-4567")

    def second(start):
        if start == 0:  # only three of seven rows are written, but room for all is taken
            with pytest.raises(RuntimeError, match=r"DATALOADER\.CACHE_LIMIT allows"):
                fill(sibling, limit=2 * need - 1 - 4 * 3 * ROWS)

    fill(place, between=second)
    fill(sibling)
    assert_whole(sibling)


def test_a_full_disk_is_refused_first(place, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(RuntimeError, match=r"needs .* GiB for 7 rows, but the disk of .* has 9.31e-08 GiB left; take"):
        fill(place)
    assert visible(place.parent) == set()


# --- folders


@pytest.fixture
def closed():
    """Gives a folder that this process can't write, from `close()` on, even if it is root's."""
    folder = Path(tempfile.mkdtemp())
    was = os.geteuid()

    def close():
        folder.chmod(0o555)
        if was == 0:
            os.seteuid(65534)

    yield folder, close
    os.seteuid(was)
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_store_in_a_read_only_folder_is_read(closed):
    folder, close = closed
    fill(folder / "Toy-plain-0123")
    close()
    assert_whole(folder / "Toy-plain-0123")


def test_a_read_only_folder_is_a_sentence(closed):
    folder, close = closed
    close()
    with pytest.raises(RuntimeError) as caught:
        fill(folder / "Toy-plain-0123")
    assert str(caught.value) == (
        f"Cannot write the feature cache in {folder} (Permission denied); name a folder that can be written in "
        "DATALOADER.CACHE, or leave it empty."
    )


def test_a_file_in_the_place_of_the_folder_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RuntimeError, match=r"Cannot write the feature cache in .*/file \(File exists\)"):
        fill(tmp_path / "file" / "Toy-plain-0123")


def test_a_file_system_that_fails_meanwhile_is_a_sentence(place):
    """The smallest disk that fills: a limit of the process on the size of its files."""
    code = (
        "import resource, sys, signal, numpy as np; from pathlib import Path; import trainers.feature_store as s\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "place = Path(sys.argv[1])\n"
        "with s.store_lock(place, lambda: None), s.FeatureWriter(place, {}, {}, 4, s.GIB) as w:\n"
        "    a = {'pooled': np.zeros((4, 50000), np.float32)}\n"
        "    w.begin(a, {'pooled': 'float32'}, {})\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "    w.add(a)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(place)], capture_output=True, text=True, check=False)
    assert "RuntimeError: Cannot write the feature cache in" in run.stderr.splitlines()[-1]
    assert "(File too large)" in run.stderr
    assert visible(place.parent) == set()
