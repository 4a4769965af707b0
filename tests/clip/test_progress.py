"""What people see of a long transfer."""

import logging

import pytest

from clip import progress
from clip.progress import Progress, readable_bytes


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.7, "1.0 kB"),
        (1500, "1.5 kB"),
        (999_960, "1.0 MB"),
        (94_280_567, "94.3 MB"),
        (147_897_477_120, "147.9 GB"),
        (2.5e12, "2.5 TB"),
    ],
)
def test_readable_bytes(count, text):
    assert readable_bytes(count) == text


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_for_five_percent_or_a_minute(clock, caplog):
    caplog.set_level(logging.INFO)
    with Progress("a.zip", 1000) as shown:
        for clock[0], step in ((0.5, 100), (2, 10), (3, 39), (4, 1), (64, 1), (65, 10)):
            shown.advance(step)
    assert [record.message for record in caplog.records] == [
        "a.zip: 11% of 1.0 kB, 55 B/s, 16 s left",  # 110 bytes in 2 s
        "a.zip: 15% of 1.0 kB, 2 B/s, 360 s left",  # 151 bytes in 64 s
    ]


def test_without_a_total(clock, caplog):
    caplog.set_level(logging.INFO)
    with Progress("a.zip", None, initial=500) as shown:
        clock[0] = 10
        shown.advance(1000)
        clock[0] = 61
        shown.advance(720)
    assert caplog.messages == ["a.zip: 2.2 kB, 28 B/s"]


def test_a_bar_on_a_terminal(monkeypatch, capsys, caplog):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    with Progress("a.zip", 10) as shown:
        shown.advance(10)
    assert "a.zip" in capsys.readouterr().err
    assert caplog.text == ""
