"""IVLP against a pass assembled by hand: both towers prompted, each with rows of its own."""

import torch

from tests.trainers.by_hand import image_by_hand, logits_by_hand, text_by_hand


def text_of(method, model, space, words):
    prompts = method.text_prompts
    deep = {int(block): rows for block, rows in prompts.deep.items()}
    return text_by_hand(model, [f"{words} {name}." for name in space.cleaned], prompts.ctx, deep)


def test_logits_equal_a_pass_assembled_by_hand(method_of, uneven, uneven_clip, space, images):
    method = method_of("IVLP", uneven, space, "PROMPT_DEPTH_TEXT", 2, "N_CTX_VISION", 3, "INJECT", "post_ln")
    rows = list(method.image_prompts.rows)
    assert [tuple(r.shape) for r in method.parameters()] == [(2, 128)] * 2 + [(3, 64)] * 3
    text = text_of(method, uneven_clip, space, "a photo of a")
    expected = logits_by_hand(uneven_clip, image_by_hand(uneven_clip, images, rows, "post_ln"), text)
    torch.testing.assert_close(method(images), expected, atol=1e-4, rtol=0)


def test_text_alone_leaves_the_image_tower_as_it_is(method_of, uneven, uneven_clip, space, images):
    off = ("N_CTX_VISION", 0, "PROMPT_DEPTH_VISION", 0)
    method = method_of("IVLP", uneven, space, "N_CTX_TEXT", 3, "CTX_INIT", "an image of", "KEEP_WORDS", False, *off)
    text = text_of(method, uneven_clip, space, "an image of")
    expected = logits_by_hand(uneven_clip, uneven_clip.encode_image(images), text)
    torch.testing.assert_close(method(images), expected, atol=1e-4, rtol=0)


def test_other_words_behind_fewer_rows_are_kept_or_left_out(method_of, uneven, uneven_clip, space):
    kept, left_out = (method_of("IVLP", uneven, space, "KEEP_WORDS", keep) for keep in (True, False))
    expected = text_of(kept, uneven_clip, space, "a photo of a")
    torch.testing.assert_close(kept.raw_text(space), expected, atol=1e-5, rtol=0)
    expected = text_of(left_out, uneven_clip, space, "a photo")
    torch.testing.assert_close(left_out.raw_text(space), expected, atol=1e-5, rtol=0)
