import contextlib

import pytest
import torch

from dassl.engine import Precision
from dassl.engine.precision import without_autocast


@pytest.mark.parametrize(
    ("name", "device", "dtype"),
    [
        ("fp32", "cpu", torch.float32),
        ("bf16", "cpu", torch.bfloat16),
        ("amp", "cpu", torch.float32),
        ("fp16", "cuda", torch.float16),
        ("fp16", "mps", torch.float16),
    ],
)
def test_weights(name, device, dtype):
    precision = Precision(name, device)
    assert precision.weight_dtype is dtype
    assert precision.scaler is None


@pytest.mark.parametrize(("name", "dtype"), [("fp32", torch.float32), ("amp", torch.bfloat16)])
def test_autocast_on_the_cpu(name, dtype):
    with Precision(name, "cpu").autocast():
        assert torch.nn.Linear(2, 2)(torch.zeros(1, 2)).dtype is dtype


def test_stored_half_precision_needs_no_autocast():
    assert isinstance(Precision("bf16", "cpu").autocast(), contextlib.nullcontext)


def test_amp_scales_losses_on_cuda_only(monkeypatch):
    made = []
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device: made.append(device) or "scaler")
    assert Precision("amp", "cuda:0").scaler == "scaler"
    assert made == ["cuda"]
    assert Precision("amp", "cpu").scaler is None


def test_errors():
    with pytest.raises(ValueError, match="PREC must be one of fp32, amp, bf16, fp16, got 'half'"):
        Precision("half", "cpu")
    with pytest.raises(
        ValueError, match="PREC fp16 needs a GPU, but this run computes on the CPU; use fp32, bf16 or amp"
    ):
        Precision("fp16", torch.device("cpu"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_amp_on_a_gpu():
    precision = Precision("amp", "cuda")
    assert precision.scaler.is_enabled()
    with precision.autocast():
        assert torch.nn.Linear(2, 2, device="cuda")(torch.zeros(1, 2, device="cuda")).dtype is torch.float16


def test_without_autocast():
    a, device = torch.ones(2, 2), torch.device("cpu")
    with torch.autocast("cpu", torch.bfloat16):
        assert (a @ a).dtype == torch.bfloat16
        with without_autocast(device):
            assert (a @ a).dtype == torch.float32
    assert isinstance(without_autocast(device), contextlib.nullcontext)
