"""`metrics.json`: what a run was asked to do, on what, and what came out, at full precision.

Written at the start, after each epoch and at the end; `finished` is true only when all that was asked is done.
"""

import contextlib
import datetime
import json
import math
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import nn
from yacs.config import CfgNode

import dassl
from dassl import distributed
from dassl.utils.files import write_json_file

FILE = "metrics.json"
DATA_FACTS = ("split_digest", "split_published", "sample_digest", "unlabelled_from")  # attributes of a data set
EVAL_FILE = "metrics-eval.json"  # of an evaluation in a folder whose metrics.json belongs to a training run


_FORM: dict[str, Any] = {
    "mode": str,
    "finished": bool,
    "config": dict,
    "epochs": list,
    "started": str,
    "wall_seconds": (int, float),
    "resumed": int,
    "final": (dict, type(None)),
}  # entry -> type; one that is not there is not damaged


class RunRecord:
    """The tree behind the file; `tree` may be filled freely, `write` cleans and dates it."""

    def __init__(self, path: Path, mode: str, facts: dict[str, Any]):
        self.path = path
        self.tree: dict[str, Any] = {
            "schema": 1,
            "finished": False,
            "mode": mode,
            **facts,
            "epochs": [],
            "final": None,
            "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "wall_seconds": 0.0,
            "resumed": 0,
        }
        self._seconds_before = 0.0
        self._since = time.monotonic()

    def wall_seconds(self) -> float:
        """Seconds of work, the time between an interruption and the resumption left out."""
        return self._seconds_before + time.monotonic() - self._since

    def not_before(self, earlier: dict[str, Any] | None) -> None:
        """Begin no earlier than the run that this one builds on, though the clock went back between them."""
        with contextlib.suppress(KeyError, TypeError, ValueError):
            started = (earlier or {})["started"]
            if datetime.datetime.fromisoformat(self.tree["started"]) < datetime.datetime.fromisoformat(started):
                self.tree["started"] = started

    def resume(self, epochs: list[dict[str, Any]], started: str, wall_seconds: float, resumed: int) -> None:
        """Continue the record of an interrupted run."""
        self.tree.update(epochs=list(epochs), started=started, resumed=resumed)
        self._seconds_before = wall_seconds

    def write(self) -> None:
        """Write the file atomically; of several processes the first one does.

        Raises:
            RuntimeError: it cannot be written.
        """
        self.tree["wall_seconds"] = self.wall_seconds()
        if distributed.is_main():
            write_json_file(self.path, plain(self.tree))


def read_record(folder: str | os.PathLike) -> dict[str, Any] | None:
    """The record of a run folder, None if there is none or it is damaged."""
    try:
        tree = json.loads((Path(folder) / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return tree if is_record(tree) else None


def is_record(tree: Any) -> bool:
    """Whether what is read of a record later has the form that `RunRecord` gives it."""
    if not isinstance(tree, dict) or not all(isinstance(tree[key], kind) for key, kind in _FORM.items() if key in tree):
        return False
    metrics = (tree.get("final") or {}).get("metrics") or {}
    return (
        isinstance(metrics, dict)
        and all(value is None or isinstance(value, (int, float)) for value in metrics.values())
        and all(
            isinstance(row, dict)
            and isinstance(row.get("epoch"), int)
            and isinstance(row.get("replaced_images", 0), int)
            for row in tree.get("epochs", [])
        )
    )


def open_record(folder: str | os.PathLike, mode: str, facts: dict[str, Any]) -> RunRecord:
    """A record for a run in a folder. An evaluation does not overwrite what a training run measured there."""
    earlier = read_record(folder)
    name = EVAL_FILE if mode == "eval" and earlier is not None and earlier.get("mode") == "train" else FILE
    return RunRecord(Path(folder) / name, mode, facts)


def collect_facts(trainer: Any) -> dict[str, Any]:
    """What is known of a run before it starts."""
    cfg, data = trainer.cfg, getattr(getattr(trainer, "dm", None), "dataset", None)
    return {
        "trainer": cfg.TRAINER.NAME,
        "dataset": cfg.DATASET.NAME,
        "classes": cfg.DATASET.get("SUBSAMPLE_CLASSES"),
        "num_shots": cfg.DATASET.NUM_SHOTS,
        "seed": cfg.SEED,
        "backbone": cfg.MODEL.BACKBONE.NAME or None,
        "config": plain(cfg),
        "versions": versions(),
        "device": str(trainer.device),
        "processes": distributed.world_size(),
        "parameters": count_parameters(trainer),
        "class_names": getattr(data, "classnames", None),
        "data": {
            **{part: _length(getattr(data, part, None)) for part in ("train_x", "train_u", "val", "test")},
            **{fact: getattr(data, fact, None) for fact in DATA_FACTS},
        },
    }


def _length(items: Any) -> int | None:
    return None if items is None else len(items)


def versions() -> dict[str, str]:
    """Versions that results may depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "dassl": dassl.__version__,
    }


def count_parameters(trainer: Any) -> dict[str, int]:
    """Trained tensors, their scalars, and all scalars, of the registered models and of all that the trainer holds."""
    modules = [*vars(trainer).values(), *trainer._models.values()]
    unique = {id(p): p for module in modules if isinstance(module, nn.Module) for p in module.parameters()}
    trained = [p for p in unique.values() if p.requires_grad]
    return {
        "trainable_tensors": len(trained),
        "trainable_scalars": sum(p.numel() for p in trained),
        "total_scalars": sum(p.numel() for p in unique.values()),
    }


def plain(value: Any) -> Any:
    """JSON's types only: tuples, arrays and tensors become lists or numbers, what is not finite None."""
    if isinstance(value, (CfgNode, dict)):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (str, bool, int)) or value is None:
        return value
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)
