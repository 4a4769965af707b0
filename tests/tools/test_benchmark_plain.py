"""The plain path computes what CoOp computes, the long way: checked against CLIP, PyTorch's attention and NumPy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clip.backbone import LabelSpace
from clip.clip import tokenize
from tools.benchmarks import plain
from tools.benchmarks.plain import PlainCoOp, encode_images, update_in_loops
from trainers.coop import CoOpMethod

SPACE = LabelSpace(("red square", "green_square", "x", "yellow square (large)"), "Toy")


@pytest.fixture
def images(backbone):
    size = backbone.spec.image_resolution
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))


def pair(backbone, **options):
    torch.manual_seed(5)
    coop = CoOpMethod(backbone, SPACE, **options)
    return coop, PlainCoOp(coop)


def test_class_features_are_those_of_the_sentences(backbone):
    _, path = pair(backbone, ctx_init="a photo of a")
    ids = tokenize([f"a photo of a {name.replace('_', ' ')}." for name in SPACE.names])
    expected = F.normalize(backbone.clip.encode_text(ids), dim=1)
    assert path.prefix.shape[1] + len(path.ctx) + path.suffix.shape[1] == 77  # all rows
    torch.testing.assert_close(path.text().detach(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", [{"ctx_init": "a photo of a"}, {"n_ctx": 6}])
def test_logits_and_the_gradient_of_the_context_are_coops(backbone, images, options):
    coop, path = pair(backbone, **options)
    label = torch.tensor([0, 3, 1])
    torch.testing.assert_close(path(images), coop(images), rtol=0, atol=1e-4)
    coop.losses(images, label).total.backward()
    path.loss(images, label).backward()
    torch.testing.assert_close(path.ctx.grad, coop.ctx.grad, rtol=1e-3, atol=1e-6)


def test_the_image_side_keeps_maps_and_joint_tokens_of_all_blocks(backbone, images):
    clip, n = backbone.clip, 1 + backbone.vision.vit.grid**2
    found = encode_images(clip, images)
    torch.testing.assert_close(found.feature, clip.encode_image(images), rtol=0, atol=1e-5)
    assert [rows.shape for rows in found.maps] == [(3, clip.visual.transformer.resblocks[0].attn.heads, n, n)] * 2
    assert [rows.shape for rows in found.tokens] == [(3, n - 1, backbone.spec.embed_dim)] * 2
    tokens = backbone.vision(images, want={"tokens"}).tokens
    torch.testing.assert_close(found.tokens[-1], tokens, rtol=0, atol=1e-5)
    block = clip.visual.transformer.resblocks[0]
    x = block.ln_1(backbone.vision.hidden(images, 0)).transpose(0, 1)
    attn = block.attn
    _, expected = F.multi_head_attention_forward(
        *(x, x, x, attn.width, attn.heads, attn.in_proj_weight, attn.in_proj_bias),
        *(None, None, False, 0.0, attn.out_proj.weight, attn.out_proj.bias),
        average_attn_weights=False,
    )
    torch.testing.assert_close(found.maps[0], expected, rtol=0, atol=1e-6)


def test_text_is_computed_for_every_batch(backbone, images, monkeypatch):
    _, path = pair(backbone)
    calls = []
    encode = plain.encode_texts
    monkeypatch.setattr(plain, "encode_texts", lambda *args: calls.append(1) or encode(*args))
    path.eval()
    with torch.no_grad():
        path(images), path(images)
    assert len(calls) == 2


def test_the_bank_moves_to_weighted_means():
    rng = np.random.default_rng(0)
    bank, tokens = rng.standard_normal((3, 2, 4)), rng.standard_normal((2, 5, 4))
    label, scale, momentum = [2, 2], 3.0, 0.8
    expected = bank.copy()

    def unit(x):
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    rows = tokens.reshape(10, 4)
    share = np.exp(scale * unit(rows) @ unit(bank[2]).T)
    share /= share.sum(axis=1, keepdims=True)
    for j in range(2):
        mine = share.argmax(axis=1) == j
        assert mine.any()
        mean = (share[mine, j, None] * rows[mine]).sum(axis=0) / share[mine, j].sum()
        expected[2, j] = momentum * bank[2, j] + (1 - momentum) * mean
    moved = torch.tensor(bank)
    update_in_loops(moved, torch.tensor(tokens), torch.tensor(label), torch.tensor(scale), momentum)
    np.testing.assert_allclose(moved.numpy(), expected, rtol=0, atol=1e-12)


def test_a_training_step_moves_the_bank_of_its_classes_only(backbone, images):
    _, path = pair(backbone)
    before = path.prototypes.clone()
    path.loss(images, torch.tensor([1, 1, 3]))
    assert (path.prototypes != before).flatten(1).any(dim=1).tolist() == [False, True, False, True]


@pytest.mark.parametrize("options", [{"csc": True}, {"class_token_position": "front"}])
def test_what_it_does_not_know_is_refused(backbone, options):
    with pytest.raises(ValueError, match=r"^The plain path knows one context for all classes, in front of the name;"):
        pair(backbone, **options)
