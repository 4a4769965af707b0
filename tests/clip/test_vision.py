"""The image tower against a plain float64 CLIP, and its parts against each other."""

import pytest
import torch

from clip.backbone import VisualPrompts

P = 2


@pytest.fixture
def prompts(randn):
    return VisualPrompts(randn(P, 128), {1: randn(P, 128), 2: randn(P, 128)})


ALL = frozenset({"tokens", "cls_attn", "patch_embed", "hidden:0", "hidden:1", "hidden:2", "hidden:3"})


def close(got, want, atol=1e-5):
    torch.testing.assert_close(got.double(), want.double(), atol=atol, rtol=0)


@pytest.mark.parametrize("inject", ["pre_ln", "post_ln"])
@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_everything_equals_the_plain_model(backbone, plain, images, prompts, inject, depth):
    deep = {block: rows for block, rows in prompts.deep.items() if block < depth}
    given = VisualPrompts(prompts.shallow, deep, inject) if depth else None
    out = backbone.vision(images, given, ALL)
    shallow = prompts.shallow if depth else None
    pooled, tokens, hidden, attention, patches = plain.vision(images, shallow, deep, inject)
    close(out.pooled, pooled)
    close(out.tokens, tokens)
    close(out.cls_attn, attention)
    close(out.patch_embed, patches)
    assert sorted(out.hidden) == [0, 1, 2, 3]
    for block, rows in hidden.items():
        close(out.hidden[block], rows, 3e-5)
    assert out.tokens.shape == (3, 16, 48)
    assert out.cls_attn.shape == (3, 2, 16)
    close(backbone.vision(images, given).pooled, pooled)


def test_the_place_of_prompt_rows_makes_no_difference_but_ln_pre_does(backbone, plain, images, prompts):
    """Acceptance checks 4 and 5: behind the class token or at the end, the class token's output is the same."""
    for inject in ("pre_ln", "post_ln"):
        pooled, *_ = plain.vision(images, prompts.shallow, prompts.deep, inject, at_end=False)
        close(backbone.vision(images, VisualPrompts(prompts.shallow, prompts.deep, inject)).pooled, pooled)
    pre, post = (backbone.vision(images, VisualPrompts(prompts.shallow, {}, k)).pooled for k in ("pre_ln", "post_ln"))
    assert (pre - post).abs().max() > 0.01


def test_image_specific_prompts_equal_one_image_at_a_time(backbone, images, randn):
    shallow, deep = randn(3, P, 128), randn(3, P, 128)
    got = backbone.vision(images, VisualPrompts(shallow, {1: deep}), {"tokens"})
    for i in range(3):
        want = backbone.vision(images[i : i + 1], VisualPrompts(shallow[i], {1: deep[i]}), {"tokens"})
        close(got.pooled[i], want.pooled[0])
        close(got.tokens[i], want.tokens[0])


def test_class_token_only_last_block_equals_the_full_block(backbone, images, prompts):
    for given in (None, prompts):
        short = backbone.vision(images, given).pooled
        close(short, backbone.vision(images, given, {"tokens"}).pooled, 1e-6 * float(short.abs().max()))
        close(short, backbone.vision(images, given, {"cls_attn"}).pooled, 1e-6 * float(short.abs().max()))


@pytest.mark.parametrize("prompted", [False, True])
@pytest.mark.parametrize("block", [0, 1, 2])
def test_resume_equals_the_full_pass(backbone, images, prompts, prompted, block):
    given = prompts if prompted else None
    full = backbone.vision(images, given, ALL)
    rest = backbone.vision.resume(full.hidden[block], block, {"tokens", "cls_attn", "hidden:2"}, given)
    close(rest.pooled, full.pooled, 1e-6)
    close(rest.tokens, full.tokens, 1e-6)
    close(rest.cls_attn, full.cls_attn, 1e-6)
    close(rest.hidden[2], full.hidden[2], 1e-6)
    assert sorted(rest.hidden) == [2]
    close(backbone.vision.hidden(images, block, given), full.hidden[block], 0)
    close(backbone.vision.blocks(full.hidden[0], 0, block, given), full.hidden[block], 0)


def test_resume_on_selected_rows_attends_to_them_only(backbone, plain, images):
    kept = torch.tensor([0, 3, 7, 11])  # class token and three patches
    tokens = backbone.vision(images, want={"hidden:2"}).hidden[2][:, kept]
    out = backbone.vision.resume(tokens, 2, {"tokens", "cls_attn"})
    rows, attention = plain.block("visual.transformer.resblocks.2", tokens.double(), causal=False)
    rows = plain.norm("visual.ln_post", rows) @ plain.state["visual.proj"]
    close(out.pooled, rows[:, 0])
    close(out.tokens, rows[:, 1:])
    close(out.cls_attn, attention[:, :, 0, 1:])


