"""The frozen pair of towers: precision, freezing, identity, loading."""

import copy

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from clip.backbone import Backbone, VisualPrompts, load_backbone
from clip.model import build_model

WORDS = "a photo of a"


def features(backbone, images, space, ctx, prompts):
    text = backbone.text(backbone.text.prepare(space, WORDS, 4), ctx, {1: ctx})
    return F.normalize(backbone.vision(images, prompts).pooled.float(), dim=-1), F.normalize(text.float(), dim=-1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_weights_agree_with_fp32(state, images, space, randn, dtype):
    ctx, prompts = randn(4, 128), VisualPrompts(randn(2, 128), {1: randn(2, 128)})
    want = features(Backbone(build_model(state, torch.float32)), images, space, ctx, prompts)
    half = Backbone(build_model(state, dtype).requires_grad_(False))
    assert half.dtype == dtype
    out = half.vision(images, want={"tokens", "cls_attn"})
    assert (out.tokens.dtype, out.cls_attn.dtype) == (dtype, torch.float32)
    assert half.text(half.text.templates(space, "{}")).dtype == dtype
    for got, exact in zip(features(half, images, space, ctx, prompts), want, strict=True):
        assert (got * exact).sum(-1).min() > 0.999


def test_gradients_of_fp32_prompts_through_half_weights(state, images, space, randn):
    half = Backbone(build_model(state, torch.bfloat16).requires_grad_(False))
    ctx, shallow = randn(4, 128).requires_grad_(), randn(2, 128).requires_grad_()
    image, text = features(half, images, space, ctx, VisualPrompts(shallow))
    (image @ text.t()).sum().backward()
    assert ctx.grad.dtype == shallow.grad.dtype == torch.float32
    assert min(ctx.grad.abs().max(), shallow.grad.abs().max()) > 0


def test_autocast_agrees_with_fp32(backbone, images, space, randn):
    ctx, prompts = randn(4, 128).requires_grad_(), VisualPrompts(randn(2, 128))
    want = features(backbone, images, space, ctx, prompts)
    with torch.autocast("cpu", torch.bfloat16):
        got = features(backbone, images, space, ctx, prompts)
        got[1].sum().backward()
    assert ctx.grad.dtype == torch.float32
    for half, exact in zip(got, want, strict=True):
        assert (half * exact).sum(-1).min() > 0.999
        assert not torch.equal(half, exact)


def test_only_what_the_method_owns_moves(backbone, images, space, randn):
    """Acceptance check 20: one optimiser step with weight decay changes the prompts and nothing of the towers."""
    before = copy.deepcopy(backbone.state_dict())
    ctx, shallow = randn(4, 128).requires_grad_(), randn(2, 128).requires_grad_()
    start = [ctx.detach().clone(), shallow.detach().clone()]
    candidates = [ctx, shallow, *backbone.parameters()]
    optimiser = torch.optim.SGD([p for p in candidates if p.requires_grad], lr=0.1, weight_decay=0.1)
    assert len(optimiser.param_groups[0]["params"]) == 2
    image, text = features(backbone, images, space, ctx, VisualPrompts(shallow))
    (image @ text.t()).logsumexp(1).sum().backward()
    optimiser.step()
    assert not torch.equal(ctx, start[0])
    assert not torch.equal(shallow, start[1])
    assert all(p.grad is None for p in backbone.parameters())
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_towers_train_when_asked(backbone, images, space):
    """A method may unfreeze weights: towers hold no copy, so both towers and CLIP see the change."""
    backbone.clip.visual.ln_post.bias.requires_grad_()
    backbone.vision(images).pooled.sum().backward()
    assert backbone.clip.visual.ln_post.bias.grad is not None
    with torch.no_grad():
        backbone.clip.visual.ln_post.bias += 1
    torch.testing.assert_close(backbone.vision(images).pooled, backbone.clip.encode_image(images))


def test_parameters_live_once(backbone, state):
    assert {name.removeprefix("clip.") for name in backbone.state_dict()} == set(state)
    assert backbone.logit_scale is backbone.clip.logit_scale
    twin = copy.deepcopy(backbone)
    assert twin.vision.visual is twin.clip.visual
    assert twin.text.clip is twin.clip
    assert twin.clip is not backbone.clip


def test_batch_statistics_never_move(resnet, randn):
    before = copy.deepcopy(resnet.state_dict())
    method = torch.nn.ModuleDict({"backbone": resnet}).train()
    images = randn(2, 3, 64, 64)
    alone = torch.cat([resnet.vision(image[None]).pooled for image in images])
    torch.testing.assert_close(method["backbone"].vision(images).pooled, alone, atol=1e-5, rtol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in resnet.state_dict().items())


def test_fingerprint_names_weights_not_precision(state):
    prints = {dtype: Backbone(build_model(state, dtype)).fingerprint for dtype in (torch.float32, torch.bfloat16)}
    assert len(set(prints.values())) == 1
    assert len(prints[torch.float32]) == 16
    other = dict(state) | {"visual.ln_pre.bias": state["visual.ln_pre.bias"] + 1e-3}
    assert Backbone(build_model(other, torch.float32)).fingerprint not in prints.values()


def test_load_backbone_freezes(state, tmp_path, images):
    path = tmp_path / "tiny.safetensors"
    save_file(state, path)
    backbone = load_backbone(str(path), torch.bfloat16)
    assert backbone.name == str(path)
    assert backbone.dtype == torch.bfloat16
    assert backbone.device == torch.device("cpu")
    assert backbone.clip.visual.ln_pre.weight.dtype == torch.float32
    assert not any(p.requires_grad for p in backbone.parameters())
    assert not backbone.training
    assert (backbone.spec.vision_layers, backbone.spec.embed_dim) == (3, 48)
    assert (backbone.text.width, backbone.text.n_blocks, backbone.vision.n_blocks) == (128, 3, 3)
