"""The complete head of the `paper` preset against the oracle, and the properties that must hold for it."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from trainers.spotlighter.head import HeadOptions, SpotlighterHead

TERMS = ("ce_level1", "ce_level2", "text", "kl", "local")
OPTIONS = [
    {},
    {"top_k": 1},
    {"top_k": 4, "n_prototypes": 5},
    {"top_k": 8, "n_prototypes": 1},
    {"level1_share": 0.3},
    {"level1_share": 1.0},
    {"level1_share": 0.0},
    {"sample_score": "max"},
    {"sample_score": "attention"},
    {"semantic": False},
    {"semantic": False, "sample_score": "attention"},
    {"recalculate": False, "momentum": 0.1},
    {"momentum": 0.1},
    {"bank_update": "sum"},
    {"irm": "linear"},
    {"irm": "none"},
    {"trm": "transformer"},
    {"trm": "none"},
    {"irm": "none", "trm": "none"},
    {"gate": "fixed", "rho": 0.25},
    {"alpha": 0.9},
    {"levels": "level1"},
    {"levels": "level2"},
    {"losses": ()},
    *({"losses": (term,)} for term in TERMS),
    {"local_scaled": True},
    {"kl_over": "features", "lambda1": 0.5, "lambda2": 2.0, "lambda3": 3.0},
]


def check(world, oracle_answer, out, close):
    close(out.logits, oracle_answer["logits"], 2e-5)
    assert set(out.terms) == set(oracle_answer["terms"])
    for name, term in out.terms.items():
        assert term.shape == (), name
        assert term.item() == pytest.approx(oracle_answer["terms"][name], rel=2e-5, abs=1e-6), name
    weights = {name: out.weights.get(name, 1.0) for name in out.terms}
    assert weights == oracle_answer["weights"]
    close(world.head.memory.prototypes, oracle_answer["bank"])
    assert out.diagnostics["index"].tolist() == oracle_answer["index"].tolist()
    assert out.diagnostics["matched_class"].tolist() == oracle_answer["matched"].tolist()
    close(out.diagnostics["scores"], oracle_answer["scores"])
    assert out.diagnostics["rho"].item() == pytest.approx(world.params()["rho"])
    assert not any(value.requires_grad for value in out.diagnostics.values())


def test_defaults(oracle):
    assert {f.name: f.default for f in fields(HeadOptions)} == oracle.DEFAULTS


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_training_step(world, close, options, seed):
    w = world(seed=seed, **options)
    expected = w.expected(training=True)
    check(w, expected, w.run(training=True), close)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_inference(world, close, options):
    w = world(seed=2, **options)
    expected = w.expected(training=False)
    assert not expected["terms"]
    check(w, expected, w.run(training=False), close)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("B", "C", "N", "n_fused", "K"), [(1, 3, 9, 0, 2), (2, 7, 16, 1, 5), (6, 4, 13, 3, 3)])
def test_other_sizes(world, close, B, C, N, n_fused, K, training):
    w = world(seed=B, B=B, C=C, N=N, n_fused=n_fused, n_prototypes=K)
    expected = w.expected(training)
    check(w, expected, w.run(training), close)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("irm", ["transformer", "linear"])
def test_rows_that_stand_for_several_patches(world, close, irm, training):
    w, plain = world(seed=5, irm=irm), world(seed=5, irm=irm)
    generator = torch.Generator().manual_seed(5)
    w.given.sizes = torch.randint(1, 9, (4, 11), generator=generator).float()
    expected = w.expected(training)
    out = w.run(training)
    check(w, expected, out, close)
    assert torch.equal(out.logits, plain.run(training).logits) == (irm == "linear")


@pytest.mark.parametrize(
    "options", [{}, {"sample_score": "max"}, {"trm": "transformer"}, {"bank_update": "sum"}], ids=str
)
def test_a_distilling_host(world, close, options):
    """The teacher's posterior is the target, its argmax the class; labels are not looked at."""
    w = world(seed=3, teacher=True, **options)
    w.given.label = None
    expected = w.expected(training=True)
    check(w, expected, w.run(training=True), close)
    other = world(seed=3, teacher=True, **options)
    other.given.label = (other.given.teacher.argmax(1) + 1) % 5
    check(other, expected, other.run(training=True), close)


