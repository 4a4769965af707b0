"""A DataLoader whose batches depend on (seed, epoch, position) alone.

Neither the number of workers nor an interruption changes the order or the augmentation of the training images: the
order of a pass comes from a generator seeded by (seed, stream, epoch, restart), and each sample is made under Python's,
NumPy's and torch's generators seeded by a number that goes with its position in the pass. Those generators are put back
afterwards, so loading leaves no trace in the main process.

    start_epoch(loader, epoch)     # the next iteration is this epoch, from its start
    for batch in loader: ...       # a further iteration in the same epoch is a `restart`, with another order
    state = loader_state(loader)   # plain numbers
    restore_loader(loader, state)  # the next iteration goes on there, without loading what came before
"""

import hashlib
import os
import random
import signal
import threading
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from dassl.utils.tools import ImageReadError

__all__ = ["EpochLoader", "loader_state", "restore_loader", "start_epoch"]


class EpochLoader(DataLoader):
    """See the head of this file.

    Args:
        dataset: anything with `__getitem__(int)` and `__len__`; it needs to know nothing of seeds.
        sampler: yields the indices of a pass.
        batch_size: images.
        drop_last: leave out an incomplete last batch.
        seed: of this loader.
        stream: a name mixed into the seed, so that two loaders of a run differ.
        generator: the one that `sampler` draws from, seeded anew for each pass; None if it draws nothing.
        varies: each pass differs (training); False: all passes are equal (evaluation).
        num_workers: loading processes, kept alive between passes; more than there are batches are not started.
        pin_memory: as in torch.
    """

    def __init__(
        self,
        dataset: Dataset,
        sampler: Sampler[int],
        batch_size: int,
        drop_last: bool = False,
        seed: int = 0,
        stream: str = "",
        generator: torch.Generator | None = None,
        varies: bool = True,
        num_workers: int = 0,
        pin_memory: bool = False,
    ):
        assert isinstance(sampler, Sized)
        batches = len(sampler) // batch_size if drop_last else -(-len(sampler) // batch_size)
        workers = min(num_workers, batches)
        options: dict[str, Any] = {
            "batch_size": batch_size,
            "drop_last": drop_last,
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "pin_memory": pin_memory,
            "collate_fn": _collate,
            "worker_init_fn": _survive_signals,
            "generator": torch.Generator(),  # torch seeds workers from it; the global one would be drawn from otherwise
        }
        super().__init__(dataset, sampler=sampler, **options)
        self.seed = seed
        self.stream = stream
        self.varies = varies
        self._order = _Order(sampler, generator)
        # The user sees a loader over `dataset`; this one feeds (index, seed) pairs to it.
        self._inner = DataLoader(_Seeded(dataset), sampler=self._order, **options)
        self._next = (0, 0, 0)  # epoch, restart, batches to skip: of the next pass
        self._now = (0, 0, 0)  # epoch, restart, batches handed out: of the current pass
        self._restored = False

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        epoch, restart, skip = self._next
        self._now = self._next
        self._restored = False
        self._next = (epoch, restart + 1, 0) if self.varies else (0, 0, 0)
        self._order.begin(f"{self.seed}/{self.stream}/{epoch}/{restart}", skip * (self.batch_size or 1))
        for batch in self._inner:
            if isinstance(batch, _Failure):
                raise batch.kind(batch.message)  # a new one: an old one's traceback would keep this loader alive
            skip += 1
            self._now = (epoch, restart, skip)
            yield batch

    def start_epoch(self, epoch: int) -> None:
        """See `start_epoch` of this module."""
        if not (self._restored and self._next[0] == epoch) and self.varies:
            self._restored = False
            self._next = self._now = (epoch, 0, 0)

    def state_dict(self) -> dict[str, int]:
        """See `loader_state` of this module."""
        epoch, restart, batches = self._now
        return {"seed": self.seed, "epoch": epoch, "restart": restart, "batches": batches, "length": len(self)}

    def load_state_dict(self, state: dict[str, int], skip_batches: int | None = None) -> None:
        """See `restore_loader` of this module."""
        if state["length"] != len(self):
            raise ValueError(
                f"The saved run had {state['length']} batches an epoch, this one has {len(self)}; resume with the same "
                "data, shots and batch size, or choose a new output folder."
            )
        self.seed = state["seed"]
        skip = state["batches"] if skip_batches is None else skip_batches
        self._next = self._now = (state["epoch"], state["restart"], skip)
        self._restored = True


