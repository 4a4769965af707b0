"""Checkpoints of single modules, and small things done to modules.

A checkpoint file is a dict with `state_dict`, `epoch` (finished epochs), `optimizer`, `scheduler` and `val_result`, of
tensors and plain data only, so that any `torch.load` reads it. Files are written atomically and never unpickled.
"""

import os
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import init

from .checkpoint_reader import read_checkpoint
from .files import write_text, write_torch
from .tools import tolist_if_not

__all__ = [
    "count_num_param",
    "init_network_weights",
    "load_checkpoint",
    "load_pretrained_weights",
    "open_all_layers",
    "open_specified_layers",
    "resume_from_checkpoint",
    "save_checkpoint",
]

BEST_MODEL = "model-best.pth.tar"
EPOCH_MODEL = "model.pth.tar-"
MISFIT = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
)  # what torch's objects raise on a state of another form


def in_words(error: Exception) -> str:
    """An error as a part of a sentence."""
    text = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split()).rstrip(".")
    return text[:300] if type(error) is ValueError and text else f"{type(error).__name__}: {text[:160]}"


def without_module_prefix(state_dict: Mapping[str, Any]) -> "OrderedDict[str, Any]":
    """Drop the leading `module.` that `DataParallel` adds to each name."""
    return OrderedDict((key.removeprefix("module."), value) for key, value in state_dict.items())


def save_checkpoint(
    state: dict[str, Any],
    save_dir: str | os.PathLike,
    is_best: bool = False,
    remove_module_from_keys: bool = True,
    model_name: str = "",
) -> None:
    """Write `state` to `<save_dir>/<model_name>`, by default `model.pth.tar-<epoch>`.

    The text file `<save_dir>/checkpoint` names the last file written here.

    Args:
        state: what the file holds; `epoch` is the number of finished epochs.
        is_best: write the same content to `model-best.pth.tar`, too.
        remove_module_from_keys: drop the leading `module.` from the names in `state["state_dict"]`.

    Raises:
        RuntimeError: the file cannot be written; an earlier one stays whole.
    """
    if remove_module_from_keys:
        state["state_dict"] = without_module_prefix(state["state_dict"])
    folder = Path(save_dir)
    path = folder / (model_name or f"{EPOCH_MODEL}{state['epoch']}")
    write_torch(path, state)
    print(f"Checkpoint saved to {path}")
    write_text(folder / "checkpoint", f"{path.name}\n")
    if is_best:
        write_torch(folder / BEST_MODEL, state)
        print(f'Best checkpoint saved to "{folder / BEST_MODEL}"')


def load_checkpoint(fpath: str | os.PathLike | None) -> Any:
    """Read a checkpoint without unpickling code.

    Tensors saved on a CUDA device come to the current one, or to the CPU if there is none. Files of Dassl 0.6.3, whose
    scheduler state holds pickled torch schedulers and optimisers, become plain nested dicts.

    Raises:
        ValueError: no path.
        FileNotFoundError: no such file.
        RuntimeError: the file is damaged, or holds objects that are not plain data.
    """
    if fpath is None:
        raise ValueError("File path is None: load_checkpoint needs the path of a checkpoint")
    return read_checkpoint(Path(fpath))


def resume_from_checkpoint(
    fdir: str | os.PathLike,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    scheduler: Any = None,
) -> int:
    """Continue from the newest checkpoint in a folder and return its epoch.

    Raises:
        FileNotFoundError: the folder holds none.
        RuntimeError: the checkpoint does not fit the model, the optimiser or the schedule.
    """
    path = newest_checkpoint(fdir)
    print(f'Loading checkpoint from "{path}"')
    checkpoint = load_checkpoint(path)
    restore(checkpoint, path, model, optimizer, scheduler)
    return saved_epoch(checkpoint, path)


def restore(
    checkpoint: Mapping[str, Any], path: Path, model: nn.Module, optimizer: Any = None, scheduler: Any = None
) -> None:
    """Load a checkpoint into the live model, and into optimiser and scheduler if both sides have them."""
    from dassl.optim.lr_scheduler import load_scheduler_state, try_out  # `utils` is below `optim`: import when needed

    load_exactly(model, saved_state_dict(checkpoint, path), path)
    print("Loaded model weights")
    try:
        if optimizer is not None and checkpoint.get("optimizer") is not None:
            optimizer.load_state_dict(checkpoint["optimizer"])
            print("Loaded optimizer")
        if scheduler is not None and checkpoint.get("scheduler") is not None:
            load_scheduler_state(scheduler, checkpoint["scheduler"])
            print("Loaded scheduler")
        try_out(optimizer, scheduler)
    except MISFIT as error:
        raise RuntimeError(f"Cannot continue from {path}: {in_words(error)}.") from error