def test_new_classes_in_inference(world, close):
    """The bank keeps its classes; the match finds one of them."""
    for C, bank_classes in ((3, 7), (7, 3)):
        w = world(seed=4, C=C, bank_classes=bank_classes)
        expected = w.expected(training=False)
        check(w, expected, w.run(training=False), close)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_tower_in_half_precision(world, close, dtype):
    """θ runs in its own type; what trains, the memory and the logits are fp32."""
    w = world(seed=4)
    w.given.block.to(dtype)
    w.given.hidden = w.given.hidden.to(dtype)
    expected = w.expected(training=True)
    out = w.run(training=True)
    assert {t.dtype for t in (out.logits, *out.terms.values(), w.head.memory.prototypes)} == {torch.float32}
    close(w.head.memory.prototypes, expected["bank"])
    assert out.diagnostics["index"].tolist() == expected["index"].tolist()
    close(out.logits, expected["logits"], 0.05)


def test_two_steps(world, close):
    """The second step reads the bank that the first one wrote."""
    w = world(seed=5, momentum=0.1)
    for _ in range(2):
        expected = w.expected(training=True)
        check(w, expected, w.run(training=True), close)


def test_recalculation_changes_the_choice_in_these_worlds(world):
    """Otherwise the tests above could not tell whether it happens."""
    for seed in (0, 1):
        answer = world(seed=seed, momentum=0.1).expected(training=True)
        assert (answer["first_index"] != answer["index"]).any()


def test_text_without_gradient_has_no_local_term(world, close):
    w = world(seed=6)
    w.given.text.requires_grad_(False)
    expected = w.expected(training=True)
    assert set(expected["terms"]) == {"ce", "ce_level1", "ce_level2", "text", "kl"}
    check(w, expected, w.run(training=True), close)


def test_the_bank_is_constant_in_evaluation_even_with_labels(world):
    w = world(seed=7)
    before = w.head.memory.prototypes.clone()
    w.head.eval()
    out = w.head(w.given)
    assert torch.equal(w.head.memory.prototypes, before)
    assert set(out.terms) == {"ce", *TERMS}


def test_training_without_labels_neither_writes_nor_loses(world):
    w = world(seed=7)
    before = w.head.memory.prototypes.clone()
    w.given.label = None
    assert not w.run(training=True).terms
    assert torch.equal(w.head.memory.prototypes, before)


@pytest.mark.parametrize("training", [True, False])
def test_an_untrained_head_is_zero_shot_clip(world, training):
    for options in ({}, {"irm": "linear", "trm": "transformer"}, {"irm": "none", "trm": "none"}):
        w = world(seed=8, lively=False, gate="fixed", rho=0.0, **options)
        out = w.run(training)
        expected = w.given.scale * w.given.image @ w.given.text.t()
        torch.testing.assert_close(out.logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"sample_score": "max"}, {"sample_score": "attention"}], ids=str)
def test_permuting_patches_permutes_scores_and_keeps_logits(world, options):
    w = world(seed=9, **options)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(1))
    first = w.run(training=False)
    hidden, attention = w.given.hidden, w.given.attention
    w.given = replace(
        w.given, hidden=torch.cat([hidden[:, :1], hidden[:, 1:][:, order]], dim=1), attention=attention[:, order]
    )
    second = w.run(training=False)
    torch.testing.assert_close(second.diagnostics["scores"], first.diagnostics["scores"][:, order])
    assert torch.equal(order[second.diagnostics["index"]], first.diagnostics["index"])
    torch.testing.assert_close(second.logits, first.logits)


def test_the_order_of_images_does_not_matter(world):
    w, other = world(seed=10, B=6), world(seed=10, B=6)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    names = ("image", "image0", "hidden", "attention", "label")
    other.given = replace(other.given, **{name: getattr(other.given, name)[order] for name in names})
    first, second = w.run(training=True), other.run(training=True)
    torch.testing.assert_close(second.logits, first.logits[order])
    torch.testing.assert_close(other.head.memory.prototypes, w.head.memory.prototypes)
    for name, term in first.terms.items():
        torch.testing.assert_close(second.terms[name], term)


