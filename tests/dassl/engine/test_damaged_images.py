"""INPUT.ON_ERROR replace, in a run: how many images were replaced is in the record, which ones in the log."""

import os
import shutil
import signal

import pytest
import torch

SETTINGS = {"INPUT__ON_ERROR": "replace", "TRAIN__CHECKPOINT_SECONDS": 1e-9}


@pytest.fixture
def make(toys, pictures, tmp_path):
    """As the other toy runs, on pictures of its own, of which one of class 0 and two of class 1 are damaged."""
    toys.toy_trainer(pictures, tmp_path / "first")  # draws the pictures
    root = tmp_path / "data"
    shutil.copytree(pictures, root)
    for name in ("x_0_1", "x_1_0", "x_1_3"):
        (root / f"{name}.png").write_bytes(b"")
    return lambda output="run", **changes: toys.toy_trainer(root, tmp_path / output, **SETTINGS | changes)


def _told(text):
    """Paths that the log names while it runs, and its last word."""
    lines = text.splitlines()
    named = [line.split()[4] for line in lines if line.endswith("another image of its class takes its place")]
    return [path.rsplit("/", 1)[1] for path in named], [line for line in lines if "were replaced by others" in line]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_counts_and_names(make, record_of, capfd, workers, tmp_path):
    make(DATALOADER__NUM_WORKERS=workers).train()
    assert [row["replaced_images"] for row in record_of()["epochs"]] == [3] * 4  # each image once an epoch
    named, last = _told(capfd.readouterr().out)
    assert sorted(named) == ["x_0_1.png", "x_1_0.png", "x_1_3.png"]
    (line,) = last
    start, _, paths = line.partition("; restore or remove ")
    assert start == "12 damaged images were replaced by others of their class in training"
    assert sorted(paths.split(", ")) == [str(tmp_path / f"data/{name}") for name in sorted(named)]


def test_two_loaders_count_together(make, record_of, tmp_path):
    (tmp_path / "data/u_2_0.png").write_bytes(b"")
    make(TRAINER__NAME="LinearXU", TRAIN__COUNT_ITER="train_x").train()
    # an epoch is three batches of each loader: all 15 labelled and all 12 unlabelled images once
    assert [row["replaced_images"] for row in record_of()["epochs"]] == [4] * 4


@pytest.mark.parametrize("step", [1, 2, 4, 6, 11])
def test_the_count_is_right_after_an_interruption_in_any_step(make, killed, outcome, same, step, capsys):
    whole = make("whole")
    whole.train()
    expected = outcome(whole, "whole")
    capsys.readouterr()
    killed(make(), step)
    trainer = make()
    trainer.train()
    same(outcome(trainer), expected)
    named, last = _told(capsys.readouterr().out)
    assert last[0].startswith("12 damaged images")
    assert len(named) - len(set(named)) <= 1  # only one met in the batch that was not finished is named again


def test_the_count_is_right_after_a_signal(make, record_of, capsys):
    first = make(TRAIN__CHECKPOINT_SECONDS=0)
    first.interrupt = lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == 4 else None
    with pytest.raises(SystemExit):
        first.train()
    make(TRAIN__CHECKPOINT_SECONDS=0).train()
    assert [row["replaced_images"] for row in record_of()["epochs"]] == [3] * 4
    named, _ = _told(capsys.readouterr().out)
    assert sorted(named) == ["x_0_1.png", "x_1_0.png", "x_1_3.png"]  # once, though two processes trained


def test_a_run_that_stopped_at_an_image_can_go_on_by_replacing(make, record_of):
    with pytest.raises(RuntimeError, match=r"Cannot read the image .*\(empty file \(0 bytes\)\); restore or remove it"):
        make(INPUT__ON_ERROR="stop").train()
    make().train()
    assert [row["replaced_images"] for row in record_of()["epochs"]] == [3] * 4


def test_nothing_is_said_where_nothing_is_damaged(toys, pictures, tmp_path, record_of, capsys):
    toys.toy_trainer(pictures, tmp_path / "run", **SETTINGS).train()
    assert [row["replaced_images"] for row in record_of()["epochs"]] == [0] * 4
    assert _told(capsys.readouterr().out) == ([], [])


def test_loaders_of_another_make_count_nothing(make, record_of, toys, pictures, tmp_path):
    trainer = toys.toy_trainer(pictures, tmp_path / "run", **SETTINGS)
    trainer.train_loader_x = torch.utils.data.DataLoader(trainer.train_loader_x.dataset, batch_size=5)
    trainer.train()
    assert [row["replaced_images"] for row in record_of()["epochs"]] == [0] * 4


def test_a_test_image_stops_the_run(make, tmp_path):
    (tmp_path / "data/t_1_0.png").write_bytes(b"")
    with pytest.raises(RuntimeError, match=r"Cannot read the image .*t_1_0.png \(empty file"):
        make().train()
