"""What is printed while a sweep runs, and time spans."""

import io

import pytest

from tools.sweeps.files import span
from tools.sweeps.plan import expand
from tools.sweeps.progress import Progress
from tools.sweeps.state import Status


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1:00"), (725, "12:05"), (11525, "3:12:05"), (3 * 86400 + 3720, "3 d 01:02")],
)
def test_span(seconds, text):
    assert span(seconds) == text


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Closed(io.StringIO):
    def write(self, text):
        raise OSError("the terminal is gone")


@pytest.fixture
def jobs(copy, base2new):
    return expand(base2new, "output", copy.root)


@pytest.fixture
def statuses(jobs):
    return {jobs[0].key: Status("running", "epoch 3 of 5", seconds=10.0), jobs[1].key: Status("pending")}


def test_elsewhere_than_on_a_terminal_there_is_a_line_an_event(jobs, statuses, monkeypatch):
    stream = io.StringIO()
    progress = Progress(jobs, 1, stream)
    progress.tell(jobs[0], "started")
    progress.show(statuses)
    assert stream.getvalue()[8:] == "  started     base2new_train coop shapes 16 shots seed 1\n"
    monkeypatch.setattr("tools.sweeps.progress.SPARSE", 0.0)
    progress.show(statuses)
    progress.show(statuses)  # nothing happened since
    assert stream.getvalue().splitlines()[1:] == ["2 runs: 1 running, 1 pending; 0 s so far"]


def test_a_terminal_gets_a_table_below_the_events(jobs, statuses):
    stream = Terminal()
    progress = Progress(jobs, 1, stream)
    progress.say("== a plan")
    progress.show(statuses)
    progress.show(statuses)  # not yet again
    table = stream.getvalue().removeprefix("== a plan\n")
    assert [" ".join(line.split()) for line in table.splitlines()] == [
        "",
        "Protocol Method running pending",
        "-------------- -------- --------- ---------",
        "base2new_train coop 1",
        "base2new_test coop 1",
        "",
        "running base2new_train coop shapes 16 shots seed 1: epoch 3 of 5",
        "2 runs: 1 running, 1 pending; 0 s so far",
    ]
    progress.say("a failure")
    assert stream.getvalue().endswith("\x1b[8F\x1b[Ja failure\n")  # the table's eight lines are taken away


def test_a_terminal_that_is_gone_stops_nothing(jobs, statuses):
    progress = Progress(jobs, 1, Closed())
    progress.tell(jobs[0], "started")
    progress.live = True
    progress.say("more")
    progress.show(statuses)


def test_the_time_that_is_left(jobs, statuses):
    stream = Terminal()
    done = {jobs[0].key: Status("done", "61.00%", 61.0, 30.0), jobs[1].key: Status("done", "61.00%", 61.0, 5.0)}
    again = [
        *jobs,
        *expand(
            {"protocol": "base2new", "methods": ["coop"], "datasets": ["shapes"], "seeds": [2]},
            "output",
            jobs[0].run.root,
        ),
    ]
    open_runs = {again[2].key: Status("running", seconds=10.0), again[3].key: Status("pending")}
    progress = Progress(again, None, stream)
    progress._when = 0.0
    progress.show(done | open_runs)
    assert "4 runs: 2 done, 1 running, 1 pending; about 25 s left; 0 s so far" in stream.getvalue()
