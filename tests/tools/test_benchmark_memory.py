"""Peak memory is that of a process of its own; what does not fit is an error, not the end."""

import multiprocessing
import resource

import pytest
import torch

from clip.model import CLIPSpec
from tools.benchmarks import memory
from tools.benchmarks.memory import DoesNotFit, Request, available, bounded, training_peak
from tools.benchmarks.subjects import CONFIGS, PLAIN, Setting

TINY = CLIPSpec(32, 32, 2, 64, 8, 77, 49408, 64, 1, 2)


def request(what, n_classes=4, **changes):
    return Request(what, Setting(batch=2, train_batch=2, spec=TINY, **changes), "fp32", n_classes)


def test_a_child_process_measures_its_growth():
    ballast = torch.ones(2**26)  # 256 MB here must not count there
    peak = training_peak(request(PLAIN, 40))
    assert ballast.sum() > 0
    # at least the frozen weights; the whole child with its imports would be above 300 MB
    least = 4 * sum(p.numel() for p in memory.Frozen(request(PLAIN).setting, "fp32").backbone().parameters())
    assert least < peak < 300e6


def sent(given):
    """What the child would send, without a process."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    memory._send_growth(given, sender, torch.get_num_threads())
    return receiver.recv()


def test_a_child_says_what_is_wrong():
    kind, why = sent(request(CONFIGS / "ZeroshotCLIP/vit_b16.yaml"))
    assert (kind, why) == ("error", "ZeroshotCLIP has no training step.")
    kind, why = sent(Request(PLAIN, Setting(batch=10**8, spec=TINY), "fp32", 4))
    assert kind == "memory"
    assert why.startswith("does not fit in memory: no room for another ")


class Child:
    """A process that was not started: ends with `exitcode` after sending `answer`."""

    exitcode, answer = 0, None

    def __init__(self, target, args):
        self.sender = args[1]

    def start(self):
        if self.answer:
            self.sender.send(self.answer)

    def join(self):
        pass


@pytest.mark.parametrize(
    ("answer", "exitcode", "error", "message"),
    [
        (("memory", "does not fit in memory: 3"), 0, DoesNotFit, "does not fit in memory: 3"),
        (None, -9, DoesNotFit, "does not fit in memory: the process was ended"),
        (("error", "shapes differ"), 0, RuntimeError, "the process that measures memory failed: shapes differ"),
        (None, 1, RuntimeError, "the process that measures memory failed: exit code 1"),
    ],
)
def test_how_a_child_fails_is_told(monkeypatch, answer, exitcode, error, message):
    kind = type("Ended", (Child,), {"answer": answer, "exitcode": exitcode})
    monkeypatch.setattr(multiprocessing.get_context("spawn").__class__, "Process", kind)
    with pytest.raises(error) as caught:
        training_peak(request(PLAIN))
    assert str(caught.value) == message


def test_on_cuda_it_is_the_allocators_highest_figure_above_what_was_there(monkeypatch):
    calls = []
    for name, value in (("memory_allocated", 300), ("max_memory_allocated", 1000), ("reset_peak_memory_stats", None)):
        monkeypatch.setattr(f"torch.cuda.{name}", lambda device, name=name, value=value: calls.append(name) or value)
    for name in ("synchronize", "empty_cache"):
        monkeypatch.setattr(f"torch.cuda.{name}", lambda *device: None)
    monkeypatch.setattr(memory, "_train", lambda given: calls.append("train"))
    assert training_peak(request(PLAIN, device="cuda")) == 700
    assert calls == ["memory_allocated", "reset_peak_memory_stats", "train", "max_memory_allocated"]

    def too_large(given):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has")

    monkeypatch.setattr(memory, "_train", too_large)
    with pytest.raises(DoesNotFit, match=r"^does not fit in memory: no room for another 2.00 GiB$"):
        training_peak(request(PLAIN, device="cuda"))


def test_other_devices_are_refused():
    with pytest.raises(RuntimeError, match=r"^peak memory is measured on CUDA and on a CPU, not on mps$"):
        training_peak(request(PLAIN, device="mps"))


def test_an_allocation_beyond_the_free_memory_is_an_error_inside_the_bound():
    before, n = resource.getrlimit(resource.RLIMIT_DATA), int(0.95 * available())
    assert n > 0
    with bounded(torch.device("cpu")), pytest.raises(RuntimeError, match="can't allocate memory"):
        torch.empty(n, dtype=torch.int8)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert torch.empty(n, dtype=torch.int8).numel() == n  # never touched, so nothing is used


def test_a_container_may_have_less(monkeypatch, tmp_path):
    class Fake(type(tmp_path)):
        def read_text(self, *args, **kwargs):
            found = {
                "/proc/meminfo": "MemTotal: 9 kB\nMemAvailable:    8 kB\n",
                "/sys/fs/cgroup/memory.max": limit,
                "/sys/fs/cgroup/memory.current": "1000\n",
            }
            return found[str(self)]

    monkeypatch.setattr(memory, "Path", Fake)
    limit = "max\n"
    assert available() == 8192
    limit = "3000\n"
    assert available() == 2000
