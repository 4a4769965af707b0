"""Two processes on one run folder: the second is told who the first is; no lock outlives its process."""

import errno
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time

import pytest
from filelock import FileLock

from dassl.engine import run_lock as module
from dassl.engine.run_lock import FILE, OWNER, run_lock
from tests.faults.conftest import until

HOLDER = "import sys, filelock as f; a = f.FileLock(sys.argv[1]); a.acquire(); print(flush=True); sys.stdin.read()"


@pytest.fixture
def holder():
    """Another program that holds the lock of a folder."""
    started = []

    def hold(folder):
        folder.mkdir(exist_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(folder / FILE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        started.append(process)
        process.stdout.readline()
        return process

    yield hold
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def training(child, make, tmp_path):
    """A run that stands in its step 4 until the file `go` is there."""

    def start(**changes):
        def train():
            trainer = make(**changes)

            def stand(step):
                if step == 4:
                    (tmp_path / "stands").touch()
                    until((tmp_path / "go").exists)

            trainer.interrupt = stand
            trainer.train()

        process = child(train)
        until(lambda: (tmp_path / "stands").exists() or os.waitpid(process.pid, os.WNOHANG)[0])
        return process

    return start


def test_the_second_is_told_who_the_first_is_and_disturbs_nothing(training, make, record_of, tmp_path):
    first = training()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    for start in (lambda t: t.train(), lambda t: t.evaluate(str(tmp_path / "run"), epoch=1)):
        with pytest.raises(RuntimeError) as refused:
            start(make())
        sentence = (
            rf"{tmp_path}/run is in use by process {first.pid} on {platform.node()} since [\d: -]+; wait until it is "
            r"through, stop it, or choose another OUTPUT_DIR for this run\."
        )
        assert re.fullmatch(sentence, str(refused.value))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before
    (tmp_path / "go").touch()
    assert first.wait() == 0, first.text()
    assert record_of()["finished"]
    assert not {FILE, OWNER} & set(os.listdir(tmp_path / "run"))
    trainer = make()
    trainer.train()
    assert trainer.steps == 0


def test_the_command_line_says_so_before_it_reads_anything(holder, run_trainer, tmp_path):
    holder(tmp_path / "run")
    code, out, err = run_trainer()
    assert (code, out) == (1, "Setting fixed seed: 1\n")
    assert err.startswith(f"Error: {tmp_path}/run is in use by another process; wait until it is through, stop it, or")
    assert os.listdir(tmp_path / "run") == [FILE]  # no log of the second one


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_process_leaves_no_lock(training, make, record_of, tmp_path, workers):
    """Nor do its loading processes, which may live on for seconds."""
    first = training(DATALOADER__NUM_WORKERS=workers)
    os.kill(first.pid, signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert json.loads((tmp_path / "run" / OWNER).read_text())["pid"] == first.pid
    make().train()
    assert record_of()["finished"]


def test_a_run_that_ended_while_the_second_waited_is_not_trained_again(make, monkeypatch, tmp_path, capsys):
    trainer, other = make(), make()
    checks = []
    finished = trainer._finished_before

    def check():
        checks.append(finished())
        if len(checks) == 1:
            other.train()
        return checks[-1]

    monkeypatch.setattr(trainer, "_finished_before", check)
    trainer.train()
    assert checks == [False, True]
    assert trainer.steps == 0


def test_a_dead_process_whose_children_hold_the_lock_is_waited_for(holder, child, tmp_path):
    """With versions of filelock before 4, forked children inherit a lock and drop it when they miss their parent."""
    dead = child(lambda: None)
    dead.wait()
    orphan = holder(tmp_path / "run")
    (tmp_path / "run" / OWNER).write_text(json.dumps({"pid": dead.pid, "host": platform.node()}))
    waiting = child(lambda: run_lock(tmp_path / "run").__enter__())
    time.sleep(0.5)
    assert os.waitpid(waiting.pid, os.WNOHANG)[0] == 0
    orphan.kill()
    assert waiting.wait() == 0, waiting.text()


def test_a_process_takes_its_lock_as_often_as_it_likes_and_a_forked_one_does_not(child, tmp_path):
    with run_lock(tmp_path / "run"):
        with run_lock(tmp_path / "run" / ".." / "run"):
            pass
        refused = child(lambda: run_lock(tmp_path / "run").__enter__())
        assert refused.wait() == 99
        assert f"is in use by process {os.getpid()} on" in refused.text()
    assert not (tmp_path / "run").exists()  # nothing was written there
    with run_lock(tmp_path / "run"):
        pass


def test_half_an_owner_is_nobody(holder, tmp_path):
    for text in ('{"pid": ', "[1]", '{"pid": "x"}', "[" * 100000):
        process = holder(tmp_path / "run")
        (tmp_path / "run" / OWNER).write_text(text)
        with pytest.raises(RuntimeError, match="is in use by "), run_lock(tmp_path / "run"):
            pass
        process.kill()
        process.wait()


def test_a_file_system_without_locks_is_no_reason_to_stop(make, monkeypatch, record_of, tmp_path, capsys):
    def refuse(self, timeout=None):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(FileLock, "acquire", refuse)
    make().train()
    assert record_of()["finished"]
    note = f"Note: {tmp_path}/run can't be locked ({os.strerror(errno.ENOLCK)}), so nothing keeps a second process out"
    assert note in capsys.readouterr().out
    assert module._holds == {}
