"""The resume file: all that a run needs to go on as if it had not been interrupted.

One file a run, `<OUTPUT_DIR>/resume.pth.tar`, of tensors and plain data, replaced atomically. A *point* in a run is
`(epoch, batch)`: that many epochs finished, and that many batches of the next one.
"""

import hashlib
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dassl import distributed
from dassl.data import loader_state, restore_loader
from dassl.optim.lr_scheduler import load_scheduler_state, scheduler_state, try_out
from dassl.utils.torchtools import MISFIT, in_words, load_checkpoint, load_exactly

from .record import plain
from .resume_form import FORMAT, wrong_entry

FILE = "resume.pth.tar"

# keys that change where or how fast a run computes, but not what; or how it goes on from an image that stopped it
FREE_KEYS = {
    "OUTPUT_DIR",
    "RESUME",
    "DEVICE",
    "USE_CUDA",
    "VERBOSE",
    "DATASET.ROOT",
    "INPUT.ON_ERROR",
    "DATALOADER.NUM_WORKERS",
    "DATALOADER.CACHE",
    "DATALOADER.CACHE_LIMIT",
    "CUDA_GRAPH",
    "TRAIN.PRINT_FREQ",
    "TRAIN.CHECKPOINT_FREQ",
    "TRAIN.CHECKPOINT_SECONDS",
}


