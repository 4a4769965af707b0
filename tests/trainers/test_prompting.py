"""Prompts of either tower against a pass assembled by hand, and how they start."""

import pytest
import torch

from tests.trainers.by_hand import image_by_hand, text_by_hand
from trainers.prompting import ImagePrompts, PromptedMethod, TextPrompts

WORDS = "a photo of a"


@torch.no_grad()
def filled(module):
    """With other values than it started with, so that every row shows in the result."""
    generator = torch.Generator().manual_seed(7)
    for p in module.parameters():
        p.copy_(0.5 * torch.randn(p.shape, generator=generator))
    return module


def deep_of(prompts):
    return {int(block): rows for block, rows in prompts.deep.items()}


# --- text


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize(
    ("n_ctx", "keep_words", "sentence"),
    [
        (2, True, "a photo of a {}."),  # "of a" stays, frozen, behind the two rows
        (2, False, "a photo {}."),
        (4, True, "a photo of a {}."),
        (4, False, "a photo of a {}."),
        (6, True, "X X X X X X {}."),
    ],
)
def test_text_equals_a_pass_assembled_by_hand(uneven, uneven_clip, space, n_ctx, keep_words, sentence, depth):
    prompts = filled(TextPrompts(uneven, n_ctx, WORDS, depth, keep_words))
    assert list(prompts.deep) == [str(block) for block in range(1, depth)]
    sentences = [sentence.format(name) for name in space.cleaned]
    expected = text_by_hand(uneven_clip, sentences, prompts.ctx, deep_of(prompts))
    ours = PromptedMethod(uneven, space, prompts, None).raw_text(space)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


def test_rows_start_as_the_first_words_and_deep_rows_at_random(uneven, uneven_clip):
    prompts = TextPrompts(uneven, 2, "a_photo of a", 3)
    ids = torch.tensor([320, 1125])  # "a", "photo"
    assert torch.equal(prompts.ctx, uneven_clip.token_embedding.weight[ids])
    assert [p is q for p, q in zip(prompts.layers(), prompts.parameters(), strict=True)] == [True] * 3
    one, other = prompts.layers()[1:]
    assert not torch.equal(one, other)


@pytest.mark.parametrize("words", [WORDS, "", "  "])
def test_more_rows_than_words_start_at_random(uneven, words):
    torch.manual_seed(0)
    prompts = TextPrompts(uneven, 50, words, 2)
    assert prompts.words is None
    for rows in prompts.layers():
        assert rows.shape == (50, 128)
        assert rows.std().item() == pytest.approx(0.02, rel=0.05)
        assert rows.mean().item() == pytest.approx(0, abs=0.001)


def test_depth_is_cut_to_the_blocks_of_the_tower(uneven):
    assert len(TextPrompts(uneven, 2, WORDS, 12).layers()) == 3
    assert len(ImagePrompts.random(uneven, 2, 12).rows) == 3


@pytest.mark.parametrize(("n_ctx", "depth"), [(0, 9), (2, 0)])
def test_text_prompts_without_rows_or_depth_are_refused(uneven, n_ctx, depth):
    message = f"Text prompts need at least one row and a depth of at least 1, got {n_ctx} and {depth}."
    with pytest.raises(ValueError, match=message):
        TextPrompts(uneven, n_ctx, WORDS, depth)


# --- images


@pytest.mark.parametrize("inject", ["pre_ln", "post_ln"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_image_features_equal_a_pass_assembled_by_hand(uneven, uneven_clip, space, images, depth, inject):
    prompts = filled(ImagePrompts.random(uneven, 5, depth, inject))
    assert len(prompts.rows) == depth
    expected = image_by_hand(uneven_clip, images, list(prompts.rows), inject)
    ours = PromptedMethod(uneven, space, None, prompts).image(images).pooled
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    other = image_by_hand(uneven_clip, images, list(prompts.rows), {"pre_ln": "post_ln", "post_ln": "pre_ln"}[inject])
    assert (ours - other).abs().max() > 1e-3


def test_image_rows_start_at_random(uneven):
    torch.manual_seed(0)
    prompts = ImagePrompts.random(uneven, 100, 2)
    for rows in prompts.rows:
        assert rows.shape == (100, 64)
        assert rows.std().item() == pytest.approx(0.02, rel=0.05)
    assert not torch.equal(*prompts.rows)


@pytest.mark.parametrize("sizes", [[], [2, 2, 2, 2], [0], [2, 0]])
def test_sets_of_image_rows_that_cannot_be(uneven, sizes):
    with pytest.raises(ValueError, match=r"Image prompts need 1..3 sets of at least one row, got sets of \["):
        ImagePrompts(uneven, [torch.zeros(size, 64) for size in sizes])


def test_sets_of_image_rows_of_different_sizes(uneven):
    with pytest.raises(ValueError, match="as many rows as the shallow ones, 2, got 3 before block 1"):
        ImagePrompts(uneven, [torch.zeros(2, 64), torch.zeros(3, 64)])


def test_an_unknown_place_of_image_rows_is_refused_at_once(uneven):
    with pytest.raises(ValueError, match='inject must be "pre_ln" or "post_ln", got \'ln\''):
        ImagePrompts.random(uneven, 2, 1, "ln")


# --- methods


def test_without_text_prompts_the_text_is_frozen(uneven, uneven_clip, space):
    method = PromptedMethod(uneven, space, None, ImagePrompts.random(uneven, 2, 1), "a sketch of a")
    assert not method.text_trains
    sentences = [f"a sketch of a {name}." for name in space.cleaned]
    none = torch.empty(0, 128)
    torch.testing.assert_close(method.raw_text(space), text_by_hand(uneven_clip, sentences, none), atol=1e-5, rtol=0)


def test_without_image_prompts_the_image_side_is_frozen_clip(uneven, uneven_clip, space, images):
    method = PromptedMethod(uneven, space, TextPrompts(uneven, 2, WORDS, 3), None)
    assert method.text_trains
    torch.testing.assert_close(method.image(images).pooled, uneven_clip.encode_image(images), atol=1e-5, rtol=0)


def test_prompts_of_keys_for_both_towers_or_text_alone(method_of, uneven, space):
    both = method_of("IVLP", uneven, space, "N_CTX_TEXT", 3, "N_CTX_VISION", 5, "PROMPT_DEPTH_TEXT", 2)
    assert [tuple(p.shape) for p in both.trainables().values()] == [(3, 128)] * 2 + [(5, 64)] * 3
    text = method_of("IVLP", uneven, space, "N_CTX_VISION", 0, "PROMPT_DEPTH_VISION", 0)
    assert text.image_prompts is None
    assert [tuple(p.shape) for p in text.trainables().values()] == [(2, 128)] * 3


@pytest.mark.parametrize("key", ["N_CTX_VISION", "PROMPT_DEPTH_VISION"])
def test_half_of_no_image_prompts_is_refused(method_of, uneven, space, key):
    with pytest.raises(ValueError, match=r"Image prompts need 1..3 sets of at least one row, got sets of \["):
        method_of("IVLP", uneven, space, key, 0)
