"""A clock that goes backwards: durations, saving by time, and the order of what is recorded do not follow it."""

import datetime
import io
import itertools
import json
import re
import sys
import time
from pathlib import Path

import pytest

from dassl.engine import record
from dassl.utils import logger
from tools.run_reader import load_metrics, read_run
from tools.run_state import current_state

NOON = datetime.datetime(2031, 3, 4, 12, 0, 0)


@pytest.fixture
def backwards(monkeypatch):
    """Each look at the clock finds it an hour earlier than the one before."""
    looks = itertools.count()

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return NOON - datetime.timedelta(hours=next(looks))

    for module in (record, logger):
        monkeypatch.setattr(module.datetime, "datetime", Clock)
    monkeypatch.setattr(time, "time", lambda: NOON.timestamp() - 3600 * next(looks))
    return looks


def test_durations_and_saving_by_time(make, backwards, record_of, capsys):
    trainer = make(TRAIN__CHECKPOINT_SECONDS=1e-9)
    saved = []
    save = trainer._save_point
    trainer._save_point = lambda epoch, batch, *rng: (saved.append((epoch, batch)), save(epoch, batch, *rng))
    trainer.train()
    tree = record_of()
    assert 0 < tree["wall_seconds"] < 60
    assert all(0 < row["seconds"] < 60 and row["images_per_second"] > 0 for row in tree["epochs"])
    assert saved == [point for n in range(4) for point in ((n, 1), (n, 2), (n, 3), (n + 1, 0))]
    assert re.search(r"^Elapsed: 0:00:0\d$", capsys.readouterr().out, re.MULTILINE)


def test_a_test_is_no_older_than_its_training(make, backwards, tmp_path):
    make("trained").train()
    make("tested").evaluate(str(tmp_path / "trained"), epoch=4)
    trained, tested = (load_metrics(tmp_path / name / "metrics.json") for name in ("trained", "tested"))
    assert tested["started"] == trained["started"]
    assert current_state(tmp_path / "tested", tmp_path / "trained", 4) == "finished"


def test_the_newest_log_is_the_last_by_name(backwards, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    for accuracy in (10, 20, 30, 40):
        logger.setup_logger(tmp_path)
        print(f"Finish training\n=> result\n* accuracy: {accuracy}.0%")
    sys.stdout.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "log.txt",
        *(f"log.txt-{NOON + datetime.timedelta(seconds=s):%Y-%m-%d-%H-%M-%S}" for s in range(3)),
    ]
    assert read_run(Path(tmp_path)).value == 40.0


def test_the_record_keeps_the_order_of_epochs(make, killed, backwards, tmp_path):
    killed(make(), 7)
    begun = json.loads((tmp_path / "run" / "metrics.json").read_text())["started"]
    make().train()
    tree = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert [row["epoch"] for row in tree["epochs"]] == [1, 2, 3, 4]
    assert (tree["resumed"], tree["started"]) == (1, begun)
