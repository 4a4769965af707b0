"""Both methods: forward passes assembled by hand, gradients, and that the frozen model stays frozen."""

import copy

import numpy as np
import pytest
import torch

from clip.backbone import Backbone, LabelSpace
from trainers.prompting import ImagePrompts
from trainers.spt.methods import LinearSelfPrompted, SelfPrompted
from trainers.spt.start import StartOptions
from trainers.spt.timm_vit import TimmBackbone
from trainers.spt.towers import ClipTower

LABEL = torch.tensor([0, 1, 2, 3, 0])


def in_clip(backbone, space, depth=2):
    return SelfPrompted(backbone, space, ImagePrompts.random(backbone, 3, depth), StartOptions("random"))


def in_timm(vit, space, **options):
    backbone = TimmBackbone(vit, "timm:small")
    return LinearSelfPrompted(backbone, space, backbone.tower, 3, 12, StartOptions("random"), **options)


def in_clip_linear(backbone, space, depth=2, **options):
    tower = ClipTower(backbone.vision)
    return LinearSelfPrompted(backbone, space, tower, 3, depth, StartOptions("random"), **options)


def enliven(method):
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape))
    return method


def vit_rows(method, images):
    """The small timm ViT by hand, prompts between class token and patches, all rows behind the last block."""
    vit, rows = method.tower.vit, list(method.rows)
    x = torch.cat([vit.cls_token.expand(len(images), -1, -1), vit.patch_embed(images)], dim=1) + vit.pos_embed
    patches, cls = x[:, 1:], x[:, :1]
    for i, block in enumerate(vit.blocks):
        x = block(torch.cat([cls, rows[i].expand(len(images), -1, -1), patches], dim=1))
        cls, patches = x[:, :1], x[:, 4:]
    return x


@pytest.mark.parametrize("readout", ["cls", "mean"])
def test_logits_in_a_timm_vit(vit, space, images, readout):
    method = enliven(in_timm(vit, space, readout=readout))
    x = vit_rows(method, images)
    pooled = vit.norm(x[:, 0] if readout == "cls" else x[:, 1:].mean(dim=1))  # the mean is over prompts, too
    expected = pooled @ method.head.weight.t() + method.head.bias
    torch.testing.assert_close(method(images), expected, rtol=1e-4, atol=1e-4)


def test_logits_in_clips_image_tower(backbone, tiny_clip, space, images):
    """On CLIP the head sees the class token behind ln_post, without the projection."""
    method = enliven(in_clip_linear(backbone, space))
    visual, rows = tiny_clip.visual, list(method.rows)
    x = torch.cat([visual.embed(visual.patch_embed(images)), visual.ln_pre(rows[0]).expand(5, -1, -1)], dim=1)
    first, second = visual.transformer.blocks()
    x = first.run(x)
    x = second.run(torch.cat([x[:, :-3], rows[1].expand(5, -1, -1)], dim=1))
    expected = visual.ln_post(x[:, 0]) @ method.head.weight.t() + method.head.bias
    torch.testing.assert_close(method(images), expected, rtol=1e-4, atol=1e-4)


def test_the_head_starts_small_and_without_bias(vit):
    method = in_timm(vit, LabelSpace(tuple(f"class {i}" for i in range(400)), "Toy"))
    weight = method.head.weight.detach().numpy()
    assert method.head.bias.abs().max() == 0
    assert np.std(weight) == pytest.approx(0.02, rel=0.03)  # truncated at ±2, which is 100 deviations away
    assert abs(weight.mean()) < 1e-3


def test_state_and_counts(backbone, vit, space):
    assert set(in_clip(backbone, space).state_dict()) == {"image_prompts.rows.0", "image_prompts.rows.1"}
    method = in_timm(vit, space)
    assert list(method.state_dict()) == ["rows.0", "rows.1", "rows.2", "head.weight", "head.bias"]
    assert sum(p.numel() for p in method.trainables().values()) == 3 * 3 * 32 + 4 * 32 + 4
    assert len(in_clip(backbone, space, depth=1).prompt_rows()) == 1


@pytest.mark.parametrize("host", ["clip", "clip_linear", "timm", "timm_mean"])
def test_gradients_agree_with_finite_differences(tiny_clip, vit, space, images, host):
    double = Backbone(copy.deepcopy(tiny_clip).double())
    made = {
        "clip": lambda: in_clip(double, space),
        "clip_linear": lambda: in_clip_linear(double, space),
        "timm": lambda: in_timm(vit.double(), space),
        "timm_mean": lambda: in_timm(vit.double(), space, readout="mean"),
    }
    method = enliven(made[host]()).double()
    images = images.double()

    def loss():
        return method.losses(images, LABEL).total

    loss().backward()
    for name, parameter in method.named_parameters():
        direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        step = 1e-2  # CLIP's norms and logits are fp32 at least in part: a small step drowns in rounding
        with torch.no_grad():
            parameter.add_(step * direction)
            above = float(loss())
            parameter.sub_(2 * step * direction)
            below = float(loss())
            parameter.add_(step * direction)
        slope = (above - below) / (2 * step)
        assert slope == pytest.approx(float((parameter.grad * direction).sum()), rel=0.03, abs=2e-4), name


@pytest.mark.parametrize("host", ["clip", "clip_linear", "timm"])
def test_one_step_moves_every_trainable_and_nothing_else(backbone, vit, space, images, host):
    made = {"clip": in_clip, "clip_linear": in_clip_linear}
    method = in_timm(vit, space) if host == "timm" else made[host](backbone, space)
    frozen = vit if host == "timm" else backbone
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    trained = {name: value.clone() for name, value in method.state_dict().items()}
    optim = torch.optim.SGD(method.trainables().values(), lr=0.5)
    for _ in range(2):  # the head's bias and weights move in the first step already, prompts below a zero head do not
        optim.zero_grad()
        method.losses(images, LABEL).total.backward()
        optim.step()
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())
    assert not any(torch.equal(value, trained[name]) for name, value in method.state_dict().items())


# --- mistakes


def test_a_linear_head_serves_its_own_classes_only(vit, space, images):
    method = in_timm(vit, space)
    assert torch.equal(method(images, space), method(images))
    with pytest.raises(ValueError, match=r"knows its own classes only; TRAINER\.SPT\.HEAD text"):
        method(images, LabelSpace(("a", "b"), "Toy"))


def test_a_linear_head_has_no_text(vit, space):
    method = in_timm(vit, space)
    for ask in (method.text, lambda: method.joint_width):
        with pytest.raises(ValueError, match="has no text features, so no method can stand on it"):
            ask()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"readout": "max"}, "READOUT must be one of cls, mean, got 'max'"),
        ({"inject": "ln"}, "inject must be"),
    ],
)
def test_wrong_options(vit, space, options, message):
    with pytest.raises(ValueError, match=message):
        in_timm(vit, space, **options)


@pytest.mark.parametrize("size", [(0, 1), (1, 0)])
def test_no_rows_or_no_depth(backbone, space, size):
    with pytest.raises(ValueError, match=f"at least one row and a depth of at least 1, got {size[0]} and {size[1]}"):
        LinearSelfPrompted(backbone, space, ClipTower(backbone.vision), *size, StartOptions())


def test_no_class_token_to_read(make_vit, space):
    vit = make_vit(class_token=False, global_pool="avg")
    with pytest.raises(ValueError, match=r"timm:small has no class token; set TRAINER\.SPT\.READOUT mean"):
        in_timm(vit, space)
    assert in_timm(vit, space, readout="mean").readout == "mean"
