"""`TrainerBase`: the order of a training run, and what a trainer may override."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from dassl import distributed

from .models import RegisteredModels
from .progress import Progress


class TrainerBase(RegisteredModels):
    """Skeleton of training: `train` calls the hooks, a subclass fills them.

    Hooks, in order: `before_train`, then per epoch `before_epoch`, `run_epoch`, `after_epoch`, then `after_train`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._writer: SummaryWriter | None = None
        self._progress: Progress | None = None
        self.start_epoch = self.epoch = self.max_epoch = 0
        self.batch_idx = self.num_batches = 0

    def train(self, start_epoch: int, max_epoch: int) -> None:
        """Run epochs `start_epoch` … `max_epoch - 1`; `before_train` may move the start."""
        self.start_epoch = start_epoch
        self.max_epoch = max_epoch
        self.before_train()
        for epoch in range(self.start_epoch, self.max_epoch):
            self.epoch = epoch
            self._open_epoch()
            self.before_epoch()
            self.run_epoch()
            self.after_epoch()
            self._close_epoch()
        self.after_train()

    def before_train(self) -> None:
        pass

    def before_epoch(self) -> None:
        pass

    def run_epoch(self) -> None:
        raise NotImplementedError

    def after_epoch(self) -> None:
        pass

    def after_train(self) -> None:
        pass

    def _open_epoch(self) -> None:
        """The engine's own part before `before_epoch`."""

    def _close_epoch(self) -> None:
        """The engine's own part after `after_epoch`."""

    def test(self, split: str | None = None) -> float:
        raise NotImplementedError

    def parse_batch_train(self, *batches: Any) -> Any:
        raise NotImplementedError

    def parse_batch_test(self, batch: Any) -> Any:
        raise NotImplementedError

    def forward_backward(self, *batches: Any) -> dict[str, Any] | None:
        """One training step; returns what to report: names to numbers or one-element tensors, or None."""
        raise NotImplementedError

    def model_inference(self, input: Any) -> Any:
        raise NotImplementedError

    def extra_state(self) -> dict[str, Any]:
        """State of a method outside registered models (tensors and plain data), kept in the resume file."""
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Take back what `extra_state` returned."""

    def epoch_facts(self) -> dict[str, Any]:
        """What a method adds to the epoch's row in `metrics.json`: plain data under names of its own."""
        return {}

    def detect_anomaly(self, loss: torch.Tensor) -> None:
        """Stop on a loss that is not finite; reads the loss, so it waits for a GPU.

        Raises:
            FloatingPointError: the loss is NaN or infinite.
        """
        if not torch.isfinite(loss).all():
            raise FloatingPointError(f"Loss is infinite or NaN: {loss.detach().cpu().tolist()}; {self._advice()}")

    def check_losses(self, terms: dict[str, Any]) -> None:
        """Stop the run if a loss term is not finite, without waiting for a GPU.

        On a CPU the check is made at once; on a GPU when losses are read next, which is before anything is saved. Call
        it with all terms before `backward` to have them all in the message.

        Raises:
            FloatingPointError: a term is NaN or infinite.
        """
        if self._progress is not None:
            self._progress.watch(self.batch_idx, terms)
            return
        for value in terms.values():
            if value is not None:
                self.detect_anomaly(torch.as_tensor(value))

    def _advice(self) -> str:
        """What to do about a loss that is not finite."""
        return "try a lower OPTIM.LR, or PREC fp32 or bf16 instead of fp16 or amp."

    def model_backward(self, loss: torch.Tensor) -> None:
        self.check_losses({"loss": loss})
        distributed.own_part(loss).backward()

    def model_backward_and_update(self, loss: torch.Tensor, names: str | list[str] | None = None) -> None:
        """Zero the gradients, check the loss, backward, step the optimisers."""
        self.model_zero_grad(names)
        self.model_backward(loss)
        self.model_update(names)

    def init_writer(self, log_dir: str, purge_step: int | None = None) -> None:
        """Open TensorBoard's event file; of an earlier one, scalars from `purge_step` on are not shown again."""
        if self._writer is None and distributed.is_main():
            print(f"Initialize tensorboard (log_dir={log_dir})")
            with _tensorboard_errors(log_dir):
                self._writer = SummaryWriter(log_dir=log_dir, purge_step=purge_step)

    def close_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with _tensorboard_errors(writer.log_dir):
                writer.close()

    def write_scalar(self, tag: str, scalar_value: float, global_step: int | None = None) -> None:
        """Write to TensorBoard; without an open writer, as in evaluation, do nothing.

        Raises:
            RuntimeError: an earlier value could not be written.
        """
        if self._writer is not None:
            with _tensorboard_errors(self._writer.log_dir):
                self._writer.add_scalar(tag, scalar_value, global_step)


@contextlib.contextmanager
def _tensorboard_errors(folder: str) -> Iterator[None]:
    """Turn what its thread met on the disk into a sentence."""
    try:
        yield
    except OSError as error:
        raise RuntimeError(
            f"Cannot write TensorBoard's file in {folder} ({error.strerror or error}); free some space, and give "
            "the same command again to go on."
        ) from error
