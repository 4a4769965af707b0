import numpy as np
import pytest
import torch

from dassl.metrics import compute_accuracy, compute_distance_matrix, cosine_distance, euclidean_squared_distance


@pytest.mark.parametrize("topk", [(1,), (1, 5), (5, 1), (3,)])
def test_accuracy_equals_numpy(topk):
    rng = np.random.default_rng(0)
    logits, label = rng.standard_normal((50, 10)).astype(np.float32), rng.integers(0, 10, 50)
    got = compute_accuracy(torch.from_numpy(logits), torch.from_numpy(label), topk=topk)
    rank = (logits > logits[np.arange(50), label][:, None]).sum(1)  # classes ahead of the label
    assert [acc.shape for acc in got] == [(1,)] * len(topk)
    assert [acc.item() for acc in got] == pytest.approx([100 * (rank < k).mean() for k in topk])


def test_accuracy_of_the_first_output():
    logits = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    label = torch.tensor([1, 1, 1, 1])
    assert compute_accuracy((logits, None), label)[0].item() == 75.0
    assert compute_accuracy([logits, None], label)[0].item() == 75.0


@pytest.mark.parametrize("topk", [(1, 3), (0,)])
def test_accuracy_of_too_many(topk):
    with pytest.raises(RuntimeError, match=r"k must be in 1\.\.C = 1\.\.2, got \["):
        compute_accuracy(torch.zeros(4, 2), torch.zeros(4), topk=topk)


def test_distances_equal_numpy():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((4, 6)), rng.standard_normal((5, 6))
    difference = ((a[:, None] - b[None]) ** 2).sum(-1)
    cosine = 1 - a @ b.T / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)[None]
    ta, tb = torch.from_numpy(a), torch.from_numpy(b)
    np.testing.assert_allclose(compute_distance_matrix(ta, tb).numpy(), difference, atol=1e-12)
    np.testing.assert_allclose(compute_distance_matrix(ta, tb, "cosine").numpy(), cosine, atol=1e-12)
    assert torch.equal(euclidean_squared_distance(ta, tb), compute_distance_matrix(ta, tb, metric="euclidean"))
    assert torch.equal(cosine_distance(ta, tb), compute_distance_matrix(ta, tb, metric="cosine"))


def test_distance_to_itself_is_not_negative():
    rows = torch.randn(50, 30) * 100
    assert euclidean_squared_distance(rows, rows).min() >= 0


def test_distance_errors():
    with pytest.raises(ValueError, match=r"metric must be one of \['euclidean', 'cosine'\], got 'l1'"):
        compute_distance_matrix(torch.zeros(2, 3), torch.zeros(2, 3), "l1")
    for metric in ("euclidean", "cosine"):
        with pytest.raises(ValueError, match=r"expected \[n, d\] and \[m, d\], got \[2, 3\] and \[2, 4\]"):
            compute_distance_matrix(torch.zeros(2, 3), torch.zeros(2, 4), metric)
        with pytest.raises(ValueError, match=r"got \[3\] and \[2, 3\]"):
            compute_distance_matrix(torch.zeros(3), torch.zeros(2, 3), metric)
