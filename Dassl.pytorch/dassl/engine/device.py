"""Which device a run computes on."""

from typing import Any

import torch

from dassl import distributed

DEVICES = ("auto", "cuda", "mps", "cpu")


def select_device(cfg: Any) -> torch.device:
    """The device that `cfg.DEVICE` asks for; `auto` takes cuda, else mps, else cpu. `USE_CUDA: False` means cpu.

    Among several processes it is this one's own, and they do not compute on mps.

    Raises:
        ValueError: unknown value of `DEVICE`.
        RuntimeError: this machine has no such device, or not one for each process.
    """
    wanted = cfg.get("DEVICE", "auto")
    if wanted not in DEVICES:
        raise ValueError(f"DEVICE must be one of {', '.join(DEVICES)}, got {wanted!r}.")
    if not cfg.USE_CUDA:
        return torch.device("cpu")
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        wanted = next(name for name, there in available.items() if there)
        if wanted == "mps" and distributed.world_size() > 1:
            wanted = "cpu"
    if not available[wanted]:
        raise RuntimeError(f"DEVICE is {wanted}, but torch finds no such device here; set DEVICE to auto or cpu.")
    return distributed.own_device(torch.device(wanted))
