"""The text tower against a plain float64 CLIP that computes all 77 rows of all classes."""

import pytest
import torch

from clip import text
from clip.backbone import LabelSpace
from clip.clip import tokenize
from clip.layers import causal_mask
from clip.text import _group_by_length

M = 4
WORDS = "a photo of a"


def full_rows(backbone, space, ctx, words=WORDS):
    """Embeddings [C, 77, W] with the context in rows 1..M, ids' end rows, and the slots."""
    ids = tokenize([f"{words} {name}." for name in space.cleaned])
    rows = backbone.clip.token_embedding(ids).detach().clone()
    m = ctx.shape[-2]
    rows[:, 1 : 1 + m] = ctx
    return rows, ids.argmax(1), torch.arange(1, 1 + m).expand(len(space), -1)


@pytest.fixture
def batch(backbone, space):
    return backbone.text.prepare(space, WORDS, M)


@pytest.fixture
def prompts(randn):
    """Context and deep prompts of every kind."""
    return {
        "ctx": randn(M, 128),
        "csc": randn(6, M, 128),
        "deep": {1: randn(M, 128), 2: randn(M, 128)},
        "deep_csc": {2: randn(6, M, 128)},
    }


CASES = [("ctx", None), ("csc", None), ("ctx", "deep"), ("csc", "deep"), ("ctx", "deep_csc"), ("csc", "deep_csc")]


@pytest.mark.parametrize(("ctx", "deep"), CASES)
@pytest.mark.parametrize("share", [True, False])
def test_equals_the_plain_model_on_all_77_rows(backbone, plain, space, batch, prompts, ctx, deep, share):
    ctx, deep = prompts[ctx], prompts[deep] if deep else None
    got = backbone.text(batch, ctx, deep, share_prefix=share)
    want = plain.text(*full_rows(backbone, space, ctx), deep)
    torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=0)


def test_words_alone_give_zero_shot_features(backbone, plain, space, batch):
    rows, eot, _ = full_rows(backbone, space, backbone.text.word_embeddings(WORDS))
    want = plain.text(rows, eot)
    templated = backbone.text(backbone.text.templates(space, "a photo of a {}."))
    torch.testing.assert_close(backbone.text(batch).double(), want, atol=1e-5, rtol=0)
    torch.testing.assert_close(templated.double(), want, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        backbone.clip.encode_text(tokenize([f"{WORDS} {name}." for name in space.cleaned])).double(),
        want,
        atol=1e-5,
        rtol=0,
    )


def test_two_slots_of_four_words_keep_the_later_words(backbone, plain, space, randn):
    ctx, deep = randn(2, 128), {1: randn(2, 128)}
    got = backbone.text(backbone.text.prepare(space, WORDS, 2), ctx, deep)
    torch.testing.assert_close(got.double(), plain.text(*full_rows(backbone, space, ctx), deep), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("position", "m"), [("middle", 4), ("middle", 5), ("front", 4)])
@pytest.mark.parametrize("specific", [False, True])
@pytest.mark.parametrize("share", [True, False])
def test_class_position(backbone, plain, space, randn, position, m, specific, share):
    """Spliced as the method tells it: the name is as many tokens as it has alone, the end row is the end position's."""
    ctx, deep = randn(6, m, 128) if specific else randn(m, 128), {1: randn(m, 128)}
    base, eot, _ = full_rows(backbone, space, ctx, " ".join("X" * m))
    rows, slots = base.clone(), torch.empty(6, m, dtype=torch.long)
    for c, name in enumerate(space.cleaned):
        n_name = int(tokenize(name)[0].argmax()) - 1
        own = base[c, 1 : 1 + m]
        label, rest = base[c, 1 + m : 1 + m + n_name], base[c, 1 + m + n_name :]
        half = m // 2 if position == "middle" else 0
        rows[c] = torch.cat([base[c, :1], own[:half], label, own[half:], rest])
        slots[c] = torch.tensor([*range(1, 1 + half), *range(1 + half + n_name, 1 + n_name + m)])
    got = backbone.text(backbone.text.prepare(space, None, m, position), ctx, deep, share_prefix=share)
    torch.testing.assert_close(got.double(), plain.text(rows, eot, slots, deep), atol=1e-5, rtol=0)


