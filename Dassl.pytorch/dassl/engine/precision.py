"""The four precisions of the family: what frozen weights are stored in, autocast, and loss scaling."""

import contextlib
from contextlib import AbstractContextManager

import torch

WEIGHT_DTYPES = {
    "fp32": torch.float32,
    "amp": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def without_autocast(device: torch.device) -> AbstractContextManager:
    """Context without autocast; where there is none it does nothing, so that a graph made of the code has no trace of
    it.
    """
    if not torch.is_autocast_enabled(device.type):
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


class Precision:
    """What a `TRAINER.<METHOD>.PREC` value means on a device.

    | name | frozen weights | autocast | loss scaling |
    |---|---|---|---|
    | fp32 | float32 | no | no |
    | amp | float32 | float16 on CUDA, bfloat16 elsewhere | on CUDA |
    | bf16 | bfloat16 | no | no |
    | fp16 | float16 | no | no |

    Args:
        name: `fp32`, `fp16`, `bf16` or `amp`.
        device: where the run computes.

    Raises:
        ValueError: unknown name, or fp16 on a CPU, where it is slow and incomplete.
    """

    def __init__(self, name: str, device: torch.device | str):
        device = torch.device(device)
        if name not in WEIGHT_DTYPES:
            raise ValueError(f"PREC must be one of {', '.join(WEIGHT_DTYPES)}, got {name!r}.")
        if name == "fp16" and device.type == "cpu":
            raise ValueError("PREC fp16 needs a GPU, but this run computes on the CPU; use fp32, bf16 or amp.")
        self.name = name
        self.device = device
        self.weight_dtype = WEIGHT_DTYPES[name]
        self.scaler = torch.amp.GradScaler("cuda") if name == "amp" and device.type == "cuda" else None

    def autocast(self) -> AbstractContextManager:
        """Context in which forward passes run; does nothing but for `amp`."""
        if self.name != "amp":
            return contextlib.nullcontext()
        dtype = torch.float16 if self.device.type == "cuda" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype)