def test_project_is_the_head_of_the_tower(backbone, images):
    out = backbone.vision(images, want={"tokens", "hidden:3"})
    close(backbone.vision.project(out.hidden[3])[:, 1:], out.tokens, 0)
    close(backbone.vision.project(out.hidden[3][:, 0]), out.pooled, 1e-6)


def test_extras_are_absent_unless_wanted(backbone, images):
    out = backbone.vision(images)
    assert (out.tokens, out.cls_attn, out.patch_embed, out.hidden) == (None, None, None, {})


def test_attention_is_computed_for_the_class_token_of_the_last_block_only(backbone, images, monkeypatch):
    shapes = []
    attention = type(backbone.clip.visual.transformer.resblocks[0].attn)
    weights = attention.weights
    monkeypatch.setattr(attention, "weights", lambda self, q, *a: shapes.append(q.shape[2]) or weights(self, q, *a))
    backbone.vision(images, want={"tokens", "hidden:1"})
    assert shapes == []
    backbone.vision(images, want={"tokens", "cls_attn"})
    assert shapes == [1]


def test_gradients_reach_all_prompts(backbone, images, prompts):
    leaves = [prompts.shallow, *prompts.deep.values()]
    for leaf in leaves:
        leaf.requires_grad_()
    backbone.vision(images, prompts).pooled.square().sum().backward()
    assert all(leaf.grad.abs().max() > 0 for leaf in leaves)


def test_resnet_gives_pooled_features_only(resnet, randn):
    images = randn(2, 3, 64, 64)
    out = resnet.vision(images)
    assert out.pooled.shape == (2, 24)
    close(out.pooled, resnet.clip.visual(images), 0)
    message = r"need a ViT image tower, and this backbone is a ResNet, which gives pooled features only; choose a ViT"
    for call in (
        lambda: resnet.vision(images, want={"tokens"}),
        lambda: resnet.vision(images, VisualPrompts(randn(1, 8))),
        lambda: resnet.vision.resume(images),
        lambda: resnet.vision.project(images),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_errors(backbone, images, prompts, randn):
    vision, hidden = backbone.vision, randn(3, 17, 128)
    with pytest.raises(ValueError, match=r'want may hold "tokens", .* "hidden:0".."hidden:3" here, got \'token\'\.'):
        vision(images, want={"token"})
    with pytest.raises(ValueError, match=r"got 'hidden:4'\."):
        vision(images, want={"hidden:4"})
    with pytest.raises(ValueError, match=r'"hidden:2".."hidden:3" here, got \'hidden:1\'\.'):
        vision.resume(hidden, 2, {"hidden:1"})
    with pytest.raises(ValueError, match=r'"patch_embed" comes from images, so a resumed run cannot give it'):
        vision.resume(hidden, 2, {"patch_embed"})
    with pytest.raises(ValueError, match=r"from_block must be in 0..2 for this tower of 3 blocks, got 3\."):
        vision.resume(hidden, 3)
    with pytest.raises(ValueError, match=r"tokens must be \[B, 1\+m, 128\], got \[3, 17, 64\]\."):
        vision.resume(hidden[..., :64], 2)
    with pytest.raises(ValueError, match=r"tokens must hold the class token and 2 prompt rows, got 2 rows\."):
        vision.resume(hidden[:, :2], 2, prompts=VisualPrompts(prompts.shallow))
    with pytest.raises(ValueError, match=r"0 <= start <= stop <= 3, got start 2 and stop 1\."):
        vision.blocks(hidden, 2, 1)
    with pytest.raises(ValueError, match=r"takes images of shape \[B, 3, 32, 32\], got \[3, 3, 64, 64\]; resize them"):
        vision(randn(3, 3, 64, 64))
    with pytest.raises(ValueError, match=r'inject must be "pre_ln" or "post_ln", got \'post\'\.'):
        VisualPrompts(prompts.shallow, {}, "post")
    with pytest.raises(ValueError, match=r"Deep visual prompts replace the shallow ones, so give shallow"):
        VisualPrompts(None, {1: randn(2, 128)})
    with pytest.raises(ValueError, match=r"as many rows as the shallow ones, 2, got 3 before block 1\."):
        VisualPrompts(prompts.shallow, {1: randn(3, 128)})
    for block in (0, 3):
        with pytest.raises(ValueError, match=rf"Deep visual prompts go before blocks 1..2, got \[{block}\]\."):
            vision(images, VisualPrompts(prompts.shallow, {block: randn(2, 128)}))
    with pytest.raises(ValueError, match=r"\(shallow\) must be \[P, 128\] or \[B, P, 128\] with B = 3, got \[2, 64\]"):
        vision(images, VisualPrompts(randn(2, 64)))
    with pytest.raises(ValueError, match=r"\(deep \(block 1\)\) must be .* got \[2, 2, 128\]\."):
        vision(images, VisualPrompts(prompts.shallow, {1: randn(2, 2, 128)}))
