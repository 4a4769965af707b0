"""Everything that a run of several processes has beyond a run of one; the rest of the code asks this package.

torchrun starts the processes, each with a device of its own. All hold the same model and the same random numbers, each
computes its share of every training batch, and gradients are added up before each step. In a run of one process every
function here gives back what it was given.
"""

from .collectives import (
    Vote,
    any_of,
    barrier,
    differing,
    from_main,
    gather_plain,
    gather_rows,
    in_turn,
    max_all,
    sum_all,
    sum_gradients,
    sum_with_gradient,
)
from .group import fail, is_main, own_device, rank, start, world_size
from .step import batch_rows, begin_step, mean_over_batch, own_part, share

__all__ = [
    "Vote",
    "any_of",
    "barrier",
    "batch_rows",
    "begin_step",
    "differing",
    "fail",
    "from_main",
    "gather_plain",
    "gather_rows",
    "in_turn",
    "is_main",
    "max_all",
    "mean_over_batch",
    "own_device",
    "own_part",
    "rank",
    "share",
    "start",
    "sum_all",
    "sum_gradients",
    "sum_with_gradient",
    "world_size",
]
