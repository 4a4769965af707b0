"""What trains the head: gradients term by term; and how much room a forward pass takes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainers.spotlighter import mapping

# the table of step 9: what each term must reach
REACHES = {
    "ce": {"text", "irm.ffn", "gate", "trm.linear"},
    "ce_level1": {"text", "irm.ffn", "gate", "trm.linear"},
    "ce_level2": {"text", "irm.ffn", "gate", "trm.linear"},
    "text": {"text", "trm.linear"},
    "kl": {"irm.ffn", "gate"},
    "local": {"text"},
}
TRAINED = {"irm.ffn.0.weight", "irm.ffn.0.bias", "irm.ffn.2.weight", "irm.ffn.2.bias", "trm.linear.weight", "gate"}


def total(out):
    return sum(out.weights.get(name, 1.0) * term for name, term in out.terms.items())


def one_step(w):
    """One step of gradient descent of everything that trains, text included."""
    total(w.run(training=True)).backward()
    with torch.no_grad():
        for p in (w.given.text, *w.head.parameters()):
            if p.grad is not None:
                p -= 0.1 * p.grad
                p.grad = None


def test_trained_tensors(world):
    assert {name for name, _ in world().head.named_parameters()} == TRAINED
    assert set(world(gate="fixed", irm="none", trm="none").head.state_dict()) >= {"memory.prototypes"}
    assert not list(world(gate="fixed", irm="none", trm="none").head.parameters())


@pytest.mark.parametrize("term", REACHES)
def test_each_term_reaches_what_it_must(world, term):
    w = world(seed=1, lively=False)
    one_step(w)
    loss = w.run(training=True).terms[term]
    named = {"text": w.given.text, **dict(w.head.named_parameters())}
    gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    reached = {name for name, g in zip(named, gradients, strict=True) if g is not None and g.abs().sum() > 0}
    wanted = {name for name in named if any(name.startswith(part) for part in REACHES[term])}
    assert reached == wanted


@pytest.mark.parametrize("irm", ["transformer", "linear"])
@pytest.mark.parametrize("trm", ["linear", "transformer"])
def test_the_total_reaches_every_trained_tensor(world, irm, trm):
    w = world(seed=2, lively=False, irm=irm, trm=trm)
    one_step(w)
    total(w.run(training=True)).backward()
    for name, p in [("text", w.given.text), *w.head.named_parameters()]:
        assert p.grad is not None, name
        assert p.grad.abs().sum() > 0, name
    assert all(p.grad is None for p in w.given.block.parameters())


def test_nothing_flows_into_the_activation(world):
    """Steps 1-5 run without gradient, and nothing of the bank is kept for backward."""
    w = world(seed=3, losses=("local",))
    w.given.hidden.requires_grad_()
    out = w.run(training=True)
    assert not w.head.memory.prototypes.requires_grad
    assert not out.diagnostics["scores"].requires_grad


CASES = [{}, {"kl_over": "features", "lambda3": 2.0}, {"irm": "linear"}, {"top_k": 1}, {"teacher": True}]


@pytest.mark.parametrize("options", CASES, ids=str)
def test_gradients_of_the_total_agree_with_differences_of_the_oracle(world, oracle, options):
    """Central differences of the float64 oracle along random directions, for every tensor that trains."""
    w = world(seed=4, B=3, C=4, **options)
    given, params = w.arrays(training=True)
    total(w.run(training=True)).backward()
    head = w.head
    linear = options.get("irm") == "linear"
    places = [(given, "text", w.given.text.grad), (params, "trm", head.trm.linear.weight.grad)]
    if linear:
        params["irm"] = list(params["irm"])
        places += [(params["irm"], 0, head.irm.linear.weight.grad), (params["irm"], 1, head.irm.linear.bias.grad)]
    else:
        layers = params["ffn"] = [list(layer) for layer in params["ffn"]]
        for layer, module in zip(layers, (head.irm.ffn[0], head.irm.ffn[2]), strict=True):
            places += [(layer, 0, module.weight.grad), (layer, 1, module.bias.grad)]
    places.append((params, "rho", head.gate.grad))
    generator, options = np.random.default_rng(0), {k: v for k, v in options.items() if k != "teacher"}
    for holder, key, gradient in places:
        value = holder[key]
        direction = generator.standard_normal(np.shape(value))
        if key == "text":  # T stays on the sphere: the code may take it for unit, the oracle's cosines divide
            direction -= (direction * value).sum(1, keepdims=True) * value
        ends = []
        for sign in (1, -1):
            holder[key] = value + sign * 1e-6 * direction
            ends.append(oracle.head(given, params, True, n_prototypes=3, **options)["total"])
        holder[key] = value
        slope = (ends[0] - ends[1]) / 2e-6
        assert (gradient.double().numpy() * direction).sum() == pytest.approx(slope, rel=1e-3, abs=1e-4), key


class Sizes(TorchDispatchMode):
    """Notes how many elements the memory behind every operator's result has; views cost nothing."""

    def __init__(self):
        super().__init__()
        self.largest = SimpleNamespace(elements=0, operator="")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for t in tree_leaves(result):
            if isinstance(t, torch.Tensor):
                elements = t.untyped_storage().nbytes() // t.element_size()
                if elements > self.largest.elements:
                    self.largest = SimpleNamespace(elements=elements, operator=f"{func} {list(t.shape)}")
        return result


