"""The released head against a naive NumPy version of it, its quirks one by one, and what the bank may do."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.trainers.spotlighter.release_oracle import difference_quotient, release
from trainers.method import StepOutput
from trainers.spotlighter.interface import HeadInput
from trainers.spotlighter.release import ReleaseHead

SCALE = 20.0


def make_head(d=8, M=7, heads=2, seed=0, **options):
    """A head without dropout whose every tensor matters."""
    torch.manual_seed(seed)
    head = ReleaseHead(d, n_prototypes=M, heads=heads, **options)
    head.image_read.dropout.p = 0.0
    with torch.no_grad():
        for parameter in head.adapter[1].parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return head


def make_input(B=3, N=9, C=4, d=8, seed=1, **changes):
    torch.manual_seed(seed)
    tokens = torch.randn(B, 1 + N, d)
    values = {
        "text": F.normalize(torch.randn(C, d), dim=1),
        "image": F.normalize(tokens[:, 0], dim=1),
        "scale": torch.tensor(SCALE),
        "block": None,  # neither is used by the release
        "view": None,
        "tokens": tokens,
        "attention": torch.randn(B, N).softmax(dim=1),
        "label": torch.randint(0, C, (B,)),
    }
    return HeadInput(**values | changes)


def arrays(head, given):
    """Weights and inputs as the oracle takes them, in float64; each call copies."""
    weights = {name: value.double().numpy().copy() for name, value in head.state_dict().items()}
    fields = ("text", "image", "tokens", "attention")
    inputs = {name: getattr(given, name).detach().double().numpy().copy() for name in fields}
    return weights, inputs | {"label": None if given.label is None else given.label.tolist(), "scale": SCALE}


def total(out):
    return StepOutput(out.logits, out.terms, out.weights).total


SHAPES = [  # sizes, options of the head
    ({"B": 3, "N": 9, "C": 4, "d": 8}, {"M": 7, "heads": 2}),
    ({"B": 1, "N": 6, "C": 2, "d": 4}, {"M": 1, "heads": 4, "alpha": 0.7, "momentum": 0.3}),
    ({"B": 5, "N": 16, "C": 9, "d": 12}, {"M": 25, "heads": 3, "balance": 7.0, "distill": 3.0}),
    ({"B": 2, "N": 5, "C": 3, "d": 6}, {"M": 40, "heads": 1, "top_k": 4, "level1": 1, "mix_train": 0.3}),
    ({"B": 2, "N": 8, "C": 3, "d": 6}, {"M": 5, "heads": 2, "top_k": 3, "level1": 3, "mix_test": 0.4}),
]


@pytest.mark.parametrize(("sizes", "options"), SHAPES)
def test_all_numbers_are_those_of_the_loops(sizes, options):
    head, given = make_head(sizes["d"], **options), make_input(**sizes)
    weights, inputs = arrays(head, given)
    known = {name: value for name, value in options.items() if name not in ("M", "mix_train", "mix_test")}
    expected = release(weights, **inputs, **known, mix=options.get("mix_train", 0.05))
    out = head.train()(given)
    np.testing.assert_allclose(out.logits.detach(), expected.logits, rtol=1e-4, atol=1e-5)
    assert list(out.terms) == ["global_ce", "local_ce", "level1_ce", "level2_ce", "text_l1", "image_l1"]
    for name, value in expected.terms.items():
        assert float(out.terms[name].detach()) == pytest.approx(value, rel=1e-4), name
    assert float(total(out).detach()) == pytest.approx(expected.total, rel=1e-4)
    assert out.diagnostics["index"].tolist() == expected.index
    np.testing.assert_allclose(head.prototypes, expected.bank, atol=1e-5)

    weights["prototypes"] = expected.bank
    evaluated = release(weights, **inputs, **known, mix=options.get("mix_test", 0.1))
    np.testing.assert_allclose(head.eval()(given).logits.detach(), evaluated.logits, rtol=1e-4, atol=1e-5)


def test_gradients_are_difference_quotients_of_the_loops():
    head, given = make_head(), make_input()
    weights, inputs = arrays(head, given)
    leaves = {name: getattr(given, name).requires_grad_() for name in ("text", "image", "tokens")}
    total(head.train()(given)).backward()  # behind the write, which must leave alone what backward reads

    def check(name, gradient, array):
        for where in (tuple(0 for _ in array.shape), tuple(size - 1 for size in array.shape)):
            expected = difference_quotient(lambda: release(weights, **inputs, heads=2).total, array, where)
            assert float(gradient[where]) == pytest.approx(expected, rel=2e-3, abs=2e-5), (name, where)
            if name != "adapter.0.bias":  # a batch norm follows: 0
                assert abs(expected) > 1e-5, (name, where)

    trained = {name: p for name, p in head.named_parameters() if "query" not in name and "key" not in name}
    assert len(trained) == 11
    for name, parameter in trained.items():
        check(name, parameter.grad, weights[name])
    for name, leaf in leaves.items():
        check(name, leaf.grad, inputs[name])


def test_query_and_key_are_held_but_get_no_gradient():
    head = make_head()
    total(head.train()(make_input())).backward()
    without = {name for name, p in head.named_parameters() if p.grad is None}
    assert without == {f"image_read.{name}.{kind}" for name in ("query", "key") for kind in ("weight", "bias")}


def test_the_teacher_takes_the_place_of_labels():
    head, teacher = make_head(), torch.randn(3, 4, generator=torch.Generator().manual_seed(5)) * 3
    given = make_input(teacher=teacher)
    given.label = (teacher.argmax(dim=1) + 1) % 4  # must not be read
    weights, inputs = arrays(head, given)
    expected = release(weights, **inputs, heads=2, teacher=teacher.double().numpy(), kd_weight=200.0)
    given.classification_weight = 200.0 / 4  # K over classes, as a host with a teacher says it
    for label in (given.label, None):
        out = make_head().train()(dataclasses.replace(given, label=label))
        terms = {name: float(term.detach()) for name, term in out.terms.items()}
        assert terms == pytest.approx(expected.terms, rel=1e-4)
        assert float(StepOutput(out.logits, out.terms, out.weights).total.detach()) == pytest.approx(
            expected.total, rel=1e-4
        )


def test_parameters_are_those_of_the_release():
    head, ctx = ReleaseHead(512), nn.Parameter(torch.zeros(4, 512))
    parameters = [ctx, *head.parameters()]
    assert len(parameters) == 16
    assert sum(p.numel() for p in parameters) == 2_103_296
    assert all(p.requires_grad for p in parameters)
    assert head.image_read.dropout.p == 0.1


def test_what_a_checkpoint_holds():
    pairs = ("adapter.0", "adapter.1", "adapter.3", *(f"image_read.{n}" for n in ("query", "key", "value", "out")))
    expected = {f"{name}.{kind}" for name in pairs for kind in ("weight", "bias")}
    head = make_head()
    assert set(head.state_dict()) == expected | {"text_fuse.weight", "prototypes"}
    head.train()(make_input())
    other = make_head(seed=3)
    other.load_state_dict(head.state_dict())
    given = make_input(C=6, seed=8, label=None)
    assert torch.equal(other.eval()(given).logits, head.eval()(given).logits)


def test_the_first_bank_is_positive_and_unit():
    bank = ReleaseHead(64).prototypes
    assert bank.shape == (25, 64)
    assert bank.dtype == torch.float32
    assert not bank.requires_grad
    assert bank.min() >= 0
    torch.testing.assert_close(bank.norm(dim=1), torch.ones(25))
    # uniform in [0, 1) before the normalisation: mean / root mean square is (1/2) / (1/3)^½
    assert float(bank.mean() * 8) == pytest.approx(0.75**0.5, abs=0.02)


def test_an_index_over_patches_is_used_behind_the_class_token():
    """The release's off-by-one: patch i's index picks what stands in front of patch i, index 0 the class token."""
    adapted = torch.arange(8.0).view(1, 8, 1)  # the class token is 0, patch n is n + 1
    tokens = ReleaseHead.local_tokens(adapted, torch.tensor([[0, 6, 3]]))
    assert tokens.flatten().tolist() == [0, 0, 6, 3, 3.5]  # class token, "patch 0", patches 5 and 2, mean


def test_the_quirk_reaches_the_losses():
    """The most attended patch is the first one: level 1 of one token reads the class token twice."""
    head = make_head(top_k=1, level1=1)
    given = make_input(attention=torch.tensor([[0.9, *[0.1] * 8]]).expand(3, -1))
    seen = []
    head.adapter.register_forward_hook(lambda module, args, output: seen.append(output.detach().view(3, 10, 8)))
    out = head.train()(given)
    assert out.diagnostics["index"].tolist() == [[0]] * 3
    (G,) = seen
    each = [F.cross_entropy(SCALE * token @ given.text.t(), given.label) for token in (G[:, 0], G.mean(dim=1))]
    torch.testing.assert_close(out.terms["level1_ce"].detach(), (2 * each[0] + each[1]) / 3)
    torch.testing.assert_close(out.terms["level2_ce"].detach(), (each[0] + each[1]) / 2)


@pytest.mark.parametrize("labelled", [True, False])
def test_the_bank_moves_in_training_only(labelled):
    head, given = make_head(), make_input()
    given.label = given.label if labelled else None
    before = head.prototypes.clone()
    out = head.eval()(given)
    assert torch.equal(head.prototypes, before)
    assert bool(out.terms) == bool(out.weights) == labelled
    out = head.train()(given)
    assert not torch.equal(head.prototypes, before)
    assert bool(out.terms) == labelled
    assert not head.prototypes.requires_grad


@pytest.mark.parametrize("momentum", [0.8, 0.0])  # without momentum, too, a prototype that nothing hit is kept
def test_only_hit_prototypes_move_and_all_stay_unit(momentum):
    head, given = make_head(M=40, momentum=momentum), make_input()
    weights, inputs = arrays(head, given)
    hit = release(weights, **inputs, heads=2).hit
    before = head.prototypes.clone()
    head.train()(given)
    moved = (head.prototypes - before).norm(dim=1)
    assert {i for i in range(40) if moved[i] > 1e-3} == hit
    assert {i for i in range(40) if moved[i] > 1e-6} == hit
    assert 0 < len(hit) < 40
    torch.testing.assert_close(head.prototypes.norm(dim=1), torch.ones(40))


def test_full_momentum_keeps_the_bank():
    head = make_head(momentum=1.0)
    before = head.prototypes.clone()
    head.train()(make_input())
    torch.testing.assert_close(head.prototypes, before)


def test_the_order_of_images_does_not_matter():
    order = torch.tensor([2, 0, 1])
    one, other, given = make_head(), make_head(), make_input()
    swapped = {name: getattr(given, name)[order] for name in ("image", "tokens", "attention", "label")}
    out, mixed = one.train()(given), other.train()(dataclasses.replace(given, **swapped))
    torch.testing.assert_close(other.prototypes, one.prototypes)
    torch.testing.assert_close(mixed.logits, out.logits[order])
    torch.testing.assert_close(mixed.terms, out.terms)


def test_evaluation_needs_neither_adapter_nor_tokens():
    head, given = make_head().eval(), make_input(label=None)
    head.adapter.register_forward_pre_hook(lambda *_: pytest.fail("the adapter ran"))
    out = head(given)
    assert out.terms == {}
    bare = head(dataclasses.replace(given, tokens=None, attention=None))
    assert torch.equal(bare.logits, out.logits)
    assert bare.diagnostics == {}
    assert make_head().want(12, training=True) == {"tokens", "cls_attn"}
    assert make_head().want(12, training=False) == set()


def test_dropout_changes_training_only_and_only_above_zero():
    def draws(p, train=True):
        inputs = make_input()
        results = []
        for seed in (0, 1, 2):
            head = make_head().train(train)
            head.image_read.dropout.p = p
            torch.manual_seed(seed)
            results.append(head(inputs).logits.detach())
        return results

    assert all(torch.equal(other, draws(0.0)[0]) for other in draws(0.0))
    assert all(torch.equal(other, draws(0.0, train=False)[0]) for other in draws(0.5, train=False))
    first, second, third = draws(0.5)
    assert not torch.equal(first, second) or not torch.equal(first, third)


def test_dropout_hits_whole_heads():
    head = make_head(d=8, heads=4)
    head.image_read.dropout.p = 0.5
    with torch.no_grad():
        for layer in (head.image_read.value, head.image_read.out):
            layer.weight.copy_(torch.eye(8))
            layer.bias.zero_()
    torch.manual_seed(0)
    parts = head.image_read.train()(torch.ones(50, 8)).detach().view(50, 4, 2)
    assert torch.equal(parts[..., 0], parts[..., 1])
    assert parts.unique().tolist() == [0, 2]  # dropped, or divided by 1 - p
    assert 0.35 < float((parts == 0).float().mean()) < 0.65
    assert len(parts[..., 0].unique(dim=0)) > 8  # each image draws its own


def test_half_precision_inputs_are_computed_in_single():
    given = make_input()
    halved = {name: getattr(given, name).half() for name in ("text", "image", "tokens", "attention", "scale")}
    rounded = {name: value.float() for name, value in halved.items()}
    out = make_head().train()(dataclasses.replace(given, **halved))
    expected = make_head().train()(dataclasses.replace(given, **rounded))
    assert out.logits.dtype == torch.float32
    assert torch.equal(out.logits, expected.logits)
    torch.testing.assert_close(out.terms, expected.terms, rtol=0, atol=0)


@pytest.mark.parametrize("train", [True, False])
def test_too_few_patches(train):
    head = make_head().train(train)
    head(make_input(N=6))
    with pytest.raises(ValueError, match="TOP_K = 5 needs at least 6 patch tokens, got 5"):
        head(make_input(N=5))


@pytest.mark.parametrize("missing", ["tokens", "attention"])
def test_missing_inputs(missing):
    with pytest.raises(ValueError, match="needs `tokens` and `attention`"):
        make_head().train()(make_input(**{missing: None}))


def test_tokens_must_match_the_attention():
    with pytest.raises(ValueError, match=r"tokens must be \[B, 1\+N, d\] = \[3, 8, d\], got \[3, 10, 8\]"):
        make_head().train()(make_input(attention=torch.rand(3, 7)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "multiple of the number of heads, got 8 and 3"),
        ({"M": 0}, "N_PROTOTYPES must be at least 1, got 0"),
        ({"momentum": 1.5}, r"MOMENTUM must be in \[0, 1\], got 1.5"),
        ({"balance": 0}, "BALANCE divides the local losses and must be above 0, got 0"),
        ({"top_k": 1}, "Level 1 must be a part of the TOP_K tokens, got 2 of 1"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make_head(**options)
