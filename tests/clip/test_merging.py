"""One merging step on rows made by hand; the step inside the tower is compared with a naive ViT in test_pruning."""

import pytest
import torch

from clip.merging import merge_rows


def turned(*degrees):
    """Unit rows [n, 2] in the plane."""
    angle = torch.tensor(degrees).deg2rad()
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def keys_of(patches, n_prompts=1):
    """[1, heads, 1+n+P, 2], the class token and prompts equal to the first patch, so that they would merge first."""
    rows = torch.cat([patches[:1], patches, patches[:1].expand(n_prompts, -1)])[None]
    return torch.stack([rows, 3 * rows], dim=1)  # two heads


# even patches 0, 2, 4 look at odd ones 1, 3, 5; pairs 0-1 (10 degrees), 2-1 (20 degrees), 4-5 (60 degrees)
ANGLES = (0.0, 10.0, 30.0, 180.0, 100.0, 160.0)


@pytest.mark.parametrize(
    ("n_kept", "groups", "index"),
    [
        (5, [[0, 1], [2], [3], [4], [5]], [1, 2, 3, 4, 5]),
        (4, [[0, 1, 2], [3], [4], [5]], [1, 3, 4, 5]),
        (3, [[0, 1, 2], [3], [4, 5]], [1, 3, 5]),
    ],
)
def test_the_most_similar_pairs_become_one_row(randn, n_kept, groups, index):
    rows, sizes = randn(1, 1 + 6 + 1, 4), torch.tensor([[1.0, 3, 2, 1, 5, 1]])
    got, kept, place = merge_rows(rows, keys_of(turned(*ANGLES)), sizes, n_kept)
    assert kept.tolist() == [index]
    assert place.tolist() == [[next(i for i, group in enumerate(groups) if j in group) for j in range(6)]]
    means = [sum(sizes[0, j] * rows[0, 1 + j] for j in group) / sum(sizes[0, j] for j in group) for group in groups]
    torch.testing.assert_close(got[0], torch.stack([rows[0, 0], *means, rows[0, -1]]))
    assert torch.equal(got[:, [0, -1]], rows[:, [0, -1]])  # class token and prompt


def test_ties_merge_the_earlier_patch(randn):
    rows = randn(2, 1 + 4, 3)
    same = torch.ones(2, 1, 5, 2)
    _, index, place = merge_rows(rows, same, torch.ones(2, 4), 3)
    assert index.tolist() == [[1, 2, 3]] * 2
    assert place.tolist() == [[0, 0, 1, 2]] * 2


def test_an_odd_number_of_rows(randn):
    rows = randn(2, 1 + 5, 3)
    got, index, place = merge_rows(rows, randn(2, 1, 6, 4), torch.ones(2, 5), 3)
    assert got.shape == (2, 4, 3)
    assert (index[:, 1:] > index[:, :-1]).all()
    assert all({1, 3} < set(row) for row in index.tolist())  # the second set stays
    assert place.unique().tolist() == [0, 1, 2]


def test_one_row_that_stands_for_many_is_moved_little(randn):
    rows = randn(1, 1 + 2, 3)
    got, _, _ = merge_rows(rows, torch.ones(1, 1, 3, 2), torch.tensor([[1.0, 99.0]]), 1)
    torch.testing.assert_close(got[:, 1], 0.01 * rows[:, 1] + 0.99 * rows[:, 2])


def test_the_gradient_is_that_of_the_function(randn):
    rows = randn(2, 1 + 4 + 1, 3).double().requires_grad_()
    keys, sizes = randn(2, 2, 6, 4), torch.tensor([[1.0, 2, 3, 4]] * 2)
    assert torch.autograd.gradcheck(lambda r: merge_rows(r, keys, sizes, 2)[0], (rows,))