def rng_state() -> dict[str, Any]:
    """States of Python's, NumPy's and torch's global generators, CUDA's included where it is in use.

    The generators of several processes are alike, so that those of the first one stand for all.
    """
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    words = torch.from_numpy(np.asarray(keys).astype(np.int64))
    state = {
        "python": random.getstate(),
        "numpy": (kind, words, int(position), int(has_gauss), float(gauss)),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        several = distributed.world_size() > 1
        state["cuda"] = [torch.cuda.get_rng_state()] if several else torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Set the generators to what `rng_state` returned; CUDA's only if there are as many devices as then.

    Where one of several processes has saved it, or takes it, the first device's state is set on the current one.
    """
    kind, keys, position, has_gauss, gauss = state["numpy"]
    random.setstate(state["python"])
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"].cpu())
    cuda = state.get("cuda", [])
    if not cuda or not torch.cuda.is_available():
        return
    if distributed.world_size() > 1 or len(cuda) == 1:
        torch.cuda.set_rng_state(cuda[0].cpu())
    elif len(cuda) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([device.cpu() for device in cuda])


def capture(trainer: Any, epoch: int, batch: int, rng_epoch: dict[str, Any], rng: dict[str, Any]) -> dict[str, Any]:
    """The state of a trainer at a point of its run.

    Args:
        rng_epoch: generators when epoch `epoch` began.
        rng: generators at the point itself; both are the same where `batch` is 0.
    """
    record, scaler = trainer._record, getattr(trainer, "scaler", None)
    extra = trainer.extra_state()
    _check_plain(extra, "extra_state()")
    return {
        "format": FORMAT,
        "epoch": epoch,
        "batch": batch,
        "models": {name: model.state_dict() for name, model in trainer._models.items()},
        "optimizers": {name: None if o is None else o.state_dict() for name, o in trainer._optims.items()},
        "schedulers": {name: None if s is None else scheduler_state(s) for name, s in trainer._scheds.items()},
        "scaler": None if scaler is None else scaler.state_dict(),
        "best_result": float(trainer.best_result),
        "extra": extra,
        "progress": trainer._progress.state_dict() if batch else None,
        "loaders": {name: loader_state(getattr(trainer, name)) for name in LOADERS},
        "rng_epoch": rng_epoch,
        "rng": rng,
        "record": {
            "epochs": record.tree["epochs"],
            "started": record.tree["started"],
            "wall_seconds": record.wall_seconds(),
            "resumed": record.tree["resumed"],
        },
        "config": plain(trainer.cfg),
        "train_digest": train_digest(trainer),
        "made_with": trainer.checkpoint_facts(),
    }


LOADERS = ("train_loader_x", "train_loader_u")


def start_folder(output_dir: str, wanted: str) -> str:
    """Where a run starts from: the folder `wanted`, which RESUME names, or the output folder.

    A run that went on from `wanted` and was interrupted goes on from itself.

    Raises:
        FileNotFoundError: `wanted` is no folder.
    """
    if not wanted or (Path(output_dir) / FILE).is_file():
        return output_dir
    if not os.path.isdir(wanted) and os.path.abspath(wanted) != os.path.abspath(output_dir):
        raise FileNotFoundError(f"RESUME is {wanted}, but there is no such folder; correct it, or leave it empty.")
    return wanted


def read(path: Path) -> dict[str, Any]:
    """Read a resume file.

    Raises:
        RuntimeError: it is damaged, no resume file, or of another format.
    """
    state = load_checkpoint(path)
    wrong = wrong_entry(state)
    if wrong is not None:
        raise RuntimeError(
            f"{path} is not a resume file of format {FORMAT} ({wrong}); delete it to continue from the last "
            "saved model, or to train from the start."
        )
    return state


def check(trainer: Any, state: dict[str, Any], path: Path) -> None:
    """Make sure that a trainer can go on from a saved state.

    Raises:
        ValueError: the run's config is another than the saved one.
        RuntimeError: models or training data are others.
    """
    refuse_other_config(state["config"], trainer.cfg, path)
    if list(state["models"]) != list(trainer._models):
        raise RuntimeError(
            f"{path} holds the models {list(state['models'])}, this trainer registers {list(trainer._models)}; "
            "choose another OUTPUT_DIR."
        )
    if state["train_digest"] != train_digest(trainer):
        raise RuntimeError(
            f"The training images are not those that {path} was made with; restore the data set and its few-shot "
            "split, or choose another OUTPUT_DIR."
        )
    trainer.check_checkpoint_facts(state["made_with"], path)
    trainer.refuse_other_facts(state["made_with"], path)


def apply(trainer: Any, state: dict[str, Any], path: Path) -> None:
    """Put the saved state into a trainer's live objects; generators and record are left to the caller.

    Raises:
        ValueError, RuntimeError: as `check`.
    """
    check(trainer, state, path)
    for name, model in trainer._models.items():
        load_exactly(model, state["models"][name], path)
    try:
        for name in trainer._models:
            if trainer._optims[name] is not None:
                trainer._optims[name].load_state_dict(state["optimizers"][name])
            if trainer._scheds[name] is not None:
                load_scheduler_state(trainer._scheds[name], state["schedulers"][name])
            try_out(trainer._optims[name], trainer._scheds[name])
        scaler = getattr(trainer, "scaler", None)
        if scaler is not None and state["scaler"]:
            scaler.load_state_dict(state["scaler"])
        trainer.best_result = state["best_result"]
        trainer.load_extra_state(state["extra"])
        for loader in LOADERS:
            restore_loader(getattr(trainer, loader), state["loaders"][loader])
    except MISFIT as error:
        raise RuntimeError(
            f"Cannot continue from {path} ({in_words(error)}); delete it to continue from the last saved model, or to "
            "train from the start."
        ) from error


def refuse_other_config(saved: dict[str, Any], cfg: Any, path: Path) -> None:
    """Make sure that a run continues with the config that it began with, but for `FREE_KEYS`.

    Raises:
        ValueError: a value differs; the message names the keys and both values.
    """
    before, now = _flat(saved), _flat(plain(cfg))
    changed = [key for key in before if key in now and key not in FREE_KEYS and before[key] != now[key]]
    if changed:
        listed = "; ".join(f"{key} was {before[key]!r}, is {now[key]!r}" for key in changed)
        raise ValueError(
            f"The run in {path.parent} was started with another config ({listed}); start with the earlier values, "
            "delete that folder, or choose another OUTPUT_DIR."
        )


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return leaves


def train_digest(trainer: Any) -> str | None:
    """Digest of the training lists: label and file name of each image, in order; None where there is no such list."""
    data = getattr(getattr(trainer, "dm", None), "dataset", None)
    items = getattr(data, "train_x", None)
    if items is None or not all(hasattr(item, "impath") for item in items[:1]):
        return None
    digest = hashlib.sha256()
    for item in [*items, *(getattr(data, "train_u", None) or [])]:
        digest.update(f"{item.label} {os.path.basename(item.impath)}\n".encode())
    return digest.hexdigest()[:16]


def _check_plain(value: Any, where: str) -> None:
    """What the resume file holds must be readable without unpickling.

    Raises:
        TypeError: it holds something else than tensors, numbers, strings, None, and dicts, lists and tuples of these.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            _check_plain(item, f"{where}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _check_plain(item, f"{where}[{index}]")
    elif type(value) not in (bool, int, float, str, type(None)) and not isinstance(value, torch.Tensor):
        raise TypeError(f"{where} must hold tensors and plain data only, got {type(value).__name__}.")