def gradients(tower, batch, leaves, deep_keys, **options):
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in leaves.items()}
    deep = {int(name): leaves[name] for name in deep_keys}
    out = tower(batch, leaves.get("ctx"), deep, **options)
    weight = torch.linspace(-1, 1, out.numel()).view_as(out)
    (out * weight).sum().backward()
    return out.detach(), {name: leaf.grad for name, leaf in leaves.items()}


@pytest.mark.parametrize("options", [{}, {"share_prefix": False}, {"chunk": 1}, {"chunk": 4}, {"chunk": 100}])
@pytest.mark.parametrize("kind", ["shared", "csc", "image", "deep_csc"])
@pytest.mark.parametrize("by_length", [False, True])
def test_savings_change_neither_values_nor_gradients(backbone, batch, randn, monkeypatch, kind, options, by_length):
    ctx = {"shared": (M, 128), "csc": (6, M, 128), "image": (3, 1, M, 128), "deep_csc": (M, 128)}[kind]
    leaves = {"ctx": randn(*ctx), "1": randn(*((6, M, 128) if kind == "deep_csc" else (M, 128))), "2": randn(M, 128)}
    want, want_grads = gradients(backbone.text, batch, leaves, "12")
    if by_length:
        monkeypatch.setattr(text, "PASS_COST", {"cpu": 0.0})  # as if a further pass cost nothing: one for each length
    got, got_grads = gradients(backbone.text, batch, leaves, "12", **options)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
    for name, grad in want_grads.items():
        assert grad.abs().max() > 0
        torch.testing.assert_close(got_grads[name], grad, atol=1e-5 * float(grad.abs().max()) + 1e-6, rtol=1e-4)


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("chunk", [None, 1, 4, 7, 12])
def test_image_contexts_equal_one_image_at_a_time(backbone, space, randn, position, chunk):
    batch, ctx = backbone.text.prepare(space, None, M, position), randn(3, 1, M, 128)
    got = backbone.text(batch, ctx, chunk=chunk)
    want = torch.stack([backbone.text(batch, row) for row in ctx[:, 0]])
    assert got.shape == (3, 6, 48)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


def test_chunks_are_recomputed_in_the_backward_pass(backbone, batch, randn, monkeypatch):
    calls = []
    pool = type(backbone.clip.transformer).pool

    def counted(self, *args, **kwargs):
        calls.append(args[0].shape[0])
        return pool(self, *args, **kwargs)

    monkeypatch.setattr(type(backbone.clip.transformer), "pool", counted)
    ctx = randn(M, 128).requires_grad_()
    out = backbone.text(batch, ctx, chunk=4)
    assert sorted(calls) == [2, 4]
    out.sum().backward()
    assert sorted(calls) == [2, 2, 4, 4]
    calls.clear()
    monkeypatch.setattr(text, "PASS_COST", {"cpu": 0.0})
    backbone.text(batch, ctx, chunk=6).sum().backward()  # all classes fit into a chunk: nothing is recomputed
    assert sum(calls) == 6
    assert len(calls) > 1


def test_shared_rows_run_once(backbone, space, batch, randn, monkeypatch):
    seen = []
    prefix = type(backbone.clip.transformer).prefix

    def spy(self, x, replace=None):
        seen.append(tuple(x.shape))
        return prefix(self, x, replace)

    monkeypatch.setattr(type(backbone.clip.transformer), "prefix", spy)
    assert batch.n_prefix == 1 + M
    backbone.text(batch, randn(M, 128))
    backbone.text(batch, randn(2, 1, M, 128))
    backbone.text(batch, randn(6, M, 128))  # class-specific: nothing but the start token is shared, so nothing is
    backbone.text(batch, randn(M, 128), share_prefix=False)
    backbone.text(backbone.text.prepare(LabelSpace(("cat",)), WORDS, M), randn(M, 128))  # one class shares with nobody
    assert seen == [(1, 1 + M, 128), (2, 1 + M, 128)]


