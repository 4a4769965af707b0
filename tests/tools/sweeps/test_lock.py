"""Locks: one owner a folder, and what becomes of a dead owner's."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from tools.sweeps import lock
from tools.sweeps.lock import FILE, Lock, look, myself


@pytest.fixture(autouse=True)
def _no_slurm(monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def dead_pid():
    """Of a process that is over."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def write(folder, age=0.0, **changes):
    """A lock by hand: this process's, but for the changes; its last sign of life so many seconds ago."""
    owner = vars(myself("theirs")) | changes
    folder.mkdir(exist_ok=True)
    (folder / FILE).write_text(json.dumps(owner))
    os.utime(folder / FILE, (time.time() - age,) * 2)


def test_taken_and_given_back(tmp_path):
    first, second = Lock(tmp_path / "run", "one"), Lock(tmp_path / "run", "two")
    assert first.acquire() is None
    assert first.taken_from is None
    held = second.acquire()
    assert (held.owner.token, held.owner.pid, held.owner.host) == ("one", os.getpid(), os.uname().nodename)
    second.release()  # not its own
    assert look(tmp_path / "run").owner.token == "one"
    first.release()
    assert second.acquire() is None
    assert os.listdir(tmp_path / "run") == [FILE]


def test_of_a_process_that_is_gone(tmp_path, dead_pid):
    write(tmp_path, pid=dead_pid, born=7)
    assert not look(tmp_path).alive()
    taking = Lock(tmp_path, "mine")
    assert taking.acquire() is None
    assert f"process {dead_pid} on {os.uname().nodename}, since " in str(taking.taken_from)
    assert look(tmp_path).owner.token == "mine"
    assert os.listdir(tmp_path) == [FILE]


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="only /proc tells when a process began")
def test_of_a_process_whose_id_is_used_again(tmp_path):
    write(tmp_path, born=lock.birth(os.getpid()) - 1)
    assert not look(tmp_path).alive()


def test_holds_as_long_as_the_run_itself(tmp_path, dead_pid):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        held = Lock(tmp_path, "theirs")
        held.acquire()
        held.has_child(child.pid)
        write(tmp_path, pid=dead_pid, child=child.pid, child_born=lock.birth(child.pid))
        assert look(tmp_path).alive()
    finally:
        child.communicate(b"\n")
    assert not look(tmp_path).alive()


@pytest.mark.parametrize(("age", "alive"), [(10, True), (lock.STALE - 5, True), (lock.STALE + 5, False)])
def test_of_another_host(tmp_path, dead_pid, age, alive):
    write(tmp_path, age, host="elsewhere", pid=dead_pid)
    assert look(tmp_path).alive() is alive
    busy = Lock(tmp_path, "mine").acquire()
    assert (busy is not None) is alive
    if busy:
        assert str(busy).endswith(f"last sign of life {lock.span(age)} ago")


def test_of_another_container_on_this_host(tmp_path, dead_pid):
    write(tmp_path, 10, space="pid:[1]", pid=dead_pid)
    assert look(tmp_path).alive()


@pytest.mark.parametrize(("queue", "alive"), [({"12_3"}, True), ({"12_4"}, False), (None, True)])
def test_of_a_slurm_job(tmp_path, queue, alive):
    write(tmp_path, 10, host="node7", slurm_job="12_3")
    assert look(tmp_path).alive(queue) is alive
    assert (Lock(tmp_path, "mine").acquire(lambda: queue) is not None) is alive


def test_of_this_very_slurm_job_before_it_was_requeued(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    write(tmp_path, 10, host="node7", pid=1, slurm_job="12_3")
    taking = Lock(tmp_path, "mine")
    assert taking.acquire() is None
    assert taking.owner.slurm_job == "12_3"
    assert "SLURM job 12_3, since" in str(taking.taken_from)


@pytest.mark.parametrize(("age", "alive"), [(0, True), (lock.STALE + 5, False)])
def test_that_tells_nothing(tmp_path, age, alive):
    (tmp_path / FILE).write_text("")
    os.utime(tmp_path / FILE, (time.time() - age,) * 2)
    assert look(tmp_path).alive() is alive
    assert (Lock(tmp_path, "mine").acquire() is not None) is alive


def test_signs_of_life(tmp_path):
    mine = Lock(tmp_path, "mine")
    mine.acquire()
    os.utime(tmp_path / FILE, (0, 0))
    assert mine.beat()
    assert look(tmp_path).age < 60
    write(tmp_path)
    assert not mine.beat()
    mine.release()
    assert look(tmp_path).owner.token == "theirs"


@pytest.mark.parametrize("dead", [False, True])
def test_only_one_of_many_gets_it(tmp_path, dead_pid, dead):
    if dead:
        write(tmp_path, pid=dead_pid, born=7)
    locks = [Lock(tmp_path, f"thread {n}") for n in range(16)]
    start, got = threading.Barrier(len(locks)), []

    def take(one):
        start.wait()
        if one.acquire() is None:
            got.append(one.owner.token)

    threads = [threading.Thread(target=take, args=(one,)) for one in locks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [look(tmp_path).owner.token]


def test_a_slow_one_does_not_replace_a_new_owner(tmp_path, dead_pid):
    """Both saw the dead owner; the second one acts after the first has taken its place."""
    write(tmp_path, pid=dead_pid, born=7)
    seen = look(tmp_path)
    assert Lock(tmp_path, "fast").acquire() is None
    assert not Lock(tmp_path, "slow")._replace(seen)
    assert look(tmp_path).owner.token == "fast"


def test_a_claim_whose_maker_died_does_not_hold_for_ever(tmp_path, dead_pid):
    write(tmp_path, pid=dead_pid, born=7)
    claim = tmp_path / f".{FILE}.theirs"
    claim.touch()
    assert Lock(tmp_path, "mine").acquire() is not None
    os.utime(claim, (time.time() - lock.STALE - 5,) * 2)
    assert Lock(tmp_path, "mine").acquire() is None
