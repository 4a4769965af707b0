"""From `cfg.OPTIM` to a torch optimiser."""

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from .radam import RAdam

AVAI_OPTIMS = ["adam", "amsgrad", "sgd", "rmsprop", "radam", "adamw"]


def build_optimizer(
    model: nn.Module | Iterable[Any], optim_cfg: Any, param_groups: Iterable[Any] | None = None
) -> torch.optim.Optimizer:
    """Make the optimiser named by `optim_cfg.NAME`.

    All parameters are passed on, frozen ones too: leaving them out would renumber the saved optimiser state.

    Args:
        model: module, or an iterable of parameters or of parameter groups.
        optim_cfg: the node `cfg.OPTIM`.
        param_groups: used instead of the model's parameters; `STAGED_LR` is then ignored with a warning.

    Raises:
        ValueError: unknown optimiser name, or `NEW_LAYERS` names no child of the model.
        TypeError: `STAGED_LR` with a model that is not a module.
    """
    name = optim_cfg.NAME
    if name not in AVAI_OPTIMS:
        raise ValueError(f"OPTIM.NAME must be one of {AVAI_OPTIMS}, got {name!r}")
    if param_groups is not None:
        if optim_cfg.STAGED_LR:
            warnings.warn("OPTIM.STAGED_LR is ignored, because param_groups were given", stacklevel=2)
        params: Iterable[Any] = param_groups
    elif optim_cfg.STAGED_LR:
        params = staged_groups(model, optim_cfg)
    else:
        params = model.parameters() if isinstance(model, nn.Module) else model

    common = {"lr": optim_cfg.LR, "weight_decay": optim_cfg.WEIGHT_DECAY}
    betas = (optim_cfg.ADAM_BETA1, optim_cfg.ADAM_BETA2)
    if name == "sgd":
        return torch.optim.SGD(
            params,
            momentum=optim_cfg.MOMENTUM,
            dampening=optim_cfg.SGD_DAMPNING,
            nesterov=optim_cfg.SGD_NESTEROV,
            **common,
        )
    if name == "rmsprop":
        return torch.optim.RMSprop(params, momentum=optim_cfg.MOMENTUM, alpha=optim_cfg.RMSPROP_ALPHA, **common)
    if name == "radam":
        return RAdam(params, betas=betas, **common)
    if name == "adamw":
        return torch.optim.AdamW(params, betas=betas, **common)
    return torch.optim.Adam(params, betas=betas, amsgrad=name == "amsgrad", **common)


def staged_groups(model: Any, optim_cfg: Any) -> list[dict[str, Any]]:
    """Two groups: the model's children named in `NEW_LAYERS` at `LR`, all others at `LR` · `BASE_LR_MULT`.

    Only top-level children count; parameters held by the model itself belong to no child and are left out, as in
    Dassl.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"OPTIM.STAGED_LR needs a torch.nn.Module, got {type(model).__name__}")
    if isinstance(model, nn.DataParallel):
        model = model.module
    new_layers = [optim_cfg.NEW_LAYERS] if isinstance(optim_cfg.NEW_LAYERS, str) else list(optim_cfg.NEW_LAYERS)
    children = dict(model.named_children())
    unknown = [layer for layer in new_layers if layer not in children]
    if unknown:
        raise ValueError(f"OPTIM.NEW_LAYERS names {unknown}, but the model's children are {list(children)}")
    if not new_layers:
        warnings.warn("OPTIM.STAGED_LR is on but NEW_LAYERS is empty: all layers get LR * BASE_LR_MULT", stacklevel=3)
    base = [p for layer, child in children.items() if layer not in new_layers for p in child.parameters()]
    new = [p for layer, child in children.items() if layer in new_layers for p in child.parameters()]
    return [{"params": base, "lr": optim_cfg.LR * optim_cfg.BASE_LR_MULT}, {"params": new}]
