"""The reservoir: a uniform sample, whatever the batches."""

import numpy as np
import pytest
import torch

from trainers.spt.reservoir import Reservoir

ROWS = torch.arange(40.0)[:, None].expand(-1, 3)


def sample(size, seed, batches, rows=ROWS):
    reservoir = Reservoir(size, (seed, 0))
    for part in rows.split(batches):
        reservoir.add(part)
    return reservoir


@pytest.mark.parametrize("batches", [1, 7, 40])
def test_the_sample_does_not_depend_on_the_batches(batches):
    drawn = sample(5, 3, batches).rows()
    assert torch.equal(drawn, sample(5, 3, 13).rows())
    # the same keys, drawn at once: the five smallest stay
    keys = np.random.default_rng([3, 0]).random(40)
    np.testing.assert_array_equal(drawn[:, 0].numpy(), np.argsort(keys)[:5])


def test_rows_are_distinct_and_all_rows_are_equally_likely():
    counts = np.zeros(40)
    for seed in range(800):
        rows = sample(10, seed, 9).rows()[:, 0].numpy().astype(int)
        assert len(set(rows)) == 10
        counts[rows] += 1
    # binomial, 800 draws with probability 1/4: mean 200, standard deviation 12.2
    assert abs(counts - 200).max() < 5 * 12.3


def test_a_short_stream_is_kept_whole_and_counted():
    reservoir = sample(100, 1, 6)
    assert sorted(reservoir.rows()[:, 0].tolist()) == list(range(40))
    assert reservoir.seen == 40


def test_another_seed_draws_other_rows():
    assert not torch.equal(sample(5, 1, 8).rows(), sample(5, 2, 8).rows())


def test_only_the_sample_is_kept():
    reservoir = sample(5, 0, 4, torch.randn(4000, 3))
    assert reservoir._rows.untyped_storage().nbytes() == 5 * 3 * 4


def test_half_precision_comes_out_as_fp32():
    assert sample(4, 0, 8, ROWS.to(torch.bfloat16)).rows().dtype == torch.float32


def test_nothing_to_draw_from():
    with pytest.raises(ValueError, match="No row came"):
        Reservoir(3, (0, 0)).rows()
