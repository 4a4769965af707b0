"""IRM and TRM against the oracle, level by level."""

from __future__ import annotations

import pytest
import torch

from trainers.spotlighter import mapping
from trainers.spotlighter.mapping import AttentionIRM, LinearIRM, LinearTRM, TransformerTRM

S = torch.tensor(10.0, dtype=torch.float64)


def numbers(x):
    return x.detach().double().numpy()


@pytest.fixture(params=[(1, 1), (3, 2), (4, 3)], ids=str)
def level(request, draw):
    """Matched prototypes, tokens [B, k, w] and the class token [B, 1, w]."""
    B, k = request.param
    return draw.rows(B, k, 16), draw.rows(B, k, 16), draw.rows(B, 1, 16)


def test_attention_irm(level, draw, oracle, close):
    irm, block = AttentionIRM(16), draw.block()
    draw.enliven(irm)
    matched, tokens, cls_token = level
    result = irm(matched, tokens, cls_token, block)
    arrays = {name: numbers(p) for name, p in block.named_parameters()}
    ffn = [(numbers(irm.ffn[i].weight), numbers(irm.ffn[i].bias)) for i in (0, 2)]
    expected = [
        oracle.irm_transformer(numbers(matched[b]), numbers(tokens[b]), numbers(cls_token[b, 0]), arrays, 2, ffn)
        for b in range(len(tokens))
    ]
    close(result, expected, 2e-5)


def test_attention_irm_with_a_token_of_several_patches(draw, oracle, close):
    """It is looked at as that many equal tokens."""
    irm, block = AttentionIRM(16), draw.block()
    draw.enliven(irm)
    matched, tokens, cls_token = draw.rows(2, 3, 16), draw.rows(2, 2, 16), draw.rows(2, 1, 16)
    several = irm(matched, tokens, cls_token, block, torch.tensor([[1.0, 3.0]] * 2))
    repeated = tokens[:, [0, 1, 1, 1]]
    q = block.attn.q(block.ln_1(matched))
    z = block.attn.output(q, *block.attn.kv(block.ln_1(repeated))) + matched
    rows = torch.cat([cls_token, z + irm.ffn(block.ln_2(z)), repeated], dim=1)
    torch.testing.assert_close(several, block.run(rows)[:, 1:4])


def test_attention_irm_leaves_theta_alone(level, draw):
    """Only the FFN trains; gradient passes through θ to reach it."""
    irm, block = AttentionIRM(16), draw.block()
    draw.enliven(irm)
    irm(*level, block).square().sum().backward()
    assert all(p.grad is None for p in block.parameters())
    assert {name for name, p in irm.named_parameters() if p.grad.abs().sum() > 0} == {
        "ffn.0.weight", "ffn.0.bias", "ffn.2.weight", "ffn.2.bias",
    }  # fmt: skip


def test_attention_irm_sizes():
    assert [tuple(p.shape) for p in AttentionIRM(16).parameters()] == [(4, 16), (4,), (16, 4), (16,)]


def test_a_new_attention_irm_has_no_ffn(level, draw, oracle, close):
    irm, block = AttentionIRM(16), draw.block()
    matched, tokens, cls_token = level
    arrays = {name: numbers(p) for name, p in block.named_parameters()}
    nothing = [(numbers(torch.zeros(4, 16)), 0.0), (numbers(torch.zeros(16, 4)), 0.0)]
    expected = [
        oracle.irm_transformer(numbers(matched[b]), numbers(tokens[b]), numbers(cls_token[b, 0]), arrays, 2, nothing)
        for b in range(len(tokens))
    ]
    close(irm(matched, tokens, cls_token, block), expected, 2e-5)


def test_linear_irm(level, draw, oracle, close):
    irm = LinearIRM(16)
    matched, tokens, cls_token = level
    assert torch.equal(irm(matched, tokens, cls_token, None), matched)
    draw.enliven(irm)
    bias = 0.0 if irm.linear.bias is None else numbers(irm.linear.bias)
    expected = [
        oracle.irm_linear(numbers(matched[b]), numbers(tokens[b]), numbers(irm.linear.weight), bias)
        for b in range(len(tokens))
    ]
    close(irm(matched, tokens, cls_token, None), expected)


@pytest.fixture(params=[(1, 3, 1), (3, 5, 3), (2, 7, 4)], ids=str)
def scene(request, draw):
    """v_rep [B, d], T and T0 [C, d], view(tok) [B, k, d], float64."""
    B, C, k = request.param
    return [draw.units(B, 12), draw.units(C, 12), draw.units(C, 12), draw.units(B, k, 12)]


def lively(kind, draw, alpha=0.7):
    trm = kind(12, alpha).double()
    draw.enliven(trm)
    return trm


