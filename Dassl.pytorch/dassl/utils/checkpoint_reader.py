"""Reading checkpoints that may come from anywhere: plain data passes, code never runs.

Dassl 0.6.3 pickled its warm-up schedules whole, with the optimiser inside. Such a file is read by putting a harmless
stand-in in the place of exactly those classes; what they held comes out as nested dicts.
"""

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch

_SCHEDULERS = ["StepLR", "MultiStepLR", "CosineAnnealingLR"]
_OPTIMIZERS = [("adam", "Adam"), ("adamw", "AdamW"), ("sgd", "SGD"), ("rmsprop", "RMSprop"), ("radam", "RAdam")]
_UPSTREAM = [
    *(f"torch.optim.lr_scheduler.{name}" for name in _SCHEDULERS),
    *(f"torch.optim.{module}.{name}" for module, name in _OPTIMIZERS),
    *(f"dassl.optim.radam.{name}" for name in ("RAdam", "PlainRAdam", "AdamW")),
    *(f"dassl.optim.lr_scheduler.{name}" for name in ("ConstantWarmupScheduler", "LinearWarmupScheduler")),
]


class _Stored:
    """Stand-in for a pickled scheduler or optimiser: keeps its attributes, does nothing."""


def _empty_dict(*factory: Any) -> dict:
    return {}  # a defaultdict is read as the dict it is


def _stand_ins() -> list[Any]:
    return [*((_Stored, name) for name in _UPSTREAM), (_empty_dict, "collections.defaultdict"), (dict, "builtins.dict")]


def read_checkpoint(path: Path) -> Any:
    """Load a file with `weights_only=True`, then, for files of Dassl 0.6.3, with the stand-ins.

    Raises:
        FileNotFoundError: no such file.
        RuntimeError: the file is damaged, or holds objects that are not plain data.
    """
    if not path.is_file():
        raise FileNotFoundError(f"File is not found at {path}; check the folder and the epoch.")
    try:
        try:
            return _load(path)
        except pickle.UnpicklingError as error:
            if not _is_refusal(error):
                raise
        with torch.serialization.safe_globals(_stand_ins()):
            return _plain(_load(path))
    except _DAMAGE as error:
        if not _is_refusal(error):
            reason = str(error).split("\n")[0].strip() or type(error).__name__
            raise RuntimeError(
                f"{path} is damaged or not a checkpoint ({reason[:160]}); delete it and continue from an older one, or "
                "train again."
            ) from error
        raise RuntimeError(
            f"{path} holds a pickled {_refused(error)}, which could run code when loaded; only tensors and plain data "
            "are read, so if you trust the file, save its state dict again."
        ) from error


# what torch raises on files that are cut off, overwritten, or of another kind
_DAMAGE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    AssertionError,
)


def _load(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected pickle protocol")  # torch's advice to ask it for code to be read
        return torch.load(path, map_location=_location, weights_only=True)


def _location(storage: Any, saved_on: str) -> Any:
    """A tensor saved on any CUDA device goes to the current one if there is one; everything else to the CPU."""
    return storage.cuda() if saved_on.startswith("cuda") and torch.cuda.is_available() else storage


def _plain(value: Any) -> Any:
    """Replace stand-ins by dicts of their attributes; a schedule's optimiser is dropped, the run has its own."""
    if isinstance(value, _Stored):
        return {k: _plain(v) for k, v in vars(value).items() if k != "optimizer"}
    if type(value) is dict:
        return {k: _plain(v) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(v) for v in value)
    return value


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, pickle.UnpicklingError) and ("GLOBAL" in str(error) or "reduce" in str(error))


def _refused(error: Exception) -> str:
    """Name of the refused object, out of torch's long message."""
    match = re.search(r"GLOBAL ([\w.]+)", str(error))
    return match[1] if match else "function call"