def newest_checkpoint(fdir: str | os.PathLike) -> Path:
    """The file of a folder from which to continue.

    It is the one that the text file `checkpoint` names; but where that is `model-best.pth.tar`, which is written in
    epochs without a regular checkpoint, too, the regular file of the highest epoch is taken if it is at least as far.
    """
    folder = Path(fdir)
    epochs = saved_epochs(folder)
    pointer = folder / "checkpoint"
    name = pointer.read_text(encoding="utf-8", errors="replace").split("\n")[0].strip() if pointer.is_file() else ""
    named = folder / name
    if not re.fullmatch(r"[\w.-]{1,99}", name) or not named.is_file():  # a name of ours, no path
        if epochs:
            return folder / f"{EPOCH_MODEL}{epochs[-1]}"
        if (folder / BEST_MODEL).is_file():
            return folder / BEST_MODEL
        raise FileNotFoundError(f"No checkpoint in {folder}; expected a file model.pth.tar-<epoch> or {BEST_MODEL}.")
    if named.name == BEST_MODEL and epochs and epochs[-1] >= saved_epoch(load_checkpoint(named), named):
        return folder / f"{EPOCH_MODEL}{epochs[-1]}"
    return named


def saved_epoch(checkpoint: Any, path: str | os.PathLike) -> int:
    """The number of finished epochs that a checkpoint tells.

    Raises:
        RuntimeError: it tells none.
    """
    epoch = checkpoint.get("epoch") if isinstance(checkpoint, Mapping) else None
    if not isinstance(epoch, int) or not 0 <= epoch < 2**31:
        raise RuntimeError(f"{path} does not say after how many epochs it was saved, so no training can go on from it.")
    return epoch


def saved_epochs(folder: str | os.PathLike) -> list[int]:
    """Epochs N of the files `model.pth.tar-N` in a folder, ascending."""
    found = (
        re.fullmatch(re.escape(EPOCH_MODEL) + r"(\d+)", path.name) for path in Path(folder).glob(f"{EPOCH_MODEL}*")
    )
    return sorted(int(match[1]) for match in found if match)


def model_file(directory: str | os.PathLike, name: str, epoch: int | None = None) -> Path:
    """Path of the weights of one registered model in a run folder: of an epoch, or the best ones without epoch.

    Raises:
        FileNotFoundError: there is no such file; the message lists those that exist.
    """
    folder = Path(directory) / name
    path = folder / (BEST_MODEL if epoch is None else f"{EPOCH_MODEL}{epoch}")
    if path.is_file():
        return path
    there = [f"epoch {n}" for n in saved_epochs(folder)]
    there += ["the best model"] if (folder / BEST_MODEL).is_file() else []
    holds = f"{folder} holds {', '.join(there)}" if there else f"{folder} holds no model"
    raise FileNotFoundError(f"Model not found at {path}; {holds}; check --model-dir and --load-epoch.")


