"""The shared layers against NumPy and torch's own."""

import numpy as np
import pytest
import torch
from torch import nn

from clip.layers import LayerNorm, MultiheadAttention, QuickGELU, Transformer, causal_mask, prepend


def test_quick_gelu(randn):
    x = randn(100).mul(4).requires_grad_()
    y = QuickGELU()(x)
    y.sum().backward()
    values = x.detach().double().numpy()
    sigmoid = 1 / (1 + np.exp(-1.702 * values))
    np.testing.assert_allclose(y.detach(), values * sigmoid, atol=2e-6)
    np.testing.assert_allclose(x.grad, sigmoid + 1.702 * values * sigmoid * (1 - sigmoid), atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_layer_norm_computes_in_fp32(randn, dtype):
    norm, x = LayerNorm(64), (300 * randn(5, 64) + 1000).to(dtype)  # squares overflow fp16
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    values = x.double().numpy()
    want = (values - values.mean(1, keepdims=True)) / np.sqrt(values.var(1, keepdims=True) + 1e-5)
    want = torch.from_numpy(want) * norm.weight.double() + norm.bias.double()
    got = norm(x)
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), want, atol=1e-4, rtol=torch.finfo(dtype).eps * 2)


def test_attention_equals_torchs(randn):
    ours, theirs = MultiheadAttention(128, 2), nn.MultiheadAttention(128, 2, batch_first=True)
    nn.init.normal_(ours.in_proj_bias)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    x = randn(3, 7, 128)
    want, weights = theirs(x, x, x, average_attn_weights=False)
    q, k, v = ours.qkv(x)
    torch.testing.assert_close(ours.output(q, k, v), want, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(ours.weights(q, k), weights, atol=1e-6, rtol=1e-5)
    for got, part in zip((ours.q(x), *ours.kv(x)), (q, k, v), strict=True):
        torch.testing.assert_close(got, part, atol=1e-6, rtol=1e-5)


def test_causal_mask_sees_all_earlier_keys():
    mask = causal_mask(2, 5, torch.device("cpu"))
    assert mask.tolist() == [[True, True, True, True, False], [True] * 5]
    assert causal_mask(2, 5, torch.device("cpu")) is mask  # not built again
    assert causal_mask(3, 3, torch.device("cpu")).tolist() == np.tri(3, dtype=bool).tolist()


def test_prepend_serves_each_group_its_own_past(randn):
    past, new = randn(2, 1, 3, 4), randn(6, 1, 2, 4)  # two pasts, three sequences each
    keys, values = prepend((past, past + 1), new, new + 1)
    for i in range(6):
        torch.testing.assert_close(keys[i], torch.cat([past[i // 3], new[i]], dim=1), rtol=0, atol=0)
        torch.testing.assert_close(values[i], torch.cat([past[i // 3], new[i]], dim=1) + 1, rtol=0, atol=0)


@pytest.mark.parametrize("p", [0, 1, 4])
def test_pool_is_one_row_of_the_whole_stack(randn, p):
    stack = Transformer(128, 3, 2, causal=True)
    stack.init_weights()
    shared, own, row = randn(1, p, 128), randn(5, 6, 128), torch.tensor([0, 5, 2, 3, 5])
    whole = stack(torch.cat([shared.expand(5, -1, -1), own], dim=1).transpose(0, 1)).transpose(0, 1)
    got = stack.pool(own, row, stack.prefix(shared) if p else None)
    torch.testing.assert_close(got, whole[torch.arange(5), row + p], atol=1e-5, rtol=1e-5)
