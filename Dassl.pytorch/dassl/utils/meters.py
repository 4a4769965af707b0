"""Running averages of what a training loop reports."""

from collections import defaultdict
from collections.abc import Mapping

import torch

__all__ = ["AverageMeter", "MetricMeter"]

_MAX_PENDING = 256  # unread device scalars a meter holds before it reads them, so that memory stays bounded


class AverageMeter:
    """Last value, sum, count and average of a number.

    Tensors are kept as they are and read (`.item()`, a device synchronisation) only when somebody looks at `val`, `sum`
    or `avg`, so that updating in every batch costs nothing on a GPU.

    Args:
        ema: `avg` is an exponential moving average, 0.9 of the old and 0.1 of the new value, starting at 0.
    """

    def __init__(self, ema: bool = False):
        self.ema = ema
        self.reset()

    def reset(self) -> None:
        self._val = 0.0
        self._avg = 0.0
        self._sum = 0.0
        self._read = 0
        self._pending: list[tuple[torch.Tensor | float, int]] = []
        self.count = 0

    def update(self, val: torch.Tensor | float, n: int = 1) -> None:
        """Add `val`, the average over `n` items: a number, or a tensor of one element."""
        if isinstance(val, torch.Tensor):
            if val.numel() != 1:
                raise ValueError(f"a meter takes one number, got a tensor of shape {list(val.shape)}")
            val = val.detach().clone()  # the caller may overwrite its tensor before we read it
        self._pending.append((val, n))
        self.count += n
        if len(self._pending) >= _MAX_PENDING:
            self._settle()

    def _settle(self) -> None:
        for val, n in self._pending:
            number = val.item() if isinstance(val, torch.Tensor) else val
            self._val = number
            self._sum += number * n
            self._read += n
            if self.ema:
                self._avg = self._avg * 0.9 + number * 0.1
            elif self._read:
                self._avg = self._sum / self._read
        self._pending.clear()

    def state_dict(self) -> dict[str, float]:
        """What a resumed run needs to continue the averages, as plain numbers."""
        self._settle()
        return {"val": self._val, "avg": self._avg, "sum": self._sum, "count": self.count}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.reset()
        self._val, self._avg, self._sum = state["val"], state["avg"], state["sum"]
        self.count = self._read = int(state["count"])

    @property
    def val(self) -> float:
        self._settle()
        return self._val

    @property
    def sum(self) -> float:
        self._settle()
        return self._sum

    @property
    def avg(self) -> float:
        self._settle()
        return self._avg


class MetricMeter:
    """One `AverageMeter` a name, in the order in which the names came.

    `str(meter)` is `loss 0.1234 (0.2345) acc 50.0000 (45.0000)`: last value and, in brackets, average.
    """

    def __init__(self, delimiter: str = " "):
        self.meters: dict[str, AverageMeter] = defaultdict(AverageMeter)
        self.delimiter = delimiter

    def update(self, input_dict: Mapping[str, torch.Tensor | float] | None) -> None:
        """Add one value a name; None is ignored.

        Raises:
            TypeError: the argument is neither a dict nor None.
        """
        if input_dict is None:
            return
        if not isinstance(input_dict, dict):
            raise TypeError(f"MetricMeter.update takes a dict of name -> number, got {type(input_dict).__name__}.")
        for name, value in input_dict.items():
            self.meters[name].update(value)

    def __str__(self) -> str:
        return self.delimiter.join(f"{name} {meter.val:.4f} ({meter.avg:.4f})" for name, meter in self.meters.items())
