"""The cache of visual concepts against loops over tokens and slots."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.trainers.cache_oracle import array, read_by_hand, write_by_hand
from trainers.local_cache import LocalCache


def test_the_cache_starts_as_unit_rows_in_the_positive_orthant():
    slots = array(LocalCache(25, 16).slots)
    assert (slots >= 0).all()
    np.testing.assert_allclose((slots**2).sum(axis=1), 1, atol=1e-6)
    assert not LocalCache(25, 16).slots.requires_grad


@pytest.mark.parametrize("temperature", [1.0, 0.05])
def test_a_read_is_a_softmax_over_slots(temperature):
    cache, queries = LocalCache(7, 12, temperature=temperature), F.normalize(torch.randn(5, 12), dim=1)
    expected = [read_by_hand(array(cache.slots), query, temperature) for query in array(queries)]
    np.testing.assert_allclose(array(cache.read(queries)), expected, atol=1e-6)


@pytest.mark.parametrize("rule", ["sum", "mean"])
@pytest.mark.parametrize(("n_tokens", "n_slots"), [(40, 7), (3, 25), (1, 1)])
def test_a_write_is_that_of_the_loop_over_slots(rule, n_tokens, n_slots):
    torch.manual_seed(n_tokens)
    cache, tokens = LocalCache(n_slots, 12, 0.8, rule=rule), 3 * torch.randn(n_tokens, 12)
    expected = write_by_hand(array(cache.slots), array(tokens), 0.8, rule)
    cache.write(tokens)
    np.testing.assert_allclose(array(cache.slots), expected, atol=1e-6)


def test_a_slot_without_tokens_and_a_momentum_of_one_stay():
    cache = LocalCache(25, 12)
    before = cache.slots.clone()
    cache.write(torch.randn(3, 12))
    changed = (cache.slots - before).abs().amax(dim=1) > 1e-6
    assert 1 <= changed.sum() <= 3
    still = LocalCache(4, 12, momentum=1.0)
    before = still.slots.clone()
    still.write(torch.randn(30, 12))
    torch.testing.assert_close(still.slots, before)


def test_the_order_of_tokens_does_not_matter():
    cache, tokens = LocalCache(5, 12), torch.randn(20, 12)
    other = LocalCache(5, 12)
    other.load_state_dict(cache.state_dict())
    cache.write(tokens)
    other.write(tokens.flip(0))
    torch.testing.assert_close(cache.slots, other.slots, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_slots": 0}, "N_SLOTS must be at least 1, got 0"),
        ({"momentum": 1.5}, r"MOMENTUM must be in \[0, 1\], got 1.5"),
        ({"temperature": 0.0}, "READ_TEMPERATURE must be positive, got 0.0"),
        ({"rule": "median"}, "WRITE must be one of sum, mean, got 'median'"),
    ],
)
def test_bad_options_of_the_cache(options, message):
    with pytest.raises(ValueError, match=message):
        LocalCache(**{"n_slots": 3, "width": 4, **options})