def test_word_embeddings_count_words_by_spaces(backbone):
    table = backbone.clip.token_embedding.weight
    ids = tokenize("a photo of a")[0, 1:5]
    assert torch.equal(backbone.text.word_embeddings("a photo of a"), table[ids])
    assert torch.equal(backbone.text.word_embeddings("a_photo of_a"), table[ids])
    assert backbone.text.word_embeddings("photorealistic x-ray").shape == (2, 128)  # more tokens than words


def test_one_learned_context_serves_another_label_space(backbone, plain, randn):
    """Acceptance check 11, the towers' part: no class-dependent state, the text is rebuilt from names."""
    keys = set(backbone.state_dict())
    ctx, new = randn(M, 128), LabelSpace(("red star", "blue ring", "green_cross"))
    backbone.text(backbone.text.prepare(LabelSpace(("cat", "dog")), WORDS, M), ctx)
    got = backbone.text(backbone.text.prepare(new, WORDS, M), ctx)
    torch.testing.assert_close(got.double(), plain.text(*full_rows(backbone, new, ctx)), atol=1e-5, rtol=0)
    assert set(backbone.state_dict()) == keys


def test_what_evaluation_leaves_behind_serves_training(backbone, space, monkeypatch):
    """Batches, and the masks and class indices that are kept, must not be inference tensors."""
    causal_mask.cache_clear()
    text._plan.cache_clear()
    monkeypatch.setattr(text, "PASS_COST", {"cpu": 0.0})  # several passes, so that there are class indices
    with torch.inference_mode():
        batch = backbone.text.prepare(space, WORDS, M)
        words = backbone.text.word_embeddings(WORDS)
        backbone.text(batch, words.expand(6, -1, -1))
        backbone.text(batch, words)
    for ctx in (words.clone(), words.repeat(6, 1, 1)):
        ctx.requires_grad_()
        backbone.text(batch, ctx).sum().backward()
        assert ctx.grad.abs().max() > 0


def test_groups_by_length_cost_least():
    order, groups = _group_by_length((3, 9, 3, 9, 3), 1.0, 5)
    assert groups == [[0, 2, 4], [1, 3]]
    assert [[c for group in groups for c in group][place] for place in order] == [0, 1, 2, 3, 4]
    assert _group_by_length((3, 9, 3, 9, 3), 100.0, 5) == ([0, 1, 2, 3, 4], [[0, 1, 2, 3, 4]])
    assert _group_by_length((5, 4, 3, 2), 0.0, 4)[1] == [[3], [2], [1], [0]]
    assert _group_by_length((5, 4, 3, 2, 1), 100.0, 2)[1] == [[4, 3], [2, 1], [0]]  # still sorted when chunks are asked


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ctx": (3, 128)}, r"The context must be \[M, W\] = \[4, 128\], .* got \[3, 128\]\."),
        ({"ctx": (5, 4, 128)}, r"The context must be .* batch of 6 classes with 4 slots, got \[5, 4, 128\]\."),
        ({"ctx": (2, 6, 4, 128)}, r"The context must be .* got \[2, 6, 4, 128\]\."),
        ({"ctx": (4, 64)}, r"The context must be .* got \[4, 64\]\."),
        ({"deep": {0: (4, 128)}}, r"Deep text prompts go before blocks 1..2 \(the input's is ctx\), got block 0\."),
        ({"deep": {3: (4, 128)}}, r"Deep text prompts go before blocks 1..2 .* got block 3\."),
        (
            {"deep": {1: (2, 128)}},
            r"The deep text prompt before block 1 must be \[M, W\] = .* got \[2, 128\]\.",
        ),
        ({"chunk": -1}, r"chunk must be a number of classes, or 0 for all at once, got -1\."),
    ],
)
def test_errors_of_a_call(backbone, batch, randn, change, message):
    options = {name: randn(*value) if name == "ctx" else value for name, value in change.items()}
    if "deep" in options:
        options["deep"] = {block: randn(*shape) for block, shape in options["deep"].items()}
    with pytest.raises(ValueError, match=message):
        backbone.text(batch, **options)
