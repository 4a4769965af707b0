"""The report of an epoch: averages, lines, and reading device values as late as possible."""

import math

import pytest
import torch

from dassl.engine import progress
from dassl.engine.progress import Progress


@pytest.fixture
def written():
    return []


@pytest.fixture
def report(written):
    return lambda **given: Progress(
        **{"epoch": 1, "max_epoch": 3, "num_batches": 4, "print_freq": 2, "advice": lambda: "try this.", **given},
        write_scalar=lambda tag, value, step: written.append((tag, value, step)),
    )


@pytest.fixture
def on_device(monkeypatch):
    """Values stay tensors until they are read, as they do on a GPU; counts the reads."""
    reads = []

    class Unread(torch.Tensor):
        def tolist(self):
            reads.append(self.numel())
            return super().tolist()

    monkeypatch.setattr(
        progress, "numbers", lambda terms: (list(terms), torch.tensor(list(terms.values())).as_subclass(Unread))
    )
    return reads


def add(report, batch, **losses):
    report.add(batch, losses, lr=0.1, data=0.25, total=0.5, images=8)


def test_line_averages_and_scalars_against_hand_written_ones(report, written, capsys):
    epoch = report()
    add(epoch, 0, loss=1.0, acc=torch.tensor([50.0]), none=None)
    add(epoch, 1, loss=torch.tensor(2.0), acc=100)
    assert capsys.readouterr().out == (
        "epoch [2/3] batch [2/4] time 0.500 (0.500) data 0.250 (0.250) loss 2.0000 (1.5000) "
        "acc 100.0000 (75.0000) lr 1.0000e-01 eta 0:00:03\n"  # 2 + 4 batches of half a second
    )
    assert written == [
        ("train/loss", 1.0, 4),
        ("train/acc", 50.0, 4),
        ("train/lr", 0.1, 4),
        ("train/loss", 1.5, 5),
        ("train/acc", 75.0, 5),
        ("train/lr", 0.1, 5),
    ]
    assert epoch.averages() == {"loss": 1.5, "acc": 75.0}
    assert (epoch.images, epoch.seconds) == (16, 1.0)


def test_a_step_without_losses_has_a_line(report, capsys):
    epoch = report(print_freq=1)
    epoch.add(0, None, lr=0.1, data=0.0, total=0.0, images=0)
    line = "epoch [2/3] batch [1/4] time 0.000 (0.000) data 0.000 (0.000) lr 1.0000e-01 eta 0:00:00\n"
    assert capsys.readouterr().out == line


def test_state_round_trip_continues_the_averages(report, capsys):
    whole, first, second = report(), report(), report()
    for epoch, batches in ((whole, (0, 1, 2, 3)), (first, (0, 1))):
        epoch.lr = 0.1
        for batch in batches:
            add(epoch, batch, loss=0.1 * batch + 0.7)
    second.load_state_dict(first.state_dict())
    for batch in (2, 3):
        add(second, batch, loss=0.1 * batch + 0.7)
    assert second.state_dict() == whole.state_dict()


def test_device_values_are_read_with_the_next_line(report, written, on_device, capsys):
    epoch = report()
    epoch.watch(0, {"loss": 1.0})
    add(epoch, 0, loss=1.0)
    assert (on_device, written) == ([], [])
    add(epoch, 1, loss=3.0)
    assert on_device == [3]  # one transfer for all
    assert [value for tag, value, _ in written if tag == "train/loss"] == [1.0, 2.0]
    assert "batch [2/4]" in capsys.readouterr().out


def test_the_wait_for_the_device_counts_to_the_steps_that_are_read(report, on_device, monkeypatch):
    clock = iter([10.0, 13.0])  # before and after the transfer
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    epoch = report()
    epoch.watch(0, {"loss": 1.0})
    add(epoch, 0, loss=1.0)
    add(epoch, 1, loss=3.0)
    assert epoch.seconds == pytest.approx(0.5 + 0.5 + 3.0)
    assert epoch.batch_time.avg == pytest.approx(2.0)


def test_lines_of_a_short_epoch_wait_a_second_to_be_read_together(report, on_device, capsys, monkeypatch):
    clock = [progress.time.monotonic()]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    epoch = report(print_freq=10)
    add(epoch, 0, loss=1.0)
    assert capsys.readouterr().out == ""
    clock[0] += 1.5
    add(epoch, 1, loss=2.0)
    assert on_device == [2]
    assert [line[12:24] for line in capsys.readouterr().out.splitlines()] == ["batch [1/4] ", "batch [2/4] "]
    add(epoch, 2, loss=2.0)
    epoch.flush()
    assert "batch [3/4]" in capsys.readouterr().out


def test_a_late_read_names_the_first_bad_step(report, on_device):
    epoch = report(print_freq=4)
    add(epoch, 0, loss=1.0)
    add(epoch, 1, loss=math.nan, kd=0.5)
    add(epoch, 2, loss=math.nan, kd=math.inf)
    message = r"^Loss is infinite or NaN in epoch 2, batch 2 of 4 \(loss nan, kd 0.5\); try this.$"
    with pytest.raises(FloatingPointError, match=message):
        epoch.flush()


def test_watched_terms_are_checked_at_once_on_the_cpu(report):
    epoch = report()
    epoch.watch(0, {"loss": torch.tensor(1.0), "kd": 2.0})
    with pytest.raises(FloatingPointError, match=r"batch 3 of 4 \(loss 1, kd -inf\)"):
        epoch.watch(2, {"loss": torch.tensor(1.0), "kd": torch.tensor(-math.inf)})
    assert epoch.averages() == {}


def test_what_is_no_number_is_refused(report):
    with pytest.raises(ValueError, match=r"'loss' must be one number, got a tensor of shape \[2\]"):
        add(report(), 0, loss=torch.zeros(2))
    with pytest.raises(TypeError, match="forward_backward must return a dict of losses or None, got float"):
        report().add(0, 1.0, 0.1, 0.0, 0.0, 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_steps_on_a_gpu_do_not_wait_for_it(report, written):
    epoch = report(num_batches=100, print_freq=50)
    terms = {"loss": torch.tensor(0.7, device="cuda"), "acc": torch.tensor([50.0], device="cuda"), "plain": 1.0}
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in range(49):
            epoch.watch(batch, {"loss": terms["loss"]})
            add(epoch, batch, **terms)
            terms["loss"].add_(0.0)  # the caller may go on with its tensors
        torch.cuda.set_sync_debug_mode("default")
        assert not written
        add(epoch, 49, **terms)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert epoch.averages() == {"loss": pytest.approx(0.7), "acc": 50.0, "plain": 1.0}
