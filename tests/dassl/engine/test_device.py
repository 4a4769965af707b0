import pytest
import torch
from yacs.config import CfgNode

from dassl.engine import select_device


@pytest.fixture
def choose(monkeypatch):
    def run(device, cuda=False, mps=False, use_cuda=True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        return select_device(CfgNode({"DEVICE": device, "USE_CUDA": use_cuda})).type

    return run


@pytest.mark.parametrize(
    ("device", "cuda", "mps", "use_cuda", "expected"),
    [
        ("auto", True, True, True, "cuda"),
        ("auto", False, True, True, "mps"),
        ("auto", False, False, True, "cpu"),
        ("auto", True, True, False, "cpu"),
        ("cuda", True, False, False, "cpu"),
        ("cuda", True, False, True, "cuda"),
        ("cpu", True, True, True, "cpu"),
        ("mps", True, True, True, "mps"),
    ],
)
def test_device(choose, device, cuda, mps, use_cuda, expected):
    assert choose(device, cuda, mps, use_cuda) == expected


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(choose, device):
    with pytest.raises(
        RuntimeError, match=f"DEVICE is {device}, but torch finds no such device here; set DEVICE to auto"
    ):
        choose(device)


def test_an_unknown_device_is_refused(choose):
    with pytest.raises(ValueError, match="DEVICE must be one of auto, cuda, mps, cpu, got 'gpu'"):
        choose("gpu")


def test_a_config_without_the_key_means_auto():
    assert select_device(CfgNode({"USE_CUDA": False})).type == "cpu"
