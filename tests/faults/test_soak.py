"""Short runs in a row leave nothing behind; `python -m tools.soak` does two hundred."""

import os
import threading

import pytest

from tools import soak
from tools.soak import KINDS, Held

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
        assert after.mib < before.mib + 16
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


def test_what_is_held_is_seen(tmp_path):
    (tmp_path / "tmp").mkdir()
    before = soak.look(tmp_path)
    go = threading.Event()
    thread = threading.Thread(target=go.wait)
    thread.start()
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(source, 1)
        os._exit(0)
    (tmp_path / "tmp" / "left").touch()
    (tmp_path / ".metrics.json.tmp-7").touch()
    after = soak.look(tmp_path)
    assert (after.files, after.threads) == (before.files + 2, before.threads + 1)
    assert (after.children, after.temporary) == (before.children + 1, before.temporary + 2)
    go.set()
    thread.join()
    os.write(sink, b"x")
    os.waitpid(child, 0)
    os.close(source)
    os.close(sink)


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
