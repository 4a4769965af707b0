"""Windows against the release's rule written in NumPy, and the case in which that rule takes the whole image."""

import numpy as np
import pytest
import torch

from trainers.spt.windows import pool_windows, window_bounds


def released(tokens, n_prompts):
    """The windows of one image [N, w], as released: P - 1 of ⌊N / (P - 1)⌋ tokens, then the last N mod w."""
    size = len(tokens) // (n_prompts - 1)
    parts = [tokens[i * size : (i + 1) * size] for i in range(n_prompts - 1)]
    return [*parts, tokens[-(len(tokens) % size) :]]


@pytest.mark.parametrize(("n_tokens", "n_prompts"), [(196, 20), (196, 9), (196, 60), (64, 8), (16, 4), (5, 3)])
def test_windows_are_the_released_ones(n_tokens, n_prompts):
    tokens = np.random.default_rng(n_prompts).normal(size=(3, n_tokens, 4))
    for pooling, numpy_pooling in (("mean", np.mean), ("max", np.max)):
        expected = [[numpy_pooling(part, axis=0) for part in released(image, n_prompts)] for image in tokens]
        pooled = pool_windows(torch.from_numpy(tokens), n_prompts, pooling)
        np.testing.assert_allclose(pooled.numpy(), np.array(expected), rtol=1e-12)


def test_twenty_prompts_of_vit_b16_are_as_the_paper_counts_them():
    bounds = window_bounds(196, 20)
    assert len(bounds) == 20
    assert [last - first for first, last in bounds] == [10] * 19 + [6]


@pytest.mark.parametrize(
    ("n_tokens", "n_prompts", "expected"),
    [
        (196, 50, [(4 * i, 4 * i + 4) for i in range(49)]),  # nothing is left over
        (196, 8, [(28 * i, 28 * i + 28) for i in range(7)]),  # VPT's number of prompts on ViT-B/16
        (64, 9, [(8 * i, 8 * i + 8) for i in range(8)]),
        (196, 100, [(i, i + 1) for i in range(99)] + [(99, 196)]),  # what the others leave over
        (10, 1, [(0, 10)]),
    ],
)
def test_a_remainder_of_zero_does_not_mean_the_whole_image(n_tokens, n_prompts, expected):
    assert window_bounds(n_tokens, n_prompts) == expected


def test_more_prompts_than_patches():
    with pytest.raises(ValueError, match="need at least 17 patches an image, but there are 16; choose a smaller"):
        window_bounds(16, 18)