def test_linear_trm(scene, draw, oracle, close):
    _, text, _, tokens = scene
    trm = lively(LinearTRM, draw)
    expected = [
        oracle.trm_linear(text.numpy(), numbers(image), 10.0, 0.7, numbers(trm.linear.weight)) for image in tokens
    ]
    close(trm.representative(text, tokens, S), expected, 1e-10)
    assert [tuple(p.shape) for p in trm.parameters()] == [(12, 24)]


def test_transformer_trm(scene, draw, world, oracle, close):
    _, text, _, tokens = scene
    w = world(trm="transformer")
    w.head.trm = lively(TransformerTRM, draw)
    expected = [w.trm_block(text.numpy(), numbers(image), 0.7) for image in tokens]
    close(w.head.trm.representative(text, tokens, S), expected, 1e-10)


def test_transformer_trm_with_several_heads(draw, world, close, monkeypatch):
    monkeypatch.setattr(mapping, "HEAD_WIDTH", 4)
    w = world(trm="transformer")
    w.head.trm = lively(TransformerTRM, draw)
    assert w.head.trm.heads == 3
    text, tokens = draw.units(5, 12), draw.units(2, 3, 12)
    expected = [w.trm_block(text.numpy(), numbers(image), 0.7) for image in tokens]
    close(w.head.trm.representative(text, tokens, S), expected, 1e-10)


KINDS = pytest.mark.parametrize("kind", [LinearTRM, TransformerTRM])


@KINDS
def test_cosines_are_those_of_the_representative_text(kind, scene, draw):
    image, text, _, tokens = scene
    trm = lively(kind, draw)
    expected = torch.stack([image[b] @ rows.t() for b, rows in enumerate(trm.representative(text, tokens, S))])
    torch.testing.assert_close(trm.cosines(image, text, tokens, S), expected, rtol=1e-10, atol=1e-10)


@KINDS
def test_representative_text_is_unit(kind, scene, draw):
    _, text, _, tokens = scene
    norms = lively(kind, draw).representative(text, tokens, S).norm(dim=2)
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=1e-10, atol=0)


@KINDS
def test_distance(kind, scene, draw, oracle):
    _, text, text0, tokens = scene
    trm = lively(kind, draw)
    expected = oracle.text_l1([numbers(trm.representative(text, tokens, S))], text0.numpy())
    assert trm.distance(text, text0, tokens, S).item() == pytest.approx(expected, rel=1e-10)


@KINDS
def test_a_new_trm_changes_nothing(kind, scene):
    image, text, text0, tokens = scene
    trm = kind(12, 0.7).double()
    torch.testing.assert_close(trm.cosines(image, text, tokens, S), image @ text.t(), rtol=1e-12, atol=1e-12)
    expected = text.expand(len(tokens), -1, -1)
    torch.testing.assert_close(trm.representative(text, tokens, S), expected, rtol=1e-12, atol=1e-12)
    difference = (text - text0).abs().mean()
    torch.testing.assert_close(trm.distance(text, text0, tokens, S), difference, rtol=1e-12, atol=1e-12)


@KINDS
@pytest.mark.parametrize("classes", [1, 2, 3])
def test_chunks_of_classes_give_the_same_values_and_gradients(kind, draw, monkeypatch, classes):
    trm = lively(kind, draw)
    image, text, text0 = (draw.units(n, 12) for n in (3, 7, 7))
    tokens = draw.units(3, 2, 12)

    def run(elements):
        monkeypatch.setattr(mapping, "CHUNK_ELEMENTS", elements)
        leaves = [image.clone().requires_grad_(), text.clone().requires_grad_(), *trm.parameters()]
        v, t, *_ = leaves
        with torch.no_grad():
            plain = [trm.cosines(v, t, tokens, S), trm.distance(t, text0, tokens, S)]
        values = [trm.cosines(v, t, tokens, S), trm.distance(t, text0, tokens, S)]
        gradients = torch.autograd.grad(values[0].square().sum() + values[1], leaves)
        return *plain, *values, *gradients

    whole, chunked = run(2**24), run(classes * 3 * 12)
    for one, other in zip(whole, chunked, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@KINDS
def test_gradients_by_finite_differences(kind, draw):
    trm = kind(4, 0.7).double()
    draw.enliven(trm)
    image, text, text0, tokens = (draw.units(*n, 4) for n in ((2,), (3,), (3,), (2, 2)))
    image.requires_grad_(), text.requires_grad_()

    def both(image, text, *_):
        return trm.cosines(image, text, tokens, S), trm.distance(text, text0, tokens, S)

    assert torch.autograd.gradcheck(both, (image, text, *trm.parameters()))


def test_alpha_zero_is_the_text_itself(scene, draw):
    _, text, _, tokens = scene
    for kind in (LinearTRM, TransformerTRM):
        t_rep = lively(kind, draw, alpha=0.0).representative(text, tokens, S)
        torch.testing.assert_close(t_rep, text.expand(len(tokens), -1, -1), rtol=1e-12, atol=1e-12)
