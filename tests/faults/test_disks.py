"""Disks that are full or can't be written: real ones where a process may mount, else limits of the process."""

import errno
import json
import os
import re
import resource
import shutil
import signal
import stat

import pytest

from dassl.utils.logger import Logger
from tests.dassl.engine.conftest import without_times
from tests.faults.conftest import READ_ONLY, mount_disk, remount

SIZES = (4, 8, 16, 32, 48, 64, 96, 160)  # KiB: what fits ends at another file each time


def make_room(folder, kib, mounted):
    """So much on the disk; where there is none, for each file, which is all that can be limited then."""
    if mounted:
        remount(folder, kib)
    else:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (kib * 1024, hard))


def outcome(path):
    tree = without_times(json.loads(path.read_text()))
    return tree["epochs"], tree["final"]["metrics"]


def one_sentence(text):
    errors = re.findall("Error: Cannot .*", text)  # perhaps behind half a line
    assert len(errors) == 1, text
    assert "Traceback" not in text
    return errors[0]


@pytest.mark.slow
def test_a_full_disk_ends_the_run_with_a_sentence_and_the_same_command_goes_on(
    child, run_in, command, can_mount, tmp_path
):
    """One run for each size, on a disk that is then enlarged; each ends as one that always had room."""
    ends = tmp_path / "ends"
    ends.mkdir()

    def runs():
        assert run_in(output="whole") == 0  # here: with as many threads as the others, so that all digits are equal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        disk = tmp_path / "disk"
        for kib in SIZES:
            assert not can_mount or mount_disk(disk, kib)
            make_room(disk, kib, can_mount)
            code = run_in(output="disk/run")
            whole = {path.name for path in (disk / "run").rglob("*.json")}
            for path in (disk / "run").rglob("*.json"):
                json.loads(path.read_text())  # is whole
            make_room(disk, 16 * 1024, can_mount)
            again = run_in(output="disk/run")
            print(f"End {kib}: {code} {again} {sorted(whole)}")
            shutil.copy(disk / "run" / "metrics.json", ends / f"{kib}.json")
            shutil.rmtree(disk / "run")

    process = child(runs)
    assert process.wait(120) == 0, process.text()
    said = process.text()
    expected = outcome(tmp_path / "whole" / "metrics.json")
    refused = 0
    for kib in SIZES:
        _, _, rest = said.partition(f"End {kib}: ")
        code, again = rest.split()[:2]
        part = said.partition(f"End {kib}: ")[0].rpartition("End ")[2]
        assert again == "0", part
        assert outcome(ends / f"{kib}.json") == expected
        if code != "0":
            refused += 1
            sentence = one_sentence(part)
            assert "No space left on device" in sentence or "File too large" in sentence
            assert "free some space" in sentence
    assert refused >= 3


@pytest.mark.slow
def test_a_read_only_disk_is_a_sentence_and_can_be_read_from(child, run_in, can_mount, tmp_path):
    if not can_mount and os.geteuid() == 0:
        pytest.skip("root may write everywhere, and this machine lets no process mount a disk that it can't")
    assert run_in(output="trained") == 0

    def runs():
        disk = tmp_path / "disk"
        disk.mkdir(exist_ok=True)
        assert not can_mount or mount_disk(disk, 4096)
        shutil.copytree(tmp_path / "trained", disk / "run")
        shutil.copytree(tmp_path / "data", disk / "data")
        close(disk, can_mount)
        assert run_in(output="disk/other") == 1
        model = ("--eval-only", "--model-dir", str(disk / "run"), "--load-epoch", "2")
        assert run_in(output="tested", flags=(*model, "--root", str(disk / "data"))) == 0

    process = child(runs)
    assert process.wait(60) == 0, process.text()
    reason = os.strerror(errno.EROFS if can_mount else errno.EACCES)
    assert one_sentence(process.text()) == (
        f"Error: Cannot write in {tmp_path}/disk/other ({reason}); free some space, or choose an OUTPUT_DIR that can "
        "be written."
    )
    trained, tested = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("trained", "tested"))
    assert tested["final"]["metrics"] == trained["final"]["metrics"]


def close(disk, mounted):
    """Make a folder read-only: its disk, or, where nothing can be mounted, its permissions."""
    if mounted:
        remount(disk, 4096, READ_ONLY)
        return
    for path in [disk, *disk.rglob("*")]:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))


def test_a_log_that_can_not_be_written_any_more_says_so_once(tmp_path, capsys):
    logger = Logger("/dev/full")
    with pytest.raises(RuntimeError) as full:
        logger.write("a line\n")
    assert str(full.value) == (
        "Cannot write the log /dev/full (No space left on device); free some space, and give the same command again to "
        "go on."
    )
    logger.write("the traceback\n")  # goes to the console alone
    assert capsys.readouterr().out == "a line\nthe traceback\n"


def test_tensorboards_file_that_can_not_be_written_is_a_sentence(make, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RuntimeError, match=r"^Cannot write TensorBoard's file in .*/file/tb \(Not a directory\); free"):
        make().init_writer(str(tmp_path / "file" / "tb"))