B, C, N, d = 5, 307, 9, 12


def test_the_size_recorder_sees_what_it_should():
    with Sizes() as sizes:
        torch.einsum("bd,cd->bcd", torch.ones(5, 12), torch.ones(307, 12)).sum()
    assert sizes.largest.elements == B * C * d


@pytest.mark.parametrize("options", [{}, {"sample_score": "max"}, {"irm": "linear"}], ids=str)
def test_a_training_pass_makes_no_tensor_of_all_classes_twice(world, options):
    w = world(B=B, C=C, N=N, n_prototypes=2, **options)
    with Sizes() as sizes:
        w.run(training=True)
    assert C * 2 * 16 < sizes.largest.elements < B * C * 2 * d, sizes.largest


@pytest.mark.parametrize("options", [{}, {"sample_score": "max"}, {"irm": "linear"}, {"levels": "level1"}], ids=str)
def test_inference_makes_no_tensor_of_images_by_classes_by_width(world, options):
    w = world(B=B, C=C, N=N, n_prototypes=2, **options)
    with Sizes() as sizes:
        w.run(training=False)
    assert C * 2 <= sizes.largest.elements < B * C * d, sizes.largest


@pytest.mark.parametrize("options", [{}, {"trm": "transformer"}], ids=str)
def test_many_classes_go_through_in_chunks_in_training_too(world, monkeypatch, options):
    """Forward and backward: the largest tensor is one of C rows or of a chunk, and nothing changes by it."""
    answers, saved, C = [], [], 101
    for elements in (2**24, 20 * B * d):
        monkeypatch.setattr(mapping, "CHUNK_ELEMENTS", elements)
        w = world(B=B, C=C, N=N, n_prototypes=2, **options)
        kept = {}  # what waits for the backward pass: storage -> elements

        def note(t, kept=kept):
            kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes() // t.element_size()
            return t

        with Sizes() as sizes:
            with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
                loss = total(w.run(training=True))
            loss.backward()
        saved.append(sum(kept.values()))
        answers.append((loss.item(), w.given.text.grad))
    torch.testing.assert_close(answers[1], answers[0], rtol=1e-4, atol=1e-6)
    assert sizes.largest.elements < B * C * d, sizes.largest
    assert saved[1] < saved[0] - 2 * B * C * d  # without recomputation at least t_rep of both levels would be kept


def test_many_classes_go_through_in_chunks_in_inference(world, monkeypatch):
    w = world(B=B, C=101, N=N, n_prototypes=2, trm="transformer")
    whole = w.run(training=False).logits
    monkeypatch.setattr(mapping, "CHUNK_ELEMENTS", 20 * B * d)
    with Sizes() as sizes:
        chunked = w.run(training=False).logits
    torch.testing.assert_close(chunked, whole, rtol=1e-5, atol=1e-5)
    assert sizes.largest.elements < B * 101 * d, sizes.largest
