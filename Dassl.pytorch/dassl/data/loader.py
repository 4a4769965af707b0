"""A DataLoader whose batches depend on (seed, epoch, position) alone.

Neither the number of workers nor an interruption changes the order or the augmentation of the training images: the
order of a pass comes from a generator seeded by (seed, stream, epoch, restart), and each sample is made under Python's,
NumPy's and torch's generators seeded by a number that goes with its position in the pass. Those generators are put back
afterwards, so loading leaves no trace in the main process.

    start_epoch(loader, epoch)     # the next iteration is this epoch, from its start
    for batch in loader: ...       # a further iteration in the same epoch is a `restart`, with another order
    state = loader_state(loader)   # plain data
    restore_loader(loader, state)  # the next iteration goes on there, without loading what came before
    damaged_images(loader)         # how many were replaced in this epoch, and which files they were

Nor does the number of processes: each of them takes its share of every batch in training (the batch size is that of all
processes together), and whole batches, in blocks, in evaluation.

`seeded_batches` is one pass over samples whose order and seeds the caller chooses.
"""

from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from dassl import distributed

from .samples import Failure, Loaded, SeededDataset, collate, digest, survive_signals, to_batch

__all__ = [
    "EpochLoader",
    "damaged_images",
    "images_of_step",
    "loader_state",
    "restore_loader",
    "seeded_batches",
    "share_damage",
    "start_epoch",
]


