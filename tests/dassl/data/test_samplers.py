from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dassl.data.samplers import (
    RandomClassSampler,
    RandomDomainSampler,
    RandomSampler,
    SeqDomainSampler,
    SequentialSampler,
    _GroupSampler,
    build_sampler,
)


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _batches(sampler, size):
    flat = list(sampler)
    assert len(flat) == len(sampler)
    assert len(flat) % size == 0
    return [flat[i : i + size] for i in range(0, len(flat), size)]


def test_torch_samplers(make_data):
    items = make_data([0] * 10)
    sequential = build_sampler("SequentialSampler", data_source=items)
    assert isinstance(sequential, SequentialSampler)
    assert list(sequential) == list(range(10))
    shuffled = build_sampler("RandomSampler", data_source=items, generator=_generator())
    assert isinstance(shuffled, RandomSampler)
    assert list(shuffled) == torch.randperm(10, generator=_generator()).tolist()


def test_unknown_or_empty(make_data):
    with pytest.raises(ValueError, match=r"'RandomSampla' does not exist; .*do you mean 'RandomSampler'"):
        build_sampler("RandomSampla", data_source=make_data([0]))
    for source in ([], None):
        with pytest.raises(ValueError, match="RandomSampler got no image to draw from; check the data set"):
            build_sampler("RandomSampler", data_source=source)


@pytest.mark.parametrize("seed", range(5))
def test_random_class_sampler(make_data, seed):
    labels = [0] * 9 + [1] * 4 + [2] * 2 + [3] * 8  # class 2 has fewer than n_ins
    sampler = build_sampler(
        "RandomClassSampler", data_source=make_data(labels), batch_size=8, n_ins=4, generator=_generator(seed)
    )
    # blocks a class can fill: 2, 1, 1, 2; two different classes a batch: 3 batches
    assert isinstance(sampler, RandomClassSampler)
    assert len(sampler) == 24
    for _ in range(2):  # a second pass is as long
        drawn = Counter()
        for batch in _batches(sampler, 8):
            first, second = [[labels[i] for i in half] for half in (batch[:4], batch[4:])]
            assert len(set(first)) == len(set(second)) == 1
            assert first[0] != second[0]
            drawn.update(batch)
        assert all(count == 1 for i, count in drawn.items() if labels[i] != 2)
        assert sum(count for i, count in drawn.items() if labels[i] == 2) in (0, 4)


@pytest.mark.parametrize("seed", range(5))
def test_random_domain_sampler(make_data, seed):
    domains = [0] * 8 + [1] * 5 + [2] * 6
    items = make_data([0] * len(domains), domains)
    sampler = RandomDomainSampler(items, batch_size=4, n_domain=2, generator=_generator(seed))
    # pairs a domain can fill: 4, 2, 3; two different domains a batch: min(4,T) + min(2,T) + min(3,T) >= 2T -> T = 4
    batches = _batches(sampler, 4)
    assert len(batches) == 4
    for batch in batches:
        assert sorted(Counter(domains[i] for i in batch).values()) == [2, 2]
        assert domains[batch[0]] == domains[batch[1]]
    assert max(Counter(i for batch in batches for i in batch).values()) == 1


@pytest.mark.parametrize("n_domain", [0, -1, None, 3])
def test_all_domains_stop_with_the_smallest(make_data, n_domain):
    domains = [0] * 8 + [1] * 5 + [2] * 6
    items = make_data([0] * len(domains), domains)
    sampler = RandomDomainSampler(items, batch_size=6, n_domain=n_domain, generator=_generator())
    batches = _batches(sampler, 6)
    assert len(batches) == 2  # domain 1 has two pairs
    assert all(Counter(domains[i] for i in batch) == {0: 2, 1: 2, 2: 2} for batch in batches)


def test_sequential_domains_are_in_order(make_data):
    domains = [2, 0, 1] * 4
    sampler = build_sampler(
        "SeqDomainSampler", data_source=make_data([0] * 12, domains), batch_size=6, generator=_generator()
    )
    assert isinstance(sampler, SeqDomainSampler)
    batches = _batches(sampler, 6)
    assert [[domains[i] for i in batch] for batch in batches] == [[0, 0, 1, 1, 2, 2]] * 2
    assert sorted(i for batch in batches for i in batch) == list(range(12))


def test_generator_decides(make_data):
    items = make_data([0, 1, 2, 3] * 6, [0, 1] * 12)
    for name in ("RandomClassSampler", "RandomDomainSampler", "SeqDomainSampler"):
        one, same, other = (
            list(build_sampler(name, data_source=items, batch_size=4, n_ins=2, generator=_generator(seed)))
            for seed in (1, 1, 2)
        )
        assert one == same
        assert one != other


def test_without_generator_torch_decides(make_data):
    sampler = RandomClassSampler(make_data([0, 1, 2, 3] * 6), batch_size=4, n_ins=2)
    torch.manual_seed(1)
    one, two = list(sampler), list(sampler)
    torch.manual_seed(1)
    assert list(sampler) == one
    assert one != two


def test_what_cannot_be_formed(make_data):
    two = make_data([0] * 4, [0, 0, 1, 1])
    with pytest.raises(
        ValueError, match="RandomDomainSampler needs a batch size that is a multiple of 2 domains, got 3"
    ):
        RandomDomainSampler(two, batch_size=3)
    with pytest.raises(ValueError, match="SeqDomainSampler needs a batch size that is a multiple of 2 domains, got 5"):
        SeqDomainSampler(two, batch_size=5)
    with pytest.raises(ValueError, match=r"needs a batch of at least n_ins = 4 images, got 3"):
        RandomClassSampler(two, batch_size=3, n_ins=4)
    with pytest.raises(
        ValueError, match="RandomDomainSampler needs 2 domains with 3 images each in a batch, but only 0 of 2 domains"
    ):
        RandomDomainSampler(two, batch_size=6)
    with pytest.raises(ValueError, match=r"RandomClassSampler needs 2 classes with 1 images .* only 1 of 1"):
        RandomClassSampler(two, batch_size=2, n_ins=1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(1, 4), st.integers(1, 3), st.integers(0, 99))
def test_any_groups_fill_the_announced_batches(sizes, n_groups, per_group, seed):
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    groups = {name: list(range(start, start + n)) for name, (start, n) in enumerate(zip(starts, sizes, strict=True))}
    owner = {i: name for name, members in groups.items() for i in members}
    possible = sum(n >= per_group for n in sizes) >= n_groups
    if not possible:
        with pytest.raises(ValueError, match="make the batch smaller"):
            _GroupSampler(groups, n_groups, per_group, "groups")
        return
    sampler = _GroupSampler(groups, n_groups, per_group, "groups", generator=_generator(seed))
    batches = _batches(sampler, n_groups * per_group)
    assert len(batches) >= 1
    for batch in batches:
        assert sorted(Counter(owner[i] for i in batch).values()) == [per_group] * n_groups
    flat = [i for batch in batches for i in batch]
    assert len(set(flat)) == len(flat)
