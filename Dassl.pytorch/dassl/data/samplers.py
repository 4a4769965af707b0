"""Which images form a batch.

Every sampler draws from its own `torch.Generator` when it has one (the loaders give it one and seed it each epoch),
else from torch's global generator. A pass always has the announced length: trainers find their last batch by counting.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence, Sized

import torch
from torch.utils.data import RandomSampler, Sampler, SequentialSampler
from yacs.config import CfgNode

from dassl.utils import check_availability

from .datasets.base_dataset import Datum

__all__ = [
    "RandomClassSampler",
    "RandomDomainSampler",
    "RandomSampler",
    "SeqDomainSampler",
    "SequentialSampler",
    "build_sampler",
]

_NAMES = ["RandomSampler", "SequentialSampler", "RandomDomainSampler", "SeqDomainSampler", "RandomClassSampler"]


class _GroupSampler(Sampler[int]):
    """Batches of `n_groups` groups (domains, classes) with `per_group` images of each, none drawn twice.

    A group with fewer than `per_group` images counts once, drawn with repetition, if `oversample`. There are as many
    batches as the groups can fill: the largest T with sum_g min(capacity_g, T) >= n_groups * T.
    """

    def __init__(
        self,
        groups: dict[Hashable, list[int]],
        n_groups: int,
        per_group: int,
        what: str,
        oversample: bool = False,
        shuffle_groups: bool = True,
        generator: torch.Generator | None = None,
    ):
        self.groups = groups
        self.n_groups = n_groups
        self.per_group = per_group
        self.shuffle_groups = shuffle_groups
        self.generator = generator
        self._capacity = {
            name: max(len(members) // per_group, int(oversample)) for name, members in groups.items()
        }  # batches a group can serve
        batches = 0
        while sum(min(c, batches + 1) for c in self._capacity.values()) >= n_groups * (batches + 1):
            batches += 1
        self.n_batches = batches
        if not batches:
            enough = sum(c > 0 for c in self._capacity.values())
            raise ValueError(
                f"{type(self).__name__} needs {n_groups} {what} with {per_group} images each in a batch, but only "
                f"{enough} of {len(groups)} {what} have that many; make the batch smaller."
            )

    def __len__(self) -> int:
        return self.n_batches * self.n_groups * self.per_group

    def __iter__(self) -> Iterator[int]:
        generator = self.generator or _fresh_generator()
        pools = {name: self._chunks(members, generator) for name, members in self.groups.items()}
        left = dict(self._capacity)
        for remaining in range(self.n_batches, 0, -1):
            for name in self._choose(left, remaining, generator):
                left[name] -= 1
                yield from pools[name].pop()

    def _choose(self, left: dict[Hashable, int], remaining: int, generator: torch.Generator) -> list[Hashable]:
        """Draw the groups of one batch so that the batches after it can still be filled."""
        full = [name for name, c in left.items() if c >= remaining]  # may miss no more batches than there is slack
        slack = sum(min(c, remaining) for c in left.values()) - self.n_groups * remaining
        forced = _shuffled(full, generator)[: max(0, len(full) - slack)]
        others = _shuffled([name for name, c in left.items() if c > 0 and name not in forced], generator)
        chosen = forced + others[: self.n_groups - len(forced)]
        return _shuffled(chosen, generator) if self.shuffle_groups else [name for name in left if name in chosen]

    def _chunks(self, members: list[int], generator: torch.Generator) -> list[list[int]]:
        n = self.per_group
        if len(members) < n:
            picks = torch.randint(len(members), (n,), generator=generator).tolist()
            return [[members[i] for i in picks]]
        order = _shuffled(members, generator)
        return [order[i : i + n] for i in range(0, len(order) - n + 1, n)]


class RandomDomainSampler(_GroupSampler):
    """Each batch holds `batch_size / n_domain` images of each of `n_domain` random domains, in one block a domain.

    Args:
        data_source: the images.
        batch_size: images, a multiple of `n_domain`.
        n_domain: domains a batch; None or below 1: all.

    Raises:
        ValueError: the batch cannot be divided, or the domains cannot fill one.
    """

    def __init__(
        self,
        data_source: Sequence[Datum],
        batch_size: int,
        n_domain: int | None = None,
        generator: torch.Generator | None = None,
    ):
        groups = _group(data_source, "domain")
        if n_domain is None or n_domain < 1:
            n_domain = len(groups)
        _check_divides(batch_size, n_domain, type(self).__name__)
        super().__init__(groups, n_domain, batch_size // n_domain, "domains", generator=generator)
        self.n_domain = n_domain


class SeqDomainSampler(_GroupSampler):
    """Each batch holds `batch_size / n` images of each of the n domains, domains in ascending order.

    Raises:
        ValueError: the batch cannot be divided, or the domains cannot fill one.
    """

    def __init__(self, data_source: Sequence[Datum], batch_size: int, generator: torch.Generator | None = None):
        groups = _group(data_source, "domain")
        _check_divides(batch_size, len(groups), type(self).__name__)
        per_group = batch_size // len(groups)
        super().__init__(groups, len(groups), per_group, "domains", shuffle_groups=False, generator=generator)


class RandomClassSampler(_GroupSampler):
    """Each batch holds `n_ins` images of each of `batch_size // n_ins` random classes, in one block a class.

    A class with fewer images is drawn with repetition; what does not fill a block of `n_ins` is left out of the pass.

    Raises:
        ValueError: the batch is smaller than `n_ins`, or there are too few classes.
    """

    def __init__(
        self, data_source: Sequence[Datum], batch_size: int, n_ins: int, generator: torch.Generator | None = None
    ):
        if batch_size < n_ins:
            raise ValueError(f"RandomClassSampler needs a batch of at least n_ins = {n_ins} images, got {batch_size}.")
        groups = _group(data_source, "label")
        super().__init__(groups, batch_size // n_ins, n_ins, "classes", oversample=True, generator=generator)


def build_sampler(
    sampler_type: str,
    cfg: CfgNode | None = None,
    data_source: Sequence[Datum] | None = None,
    batch_size: int = 32,
    n_domain: int = 0,
    n_ins: int = 16,
    generator: torch.Generator | None = None,
) -> Sampler[int]:
    """Build a sampler over `data_source`.

    Raises:
        ValueError: unknown type, empty source, or a batch that the type cannot form.
    """
    check_availability(sampler_type, _NAMES)
    source: Sequence[Datum] = data_source if data_source is not None else []
    if not isinstance(source, Sized) or len(source) == 0:
        raise ValueError(f"{sampler_type} got no image to draw from; check the data set and its split.")
    if sampler_type == "RandomSampler":
        return RandomSampler(source, generator=generator)
    if sampler_type == "SequentialSampler":
        return SequentialSampler(source)
    if sampler_type == "RandomDomainSampler":
        return RandomDomainSampler(source, batch_size, n_domain, generator)
    if sampler_type == "SeqDomainSampler":
        return SeqDomainSampler(source, batch_size, generator)
    return RandomClassSampler(source, batch_size, n_ins, generator)


def _group(data_source: Sequence[Datum], attribute: str) -> dict[Hashable, list[int]]:
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for index, item in enumerate(data_source):
        groups[getattr(item, attribute)].append(index)
    return dict(sorted(groups.items()))  # type: ignore[type-var]


def _check_divides(batch_size: int, n_domain: int, name: str) -> None:
    if batch_size % n_domain:
        raise ValueError(f"{name} needs a batch size that is a multiple of {n_domain} domains, got {batch_size}.")


def _shuffled(items: Sequence, generator: torch.Generator) -> list:
    return [items[i] for i in torch.randperm(len(items), generator=generator).tolist()]


def _fresh_generator() -> torch.Generator:
    return torch.Generator().manual_seed(int(torch.empty((), dtype=torch.int64).random_().item()))
