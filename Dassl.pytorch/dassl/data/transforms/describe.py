"""What a transform does, as text: the same text, the same transform."""

from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import torch
from torch import nn

_INTERNAL = frozenset(vars(nn.Module()))


def describe(step: Any) -> str:
    """Class and all options of a transform and of those inside it; torchvision's own `repr` leaves some out.

    Raises:
        ValueError: an option says nothing of itself, as functions don't.
    """
    if isinstance(step, nn.Module):
        options = {name: value for name, value in vars(step).items() if name not in _INTERNAL}
        return _call(step, options | dict(step.named_children()))
    if isinstance(step, list | tuple):
        return f"[{', '.join(map(describe, step))}]"
    if isinstance(step, dict):
        return f"{{{', '.join(f'{describe(name)}: {describe(value)}' for name, value in step.items())}}}"
    if isinstance(step, torch.Tensor):
        return repr(step.tolist())
    if " at 0x" not in repr(step):
        return repr(step)
    if isinstance(step, FunctionType | MethodType | BuiltinFunctionType) or not hasattr(step, "__dict__"):
        raise ValueError(f"{step!r} does not tell what it does")
    return _call(step, vars(step))


def _call(step: Any, options: dict[str, Any]) -> str:
    return f"{type(step).__name__}({', '.join(f'{name}={describe(value)}' for name, value in options.items())})"