def test_fused_rows_are_never_activated(world):
    """Not even when they are copies of the best patch; they do not change the standardised scores either."""
    plain = world(seed=11)
    best = plain.run(training=False)
    row = 1 + best.diagnostics["index"][:, :1, None].expand(-1, -1, 16)
    hidden = torch.cat([plain.given.hidden, plain.given.hidden.gather(1, row)], dim=1)
    plain.given = replace(plain.given, hidden=hidden, n_fused=1)
    again = plain.run(training=False)
    assert torch.equal(again.diagnostics["index"], best.diagnostics["index"])
    assert torch.equal(again.logits, best.logits)
    plain.given.n_fused = 0
    assert (plain.run(training=False).diagnostics["index"] == 11).any()


@pytest.mark.parametrize(("k", "n_fused"), [(11, 0), (12, 0), (11, 1)])
def test_too_many_activated_tokens(world, k, n_fused):
    with pytest.raises(ValueError, match=rf"11\b.*\b{k}\b"):
        world(top_k=k, n_fused=n_fused).run(training=False)
    world(top_k=10, n_fused=n_fused).run(training=False)


CHANGES = {
    "top_k": 4, "level1_share": 0.4, "n_prototypes": 2, "sample_score": "max", "semantic": False, "recalculate": False,
    "bank_update": "sum", "momentum": 0.3, "irm": "linear", "trm": "transformer", "alpha": 0.6, "gate": "fixed",
    "rho": 0.4, "levels": "level1", "losses": ("kl",), "kl_over": "features", "lambda1": 0.5, "lambda2": 1.0,
    "lambda3": 0.5, "local_scaled": True,
}  # fmt: skip


@pytest.mark.parametrize("name", [f.name for f in fields(HeadOptions)])
def test_every_option_changes_something(world, name):
    base = {"rho": 0.2, "gate": "fixed"} if name == "rho" else {"momentum": 0.1}
    answers = []
    for options in (base, base | {name: CHANGES[name]}):
        w = world(seed=12, **options)
        outs = [w.run(training=False), w.run(training=True)]
        terms = [out.terms[key].item() * out.weights.get(key, 1) for out in outs for key in sorted(out.terms)]
        logits = np.concatenate([out.logits.detach().numpy().ravel() for out in outs])
        bank = w.head.memory.prototypes.numpy().ravel()
        answers.append((terms, logits, bank, sorted(n for n, _ in w.head.named_parameters())))
    same = [np.shape(a) == np.shape(b) and np.array_equal(a, b) for a, b in zip(*answers, strict=True)]
    assert not all(same)


@pytest.mark.parametrize(
    "options",
    [
        {"sample_score": "sum"}, {"irm": "mlp"}, {"trm": "mlp"}, {"gate": "open"}, {"levels": "level3"},
        {"losses": ("ce_level3",)}, {"kl_over": "tokens"}, {"top_k": 0}, {"level1_share": 1.5},
        {"top_k": 1, "levels": "level2"}, {"bank_update": "median"}, {"momentum": 2.0}, {"n_prototypes": 0},
    ],
    ids=str,
)  # fmt: skip
def test_bad_options_are_named(options):
    name, value = next(iter(reversed(options.items())))
    with pytest.raises(ValueError, match=name.upper()) as error:
        SpotlighterHead(HeadOptions(**options), 3, 16, 12)
    assert str(value[0] if isinstance(value, tuple) else value) in str(error.value)


LEVELS = [(5, 0.6, 3), (4, 0.6, 3), (1, 0.6, 1), (25, 0.28, 7), (10, 0.6, 6), (3, 0.5, 2)]


@pytest.mark.parametrize(("k", "share", "size"), LEVELS)
def test_level_sizes_are_exact(world, oracle, k, share, size):
    assert oracle.level_slices(k, share)["level1"].stop == size
    w = world(top_k=k, level1_share=share, N=30)
    expected = w.expected(training=False)
    np.testing.assert_allclose(w.run(training=False).logits.numpy(), expected["logits"], rtol=2e-5, atol=2e-5)


def test_what_the_head_asks_for():
    assert SpotlighterHead(HeadOptions(), 3, 16, 12).want(12, training=False) == {"hidden:11"}
    assert SpotlighterHead(HeadOptions(sample_score="attention"), 3, 16, 12).want(3, True) == {"hidden:2", "cls_attn"}
