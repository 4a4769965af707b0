import math

import numpy as np
import pytest
import torch
from torch import nn

from dassl.modeling.ops import (
    ReverseGrad,
    create_onehot,
    ema_model_update,
    linear_rampup,
    mixup,
    reverse_index,
    sharpen_prob,
    shuffle_index,
    sigmoid_rampup,
    utils,
)


def test_names_are_also_in_utils():
    for name in utils.__all__:
        assert hasattr(utils, name)
    assert utils.sharpen_prob is sharpen_prob


def test_sharpen_prob():
    p = torch.tensor([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]], dtype=torch.float64)
    squares = p.numpy() ** 2
    np.testing.assert_allclose(sharpen_prob(p).numpy(), squares / squares.sum(1, keepdims=True))
    np.testing.assert_allclose(sharpen_prob(p, 1).numpy(), p.numpy())


def test_orders():
    data, label = torch.arange(10).view(5, 2), torch.arange(5)
    back = reverse_index(data, label)
    assert back[0].tolist() == data.tolist()[::-1]
    assert back[1].tolist() == [4, 3, 2, 1, 0]
    torch.manual_seed(0)
    shuffled = shuffle_index(data, label)
    assert sorted(shuffled[1].tolist()) == [0, 1, 2, 3, 4]
    assert shuffled[1].tolist() != [0, 1, 2, 3, 4]
    assert torch.equal(shuffled[0], data[shuffled[1]])


def test_onehot():
    onehot = create_onehot(torch.tensor([2, 0]), 3)
    assert onehot.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert onehot.dtype == torch.float32


def test_rampups():
    assert [linear_rampup(t, 4) for t in (0, 1, 4, 9)] == [0.0, 0.25, 1.0, 1.0]
    assert [sigmoid_rampup(t, 4) for t in (0, 2, 4, 9)] == pytest.approx([math.exp(-5), math.exp(-1.25), 1, 1])
    assert linear_rampup(0, 0) == sigmoid_rampup(0, 0) == 1.0
    for rampup in (linear_rampup, sigmoid_rampup):
        with pytest.raises(ValueError, match="step and length must not be negative, got -1 and 4"):
            rampup(-1, 4)


def test_ema():
    model, average = nn.Linear(2, 2), nn.Linear(2, 2)
    before, new = average.weight.detach().clone(), model.weight.detach().clone()
    ema_model_update(model, average, 0.75)
    torch.testing.assert_close(average.weight, 0.75 * before + 0.25 * new)
    assert torch.equal(model.weight, new)


def test_mixup():
    torch.manual_seed(0)
    x1, x2 = torch.zeros(200, 3, 2, 2), torch.ones(200, 3, 2, 2)
    y1, y2 = torch.tensor([[1.0, 0.0]]).repeat(200, 1), torch.tensor([[0.0, 1.0]]).repeat(200, 1)
    x, y = mixup(x1, x2, y1, y2, beta=0.75)
    share = 1 - x[:, 0, 0, 0]  # of the first sample
    assert torch.equal(x, (1 - share).view(-1, 1, 1, 1).expand_as(x))  # one share a sample
    torch.testing.assert_close(y, torch.stack([share, 1 - share], dim=1))
    assert share.min() < 0.5 < share.max()
    assert len(share.unique()) > 150
    x, _ = mixup(x1, x2, y1, y2, beta=0.75, preserve_order=True)
    assert x.max() <= 0.5


def test_reverse_grad():
    x = torch.randn(3, requires_grad=True)
    y = ReverseGrad()(x, 0.5)
    assert torch.equal(y, x)
    y.square().sum().backward()
    torch.testing.assert_close(x.grad, -0.5 * 2 * x.detach())
    with pytest.raises(ValueError, match="grad_scaling must not be negative, got -1"):
        ReverseGrad()(x, -1)
