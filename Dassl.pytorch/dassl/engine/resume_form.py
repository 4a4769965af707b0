"""What a resume file must look like before a run goes on from it: entries, types, generators that take their states.

A file of another program, or one that somebody edited, is refused as a whole; nothing of it is taken up.
"""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from .progress import Progress
from .record import is_record

FORMAT = 1

_NONE = type(None)
_FORM: dict[str, Any] = {
    "epoch": int,
    "batch": int,
    "models": dict,
    "optimizers": dict,
    "schedulers": dict,
    "scaler": (dict, _NONE),
    "best_result": (float, int),
    "extra": dict,
    "progress": (dict, _NONE),
    "loaders": dict,
    "rng_epoch": dict,
    "rng": dict,
    "record": dict,
    "config": dict,
    "train_digest": (str, _NONE),
    "made_with": dict,
}
_POSITION = ("seed", "epoch", "restart", "batches", "length")  # of a loader
_RECORD = ("epochs", "started", "wall_seconds", "resumed")


def wrong_entry(state: Any) -> str | None:
    """What of a file is not as `resume.capture` writes it, in a few words; None if all is."""
    if not isinstance(state, dict):
        return f"found a {type(state).__name__}"
    found = state.get("format")
    if not isinstance(found, int) or found != FORMAT:
        return f"found {' '.join(repr(found).split())[:40]}"
    for key, kind in _FORM.items():
        if key not in state:
            return f"it has no {key}"
        if not isinstance(state[key], kind):
            return f"its {key} is a {type(state[key]).__name__}"
    if not all(0 <= state[key] < 2**31 for key in ("epoch", "batch")):
        return "it counts no epochs and batches"
    if not all(_is_plain(state[key]) for key in ("config", "made_with")):
        return "its config or made_with is no plain data"
    if not all(isinstance(weights, Mapping) and _names(weights) for weights in state["models"].values()):
        return "its models are no state dicts"
    if not all(_is_loader(loader) for loader in state["loaders"].values()):
        return "its loaders are no positions"
    if not (all(key in state["record"] for key in _RECORD) and is_record(state["record"])):
        return "its record is none"
    for key in ("rng_epoch", "rng"):
        if not _sets_generators(state[key]):
            return f"its {key} sets no generator"
    if state["batch"] and not _is_progress(state["progress"]):
        return "its progress is none"
    return None


def _names(tree: Mapping) -> bool:
    return all(isinstance(name, str) for name in tree)


def _is_plain(tree: Any) -> bool:
    """Whether it is what JSON can hold, so that it can be compared."""
    if isinstance(tree, dict):
        return _names(tree) and all(map(_is_plain, tree.values()))
    if isinstance(tree, (list, tuple)):
        return all(map(_is_plain, tree))
    return tree is None or isinstance(tree, (bool, int, float, str))


def _is_loader(state: Any) -> bool:
    if not isinstance(state, dict) or not state:
        return state == {}
    damaged = state.get("damaged", {})
    return (
        all(isinstance(state.get(key), int) for key in _POSITION)
        and isinstance(state.get("replaced", 0), int)
        and isinstance(damaged, dict)
        and all(isinstance(text, str) for pair in damaged.items() for text in pair)
    )


def _sets_generators(state: dict[str, Any]) -> bool:
    """Try the states on generators of nobody's; CUDA's, which is only there with a device, by its type."""
    try:
        kind, keys, position, has_gauss, gauss = state["numpy"]
        random.Random().setstate(state["python"])
        np.random.RandomState().set_state((kind, keys.cpu().numpy().astype(np.uint32), position, has_gauss, gauss))
        torch.Generator().set_state(state["torch"].cpu())
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError, OverflowError):
        return False
    cuda = state.get("cuda", [])
    return isinstance(cuda, list) and all(isinstance(t, torch.Tensor) and t.dtype == torch.uint8 for t in cuda)


def _is_progress(state: Any) -> bool:
    meters = {"metrics", "batch_time", "data_time"}
    try:
        numbers = [state["images"], state["seconds"], *(() if state["lr"] is None else (state["lr"],))]
        for meter in [*state["metrics"].values(), *(state[name] for name in meters - {"metrics"})]:
            numbers += [meter[key] for key in ("val", "avg", "sum", "count")]
        Progress(0, 1, 1, 1, lambda *_: None, str).load_state_dict(state)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
        return False
    return all(isinstance(number, (int, float)) for number in numbers) and _names(state["metrics"])
