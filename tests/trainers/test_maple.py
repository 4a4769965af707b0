"""MaPLe against a pass assembled by hand, its couplings against NumPy, and the baked model against the coupled one."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clip.backbone import Backbone
from clip.model import CLIP, CLIPSpec
from tests.trainers.by_hand import image_by_hand, logits_by_hand, text_by_hand
from trainers.maple import MaPLeMethod
from trainers.prompting import PromptedMethod, TextPrompts

WORDS = "a photo of a"


@pytest.fixture
def method(method_of, uneven, space):
    torch.manual_seed(2)
    return method_of("MaPLe", uneven, space)


def coupled_rows(method):
    """W C + b for each depth, in NumPy, [M, 64]."""
    rows = []
    for couple, ctx in zip(method.couplings, method.text_prompts.layers(), strict=True):
        weight, bias, c = (np.asarray(p.detach(), dtype=np.float64) for p in (couple.weight, couple.bias, ctx))
        rows.append(torch.from_numpy(np.stack([weight @ row + bias for row in c])).float())
    return rows


def text_of(method, model, space):
    prompts = method.text_prompts
    deep = {int(block): rows for block, rows in prompts.deep.items()}
    return text_by_hand(model, [f"{WORDS} {name}." for name in space.cleaned], prompts.ctx, deep)


def test_image_rows_are_linear_functions_of_the_text_rows(method):
    prompts = method.visual_prompts()
    expected = coupled_rows(method)
    assert len(expected) == 3
    torch.testing.assert_close(prompts.shallow, expected[0])
    assert list(prompts.deep) == [1, 2]
    for block in (1, 2):
        torch.testing.assert_close(prompts.deep[block], expected[block])


@pytest.mark.parametrize("inject", ["pre_ln", "post_ln"])
def test_logits_equal_a_pass_assembled_by_hand(method_of, uneven, uneven_clip, space, images, inject):
    method = method_of("MaPLe", uneven, space, "INJECT", inject)
    image = image_by_hand(uneven_clip, images, coupled_rows(method), inject)
    expected = logits_by_hand(uneven_clip, image, text_of(method, uneven_clip, space))
    torch.testing.assert_close(method(images), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("init", ["copies", "independent"])
def test_deep_couplings_start_as_copies_or_independently(method_of, uneven, space, images, init):
    method = method_of("MaPLe", uneven, space, "COUPLING_INIT", init)
    first, one, other = method.couplings
    assert not torch.equal(first.weight, one.weight)
    assert torch.equal(one.weight, other.weight) == torch.equal(one.bias, other.bias) == (init == "copies")
    assert one.weight is not other.weight
    method.losses(images, torch.tensor([0, 1, 2, 3, 0])).total.backward()
    assert not torch.equal(one.weight.grad, other.weight.grad)  # copies part in the first step
    bound = 1 / np.sqrt(128)  # of a linear layer's usual start
    assert all(p.abs().max() <= bound for p in method.couplings.parameters())


def test_gradient_reaches_the_text_rows_through_both_towers(method, images):
    label = torch.tensor([0, 1, 2, 3, 0])

    def gradients(detach):
        vision, text = method.image(images), method.text()
        if detach == "image":
            vision.pooled = vision.pooled.detach()
        if detach == "text":
            text = text.detach()
        loss = F.cross_entropy(method.logits(vision, text), label)
        return torch.autograd.grad(loss, method.text_prompts.layers())

    both, of_text, of_image = gradients(""), gradients("image"), gradients("text")
    for whole, text, image in zip(both, of_text, of_image, strict=True):
        assert text.abs().max() > 1e-6
        assert image.abs().max() > 1e-6
        torch.testing.assert_close(whole, text + image)


def test_the_baked_model_gives_the_same_logits_without_couplings(method, images):
    method.eval()
    baked = method.bake()
    assert type(baked) is PromptedMethod
    assert not baked.training
    shapes = [tuple(p.shape) for p in baked.trainables().values()]
    assert shapes == [(2, 128)] * 3 + [(2, 64)] * 3
    with torch.no_grad():
        logits = method(images)
        torch.testing.assert_close(baked(images), logits, atol=1e-6, rtol=0)
        for p in method.parameters():
            p.zero_()  # the baked model shares none of them
        torch.testing.assert_close(baked(images), logits, atol=1e-6, rtol=0)


def test_depth_is_cut_to_the_blocks_of_the_text_tower(method_of, uneven, space):
    assert len(method_of("MaPLe", uneven, space, "PROMPT_DEPTH", 12).couplings) == 3
    assert len(method_of("MaPLe", uneven, space, "PROMPT_DEPTH", 1).couplings) == 1


def test_more_text_prompts_than_image_blocks_are_refused(space):
    short = Backbone(CLIP(CLIPSpec(32, 32, 2, 64, 8, 77, 49408, 64, 1, 3)).requires_grad_(False))
    with pytest.raises(ValueError, match="PROMPT_DEPTH 3 is more than the 2 blocks of the image tower; lower it"):
        MaPLeMethod(short, space, TextPrompts(short, 2, WORDS, 9))
    MaPLeMethod(short, space, TextPrompts(short, 2, WORDS, 2))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("COUPLING_INIT", "same", "COUPLING_INIT must be one of copies, independent, got 'same'"),
        ("INJECT", "ln", 'inject must be "pre_ln" or "post_ln", got \'ln\''),
        ("N_CTX", 0, "Text prompts need at least one row and a depth of at least 1, got 0 and 9"),
        ("PROMPT_DEPTH", 0, "Text prompts need at least one row and a depth of at least 1, got 2 and 0"),
    ],
)
def test_bad_options_are_named(method_of, uneven, space, key, value, message):
    with pytest.raises(ValueError, match=message):
        method_of("MaPLe", uneven, space, key, value)
