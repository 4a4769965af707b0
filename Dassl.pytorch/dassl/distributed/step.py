"""The batch of a training step, divided among the processes.

A loss is a mean over the images of the batch. Each process computes the mean over its share, and `own_part` weighs it
by the share's size, so that gradients and reported numbers of all processes add up to those of one process.
"""

from typing import Any, TypeVar

import torch

from .collectives import sum_all
from .group import rank, world_size

Loss = TypeVar("Loss", bound=Any)

_images: int | None = None  # of the step under way, in all processes; None: not known


def share(n: int) -> slice:
    """Which of n things are this process's own: a block, as long as those of the others or one longer."""
    return slice(n * rank() // world_size(), n * (rank() + 1) // world_size())


def begin_step(images: int | None) -> None:
    """Note the size of the batch that a step is about.

    Args:
        images: in all processes, divided by `share`; None: each process has as many as the others.
    """
    global _images
    _images = images


def _weight() -> float:
    """This process's part of the batch, in [0, 1]."""
    if _images is None:
        return 1 / world_size()
    own = share(_images)
    return (own.stop - own.start) / _images


def own_part(loss: Loss) -> Loss:
    """A mean over this process's images as its part of the mean over the whole batch."""
    return loss if world_size() == 1 else loss * _weight()


def mean_over_batch(values: torch.Tensor) -> torch.Tensor:
    """Means over this process's images to those over the whole batch; the device is not waited for."""
    return values if world_size() == 1 else sum_all(values * _weight())[0]


def batch_rows(n: int) -> tuple[int, slice]:
    """The size of the whole batch, and which of its rows are this process's n images.

    Random numbers of each image must be drawn for the whole batch, of which each process takes its own, so that they do
    not depend on the number of processes and the generators of all processes stay alike.
    """
    if world_size() == 1 or _images is None:
        return n, slice(None)
    own = share(_images)
    return (_images, own) if own.stop - own.start == n else (n, slice(None))
