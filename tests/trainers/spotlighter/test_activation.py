"""Activation scores against the oracle, and what must hold for every one of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trainers.spotlighter import activation

SHAPES = [(1, 3, 9, 2), (3, 5, 11, 4), (4, 7, 16, 5)]  # B, C, N, K
S = torch.tensor(10.0, dtype=torch.float64)


def arrays(*tensors):
    return [t.double().numpy() for t in tensors]


@pytest.fixture(params=SHAPES, ids=str)
def case(request, draw):
    B, C, N, K = request.param
    return [draw.units(B, N, 12), draw.units(B, 12), draw.units(C, 12), draw.units(C, K, 12)]


def test_mean_text(case, oracle, close):
    _, image, text, _ = case
    close(activation.mean_text(image, text, S), oracle.t_bar(*arrays(image, text), 10.0), 1e-10)


def test_sample_scores_are_the_weighted_sum_over_classes(case, oracle, close):
    patches, image, text, _ = case
    scores = activation.sample_scores(patches, activation.mean_text(image, text, S))
    close(scores, oracle.sample_mean(*arrays(patches, image, text), 10.0), 1e-10)


@pytest.mark.parametrize("chunk", [1, 2, 64])
def test_max_scores(case, oracle, close, chunk):
    patches, _, text, _ = case
    close(activation.max_scores(patches, text, chunk=chunk), oracle.sample_max(*arrays(patches, text)), 1e-10)


def test_max_scores_of_one_class_keep_their_sign(draw, close):
    """The maximum starts below every cosine."""
    text = draw.units(1, 12)
    close(activation.max_scores(-text.expand(2, 4, 12), text), -np.ones((2, 4)))


def test_match_class(case, oracle):
    _, image, _, prototypes = case
    assert activation.match_class(image, prototypes).tolist() == oracle.match(*arrays(image, prototypes)).tolist()


def test_match_class_takes_the_best_prototype_not_the_best_mean():
    prototypes = torch.tensor([[[0.0, 1.0], [1.0, 0.0]], [[0.6, 0.8], [0.6, 0.8]]])
    assert activation.match_class(torch.tensor([[0.1, 1.0], [0.6, 0.8]]), prototypes).tolist() == [0, 1]


def test_semantic_scores(case, oracle, close):
    patches, image, text, prototypes = case
    mean_text = activation.mean_text(image, text, S)
    own = prototypes[activation.match_class(image, prototypes)]
    expected = oracle.semantic(*arrays(patches, own, mean_text), 10.0)
    close(activation.semantic_scores(patches, own, mean_text, S), expected, 1e-10)


@pytest.mark.parametrize("size", [1e-3, 1.0, 50.0])
def test_standardise(draw, oracle, close, size):
    scores = size * draw.rows(3, 11).double() + 7
    result = activation.standardise(scores)
    close(result, oracle.standardise(scores.numpy()), 1e-9)
    close(result.mean(1), np.zeros(3), 1e-9)
    close(result.std(1, correction=0), np.ones(3), 1e-9)


def test_standardise_equal_scores_gives_zeros(close):
    close(activation.standardise(torch.full((2, 9), 0.25)), np.zeros((2, 9)))


@pytest.mark.parametrize("k", [1, 5, 10])
def test_select(draw, oracle, k):
    scores = draw.rows(4, 11)
    index = activation.select(scores, k)
    assert index.tolist() == oracle.select(scores.numpy(), k).tolist()
    kept = scores.gather(1, index)
    dropped = scores.scatter(1, index, -torch.inf).amax(1)
    assert (kept.amin(1) >= dropped).all()
    assert (kept.diff(dim=1) <= 0).all()


@pytest.mark.parametrize("k", [9, 10, 0])
def test_select_refuses_what_is_no_selection(draw, k):
    with pytest.raises(ValueError, match=rf"9\b.*\b{k}\b|\b{k}\b.*\b9\b"):
        activation.select(draw.rows(2, 9), k)


def test_permuting_patches_permutes_every_score(case):
    patches, image, text, prototypes = case
    order = torch.randperm(patches.shape[1], generator=torch.Generator().manual_seed(5))
    mean_text = activation.mean_text(image, text, S)
    own = prototypes[activation.match_class(image, prototypes)]
    functions = [
        lambda p: activation.sample_scores(p, mean_text),
        lambda p: activation.max_scores(p, text),
        lambda p: activation.semantic_scores(p, own, mean_text, S),
        lambda p: activation.standardise(activation.sample_scores(p, mean_text)),
    ]
    for function in functions:
        torch.testing.assert_close(function(patches[:, order]), function(patches)[:, order], rtol=0, atol=1e-12)
