"""Label spaces and their tokenised texts."""

import pytest
import torch

from clip.backbone import LabelSpace
from clip.clip import tokenize

WORDS, M = "a photo of a", 4


@pytest.fixture
def batch(backbone, space):
    return backbone.text.prepare(space, WORDS, M)


def test_batch_facts(space, backbone, batch):
    assert len(batch) == 6
    assert batch.lengths == tuple(tokenize([f"{WORDS} {name}." for name in space.cleaned]).ne(0).sum(1).tolist())
    assert batch.ids.shape[1] == max(batch.lengths)  # cut behind the longest end token
    assert batch.ids[torch.arange(6), batch.eot].tolist() == [49407] * 6
    assert batch.slots.tolist() == [[1, 2, 3, 4]] * 6
    assert (batch.n_slots, batch.prefix_slots, batch.n_plain) == (4, (1, 2, 3, 4), 1)
    front = backbone.text.prepare(LabelSpace(("red star", "red moon")), None, 2, "front")
    assert (front.n_prefix, front.prefix_slots, front.n_plain) == (2, (), 2)  # start token and "red"
    twins = backbone.text.templates(LabelSpace(("cat", "cat")), "a {}.")
    assert twins.n_prefix == int(twins.eot[0])  # the end token is never shared


def test_errors_of_preparation(backbone, space, randn):
    text = backbone.text
    with pytest.raises(ValueError, match=r"The class position must be one of end, middle, front, got 'back'\."):
        text.prepare(space, WORDS, M, "back")
    with pytest.raises(ValueError, match=r"The context 'a photo of a' has 4 tokens, so 0..4 .* got 6; give more words"):
        text.prepare(space, WORDS, 6)
    with pytest.raises(ValueError, match=r'A template needs "\{\}" where the class name goes, got \'a photo\.\'\.'):
        text.templates(space, "a photo.")
    with pytest.raises(RuntimeError, match=r"A text of 103 tokens does not fit the context of 77: 'cat cat .*shorten"):
        text.templates(LabelSpace((" ".join(["cat"] * 100),)), "{}.")
    with pytest.raises(ValueError, match=r"The context must be .* with 0 slots, got \[1, 128\]"):
        text(text.templates(space, "{}."), randn(1, 128))


def test_label_space():
    space = LabelSpace(["red_star", "Blue ring"], "shapes")
    assert space.cleaned == ("red star", "Blue ring")
    assert len(space) == 2
    assert len(space.digest) == 16
    assert int(space.digest, 16) >= 0
    assert space.digest == LabelSpace(("red_star", "Blue ring"), "other").digest
    assert space.digest != LabelSpace(("Blue ring", "red_star")).digest
    assert LabelSpace(("ab", "c")).digest != LabelSpace(("a", "bc")).digest
    with pytest.raises(ValueError, match=r"takes a sequence of class names, got the single string 'cat'\."):
        LabelSpace("cat")
    with pytest.raises(ValueError, match=r"needs at least one class name, got none \(data set 'shapes'\)\."):
        LabelSpace((), "shapes")
