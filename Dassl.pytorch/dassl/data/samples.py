"""What a loading process does: make the samples of a batch, each under its own seed, and replace damaged ones.

Only the main process writes to the log, so what happened here travels to it with the batch.
"""

import hashlib
import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset, default_collate

from dassl.utils.tools import ImageReadError

__all__ = ["Failure", "Loaded", "SeededDataset", "collate", "digest", "survive_signals", "to_batch"]


class Loaded(NamedTuple):
    """A batch, and what was damaged on the way; of types that pinning memory leaves as they are."""

    batch: Any
    replaced: int  # samples that stand in for another
    damaged: list[tuple[str, str]]  # path and reason of each image that could not be read


class Failure:
    """An error of a sample, which the main process raises as a sentence; a worker would send its traceback."""

    def __init__(self, error: Exception):
        self.kind = type(error)
        self.message = str(error)


class _Replaced(NamedTuple):
    sample: Any
    damaged: list[tuple[str, str]]


class SeededDataset(Dataset):
    """`[dataset[index] for index in batch]`, each sample made under generators seeded for it.

    Args:
        dataset: as in `EpochLoader`.
        replace: whether an image that cannot be read is replaced by one of those that `dataset.replacements` names.
    """

    def __init__(self, dataset: Dataset, replace: bool = False):
        self.dataset = dataset
        self.replace = replace

    def __getitems__(self, batch: list[tuple[int, int]]) -> list[Any]:
        with _generators_put_back():
            return [self._sample(index, seed) for index, seed in batch]

    def _sample(self, index: int, seed: int) -> Any:
        try:
            return self._make(index, seed)
        except FileNotFoundError as error:
            return Failure(error)
        except ImageReadError as error:
            offer = getattr(self.dataset, "replacements", None) if self.replace else None
            return Failure(error) if offer is None else self._other(offer, index, seed, error)

    def _make(self, index: int, seed: int) -> Any:
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed CUDA too
        return self.dataset[index]

    def _other(self, offer: Any, index: int, seed: int, error: ImageReadError) -> "_Replaced | Failure":
        """The first of the offered samples that can be read, under the seed of the one that it stands in for."""
        generator = torch.Generator().manual_seed(digest(f"replacement/{seed}"))
        what, others = offer(index, generator)
        damaged = [(error.path, error.reason)]
        for other in others:
            try:
                return _Replaced(self._make(other, seed), damaged)
            except FileNotFoundError as missing:
                return Failure(missing)
            except ImageReadError as another:
                damaged.append((another.path, another.reason))
        tried = f"{len(damaged)} tried, first {error.path}: {error.reason}"
        return Failure(ImageReadError(f"No image of {what} can be read ({tried}); restore or remove them."))


def collate(samples: list[Any]) -> Loaded | Failure:
    """The batch of what `SeededDataset` made, or the first failure among it."""
    plain: list[Any] = []
    replaced, damaged = 0, []
    for sample in samples:
        if isinstance(sample, Failure):
            return sample
        if isinstance(sample, _Replaced):
            replaced += 1
            damaged += sample.damaged
            sample = sample.sample
        plain.append(sample)
    return Loaded(to_batch(plain), replaced, damaged)


def to_batch(samples: list[Any]) -> Any:
    """torch's default, but PIL images (no transform) stay a list."""
    first = samples[0]
    if isinstance(first, dict) and any(isinstance(value, Image.Image) for value in first.values()):
        return {
            key: [sample[key] for sample in samples]
            if isinstance(value, Image.Image)
            else default_collate([sample[key] for sample in samples])
            for key, value in first.items()
        }
    return default_collate(samples)


def survive_signals(worker_id: int) -> None:
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


def digest(key: str) -> int:
    """A seed of 63 bits for a name."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 1
