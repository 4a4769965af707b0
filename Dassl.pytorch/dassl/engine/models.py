"""The models, optimisers and schedulers that a trainer registers, and the files they are kept in."""

import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from torch import nn

from dassl import distributed
from dassl.optim.lr_scheduler import scheduler_state
from dassl.utils.tools import tolist_if_not
from dassl.utils.torchtools import (
    EPOCH_MODEL,
    load_checkpoint,
    load_exactly,
    model_file,
    newest_checkpoint,
    restore,
    save_checkpoint,
    saved_epoch,
    saved_epochs,
    saved_state_dict,
)


class RegisteredModels:
    """Modules under names, each with the optimiser and scheduler that train it, or None.

    Several names may share one optimiser or scheduler object. Each name has a sub-folder of its own in a run folder.
    """

    rebuilt_on_load: tuple[str, ...] = ()  # entries of a saved state that the trainer makes anew instead of loading

    def __init__(self) -> None:
        self._models: OrderedDict[str, nn.Module] = OrderedDict()
        self._optims: OrderedDict[str, Any] = OrderedDict()
        self._scheds: OrderedDict[str, Any] = OrderedDict()

    def register_model(self, name: str = "model", model: Any = None, optim: Any = None, sched: Any = None) -> None:
        """Give the trainer a model to train, save, load, and switch between training and evaluation mode.

        Raises:
            AttributeError: the base class is not initialised yet.
            AssertionError: the name is taken.
        """
        if "_models" not in self.__dict__:
            raise AttributeError("register_model was called before super().__init__(); call that first.")
        assert name not in self._models, f"a model is already registered as {name!r}; choose another name"
        self._models[name] = model
        self._optims[name] = optim
        self._scheds[name] = sched

    def get_model_names(self, names: str | list[str] | None = None) -> list[str]:
        """All registered names, or those given, as a list.

        Raises:
            AssertionError: a given name is not registered.
        """
        if names is None:
            return list(self._models)
        names = tolist_if_not(names)
        for name in names:
            assert name in self._models, f"no model is registered as {name!r}; there are {list(self._models)}"
        return names

    def set_model_mode(self, mode: str = "train", names: str | list[str] | None = None) -> None:
        """Switch registered models, and no others, to `train`, or to `test` / `eval`.

        Raises:
            KeyError: another mode.
        """
        if mode not in ("train", "test", "eval"):
            raise KeyError(f"mode must be train, test or eval, got {mode!r}")
        for name in self.get_model_names(names):
            self._models[name].train(mode == "train")

    def update_lr(self, names: str | list[str] | None = None) -> None:
        """Step the schedulers; one that several names share is stepped once (Dassl: once per name)."""
        for scheduler in _distinct(self._scheds[name] for name in self.get_model_names(names)):
            scheduler.step()

    def model_zero_grad(self, names: str | list[str] | None = None) -> None:
        for optimizer in _distinct(self._optims[name] for name in self.get_model_names(names)):
            optimizer.zero_grad()

    def model_update(self, names: str | list[str] | None = None) -> None:
        """Step the optimisers; one that several names share is stepped once (Dassl: once per name)."""
        self.combine_gradients(names)
        for optimizer in _distinct(self._optims[name] for name in self.get_model_names(names)):
            optimizer.step()

    def combine_gradients(self, names: str | list[str] | None = None) -> None:
        """Add up the gradients of all processes, in one reduction; `model_update` does so itself.

        A few prompts are a small buffer: one plain sum is exact, and costs less than hooks that would overlap its parts
        with the backward pass.
        """
        optimizers = _distinct(self._optims[name] for name in self.get_model_names(names))
        distributed.sum_gradients(p for o in optimizers for group in o.param_groups for p in group["params"])

    def get_current_lr(self, names: str | list[str] | None = None) -> float:
        """Learning rate of the first parameter group of the first optimiser; 0 if there is none."""
        for optimizer in _distinct(self._optims[name] for name in self.get_model_names(names)):
            return float(optimizer.param_groups[0]["lr"])
        return 0.0

    def save_model(
        self,
        epoch: int,
        directory: str | os.PathLike,
        is_best: bool = False,
        val_result: float | None = None,
        model_name: str = "",
    ) -> None:
        """Write every registered model to `<directory>/<name>/model.pth.tar-<epoch + 1>`, or to `model_name`.

        Of several processes the first one writes, and the others wait until it has.

        Raises:
            RuntimeError: a file cannot be written; earlier ones stay whole.
        """
        for name in self.get_model_names() if distributed.is_main() else ():
            optimizer, scheduler = self._optims[name], self._scheds[name]
            state = {
                "state_dict": self._models[name].state_dict(),
                "epoch": int(epoch) + 1,
                "optimizer": None if optimizer is None else optimizer.state_dict(),
                "scheduler": None if scheduler is None else scheduler_state(scheduler),
                "val_result": None if val_result is None else float(val_result),
                "made_with": self.checkpoint_facts(),
            }
            save_checkpoint(state, Path(directory) / name, is_best=is_best, model_name=model_name)
        distributed.barrier()

    def checkpoint_facts(self) -> dict[str, Any]:
        """Plain data that says what the models' files are made with; saved in them."""
        return {}

    def check_checkpoint_facts(self, facts: dict[str, Any], path: Path) -> None:
        """Refuse a file whose `checkpoint_facts` do not fit; `facts` is empty in files of other programs."""

    def refuse_other_facts(self, facts: dict[str, Any], path: Path) -> None:
        """Make sure that a run goes on with what it began with, class names above all.

        Raises:
            RuntimeError: a fact in the file is another one now.
        """
        now = self.checkpoint_facts()
        for key in [key for key in facts if key in now and facts[key] != now[key]]:
            raise RuntimeError(
                f"{path} was made with other {key} ({_difference(facts[key], now[key])}); restore what the run began "
                "with, or choose another OUTPUT_DIR."
            )

    def load_model(self, directory: str | os.PathLike, epoch: int | None = None) -> None:
        """Load every registered model from `model.pth.tar-<epoch>`, or from `model-best.pth.tar` without epoch.

        Raises:
            FileNotFoundError: there is no such file; the message lists those that exist.
            RuntimeError: a file is damaged or does not fit the model.
        """
        if not directory:
            print("No model folder was given, so no weights are loaded")
            return
        for name in self.get_model_names():
            path = model_file(directory, name, epoch)
            checkpoint = load_checkpoint(path)
            load_exactly(self._models[name], self._weights_of(checkpoint, path), path)
            result = checkpoint.get("val_result")
            known = f", val_result = {result:.1f}" if isinstance(result, (int, float)) else ""
            print(f"Loaded {name} from {path} (epoch = {checkpoint.get('epoch')}{known})")

    def _weights_of(self, checkpoint: Any, path: Path) -> dict[str, Any]:
        """What of a file is loaded, after a check that it fits this trainer."""
        saved = saved_state_dict(checkpoint, path)
        self.check_checkpoint_facts(facts_in(checkpoint), path)
        return {key: value for key, value in saved.items() if key not in self.rebuilt_on_load}

    def resume_model_if_exist(self, directory: str | os.PathLike) -> int:
        """Continue from the newest saved models of a folder; return the number of finished epochs, 0 without models.

        Raises:
            RuntimeError: a file is damaged or does not fit, or the models' files belong to different epochs.
        """
        paths = self._newest_of_all(Path(directory))
        if not paths:
            print(f"No checkpoint in {directory}, training starts from the beginning")
            return 0
        epochs = []
        for name, path in paths.items():
            print(f"Resuming {name} from {path}")
            checkpoint = load_checkpoint(path)
            epochs.append(saved_epoch(checkpoint, path))
            checkpoint["state_dict"] = self._weights_of(checkpoint, path)
            self.refuse_other_facts(facts_in(checkpoint), path)
            restore(checkpoint, path, self._models[name], self._optims[name], self._scheds[name])
        return epochs[-1]

    def _newest_of_all(self, directory: Path) -> dict[str, Path]:
        """One file a name, all of the same epoch: the newest, or the newest that all have."""
        try:
            paths = {name: newest_checkpoint(directory / name) for name in self.get_model_names()}
        except FileNotFoundError:
            return {}
        if len({saved_epoch(load_checkpoint(path), path) for path in paths.values()}) <= 1:
            return paths
        common = set.intersection(*(set(saved_epochs(path.parent)) for path in paths.values()))
        if not common:
            raise RuntimeError(
                f"The models {list(paths)} in {directory} were saved at different epochs, so no common state can be "
                "resumed; remove the files of the unfinished epoch, or choose another OUTPUT_DIR."
            )
        return {name: path.parent / f"{EPOCH_MODEL}{max(common)}" for name, path in paths.items()}


def facts_in(checkpoint: Any) -> dict[str, Any]:
    """The `checkpoint_facts` in a file; empty if there are none."""
    facts = checkpoint.get("made_with")
    return facts if isinstance(facts, dict) else {}


def _difference(before: Any, now: Any) -> str:
    """Two values, of lists the first that differ, in words."""
    if isinstance(before, list) and isinstance(now, list):
        if len(before) != len(now):
            return f"{len(before)} then, {len(now)} now"
        before, now = next(pair for pair in zip(before, now, strict=True) if pair[0] != pair[1])
    return f"{before!r} then, {now!r} now"


def _distinct(items: Iterable[Any]) -> Iterator[Any]:
    """Each object once, None left out."""
    seen: set[int] = set()
    for item in items:
        if item is not None and id(item) not in seen:
            seen.add(id(item))
            yield item