class EpochLoader(DataLoader):
    """See the head of this file.

    Args:
        dataset: anything with `__getitem__(int)` and `__len__`; it needs to know nothing of seeds. To have damaged
            images replaced it also needs `replacements`, as in `DatasetWrapper`.
        sampler: yields the indices of a pass.
        batch_size: images, in all processes together.
        drop_last: leave out an incomplete last batch.
        seed: of this loader.
        stream: a name mixed into the seed, so that two loaders of a run differ.
        generator: the one that `sampler` draws from, seeded anew for each pass; None if it draws nothing.
        varies: each pass differs (training); False: all passes are equal (evaluation).
        divides: each process takes its share of every batch; False: its share of the batches.
        num_workers: loading processes, kept alive between passes; more than there are batches are not started.
        pin_memory: as in torch.
        replace: put another image of its class in the place of one that cannot be read; else iteration ends there.

    Attributes:
        images: of the last batch, in all processes together.
        replaced: images that another one stood in for, in this epoch so far.
        damaged: paths that could not be read and why, in this run so far; each is named in the log when it is added.
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
        divides: bool = False,
        num_workers: int = 0,
        pin_memory: bool = False,
        replace: bool = False,
    ):
        assert isinstance(sampler, Sized)
        batches = len(sampler) // batch_size if drop_last else -(-len(sampler) // batch_size)
        workers = min(num_workers, batches)
        options: dict[str, Any] = {
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "pin_memory": pin_memory,
            "worker_init_fn": survive_signals,
            "generator": torch.Generator(),  # torch seeds workers from it; the global one would be drawn from otherwise
        }
        super().__init__(
            dataset, sampler=sampler, batch_size=batch_size, drop_last=drop_last, collate_fn=to_batch, **options
        )
        self.seed = seed
        self.stream = stream
        self.varies = varies
        self.divides = divides
        self.order_generator = generator
        self._order = _Order(sampler, generator, batch_size, drop_last, divides)
        # The user sees a loader over `dataset`; this one feeds (index, seed) pairs to it.
        self._inner = DataLoader(
            SeededDataset(dataset, replace), batch_sampler=self._order, collate_fn=collate, **options
        )
        self.images = 0
        self._next = (0, 0, 0)  # epoch, restart, batches to skip: of the next pass
        self._now = (0, 0, 0)  # epoch, restart, batches handed out: of the current pass
        self._restored = False
        self.replaced = 0
        self.damaged: dict[str, str] = {}

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        epoch, restart, skip = self._next
        self._now = self._next
        self._restored = False
        self._next = (epoch, restart + 1, 0) if self.varies else (0, 0, 0)
        self._order.begin(f"{self.seed}/{self.stream}/{epoch}/{restart}", skip)
        for loaded in self._inner:
            if isinstance(loaded, Failure):
                raise loaded.kind(loaded.message)  # a new one: an old one's traceback would keep this loader alive
            self._note_damage(loaded)
            self.images = self._order.images(skip)
            skip += 1
            self._now = (epoch, restart, skip)
            yield loaded.batch

    def _note_damage(self, loaded: Loaded) -> None:
        self.replaced += loaded.replaced
        self._name(loaded.damaged)

    def share_damage(self) -> None:
        """See `share_damage` of this module."""
        everyone = distributed.gather_plain([self.replaced, list(self.damaged.items())])
        self.replaced = sum(replaced for replaced, _ in everyone) if distributed.is_main() else 0
        for _, damaged in everyone:
            self._name(damaged)

    def _name(self, damaged: Iterable[tuple[str, str]]) -> None:
        for path, reason in damaged:
            if path in self.damaged:
                continue
            self.damaged[path] = reason
            with tqdm.external_write_mode():  # a bar on the terminal makes room for the line
                print(f"Cannot read the image {path} ({reason}); another image of its class takes its place")

    def start_epoch(self, epoch: int) -> None:
        """See `start_epoch` of this module."""
        if not (self._restored and self._next[0] == epoch) and self.varies:
            self._restored = False
            self._next = self._now = (epoch, 0, 0)
            self.replaced = 0

    def state_dict(self) -> dict[str, Any]:
        """See `loader_state` of this module."""
        epoch, restart, batches = self._now
        position = {"seed": self.seed, "epoch": epoch, "restart": restart, "batches": batches, "length": len(self)}
        return {**position, "replaced": self.replaced, "damaged": dict(self.damaged)}

    def load_state_dict(self, state: dict[str, Any], skip_batches: int | None = None) -> None:
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
        self.replaced = state.get("replaced", 0) if distributed.is_main() else 0  # absent in earlier states
        self.damaged.update(state.get("damaged", {}))


def start_epoch(loader: Any, epoch: int) -> None:
    """Make the next iteration of `loader` that of `epoch`, counted from 0.

    A position that `restore_loader` has set in the same epoch is kept. Other loaders, and None, are left alone.
    """
    if isinstance(loader, EpochLoader):
        loader.start_epoch(epoch)


def loader_state(loader: Any) -> dict[str, Any]:
    """Where `loader` stands: seed, epoch, restart, batches handed out in this pass, batches in a pass, damaged images.

    Returns:
        plain data; {} for None and for loaders of another make.
    """
    return loader.state_dict() if isinstance(loader, EpochLoader) else {}


def damaged_images(loader: Any) -> tuple[int, list[str]]:
    """Images of `loader` that were replaced in this epoch, and paths of those found damaged in this run.

    Returns:
        0 and [] for None and for loaders of another make.
    """
    return (loader.replaced, list(loader.damaged)) if isinstance(loader, EpochLoader) else (0, [])


def restore_loader(loader: Any, state: dict[str, Any], skip_batches: int | None = None) -> None:
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


def images_of_step(loader: Any) -> int | None:
    """Images of the last batch in all processes; None for loaders of another make, which are not divided."""
    return loader.images if isinstance(loader, EpochLoader) else None


def seeded_batches(
    dataset: Dataset, samples: Sequence[tuple[int, int]], batch_size: int, num_workers: int = 0
) -> Iterator[Any]:
    """Batches of samples in the given order, each made under its own seed.

    Args:
        dataset: as in `EpochLoader`.
        samples: index and seed of each.
        batch_size: images; the last batch may be smaller.
        num_workers: loading processes.

    Raises:
        FileNotFoundError, ImageReadError: an image is missing or can't be read.
    """
    loader: DataLoader = DataLoader(
        SeededDataset(dataset),
        batch_size,
        sampler=samples,  # type: ignore[arg-type]  # any iterable of what the data set takes
        collate_fn=collate,
        num_workers=min(num_workers, -(-len(samples) // batch_size)),
        worker_init_fn=survive_signals,
        generator=torch.Generator(),  # as in EpochLoader
    )
    for loaded in loader:
        if isinstance(loaded, Failure):
            raise loaded.kind(loaded.message)
        yield loaded.batch


def share_damage(loader: Any) -> None:
    """Tell the first process, which writes log and record, of the images that others have found damaged.

    All processes call it. Afterwards all know the paths, and the first one has the number of all replaced images.
    """
    if isinstance(loader, EpochLoader) and distributed.world_size() > 1:
        loader.share_damage()


class _Order(Sampler[list[tuple[int, int]]]):
    """This process's part of the batches of a pass: the sampler's indices, each with the seed of its sample."""

    def __init__(
        self, sampler: Sampler[int], generator: torch.Generator | None, batch_size: int, drop_last: bool, divides: bool
    ):
        self.sampler = sampler
        self.generator = generator
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.divides = divides
        self.begin("", 0)

    def begin(self, key: str, skip: int) -> None:
        self._key = key
        self._skip = skip  # batches

    def images(self, batch: int) -> int:
        """Size of a batch of the pass, in all processes together."""
        return min(self.batch_size, len(self.sampler) - batch * self.batch_size)  # type: ignore[arg-type]

    def __len__(self) -> int:
        n = len(self.sampler)  # type: ignore[arg-type]
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        if self.generator is not None:
            self.generator.manual_seed(digest(f"order/{self._key}"))
        indices = list(self.sampler)
        source = torch.Generator().manual_seed(digest(f"sample/{self._key}"))
        seeds = torch.randint(2**63 - 1, (len(indices),), generator=source).tolist()
        items = list(zip(indices, seeds, strict=True))
        size = self.batch_size
        batches = [items[i * size : (i + 1) * size] for i in range(len(self))]
        if not self.divides:
            return iter(batches[distributed.share(len(batches))][self._skip :])
        if min(map(len, batches)) < distributed.world_size():
            raise ValueError(
                f"A batch of {min(map(len, batches))} images cannot be divided among {distributed.world_size()} "
                "processes; start fewer, or choose a larger DATALOADER.TRAIN_X.BATCH_SIZE."
            )
        return iter([batch[distributed.share(len(batch))] for batch in batches[self._skip :]])
