import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dassl.utils import AverageMeter, MetricMeter


class CountReads(TorchDispatchMode):
    """Counts transfers of a number from a tensor to the host, which on a GPU wait for the device."""

    reads = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            self.reads += 1
        return func(*args, **(kwargs or {}))


def test_average_is_weighted():
    meter = AverageMeter()
    assert (meter.val, meter.avg, meter.sum, meter.count) == (0, 0, 0, 0)
    meter.update(2.0, n=3)
    meter.update(torch.tensor(4.0))
    assert meter.val == 4.0
    assert meter.sum == 10.0
    assert meter.count == 4
    assert meter.avg == 2.5
    meter.reset()
    assert (meter.val, meter.avg, meter.sum, meter.count) == (0, 0, 0, 0)


def test_ema_starts_at_zero():
    meter = AverageMeter(ema=True)
    meter.update(1.0)
    meter.update(3.0)
    assert meter.avg == pytest.approx(0.9 * 0.1 + 0.1 * 3.0)


def test_tensors_are_read_only_when_looked_at():
    meter = AverageMeter()
    with CountReads() as mode:
        for i in range(10):
            meter.update(torch.tensor([float(i)]))
        assert mode.reads == 0
        assert meter.avg == 4.5
        assert mode.reads == 10
        assert meter.val == 9.0
        assert mode.reads == 10


def test_memory_of_unread_tensors_is_bounded():
    meter = AverageMeter()
    for _ in range(1000):
        meter.update(torch.ones(()))
    assert len(meter._pending) < 300
    assert meter.sum == 1000.0


def test_value_at_the_time_of_update_counts():
    value = torch.tensor(1.0)
    meter = AverageMeter()
    meter.update(value)
    value.fill_(100.0)
    assert meter.val == 1.0


def test_vector_is_refused():
    with pytest.raises(ValueError, match=r"one number, got a tensor of shape \[2\]"):
        AverageMeter().update(torch.zeros(2))


def test_metric_meter_prints_in_order_of_arrival():
    meter = MetricMeter()
    meter.update(None)
    meter.update({"loss": 1.0, "acc": torch.tensor(50)})
    meter.update({"loss": 2.0, "acc": 25.0})
    assert list(meter.meters) == ["loss", "acc"]
    assert str(meter) == "loss 2.0000 (1.5000) acc 25.0000 (37.5000)"
    assert str(MetricMeter()) == ""


def test_metric_meter_delimiter():
    meter = MetricMeter(delimiter=" | ")
    meter.update({"a": 1, "b": 2})
    assert str(meter) == "a 1.0000 (1.0000) | b 2.0000 (2.0000)"


def test_metric_meter_takes_dicts_only():
    with pytest.raises(TypeError, match="takes a dict of name -> number, got list"):
        MetricMeter().update([1.0])
