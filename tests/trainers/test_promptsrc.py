"""PromptSRC's terms and average against NumPy; the released numbers are tests/tools/test_check_golden.py's."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import clip
from clip.backbone import Backbone, LabelSpace
from datasets.templates import PROMPTSRC_TEMPLATES
from tests.conftest import make_clip
from trainers.aggregation import GaussianAverage, gaussian_weights
from trainers.prompting import ImagePrompts, TextPrompts
from trainers.promptsrc import PromptSRCMethod, Regularisers

LABEL = torch.tensor([0, 1, 2, 3, 0])


def make(backbone, space, n_epochs=3, **options):
    torch.manual_seed(5)
    prompts = TextPrompts(backbone, 4, "a photo of a", 2), ImagePrompts.random(backbone, 4, 2)
    return PromptSRCMethod(backbone, space, *prompts, Regularisers(**options), n_epochs)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.fixture
def frozen_text(tiny_clip, space):
    """Raw features of the 60 templates by CLIP's plain text side, [60, C, d]."""
    with torch.no_grad():
        rows = [tiny_clip.encode_text(clip.tokenize([t.format(n) for n in space.cleaned])) for t in PROMPTSRC_TEMPLATES]
    return torch.stack(rows).double().numpy()


@pytest.mark.parametrize("target", ["raw", "unit"])
@pytest.mark.parametrize("kl_mean", ["elements", "batch"])
def test_terms_equal_numpy(tiny_clip, backbone, space, images, frozen_text, target, kl_mean):
    method = make(backbone, space, text_target=target, kl_mean=kl_mean)
    with torch.no_grad():
        out = method.losses(images, LABEL)
        f = unit(method.image(images).pooled.double().numpy())
        g = unit(method.raw_text(space).double().numpy())
        f0 = unit(tiny_clip.encode_image(images).double().numpy())
    g0 = unit((unit(frozen_text) if target == "unit" else frozen_text).mean(axis=0))
    scale = float(tiny_clip.logit_scale.exp())
    p, p0 = softmax(scale * f @ g.T), softmax(scale * f0 @ g0.T)
    kl = (p0 * (np.log(p0) - np.log(p))).sum() / (len(f) * (len(g) if kl_mean == "elements" else 1))
    ce = -np.log(p[np.arange(5), LABEL.numpy()]).mean()
    expected = {"ce": ce, "text_l1": np.abs(g - g0).mean(), "image_l1": np.abs(f - f0).mean(), "kl": kl}
    assert {name: float(term) for name, term in out.terms.items()} == pytest.approx(expected, rel=1e-4)
    total = ce + 25 * expected["text_l1"] + 10 * expected["image_l1"] + kl
    assert float(out.total) == pytest.approx(total, rel=1e-4)


def test_frozen_text_is_that_of_the_asked_classes(backbone, space):
    method = make(backbone, space)
    part = LabelSpace(space.names[1:3])
    torch.testing.assert_close(method.frozen_text(part), method.frozen_text()[1:3])


@pytest.mark.parametrize(
    ("mean", "std", "n", "expected"),
    [(15, 1, 20, {15: 0.398942, 14: 0.241971, 16: 0.241971, 13: 0.053991}), (6, 10, 20, {1: 0.055402, 6: 0.0627787})],
)
def test_published_weights(mean, std, n, expected):
    weights = gaussian_weights(mean, std, n)
    assert sum(weights) == pytest.approx(1)
    assert {epoch: weights[epoch - 1] for epoch in expected} == pytest.approx(expected, rel=1e-4)


