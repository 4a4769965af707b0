"""What processes do together. All of them must call the same function in the same order.

A lost connection becomes one sentence. Alone, each function returns at once.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .group import first_line, local_rank, rank, world_size

SAME = 1e-5  # of a tensor's largest entry plus 1: further apart, two processes do not hold the same tensor


@contextmanager
def contact() -> Iterator[None]:
    """Around every operation of torch.distributed.

    Raises:
        RuntimeError: another process cannot be reached, or did not come in time.
    """
    try:
        yield
    except RuntimeError as error:
        raise RuntimeError(
            f"Process {rank()} of {world_size()} lost contact with the others ({first_line(error)}); one of them ended "
            "or hangs: see what it printed, and whether its machine ran out of memory."
        ) from error


@torch.no_grad()
def sum_all(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Sums over the processes, in one reduction; shapes, dtypes and device stay."""
    if world_size() == 1:
        return tensors
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    with contact():
        dist.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])
    return tuple(part.view_as(tensor).to(tensor.dtype) for part, tensor in zip(parts, tensors, strict=True))


@torch.no_grad()
def max_all(tensor: Tensor) -> Tensor:
    """Largest values over the processes, entry by entry."""
    if world_size() == 1:
        return tensor
    result = tensor.clone(memory_format=torch.contiguous_format)
    with contact():
        dist.all_reduce(result, dist.ReduceOp.MAX)
    return result


@torch.no_grad()
def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by the sum over the processes; all must have gradients of the same parameters."""
    if world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    if gradients:
        torch._foreach_copy_(gradients, list(sum_all(*gradients)))


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:  # type: ignore[override]
        return sum_all(tensor)[0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return sum_all(gradient)[0]


def sum_with_gradient(tensor: Tensor) -> Tensor:
    """The sum over the processes; each one's entry has an effect on the losses of all, and gets their gradients."""
    return tensor if world_size() == 1 else _Sum.apply(tensor)  # type: ignore[no-any-return]


def from_main(tensor: Tensor) -> Tensor:
    """The first process's tensor, copied into those of the others."""
    if world_size() > 1:
        with contact():
            dist.broadcast(tensor.detach(), 0)
    return tensor


def any_of(value: bool) -> bool:
    """Whether it is true in any process."""
    return value if world_size() == 1 else bool(max_all(torch.tensor(int(value))))


def barrier() -> None:
    """Wait until all processes are here."""
    any_of(False)


def gather_plain(value: Any) -> list[Any]:
    """One plain value (what JSON can hold) of each process, in their order."""
    if world_size() == 1:
        return [value]
    own = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    sizes = torch.zeros(world_size(), dtype=torch.int64)
    sizes[rank()] = len(own)
    return [json.loads(bytes(part.tolist())) for part in _gather(own, sum_all(sizes)[0].tolist())]


def gather_rows(parts: Sequence[Tensor]) -> Tensor:
    """All tensors of all processes in one, along the first axis, in the processes' order; on the CPU if there are more.

    Args:
        parts: equal but for their length; a process without any passes none.
    """
    if world_size() == 1:
        return torch.cat(list(parts))
    own = torch.cat(list(parts)).detach().cpu() if parts else None
    shapes = gather_plain(None if own is None else [list(own.shape), str(own.dtype).removeprefix("torch.")])
    (shape, dtype), *_ = [known for known in shapes if known is not None]
    rows = torch.empty(0, *shape[1:], dtype=getattr(torch, dtype)) if own is None else own
    return torch.cat(_gather(rows, [0 if known is None else known[0][0] for known in shapes]))


def _gather(own: Tensor, sizes: list[int]) -> list[Tensor]:
    """Every process's rows, of which there are `sizes`; on the CPU."""
    padded = own.new_zeros(max(sizes), *own.shape[1:])
    padded[: len(own)] = own
    parts = [torch.empty_like(padded) for _ in sizes]
    with contact():
        dist.all_gather(parts, padded)
    return [part[:size] for part, size in zip(parts, sizes, strict=True)]


@torch.no_grad()
def differing(tensors: Mapping[str, Tensor]) -> str | None:
    """Name of the first tensor that a process holds with other values than the first one does; None if all agree."""
    if world_size() == 1 or not tensors:
        return None
    flat = torch.cat([tensor.flatten().float() for tensor in tensors.values()])
    sizes = [tensor.numel() for tensor in tensors.values()]
    pairs = zip(flat.split(sizes), from_main(flat.clone()).split(sizes), strict=True)
    far = [
        (own - main).abs().max() > SAME * (1 + main.abs().max()) if len(own) else own.new_zeros((), dtype=torch.bool)
        for own, main in pairs
    ]
    found = max_all(torch.stack(far).int()).tolist()
    return next((name for name, is_far in zip(tensors, found, strict=True) if is_far), None)


@contextmanager
def in_turn() -> Iterator[None]:
    """Around what writes files on first use: the first process, then the first of each machine, then all others."""
    turn = min(rank(), 1) + min(local_rank(), 1)
    for now in range(3):
        if now == turn:
            yield
        barrier()


class Vote:
    """Whole numbers that all processes put together without waiting for each other now: `result` waits."""

    def __init__(self, *values: int):
        self._values = torch.tensor(values)
        with contact():
            self._work = dist.all_reduce(self._values, dist.ReduceOp.MAX, async_op=True)

    def result(self) -> list[int]:
        """The largest of each."""
        with contact():
            self._work.wait()  # type: ignore[union-attr]
        return self._values.tolist()
