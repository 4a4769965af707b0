"""The semantic memory bank against the oracle, and what an update may never do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dassl import distributed
from trainers.spotlighter.memory import PrototypeMemory, kmeans_prototypes

S = torch.tensor(10.0)


@pytest.fixture
def make(draw):
    """A filled bank, tokens of a batch, their labels and a view."""

    def build(B=4, C=5, K=3, k=5, **options):
        memory = PrototypeMemory(C, K, 16, **options).train()
        memory.fill(draw.rows(C, K, 16))
        return memory, draw.rows(B, k, 16), draw.labels(B, C), draw.view()

    return build


@pytest.mark.parametrize("rule", ["mean", "sum"])
@pytest.mark.parametrize(("B", "C", "K", "k"), [(1, 3, 2, 1), (4, 5, 3, 5), (9, 3, 5, 4), (2, 7, 1, 3)])
@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_update(make, oracle, close, rule, B, C, K, k, momentum):
    memory, tokens, label, view = make(B, C, K, k, momentum=momentum, rule=rule)
    before = memory.prototypes.double().numpy()
    expected = oracle.update_bank(before, tokens.double().numpy(), label, view.arrays, 10.0, momentum, rule)
    memory.update(tokens, label, view, S)
    close(memory.prototypes, expected)
    assert not np.allclose(expected, before)


def test_two_updates_in_a_row(make, oracle, close):
    """The second one compares with the prototypes that the first one wrote."""
    memory, tokens, label, view = make(momentum=0.1)
    bank = memory.prototypes.double().numpy()
    for part in (tokens, 2 * tokens.flip(2)):
        bank = oracle.update_bank(bank, part.double().numpy(), label, view.arrays, 10.0, 0.1)
        memory.update(part, label, view, S)
    close(memory.prototypes, bank)


def test_untouched_prototypes_stay_equal_to_the_bit(make, oracle):
    memory, tokens, label, view = make(B=2, C=6, K=4, k=2)
    before = memory.prototypes.clone()
    memory.update(tokens, label, view, S)
    changed = (memory.prototypes != before).any(dim=2)
    expected = oracle.update_bank(before.double().numpy(), tokens.double().numpy(), label, view.arrays, 10.0, 0.8)
    hit = (expected != before.double().numpy()).any(axis=2)
    assert changed.tolist() == hit.tolist()
    assert 0 < hit.sum() < hit.size


@pytest.mark.parametrize("rule", ["mean", "sum"])
def test_momentum_one_changes_nothing(make, rule):
    memory, tokens, label, view = make(momentum=1.0, rule=rule)
    before = memory.prototypes.clone()
    memory.update(tokens, label, view, S)
    assert torch.equal(memory.prototypes, before)


def test_momentum_zero_with_one_token_gives_the_token(make):
    memory, tokens, label, view = make(B=1, k=1, momentum=0.0)
    nearest = (memory.viewed(view)[label[0]] @ view(tokens[0, 0])).argmax()
    memory.update(tokens, label, view, S)
    torch.testing.assert_close(memory.prototypes[label[0], nearest], tokens[0, 0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rule", ["mean", "sum"])
def test_the_order_of_the_images_does_not_matter(make, rule):
    memory, tokens, label, view = make(B=8, C=2, rule=rule)
    start = memory.prototypes.clone()
    memory.update(tokens, label, view, S)
    first = memory.prototypes.clone()
    memory.fill(start)
    order = torch.tensor([3, 1, 7, 5, 0, 2, 6, 4])
    memory.update(tokens[order], label[order], view, S)
    torch.testing.assert_close(memory.prototypes, first, rtol=1e-6, atol=1e-6)


def test_only_prototypes_of_the_true_class_move(make):
    memory, tokens, label, view = make(B=3, C=7)
    before = memory.prototypes.clone()
    memory.update(tokens, label, view, S)
    moved = (memory.prototypes != before).flatten(1).any(dim=1)
    assert moved.nonzero().flatten().tolist() == sorted(set(label.tolist()))


def test_update_takes_no_gradient(make):
    memory, tokens, label, view = make()
    memory.update(tokens.requires_grad_(), label, view, S)
    assert memory.prototypes.dtype == torch.float32
    assert not memory.prototypes.requires_grad


def test_the_view_follows_the_bank(make, oracle, close):
    """The cached view must be thrown away by every way of changing the bank."""
    memory, tokens, label, view = make(momentum=0.2)
    for mode in (True, False):
        memory.train(mode)
        close(memory.viewed(view), view.arrays(memory.prototypes.double().numpy()))
        memory.update(tokens, label, view, S)
        close(memory.viewed(view), view.arrays(memory.prototypes.double().numpy()))
        memory.load_state_dict({name: value + 1 for name, value in memory.state_dict().items()})
        close(memory.viewed(view), view.arrays(memory.prototypes.double().numpy()))


def test_the_view_is_computed_once_in_evaluation(make):
    memory, _, _, view = make()
    memory.eval()
    assert memory.viewed(view) is memory.viewed(view)


def test_a_view_that_trained_is_computed_again(make, close):
    """A host's view may change without a change of the bank, between two training steps and before an evaluation."""
    memory, _, _, view = make()
    memory.eval().viewed(view)
    for change in (memory.train, lambda: None, memory.eval):
        view.proj = view.proj.roll(1, 0)
        change()
        close(memory.viewed(view), view.arrays(memory.prototypes.double().numpy()))