def test_the_average_takes_the_place_of_the_parameters(backbone, space):
    method = make(backbone, space, gpa_mean=2.0, gpa_std=1.0)
    weights, values = [np.exp(-0.5), 1.0, np.exp(-0.5)], []
    for epoch in range(1, 4):
        with torch.no_grad():
            for parameter in method.parameters():
                parameter.add_(torch.randn_like(parameter))
        values.append({name: p.detach().double().numpy().copy() for name, p in method.named_parameters()})
        before = method.text_prompts.ctx.clone()
        method.after_epoch(epoch, 3)
        assert torch.equal(before, method.text_prompts.ctx) == (epoch < 3)
    for name, parameter in method.named_parameters():
        expected = sum(w * value[name] for w, value in zip(weights, values, strict=True)) / sum(weights)
        np.testing.assert_allclose(parameter.detach().numpy(), expected, atol=1e-6)
    method.text_prompts.ctx.data.zero_()
    assert float(method.average.sum.abs().sum()) > 0  # no shared memory


def test_a_missing_epoch_is_refused():
    average = GaussianAverage([torch.zeros(2)], [0.5, 0.5])
    with pytest.raises(RuntimeError, match="holds 0 of them when epoch 2 ends; train from the first epoch on"):
        average.add([torch.nn.Parameter(torch.zeros(2))], 2)


def test_released_average_moves_half_precision_weights_as_its_sum_does(space):
    """Frozen weights become the sum of their weighted copies, also in a model that is loaded for a test."""
    state = make_clip().state_dict()
    halves = [Backbone(clip.build_model(state, torch.float16).requires_grad_(False)) for _ in range(2)]
    weight = halves[0].clip.visual.proj.detach().clone()
    trained, tested = (make(half, space, gpa="released", gpa_mean=2.0, gpa_std=1.0) for half in halves)
    for epoch in (1, 2):
        trained.after_epoch(epoch, 3)
        assert torch.equal(halves[0].clip.visual.proj, weight)
    trained.after_epoch(3, 3)
    shares = np.asarray([np.exp(-0.5), 1.0, np.exp(-0.5)])
    total = np.zeros_like(weight.numpy())
    for share in shares / shares.sum():
        total += (np.float32(share) * weight.numpy().astype(np.float32)).astype(np.float16)
    moved = halves[0].clip.visual.proj
    np.testing.assert_array_equal(moved.numpy(), total)
    assert not torch.equal(moved, weight)
    tested.load_state_dict(trained.state_dict())
    assert torch.equal(halves[1].clip.visual.proj, moved)
    tested.load_state_dict(trained.state_dict())  # a second time changes nothing more
    assert torch.equal(halves[1].clip.visual.proj, moved)


def test_without_average_nothing_is_kept(backbone, space):
    method = make(backbone, space, gpa="off")
    ctx = method.text_prompts.ctx.clone()
    for epoch in range(1, 4):
        method.after_epoch(epoch, 3)
    assert torch.equal(ctx, method.text_prompts.ctx)
    assert set(method.state_dict()) == set(method.trainables())


def test_saved_average_is_flat_and_counted(backbone, space):
    extra = set(make(backbone, space).state_dict()) - set(make(backbone, space).trainables())
    assert extra == {"average.sum", "average.n_epochs"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpa": "fp16"}, "PROMPTSRC.GPA must be one of trained, released, off, got 'fp16'"),
        ({"kl_mean": "sum"}, "PROMPTSRC.KL_MEAN must be one of elements, batch, got 'sum'"),
        ({"text_target": "mean"}, "PROMPTSRC.TEXT_TARGET must be one of raw, unit, got 'mean'"),
        ({"gpa_std": 0.0}, "GPA_STD must be positive, got 0.0"),
        ({"gpa_mean": 1e4, "gpa_std": 1.0}, "GPA_MEAN 10000.0 and GPA_STD 1.0 give none of the 3 epochs a weight"),
    ],
)
def test_bad_options_are_named(backbone, space, options, message):
    with pytest.raises(ValueError, match=message):
        make(backbone, space, **options)


def test_templates_are_filled_with_names_not_formatted(backbone):
    """A name with braces is a name."""
    space = LabelSpace(("a {0} b", "plain"))
    assert torch.isfinite(F.normalize(make(backbone, space).frozen_text(), dim=-1)).all()
