"""What of CUDA graphs can be tested without a GPU; the rest is in test_gpu.py."""

import pytest
import torch

from dassl.engine.precision import Precision
from trainers.base import check_graph
from trainers.captured import Captured


def test_on_a_cpu_the_function_is_called():
    calls = []
    captured = Captured(lambda x, y: calls.append(x.shape) or x + y)
    for n in (3, 3, 3, 3, 2):
        assert torch.equal(captured(torch.ones(n), torch.ones(n)), torch.full((n,), 2.0))
    assert len(calls) == 5


@pytest.mark.parametrize(
    ("device", "name", "reason"),
    [("cpu", "fp32", "the run is on cpu"), ("cuda", "amp", "amp looks at the gradients within a step")],
)
def test_where_steps_cannot_be_recorded_the_key_is_refused(device, name, reason, monkeypatch):
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device: device)
    with pytest.raises(ValueError, match=f"^CUDA_GRAPH records steps .* but {reason}; set it to False"):
        check_graph(torch.device(device), Precision(name, device))


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setattr("trainers.base.distributed.world_size", lambda: 2)
    with pytest.raises(ValueError, match="but several processes meet within a step; set it to False"):
        check_graph(torch.device("cuda"), Precision("bf16", "cuda"))


def test_a_run_on_a_cpu_refuses_the_key(make_any):
    with pytest.raises(ValueError, match="but the run is on cpu; set it to False"):
        make_any("CoOp", "DEVICE", "cpu", "CUDA_GRAPH", True)


def test_the_steps_of_a_graph_are_those_without(make_any):
    """On a CPU, where the recorded function is called: gradients, summary and optimiser step."""
    plain, other = make_any("CoOp", output="plain"), make_any("CoOp", output="other")
    other.graph = Captured(other.gradients, list(other.method.trainables().values()))
    plain.train()
    other.train()
    assert all(torch.equal(a, b) for a, b in zip(plain.method.parameters(), other.method.parameters(), strict=True))
    rows = [[e["train"] for e in trainer._record.tree["epochs"]] for trainer in (plain, other)]
    assert rows[0] == rows[1]
