"""Learning-rate schedules, stepped once per epoch, with an optional warm-up in front.

W = WARMUP_EPOCH, T = MAX_EPOCH, epochs from 0. During epoch e < W the warm-up decides (constant: WARMUP_CONS_LR;
linear: WARMUP_MIN_LR at e = 0, then base · e / W); from epoch W on the main schedule runs from its own start, so that
a cosine ends before it reaches zero. `WARMUP_RECOUNT: False` starts the main schedule's counter at W instead.
"""

import copy
import warnings
from collections import Counter
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR, StepLR

AVAI_SCHEDS = ["single_step", "multi_step", "cosine"]
AVAI_WARMUPS = ["constant", "linear"]
MOST_WARMUP = 10_000  # epochs that are tried out; a damaged state may tell any number


class WarmupScheduler(LRScheduler):
    """Runs `warmup_epoch` epochs by itself, then hands every step to `successor`.

    `state_dict()` holds the successor's state as a nested dict of plain numbers and lists, never the object: loading it
    changes the live successor, which keeps driving the live optimiser.

    Args:
        optimizer: the optimiser that `successor` drives too.
        successor: main schedule, built before this one.
        warmup_epoch: number of warm-up epochs, >= 1.
    """

    def __init__(self, optimizer: Optimizer, successor: LRScheduler, warmup_epoch: int, last_epoch: int = -1):
        self.successor = successor
        self.warmup_epoch = warmup_epoch
        super().__init__(optimizer, last_epoch)

    def warmup_lr(self) -> list[float]:
        """Learning rate of each parameter group in warm-up epoch `self.last_epoch`."""
        raise NotImplementedError

    def get_lr(self) -> list[Any]:
        return self.successor.get_last_lr() if self.last_epoch >= self.warmup_epoch else self.warmup_lr()

    def step(self, epoch: int | None = None) -> None:
        if self.last_epoch < self.warmup_epoch:
            super().step(epoch)
        else:
            self.successor.step(epoch)
            self._last_lr = self.successor.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        own = {key: value for key, value in super().state_dict().items() if key != "successor"}
        return {**own, "successor": scheduler_state(self.successor)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        own = dict(state_dict)
        load_scheduler_state(self.successor, own.pop("successor"))
        super().load_state_dict(own)


class ConstantWarmupScheduler(WarmupScheduler):
    """Warm-up at one learning rate `cons_lr` for every parameter group."""

    def __init__(
        self, optimizer: Optimizer, successor: LRScheduler, warmup_epoch: int, cons_lr: float, last_epoch: int = -1
    ):
        self.cons_lr = cons_lr
        super().__init__(optimizer, successor, warmup_epoch, last_epoch)

    def warmup_lr(self) -> list[float]:
        return [self.cons_lr for _ in self.base_lrs]


class LinearWarmupScheduler(WarmupScheduler):
    """Warm-up that starts at `min_lr` and then grows as base · e / W."""

    def __init__(
        self, optimizer: Optimizer, successor: LRScheduler, warmup_epoch: int, min_lr: float, last_epoch: int = -1
    ):
        self.min_lr = min_lr
        super().__init__(optimizer, successor, warmup_epoch, last_epoch)

    def warmup_lr(self) -> list[Any]:
        if self.last_epoch == 0:
            return [self.min_lr for _ in self.base_lrs]
        return [lr * self.last_epoch / self.warmup_epoch for lr in self.base_lrs]


def scheduler_state(scheduler: Any) -> dict[str, Any]:
    """State of any scheduler as plain data: a `Counter` (MultiStepLR's milestones) becomes a dict."""
    return {k: dict(v) if isinstance(v, Counter) else v for k, v in scheduler.state_dict().items()}


def load_scheduler_state(scheduler: Any, state: dict[str, Any]) -> None:
    """Load what `scheduler_state` saved; the optimiser that the scheduler drives stays the same object.

    Raises:
        ValueError: the state has a warm-up and the scheduler none, or the other way round.
    """
    if ("successor" in state) != isinstance(scheduler, WarmupScheduler):
        has = "has a" if "successor" in state else "has no"
        raise ValueError(
            f"the saved learning-rate schedule {has} warm-up, unlike this run's {type(scheduler).__name__}; "
            "use the OPTIM settings of the saved run"
        )
    own = scheduler.__dict__
    scheduler.load_state_dict({k: Counter(v) if isinstance(own.get(k), Counter) else v for k, v in state.items()})


def try_out(optimizer: Optimizer | None, scheduler: LRScheduler | None) -> None:
    """Take steps with copies, so that a loaded state that can't be used is found before anything is trained.

    Raises:
        ValueError: a step fails, whatever of the state is to blame.
    """
    optimizer, scheduler = copy.deepcopy((optimizer, scheduler))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, that the schedule's optimizer is a copy
            _step(optimizer, scheduler)
    except Exception as error:
        reason = " ".join(str(error).split())[:160].rstrip(".")
        raise ValueError(
            f"a step with the saved optimizer and schedule fails, {type(error).__name__}: {reason}"
        ) from error


def _step(optimizer: Optimizer | None, scheduler: LRScheduler | None) -> None:
    """One step of the optimizer, without gradients, and enough of the schedule to be beyond its warm-up."""
    if optimizer is not None:
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    if scheduler is not None:
        for _ in range(min(getattr(scheduler, "warmup_epoch", 0), MOST_WARMUP) + 2):
            scheduler.step()


def build_lr_scheduler(optimizer: Optimizer, optim_cfg: Any) -> LRScheduler:
    """Make the schedule named by `optim_cfg.LR_SCHEDULER`, behind a warm-up if `WARMUP_EPOCH` > 0.

    Raises:
        ValueError: unknown scheduler or warm-up name.
        TypeError: `STEPSIZE` of a type that the scheduler cannot use.
    """
    name = optim_cfg.LR_SCHEDULER
    if name not in AVAI_SCHEDS:
        raise ValueError(f"OPTIM.LR_SCHEDULER must be one of {AVAI_SCHEDS}, got {name!r}")
    with_warmup = optim_cfg.WARMUP_EPOCH > 0
    if with_warmup and optim_cfg.WARMUP_TYPE not in AVAI_WARMUPS:
        raise ValueError(f"OPTIM.WARMUP_TYPE must be one of {AVAI_WARMUPS}, got {optim_cfg.WARMUP_TYPE!r}")

    main = _main_scheduler(name, optimizer, optim_cfg)
    if not with_warmup:
        return main
    if not optim_cfg.WARMUP_RECOUNT:
        main.last_epoch = optim_cfg.WARMUP_EPOCH
    if optim_cfg.WARMUP_TYPE == "constant":
        return ConstantWarmupScheduler(optimizer, main, optim_cfg.WARMUP_EPOCH, optim_cfg.WARMUP_CONS_LR)
    return LinearWarmupScheduler(optimizer, main, optim_cfg.WARMUP_EPOCH, optim_cfg.WARMUP_MIN_LR)


def _main_scheduler(name: str, optimizer: Optimizer, optim_cfg: Any) -> LRScheduler:
    stepsize, max_epoch = optim_cfg.STEPSIZE, optim_cfg.MAX_EPOCH
    if name == "cosine":
        return CosineAnnealingLR(optimizer, float(max_epoch))  # type: ignore[arg-type]  # a float, as in Dassl
    if name == "multi_step":
        if not isinstance(stepsize, (list, tuple)):
            raise TypeError(
                f"OPTIM.STEPSIZE must be a list or tuple for multi_step, got {stepsize!r} ({type(stepsize).__name__})"
            )
        return MultiStepLR(optimizer, milestones=list(stepsize), gamma=optim_cfg.GAMMA)
    if isinstance(stepsize, (list, tuple)):
        stepsize = stepsize[-1]
    if not isinstance(stepsize, int):
        raise TypeError(
            f"OPTIM.STEPSIZE must end in an integer for single_step, got {stepsize!r} ({type(stepsize).__name__})"
        )
    return StepLR(optimizer, step_size=stepsize if stepsize > 0 else max_epoch, gamma=optim_cfg.GAMMA)
