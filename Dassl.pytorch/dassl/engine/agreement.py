"""What the processes of one run agree on: the start, the models, the batch of a step and its mean losses."""

from fractions import Fraction
from typing import Any

import torch

from dassl import distributed
from dassl.data import images_of_step

from . import resume
from .progress import numbers


def refuse_other_start(trainer: Any) -> None:
    """Make sure that all processes begin with the same data and models at the same point.

    None goes on before all have read what they start from.

    Raises:
        RuntimeError: they do not.
    """
    batch = trainer._point["batch"] if trainer._point else 0
    starts = distributed.gather_plain([resume.train_digest(trainer), trainer.start_epoch, batch])
    if any(start[0] != starts[0][0] for start in starts):
        raise RuntimeError(
            "The processes of this run read different training images; give all machines the same data below "
            "DATASET.ROOT, and a SEED."
        )
    if any(start != starts[0] for start in starts):
        raise RuntimeError(
            f"The processes of this run find different states in {trainer.output_dir}; OUTPUT_DIR must be a folder "
            "that all machines share."
        )
    refuse_divergence(trainer, "at the start")


def refuse_divergence(trainer: Any, when: str) -> None:
    """Make sure that all processes hold the same models.

    Raises:
        RuntimeError: a tensor differs.
    """
    if distributed.world_size() == 1:
        return
    states = {f"{name}.{key}": value for name, m in trainer._models.items() for key, value in m.state_dict().items()}
    tensor = distributed.differing({name: t for name, t in states.items() if isinstance(t, torch.Tensor)})
    if tensor is not None:
        raise RuntimeError(
            f"The processes hold different values of {tensor} {when}, so {trainer.cfg.TRAINER.NAME} cannot be trained "
            "by several; use one process, or see docs/many_gpus.md on what a trainer must do."
        )


def begin_step(loaders: tuple[Any, ...], batches: list[Any]) -> int:
    """Note how a step's batch is divided among the processes; the images in all of them.

    Raises:
        ValueError: one loader's batches are divided in other parts than another's.
    """
    n = distributed.world_size()
    if n == 1:
        return count_images(batches[0])
    own = [count_images(batch) for batch in batches]
    whole = [images_of_step(loader) or count * n for loader, count in zip(loaders, own, strict=True)]
    if len({Fraction(*pair) for pair in zip(own, whole, strict=True)}) > 1:
        raise ValueError(
            f"Batches of {' and '.join(map(str, whole))} images are not divided alike among {n} processes; make "
            "DATALOADER.TRAIN_X.BATCH_SIZE and TRAIN_U.BATCH_SIZE multiples of their number."
        )
    distributed.begin_step(images_of_step(loaders[0]))
    return whole[0]


def over_all_images(losses: dict[str, Any] | None) -> dict[str, Any] | None:
    """What a step reports, as means over the images of all processes; not read from the device."""
    if distributed.world_size() == 1 or not isinstance(losses, dict):
        return losses
    names, values = numbers(losses)
    if not names:
        return losses
    means = distributed.mean_over_batch(torch.as_tensor(values, dtype=torch.float64))
    return dict(zip(names, means.unbind(), strict=True))


def count_images(batch: Any) -> int:
    """Images in a batch: length of its labels or pictures, whatever the loader packs them into."""
    if isinstance(batch, dict):
        batch = [value for key, value in batch.items() if key in ("label", "img")] or list(batch.values())
    if isinstance(batch, (list, tuple)) and batch:
        batch = batch[0]
    return len(batch) if hasattr(batch, "__len__") else 0
