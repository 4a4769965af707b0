"""CoCoOp against prompts assembled by hand, one image and one class at a time."""

import numpy as np
import pytest
import torch

from tests.trainers.by_hand import logits_by_hand, text_by_hand
from trainers.cocoop import CoCoOpMethod

LABEL = torch.tensor([0, 1, 2, 3, 0])


@pytest.fixture
def method(uneven, space):
    """With a net whose hidden units are active for some images and not for others."""
    torch.manual_seed(5)
    method = CoCoOpMethod(uneven, space)
    with torch.no_grad():
        for p in method.meta_net.parameters():
            p.normal_(std=0.5)
    return method


def shift_by_hand(method, image):
    """W2 · max(W1 f + b1, 0) + b2 with the unit image feature f, in NumPy, and whether each hidden unit is active."""
    arrays = {name: np.asarray(p.detach(), dtype=np.float64) for name, p in method.meta_net.named_parameters()}
    f = np.asarray(image, dtype=np.float64)
    f = f / np.sqrt(f @ f)
    hidden = arrays["linear1.weight"] @ f + arrays["linear1.bias"]
    shift = arrays["linear2.weight"] @ np.maximum(hidden, 0) + arrays["linear2.bias"]
    return torch.from_numpy(shift).float(), hidden > 0


def test_logits_equal_prompts_assembled_for_each_image_and_class(method, uneven_clip, space, images):
    features = uneven_clip.encode_image(images)
    rows, active = [], []
    for image in features:
        shift, is_active = shift_by_hand(method, image)
        active.append(is_active)
        ctx = method.ctx + shift  # the same shift for every row
        sentences = [[f"a photo of a {name}."] for name in space.cleaned]
        text = torch.cat([text_by_hand(uneven_clip, sentence, ctx) for sentence in sentences])
        rows.append(logits_by_hand(uneven_clip, image[None], text))
    assert 0 < np.mean(active) < 1
    torch.testing.assert_close(method(images), torch.cat(rows), atol=1e-4, rtol=0)
    out = method.losses(images, LABEL)
    torch.testing.assert_close(out.logits, torch.cat(rows), atol=1e-4, rtol=0)
    assert set(out.terms) == {"ce"}


@pytest.mark.parametrize("chunk", [1, 3, 4, 7, 100])
def test_passes_of_any_size_give_the_same_logits_and_gradients(method, uneven, images, chunk):
    def run(size):
        uneven.text.chunk = size
        method.zero_grad()
        out = method.losses(images, LABEL)
        out.total.backward()
        return [out.logits, *(p.grad.clone() for p in method.parameters())]

    torch.testing.assert_close(run(chunk), run(None), atol=1e-5, rtol=1e-4)


def test_text_of_the_context_alone_has_no_shift(method, uneven_clip, space):
    sentences = [f"a photo of a {name}." for name in space.cleaned]
    expected = text_by_hand(uneven_clip, sentences, method.ctx)
    torch.testing.assert_close(method.raw_text(space), expected, atol=1e-5, rtol=0)


def test_start(uneven, uneven_clip, space):
    method = CoCoOpMethod(uneven, space)
    words = uneven_clip.token_embedding.weight[torch.tensor([320, 1125, 539, 320])]  # "a photo of a"
    assert torch.equal(method.ctx, words)
    shapes = {name: tuple(p.shape) for name, p in method.trainables().items()}
    assert shapes == {
        "ctx": (4, 128),
        "meta_net.linear1.weight": (2, 32),
        "meta_net.linear1.bias": (2,),
        "meta_net.linear2.weight": (128, 2),
        "meta_net.linear2.bias": (128,),
    }


@pytest.mark.parametrize(("n_ctx", "words"), [(2, "a photo of a"), (6, "X X X X X X")])
def test_fewer_and_more_rows_than_words(uneven, uneven_clip, space, n_ctx, words):
    method = CoCoOpMethod(uneven, space, n_ctx)
    expected = text_by_hand(uneven_clip, [f"{words} {name}." for name in space.cleaned], method.ctx)
    torch.testing.assert_close(method.raw_text(space), expected, atol=1e-5, rtol=0)


def test_no_rows_are_refused(uneven, space):
    with pytest.raises(ValueError, match="Text prompts need at least one row and a depth of at least 1, got 0 and 1"):
        CoCoOpMethod(uneven, space, 0)
