"""VPT against a pass assembled by hand: prompted images, frozen text of the plain sentence."""

import pytest
import torch

from clip.backbone import LabelSpace
from tests.trainers.by_hand import image_by_hand, logits_by_hand, text_by_hand


@pytest.mark.parametrize("depth", [1, 3])
def test_logits_equal_a_pass_assembled_by_hand(method_of, uneven, uneven_clip, images, depth):
    pets = LabelSpace(("Abyssinian", "american_bulldog"), "OxfordPets", "a photo of a {}, a type of pet.")
    method = method_of("VPT", uneven, pets, "N_CTX_VISION", 4, "PROMPT_DEPTH_VISION", depth)
    assert [tuple(rows.shape) for rows in method.trainables().values()] == [(4, 64)] * depth
    sentences = ["a photo of a Abyssinian.", "a photo of a american bulldog."]  # whatever the data set's template is
    text = text_by_hand(uneven_clip, sentences, torch.empty(0, 128))
    expected = logits_by_hand(uneven_clip, image_by_hand(uneven_clip, images, list(method.parameters())), text)
    torch.testing.assert_close(method(images), expected, atol=1e-4, rtol=0)
    out = method.losses(images, torch.tensor([0, 1, 1, 0, 1]))
    torch.testing.assert_close(out.logits, expected, atol=1e-4, rtol=0)
    assert set(out.terms) == {"ce"}


def test_words_of_the_frozen_text_are_an_option(method_of, uneven, uneven_clip, space):
    method = method_of("VPT", uneven, space, "CTX_INIT", "a sketch of a")
    sentences = [f"a sketch of a {name}." for name in space.cleaned]
    expected = text_by_hand(uneven_clip, sentences, torch.empty(0, 128))
    torch.testing.assert_close(method.raw_text(space), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("key", ["N_CTX_VISION", "PROMPT_DEPTH_VISION"])
def test_no_rows_are_refused(method_of, uneven, space, key):
    with pytest.raises(ValueError, match=r"Image prompts need 1..3 sets of at least one row, got sets of \["):
        method_of("VPT", uneven, space, key, 0)