def start_epoch(loader: Any, epoch: int) -> None:
    """Make the next iteration of `loader` that of `epoch`, counted from 0.

    A position that `restore_loader` has set in the same epoch is kept. Other loaders, and None, are left alone.
    """
    if isinstance(loader, EpochLoader):
        loader.start_epoch(epoch)


def loader_state(loader: Any) -> dict[str, int]:
    """Where `loader` stands: seed, epoch, restart, batches handed out in this pass, batches in a pass.

    Returns:
        plain integers; {} for None and for loaders of another make.
    """
    return loader.state_dict() if isinstance(loader, EpochLoader) else {}


def restore_loader(loader: Any, state: dict[str, int], skip_batches: int | None = None) -> None:
    """Make the next iteration of `loader` go on where `state` was taken; `len(loader)` stays that of a whole pass.

    Args:
        loader: as passed to `loader_state`.
        state: what that returned.
        skip_batches: batches of the pass that were used; None: all that had been handed out.

    Raises:
        ValueError: the loader has another number of batches than the saved one.
    """
    if state and isinstance(loader, EpochLoader):
        loader.load_state_dict(state, skip_batches)


class _Order(Sampler):
    """The sampler's indices of a pass, each with the seed of its sample."""

    def __init__(self, sampler: Sampler[int], generator: torch.Generator | None):
        self.sampler = sampler
        self.generator = generator
        self.begin("", 0)

    def begin(self, key: str, skip: int) -> None:
        self._key = key
        self._skip = skip  # samples

    def __len__(self) -> int:
        return len(self.sampler)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        if self.generator is not None:
            self.generator.manual_seed(_digest(f"order/{self._key}"))
        indices = list(self.sampler)
        source = torch.Generator().manual_seed(_digest(f"sample/{self._key}"))
        seeds = torch.randint(2**63 - 1, (len(indices),), generator=source).tolist()
        return iter(list(zip(indices, seeds, strict=True))[self._skip :])


class _Seeded(Dataset):
    """`[dataset[index] for index in batch]`, each sample made under generators seeded for it."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __getitems__(self, batch: list[tuple[int, int]]) -> list[Any]:
        with _generators_put_back():
            return [self._sample(index, seed) for index, seed in batch]

    def _sample(self, index: int, seed: int) -> Any:
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed CUDA too
        try:
            return self.dataset[index]
        except (ImageReadError, FileNotFoundError) as error:
            # The main process raises it, as a sentence; a worker would send its traceback.
            return _Failure(type(error), str(error))


def _survive_signals(worker_id: int) -> None:
    """Keep a worker delivering when a signal goes to the whole process group (Ctrl-C, a batch system).

    The main process then saves a checkpoint at the next step and ends the workers itself: SIGTERM counts only from it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS and Windows
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_exit_when_parent_says_so, daemon=True).start()


def _exit_when_parent_says_so() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


class _Failure:
    def __init__(self, kind: type[Exception], message: str):
        self.kind = kind
        self.message = message


@contextmanager
def _generators_put_back() -> Iterator[None]:
    """Put Python's, NumPy's and torch's CPU generators back on leaving."""
    saved = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    try:
        yield
    finally:
        random.setstate(saved[0])
        np.random.set_state(saved[1])
        torch.default_generator.set_state(saved[2])


def _digest(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 1


def _collate(samples: list[Any]) -> Any:
    """torch's default, but PIL images (no transform) stay a list and a failure takes the place of the batch."""
    for sample in samples:
        if isinstance(sample, _Failure):
            return sample
    first = samples[0]
    if isinstance(first, dict) and any(isinstance(value, Image.Image) for value in first.values()):
        return {
            key: [sample[key] for sample in samples]
            if isinstance(value, Image.Image)
            else default_collate([sample[key] for sample in samples])
            for key, value in first.items()
        }
    return default_collate(samples)
