"""Short runs in a row leave nothing behind; `python -m tools.soak` does two hundred."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools import soak
from tools.soak import KINDS, Held

ROOT = Path(__file__).parents[2]

RUNS = 3 * len(KINDS)


@pytest.mark.slow
def test_nothing_is_left_by_runs_in_a_row(capsys):
    """Eight kinds, three times: trained, tested, with workers, with kept features, stopped, continued, failed."""
    held, seconds = soak.soak(RUNS)
    first, last = held[len(KINDS) : 2 * len(KINDS)], held[-len(KINDS) :]
    for before, after in zip(first, last, strict=True):  # of the same kind
        assert after.files <= before.files
        assert after.threads <= before.threads
        assert (after.children, after.temporary) == (0, 0)
    # the allocator keeps a block or two of the word embeddings' 12 MiB now and then; runs that left one would leave 16
    assert min(run.mib for run in last) < min(run.mib for run in first) + 60
    assert seconds > 0
    assert capsys.readouterr().out == ""


def held(n=40, **changes):
    """Numbers of n runs; `changes` are functions of the run."""
    return [
        Held(
            *(
                {"mib": 100, "files": 6, "threads": 2, "children": 0, "temporary": 0}
                | {k: f(i) for k, f in changes.items()}
            ).values()
        )
        for i in range(n)
    ]


def test_growth_is_told(capsys):
    assert soak.report(held(mib=lambda i: 100 + 20 * (i > 8)), 60) == 0  # in the beginning it may
    assert capsys.readouterr().out.endswith(
        "40 runs in 60 s; least memory of the second and the last quarter: +0.0 MiB\nnothing grew\n"
    )
    assert soak.report(held(mib=lambda i: 100 + 0.2 * i, files=lambda i: 6 + i // 20), 60) == 1
    assert capsys.readouterr().out.endswith("\ngrown: memory by 4.0 MiB, files from 6 to 7\n")


HOLDING = """
import os, subprocess, sys, threading
from pathlib import Path
from tools import soak

folder = Path(sys.argv[1])
before = soak.look(folder)
threading.Thread(target=threading.Event().wait, daemon=True).start()
held = os.pipe()
child = subprocess.Popen(["sleep", "60"])
(folder / "tmp" / "left").touch()
(folder / ".metrics.json.tmp-7").touch()
after = soak.look(folder)
child.kill()
print(*(getattr(after, name) - getattr(before, name) for name in ("files", "threads", "children", "temporary")))
"""


def test_what_is_held_is_seen(tmp_path):
    """In a process of its own: threads of other tests come to their end when they like."""
    (tmp_path / "tmp").mkdir()
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "Dassl.pytorch")])}
    run = [sys.executable, "-c", HOLDING, str(tmp_path)]
    assert subprocess.run(run, env=env, capture_output=True, text=True, timeout=120).stdout == "2 1 1 2\n"


def test_refusals(capsys, monkeypatch, tmp_path):
    assert soak.main(["--runs", "3"]) == 1
    assert capsys.readouterr().err == "error: --runs must be at least 16, got 3.\n"
    monkeypatch.setattr(soak, "PROC", tmp_path)
    assert soak.main(["--runs", "20"]) == 1
    assert "counted in /proc, which this system does not have" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setitem(KINDS, "train", lambda folder: (print("Error: no luck"), (1, 0))[1])
    assert soak.main(["--runs", "20"]) == 1
    assert capsys.readouterr().err == "error: Run 1 (train) ended with 1 instead of 0: Error: no luck\n"