def load_exactly(model: nn.Module, state_dict: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Strict `load_state_dict`; where the file does not fit, one sentence names the first differing tensors.

    Raises:
        RuntimeError: names or shapes differ.
    """
    own = dict(model.state_dict())
    differences = [
        f"{name} is {list(value.shape) if isinstance(value, torch.Tensor) else 'no tensor'} in the file and "
        f"{list(own[name].shape)} here"
        for name, value in state_dict.items()
        if isinstance(own.get(name), torch.Tensor) and getattr(value, "shape", None) != own[name].shape
    ]
    differences += [f"{name} is not in the file" for name in own if name not in state_dict]
    differences += [f"{name} is only in the file" for name in state_dict if name not in own]
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise RuntimeError(
            f"{path} does not fit this model, it was made with another method, backbone, context length or class set: "
            f"{'; '.join(differences[:3])}{more}."
        )
    try:
        model.load_state_dict(state_dict, strict=True)
    except RuntimeError as error:  # tensors that can't be copied, such as sparse ones
        reason = " ".join(str(error).split())
        raise RuntimeError(f"{path} does not fit this model ({reason[:160]}); take another file.") from error


def saved_state_dict(checkpoint: Any, path: str | os.PathLike) -> "OrderedDict[str, Any]":
    """The weights in a checkpoint, without the prefix of `DataParallel`.

    Raises:
        RuntimeError: it holds none.
    """
    weights = checkpoint.get("state_dict") if isinstance(checkpoint, Mapping) else None
    if not isinstance(weights, Mapping) or not all(isinstance(name, str) for name in weights):
        raise RuntimeError(f"{path} has no entry state_dict, so it is no checkpoint of a trainer; check the path.")
    return without_module_prefix(weights)


def load_pretrained_weights(model: nn.Module, weight_path: str | os.PathLike) -> None:
    """Load every tensor of a file whose name and shape the model has; list the others, warn if none fits.

    Raises:
        RuntimeError: the file holds no tensors under names.
    """
    checkpoint = load_checkpoint(weight_path)
    nested = isinstance(checkpoint, Mapping) and "state_dict" in checkpoint
    state_dict = saved_state_dict(checkpoint if nested else {"state_dict": checkpoint}, weight_path)
    own = model.state_dict()
    fitting = {k: v for k, v in state_dict.items() if k in own and own[k].shape == getattr(v, "shape", None)}
    if not fitting:
        warnings.warn(f"No tensor of {weight_path} fits the model by name and shape: nothing was loaded", stacklevel=2)
        return
    model.load_state_dict({**own, **fitting})
    print(f"Successfully loaded pretrained weights from {weight_path}")
    ignored = [k for k in state_dict if k not in fitting]
    if ignored:
        print(f"Layers left out, as name or shape differ: {ignored}")


def adjust_learning_rate(
    optimizer: torch.optim.Optimizer,
    base_lr: float,
    epoch: int,
    stepsize: int | Iterable[int] = 20,
    gamma: float = 0.1,
    linear_decay: bool = False,
    final_lr: float = 0,
    max_epoch: int = 100,
) -> None:
    """Set every group's learning rate for an epoch: `gamma` per `stepsize` epochs, or linear from base to final."""
    if linear_decay:
        done = epoch / max_epoch
        lr = done * final_lr + (1 - done) * base_lr
    elif isinstance(stepsize, int):
        lr = base_lr * gamma ** (epoch // stepsize)
    else:
        lr = base_lr * gamma ** sum(epoch >= step for step in stepsize)
    for group in optimizer.param_groups:
        group["lr"] = lr


def set_bn_to_eval(m: nn.Module) -> None:
    """Stop a batch norm from updating its statistics; use as `model.apply(set_bn_to_eval)`."""
    if "BatchNorm" in type(m).__name__:
        m.eval()


def open_all_layers(model: nn.Module) -> None:
    """Train mode and gradients for everything."""
    model.train()
    model.requires_grad_(True)


def open_specified_layers(model: nn.Module, open_layers: str | list[str]) -> None:
    """Train mode and gradients for the named top-level children; eval mode and no gradients for the others.

    Raises:
        AssertionError: a name is no child of the model.
    """
    if isinstance(model, nn.DataParallel):
        model = model.module
    names = tolist_if_not(open_layers)
    children = dict(model.named_children())
    for name in names:
        assert name in children, f"{name!r} is not a layer of the model, which has {list(children)}"
    for name, child in children.items():
        child.train(name in names)
        child.requires_grad_(name in names)


def count_num_param(model: nn.Module | None = None, params: Any = None) -> int:
    """Number of scalars in a model's parameters, frozen ones included, or in `params` (parameters or groups of them).

    Raises:
        ValueError: neither is given.
    """
    if model is not None:
        return sum(p.numel() for p in model.parameters())
    if params is None:
        raise ValueError("count_num_param needs a model or params")
    if isinstance(params, dict):
        return count_num_param(params=params["params"])
    if isinstance(params, torch.Tensor):
        return params.numel()
    return sum(count_num_param(params=p) for p in params)


def init_network_weights(model: nn.Module, init_type: str = "normal", gain: float = 0.02) -> None:
    """Initialise convolutions and linear layers (zero bias), batch and instance norms (1 and 0).

    Raises:
        NotImplementedError: unknown `init_type`.
    """
    fillers = {
        "normal": lambda w: init.normal_(w, 0.0, gain),
        "xavier": lambda w: init.xavier_normal_(w, gain=gain),
        "kaiming": lambda w: init.kaiming_normal_(w, a=0, mode="fan_in"),
        "orthogonal": lambda w: init.orthogonal_(w, gain=gain),
    }
    if init_type not in fillers:
        raise NotImplementedError(f"init_type must be one of {list(fillers)}, got {init_type!r}")

    def fill(module: nn.Module) -> None:
        kind = type(module).__name__
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        if weight is None:
            return
        if "Conv" in kind or "Linear" in kind:
            fillers[init_type](weight)
        elif "BatchNorm" in kind or "InstanceNorm" in kind:
            init.constant_(weight, 1.0)
        else:
            return
        if bias is not None:
            init.constant_(bias, 0.0)

    model.apply(fill)
