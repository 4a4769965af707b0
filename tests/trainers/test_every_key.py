"""Every key of every trainer's node changes what a run gives, but for the one that must not."""

import pytest
import torch

from tests.trainers.every import (
    MEMORY_ONLY,
    NAMES,
    OTHER_VALUE,
    TESTED_ELSEWHERE,
    WITH_TEXT,
    defaults,
    logits_of,
    node_of,
    record_of,
)

KEYS = [
    (name, key)
    for name in NAMES
    for key in defaults()[node_of(name)]
    if key != MEMORY_ONLY and not {node_of(name), f"{node_of(name)}.{key}"} & set(TESTED_ELSEWHERE)
]


def other_value(node, key):
    """The other value of a key, and what else must be set."""
    value = OTHER_VALUE.get(f"{node}.{key}", OTHER_VALUE.get(key))
    if isinstance(value, tuple):
        return value[0], value[1:]
    default = defaults()[node][key]
    if value is None:
        assert isinstance(default, (bool, int, float)), f"OTHER_VALUE must name another value of {node}.{key}"
        value = not default if isinstance(default, bool) else default + 1 if isinstance(default, int) else default / 2
    assert value != default, f"OTHER_VALUE must name another value of {node}.{key}"
    return value, ()


def outcome(trainer, images):
    """All that a run of one epoch gives: logits, trained tensors, losses."""
    losses = []
    if trainer._models:
        trainer.train()
        losses = [torch.tensor(row["train"]["loss"]) for row in record_of(trainer)["epochs"] if row["train"]]
    return [logits_of(trainer, images), *trainer.method.state_dict().values(), *losses]


def same(one, other):
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


SHORT = ("OPTIM.MAX_EPOCH", 1, "TEST.NO_TEST", True)


@pytest.mark.parametrize(("name", "key"), KEYS, ids=[f"{name}-{key}" for name, key in KEYS])
def test_every_key_changes_something(make_any, images, name, key):
    node = node_of(name)
    value, more = other_value(node, key)
    plain = outcome(make_any(name, *SHORT, *more), images)
    assert not same(
        plain, outcome(make_any(name, *SHORT, *more, f"TRAINER.{node}.{key}", value, output="other"), images)
    )


@pytest.mark.parametrize("name", WITH_TEXT)
def test_the_size_of_text_passes_changes_nothing_but_memory(make_any, images, name):
    key = f"TRAINER.{node_of(name)}.{MEMORY_ONLY}"
    whole, chunked = make_any(name, *SHORT, key, 0), make_any(name, *SHORT, key, 1, output="chunked")
    assert (whole.backbone.text.chunk, chunked.backbone.text.chunk) == (None, 1)
    torch.testing.assert_close(outcome(whole, images), outcome(chunked, images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", WITH_TEXT)
def test_a_negative_size_of_text_passes_is_refused(make_any, name):
    node = node_of(name)
    with pytest.raises(ValueError, match=f"TRAINER.{node}.TEXT_CHUNK must be a number of classes, or 0 for all"):
        make_any(name, f"TRAINER.{node}.{MEMORY_ONLY}", -1)