def test_the_bank_is_saved_and_loaded(make):
    memory, tokens, label, view = make()
    memory.update(tokens, label, view, S)
    other = PrototypeMemory(5, 3, 16)
    other.load_state_dict(memory.state_dict())
    assert torch.equal(other.prototypes, memory.prototypes)
    assert memory.prototypes.abs().sum() > 0
    assert not list(memory.parameters())


def test_kmeans_finds_separate_groups():
    generator = np.random.default_rng(0)
    centres = 10 * np.eye(3, 16)
    tokens = np.repeat(centres, 20, axis=0) + 0.1 * generator.standard_normal((60, 16))
    found = kmeans_prototypes(generator.permutation(tokens), 3, seed=1)
    assert found.shape == (3, 16)
    order = found[:, :3].argmax(axis=1)
    assert sorted(order) == [0, 1, 2]
    means = np.array([tokens[20 * i : 20 * i + 20].mean(axis=0) for i in order])
    np.testing.assert_allclose(found, means, atol=1e-4)


def test_kmeans_repeats_for_a_seed():
    tokens = np.random.default_rng(3).standard_normal((40, 16))
    first, again, other = (kmeans_prototypes(tokens, 4, seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("options", [{"momentum": 1.5}, {"momentum": -0.1}, {"rule": "median"}, {"n_proto": 0}])
def test_bad_options_are_named(options):
    arguments = {"n_cls": 3, "n_proto": 2, "width": 16} | options
    with pytest.raises(ValueError, match=str(next(iter(options.values())))):
        PrototypeMemory(**arguments)


@pytest.mark.parametrize("rule", ["mean", "sum"])
def test_processes_that_share_a_batch_write_the_same_bank(make, monkeypatch, rule):
    """Two processes with half of the images each, played one after the other: sums of the first, then of the second."""
    memory, tokens, label, view = make(B=6, rule=rule)
    start = memory.prototypes.clone()
    sent = []
    for half in (slice(0, 3), slice(3, 6)):
        monkeypatch.setattr(distributed, "sum_all", lambda sums: sent.append(sums.clone()) or (sums,))
        memory.fill(start)
        memory.update(tokens[half], label[half], view, S)
    banks = []
    for half, other in ((slice(0, 3), sent[1]), (slice(3, 6), sent[0])):
        monkeypatch.setattr(distributed, "sum_all", lambda sums, other=other: (sums + other,))
        memory.fill(start)
        memory.update(tokens[half], label[half], view, S)
        banks.append(memory.prototypes.clone())
    monkeypatch.undo()
    memory.fill(start)
    memory.update(tokens, label, view, S)
    for bank in banks:
        torch.testing.assert_close(bank, memory.prototypes)
    assert not torch.equal(banks[0], start)
