"""The solver against scikit-learn and the gradient of the objective; the search against a plain reading of its rule."""

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from trainers.logistic import GRID, SOLVERS, fit, objective, search


def blobs(n_cls, each=12, d=5, spread=1.5):
    """Overlapping classes: features [n, d] in fp32 with norms well above 1, labels [n] in turns."""
    rng = np.random.default_rng(n_cls)
    label = np.tile(np.arange(n_cls), each)
    centres = rng.normal(size=(n_cls, d))
    return torch.tensor(3 + centres[label] + spread * rng.normal(size=(len(label), d))).float(), torch.tensor(label)


def gradient(head, features, label, c):
    """Of the objective, in NumPy: for W and for b."""
    x, y, w = features.double().numpy(), label.numpy(), head.weight.double().numpy()
    z = x @ w.T + head.bias.double().numpy()
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    return c * p.T @ x + w, c * p.sum(0)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("n_cls", [2, 3, 7])
@pytest.mark.parametrize("c", [0.01, 1.0, 30.0])
def test_the_gradient_of_the_objective_is_zero_at_the_solution(solver, n_cls, c):
    features, label = blobs(n_cls)
    head = fit(features, label, n_cls, c, solver, tolerance=1e-9)
    assert (head.weight.shape, head.bias.shape) == ((n_cls, 5), (n_cls,))
    assert {head.weight.dtype, head.bias.dtype} == {torch.float32}
    scale = c * len(label)
    for part in gradient(head, features, label, c):
        assert np.abs(part).max() / scale < 2e-5  # weights are rounded to fp32


@pytest.mark.parametrize("c", [0.001, 0.1, 10.0])
def test_both_solvers_find_the_weights_of_plain_scikit_learn(c):
    features, label = blobs(6)
    x, y = features.double().numpy(), label.numpy()
    expected = LogisticRegression(C=c, max_iter=5000, tol=1e-10).fit(x, y)
    for solver in SOLVERS:
        head = fit(features, label, 6, c, solver, tolerance=1e-10)
        np.testing.assert_allclose(head.weight, expected.coef_, atol=2e-4, rtol=1e-3)
        np.testing.assert_allclose(head.bias, expected.intercept_, atol=2e-4, rtol=1e-3)
        assert head.correct(features, label) == int((expected.predict(x) == y).sum())


@pytest.mark.parametrize("c", [1e-6, 1e-2, 1.0, 1e2, 1e6])
def test_at_the_default_tolerance_both_solvers_classify_alike(c):
    features, label = blobs(5, each=40)
    held, held_label = blobs(5, each=30, spread=1.0)
    heads = [fit(features, label, 5, c, solver) for solver in SOLVERS]
    correct = [head.correct(held, held_label) for head in heads]
    assert abs(correct[0] - correct[1]) <= 1


def test_two_classes_have_the_objective_of_many():
    """W sums to zero over the classes, as it does for more of them."""
    features, label = blobs(2)
    for solver in SOLVERS:
        head = fit(features, label, 2, 1.0, solver, tolerance=1e-10)
        torch.testing.assert_close(head.weight[0], -head.weight[1], atol=1e-5, rtol=0)
        torch.testing.assert_close(head.bias[0], -head.bias[1], atol=1e-5, rtol=0)


def test_the_objective_by_hand():
    weight, bias = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([0.5, -0.5])
    features, label = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([1, 1])
    first = -math.log(math.exp(3.5) / (math.exp(1.5) + math.exp(3.5)))  # logits 1.5, 3.5
    second = -math.log(math.exp(-0.5) / (math.exp(3.5) + math.exp(-0.5)))  # logits 3.5, -0.5
    expected = 0.3 * (first + second) + 0.5 * (1 + 4)
    assert objective(weight, bias, features, label, 0.3).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("solver", SOLVERS)
def test_iterations_are_limited(solver):
    features, label = blobs(4)
    assert fit(features, label, 4, 1e3, solver, max_iter=3).iterations == 3
    assert 3 < fit(features, label, 4, 1e-2, solver).iterations < 1000


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_image_a_class_is_no_reason_to_warn(solver):
    features, label = blobs(6, each=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fit(features, label, 6, 100.0, solver).correct(features, label) == 6


# ---- the search


def published(score):
    """Seven points, then both ends fitted afresh in each step; what is reported, and all that was scored."""
    asked = []

    def at(c):
        asked.append(c)
        return score(c)

    points = [10.0**e for e in (6, 4, 2, 0, -2, -4, -6)]
    values = [at(c) for c in points]
    peak = max(c for c, value in zip(points, values, strict=True) if value == max(values))
    left, right = 0.1 * peak, 10 * peak
    for _ in range(8):
        value_left, value_right = at(left), at(right)
        middle = math.sqrt(left * right)
        if value_right > value_left:
            kept, left = right, middle
        else:  # equal: the lower one
            kept, right = left, middle
    return kept, asked


def steps(*edges):
    """A scorer that is right about ever more, or fewer, images as log10 C passes each of the edges."""

    def score(c):
        e = round(math.log10(c), 9)
        return sum(sign * (e >= edge) for edge, sign in edges)

    return score


SCORERS = {
    "all equal": lambda c: 50,
    "more is better": lambda c: round(1000 * math.log10(c)),
    "less is better": lambda c: -round(1000 * math.log10(c)),
    "a peak between the points": lambda c: -round(1000 * abs(math.log10(c) - 1.3)),
    "a peak at a point": lambda c: -round(1000 * abs(math.log10(c) + 2)),
    "a plateau over two points": steps((-4.5, 5), (0.5, -3)),
    "a cliff inside the interval": steps((1.7, 9), (2.6, -20), (2.3, 1)),
    "two peaks": lambda c: {4: 7, -4: 7}.get(round(math.log10(c)), 0),
    "noise": lambda c: hash(round(math.log10(c), 6)) % 5,
}


@pytest.mark.parametrize("name", SCORERS)
def test_the_search_is_the_published_one_and_asks_for_each_c_once(name):
    asked = []

    def score(c):
        asked.append(c)
        return SCORERS[name](c)

    expected, all_asked = published(SCORERS[name])
    found = search(score)
    assert found == pytest.approx(expected, rel=1e-9)
    assert found in asked  # exactly, so that its fit can be looked up
    logs = [round(math.log10(c), 6) for c in asked]
    assert len(set(logs)) == len(logs) == 15  # 7 points, 2 ends; the first middle is a point; then one new end a step
    assert set(logs) == {round(math.log10(c), 6) for c in all_asked}
    assert len(all_asked) == 23


def test_ties_by_hand():
    """All equal: the largest point is chosen, then the lower end is kept in every step."""
    assert GRID[0] == max(GRID)
    assert search(lambda c: 1) == pytest.approx(1e5)
    assert search(lambda c: round(math.log10(c) * 1e4)) == pytest.approx(1e7)
