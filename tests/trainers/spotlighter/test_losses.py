"""The loss terms against the oracle."""

from __future__ import annotations

import pytest
import torch

from trainers.spotlighter import losses

S = torch.tensor(10.0, dtype=torch.float64)
SHAPES = pytest.mark.parametrize(("B", "C", "k"), [(1, 3, 1), (3, 5, 5), (4, 7, 4)])


@SHAPES
def test_classification_by_labels(draw, oracle, B, C, k):
    logits, label = 3 * draw.rows(B, C).double(), draw.labels(B, C)
    expected = oracle.classification(logits.numpy(), label)
    assert losses.classification(logits, label, None).item() == pytest.approx(expected, rel=1e-10)


@SHAPES
def test_classification_by_a_teacher(draw, oracle, B, C, k):
    logits, teacher = 3 * draw.rows(B, C).double(), 3 * draw.rows(B, C).double()
    expected = oracle.classification(logits.numpy(), None, teacher.numpy())
    for label in (None, draw.labels(B, C)):  # labels are not looked at
        assert losses.classification(logits, label, teacher).item() == pytest.approx(expected, rel=1e-10)


def test_a_teacher_of_the_same_opinion_costs_nothing(draw):
    logits = draw.rows(3, 5).double()
    assert losses.classification(logits, None, logits + 4).item() == pytest.approx(0, abs=1e-12)


@SHAPES
@pytest.mark.parametrize("over", ["classes", "features"])
def test_visual_kl(draw, oracle, B, C, k, over):
    image, image0, text0 = (draw.units(n, 12) for n in (B, B, C))
    expected = oracle.visual_kl([image.numpy()], image0.numpy(), text0.numpy(), 10.0, over)
    result = losses.visual_kl(image, image0, text0, S, over=over)
    assert result.shape == ()
    assert result.item() == pytest.approx(expected, rel=1e-9)
    assert losses.visual_kl(image0, image0, text0, S, over=over).item() == pytest.approx(0, abs=1e-12)


def test_visual_kl_is_the_divergence_from_the_frozen_posterior(draw):
    """KL is not symmetric: p0 comes first."""
    image, image0, text0 = (draw.units(n, 12) for n in (1, 1, 4))
    p0, p = ((10 * x @ text0.t()).softmax(1) for x in (image0, image))
    assert losses.visual_kl(image, image0, text0, S).item() == pytest.approx((p0 * (p0 / p).log()).sum().item())


def test_features_do_not_use_scale_or_text(draw):
    image, image0 = draw.units(3, 12), draw.units(3, 12)
    one = losses.visual_kl(image, image0, draw.units(4, 12), S, over="features")
    other = losses.visual_kl(image, image0, draw.units(6, 12), 3 * S, over="features")
    assert one.item() == other.item()


@SHAPES
def test_local_ce(draw, oracle, B, C, k):
    tokens, text, bank = draw.units(B, k, 12), draw.units(C, 12), draw.units(C, 3, 12)
    label = draw.labels(B, C)
    expected = oracle.local_ce(tokens.numpy(), text.numpy(), bank.numpy(), 10.0, label)
    result = losses.local_ce(tokens=tokens, text=text, prototypes=bank, scale=S, label=label)
    assert result.item() == pytest.approx(expected, rel=1e-10)


def test_gradients_by_finite_differences(draw):
    image, image0, text = (draw.units(n, 12).requires_grad_() for n in (2, 2, 4))
    tokens, bank, label = draw.units(2, 3, 12), draw.units(4, 3, 12), torch.tensor([3, 0])
    constants = {"tokens": tokens, "prototypes": bank, "scale": S, "label": label}
    assert torch.autograd.gradcheck(lambda t: losses.local_ce(text=t, **constants), text)
    for over in ("classes", "features"):
        fixed = image0.detach(), text.detach(), S, over
        assert torch.autograd.gradcheck(lambda v, fixed=fixed: losses.visual_kl(v, *fixed), image)
    logits, teacher = draw.rows(2, 4).double().requires_grad_(), draw.rows(2, 4).double()
    assert torch.autograd.gradcheck(lambda x: losses.classification(x, label, None), logits)
    assert torch.autograd.gradcheck(lambda x: losses.classification(x, None, teacher), logits)
