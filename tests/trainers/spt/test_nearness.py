"""Nearness against loops in NumPy, and what it must be in cases where one knows."""

import itertools

import numpy as np
import pytest
import torch

from trainers.spt.nearness import mean_nearness, nearness, token_samples
from trainers.spt.start import StartOptions, start_prompts
from trainers.spt.towers import ClipTower


def rows(n, seed, shift=0.0):
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed)) + shift


def test_against_loops():
    prompts, tokens = rows(4, 0, 0.5), rows(9, 1)
    p, t = prompts.double().numpy(), tokens.double().numpy()
    cosines = np.array([[a @ b / np.sqrt((a @ a) * (b @ b)) for b in t] for a in p])
    distances = sorted(((a - b) ** 2).sum() for a, b in itertools.combinations(t, 2))
    median = distances[(len(distances) - 1) // 2]  # 36 pairs: torch takes the lower of the two in the middle

    def kernel(a, b):
        return np.exp(-((a - b) ** 2).sum() / median)

    within_p = np.mean([kernel(a, b) for a, b in itertools.permutations(p, 2)])
    within_t = np.mean([kernel(a, b) for a, b in itertools.permutations(t, 2)])
    between = np.mean([kernel(a, b) for a in p for b in t])
    found = nearness(prompts, tokens)
    assert found.cosine == pytest.approx(cosines.mean())
    assert found.nearest == pytest.approx(cosines.max(axis=1).mean())
    assert found.mmd == pytest.approx(within_p + within_t - 2 * between)


def test_mmd_is_zero_on_average_for_prompts_drawn_from_the_tokens_and_not_for_others():
    tokens = rows(300, 2)
    drawn = [
        nearness(tokens[torch.randperm(300, generator=torch.Generator().manual_seed(s))[:8]], tokens).mmd
        for s in range(60)
    ]
    assert abs(np.mean(drawn)) < 0.01
    assert nearness(rows(8, 3, 2.0), tokens).mmd > 0.5


def test_a_prompt_that_is_a_token_is_its_nearest():
    tokens = rows(20, 4)
    assert nearness(tokens[:3], tokens).nearest == pytest.approx(1.0)


def test_layers_are_averaged(backbone, images):
    samples = token_samples(ClipTower(backbone.vision), images.split(2), 2, 30, seed=0)
    assert [tuple(sample.shape) for sample in samples] == [(30, 64), (30, 64)]
    prompts = [rows(3, 5).repeat(1, 11)[:, :64], rows(3, 6).repeat(1, 11)[:, :64]]
    each = [nearness(p, s) for p, s in zip(prompts, samples, strict=True)]
    assert mean_nearness(prompts, samples).cosine == pytest.approx((each[0].cosine + each[1].cosine) / 2)
    assert mean_nearness(prompts, samples).mmd == pytest.approx((each[0].mmd + each[1].mmd) / 2)


def test_the_sample_is_drawn_independently_of_prototypes_of_the_same_seed(backbone, images):
    tower = ClipTower(backbone.vision)
    prompts = [torch.zeros(8, 64), torch.zeros(8, 64)]
    start_prompts(prompts, tower, lambda: images.split(2), StartOptions("random", seed=3))
    samples = token_samples(tower, images.split(2), 2, 8, seed=3)
    for rows_, sample in zip(prompts, samples, strict=True):
        same = (torch.cdist(rows_, sample) < 1e-5).any(dim=1)
        assert same.sum() < 4  # 8 of 80 tokens each


def test_one_prompt_has_no_distribution():
    with pytest.raises(ValueError, match="needs two prompts and two tokens, got 1 and 9"):
        nearness(rows(1, 0), rows(9, 1))
