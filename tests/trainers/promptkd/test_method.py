"""The student, its projector and its loss against plain NumPy; what it shares with a method that stands on it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clip.backbone import LabelSpace
from trainers.divergence import posterior_kl
from trainers.projector import Projector


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def projected(projector, x, mean, var):
    """Linear, batch norm with the given statistics, ReLU, linear, in float64; x [n, d_s]."""
    w = {name: tensor.double().numpy() for name, tensor in projector.state_dict().items()}
    h = x @ w["linear1.weight"].T + w["linear1.bias"]
    h = (h - mean(h)) / np.sqrt(var(h) + 1e-5) * w["bn.weight"] + w["bn.bias"]
    return np.maximum(h, 0) @ w["linear2.weight"].T + w["linear2.bias"]


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture
def moved(student, images):
    """A student whose batch norm has seen two batches."""
    method = student()
    method.train()
    for batch in (images, images.flip(0) * 2):
        method.losses(batch, None)
    return method.eval()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_kl_is_the_sum_over_images_by_their_number_times_classes(temperature):
    generator = np.random.default_rng(1)
    logits, teacher = generator.normal(size=(2, 4, 6)) * 5
    q, p = softmax(teacher / temperature), softmax(logits / temperature)
    expected = temperature**2 * (q * (np.log(q) - np.log(p))).sum() / (4 * 6)
    of = torch.from_numpy(logits), torch.from_numpy(teacher), temperature
    assert posterior_kl(*of).item() == pytest.approx(expected, rel=1e-9)
    assert posterior_kl(*of, "batch").item() / 6 == pytest.approx(expected, rel=1e-9)  # batch mean / C
    assert posterior_kl(of[1], of[1], temperature).item() == pytest.approx(0, abs=1e-12)


def test_loss_and_logits_follow_the_formulas(student, teacher, images, space):
    method = student(kd_weight=30.0, temperature=2.0).train()
    with torch.no_grad():
        raw = method.image(images).pooled.double().numpy()
        text = F.normalize(teacher.raw_text(space).double(), dim=-1).numpy()
        seen = F.normalize(teacher.image(images).pooled.double(), dim=-1).numpy()
    out = method.losses(images, torch.full((5,), -1))
    scale = float(method.backbone.logit_scale.exp())
    logits = scale * unit(projected(method.projector, raw, lambda h: h.mean(0), lambda h: h.var(0))) @ text.T
    np.testing.assert_allclose(out.logits.detach().numpy(), logits, atol=2e-4)
    target = float(teacher.backbone.logit_scale.exp()) * seen @ text.T
    np.testing.assert_allclose(out.teacher.numpy(), target, atol=2e-4)
    q, p = softmax(target / 2), softmax(logits / 2)
    kl = 4 * (q * (np.log(q) - np.log(p))).sum() / (5 * 4)
    assert out.terms["kl"].item() == pytest.approx(kl, rel=1e-3)
    assert out.total.item() == pytest.approx(30 * kl, rel=1e-3)
    assert method.classification_weight == pytest.approx(30 * 4 / 4)  # K_w τ² / C, on the batch's mean KL


def test_inference_reads_running_statistics_one_image_or_many(moved, images, space, teacher):
    with torch.no_grad():
        raw, bn = moved.image(images).pooled.double().numpy(), moved.projector.bn
        text = teacher.text(space).double().numpy()
        mean, var = bn.running_mean.double().numpy(), bn.running_var.double().numpy()
        logits = float(moved.backbone.logit_scale.exp()) * unit(
            projected(moved.projector, raw, lambda h: mean, lambda h: var)
        )
        np.testing.assert_allclose(moved(images).numpy(), logits @ text.T, atol=2e-4)
        torch.testing.assert_close(moved(images[:1]), moved(images)[:1], atol=1e-5, rtol=1e-5)
    assert np.array_equal(bn.running_mean.double().numpy(), mean)


def test_class_vectors_are_computed_once_a_space_and_are_the_teachers(student, teacher, space, monkeypatch):
    method, calls = student(), []
    tower = teacher.backbone.text
    monkeypatch.setattr(type(tower), "__call__", counted(type(tower).__call__, calls))
    part = LabelSpace(space.names[2:], space.dataset)
    for _ in range(3):
        whole, rows = method.class_vectors(), method.class_vectors(part)
    assert len(calls) == 2
    torch.testing.assert_close(whole, teacher.text(space))  # recomputed
    torch.testing.assert_close(rows, whole[2:], atol=1e-6, rtol=0)  # a subset's own rows
    for again in (method.text(), method.raw_text(space), method.frozen_text(), method.text_for(None)):
        assert again is whole


def counted(call, calls):
    def wrapped(self, *args, **kwargs):
        calls.append(self)
        return call(self, *args, **kwargs)

    return wrapped


def test_labels_are_not_read_but_where_they_are_the_target(student, images):
    label = torch.tensor([0, 1, 2, 3, 0])
    for order in (label, label.flip(0), torch.full((5,), -1)):
        assert student().train().losses(images, order).total == student().train().losses(images, label).total
    supervised = student(target="labels").train()
    assert supervised.learns_from_labels
    assert not student().learns_from_labels
    out = supervised.losses(images, label)
    assert (set(out.terms), out.teacher) == ({"ce"}, None)
    p = softmax(out.logits.detach().double().numpy())
    assert out.total.item() == pytest.approx(-np.log(p[np.arange(5), label]).mean(), rel=1e-4)
    assert supervised.classification_weight == 1


def test_one_step_moves_prompts_and_projector_only(student, teacher, images):
    method = student()
    frozen = {
        **{f"student.{name}": tensor.clone() for name, tensor in method.backbone.state_dict().items()},
        **{f"teacher.{name}": tensor.clone() for name, tensor in teacher.backbone.state_dict().items()},
        **{f"prompts.{name}": tensor.clone() for name, tensor in teacher.state_dict().items()},
    }
    before = {name: p.detach().clone() for name, p in method.trainables().items()}
    optimiser = torch.optim.SGD(method.trainables().values(), lr=0.1)
    method.train().losses(images, None).total.backward()
    optimiser.step()
    moved = {name for name, p in method.trainables().items() if not torch.equal(before[name], p)}
    assert moved >= {
        name for name in before if name != "projector.linear1.bias"
    }  # in front of a batch norm: gradient 0
    now = {
        **{f"student.{name}": tensor for name, tensor in method.backbone.state_dict().items()},
        **{f"teacher.{name}": tensor for name, tensor in teacher.backbone.state_dict().items()},
        **{f"prompts.{name}": tensor for name, tensor in teacher.state_dict().items()},
    }
    assert all(torch.equal(frozen[name], now[name]) for name in frozen)
    assert not teacher.training


def test_saved_keys(student):
    rows = {"image_prompts.rows.0", "image_prompts.rows.1"}
    layers = {f"projector.{layer}.{part}" for layer in ("linear1", "bn", "linear2") for part in ("weight", "bias")}
    statistics = {f"projector.bn.{part}" for part in ("running_mean", "running_var", "num_batches_tracked")}
    assert set(student().state_dict()) == rows | layers | statistics
    assert set(student().trainables()) == rows | layers


def test_published_counts():
    """ViT-B/16 student, ViT-L/14 teacher, nine sets of four rows: 15 tensors, 1,013,760 scalars."""
    tensors = [*Projector(512, 768).parameters(), *(torch.empty(4, 768) for _ in range(9))]
    assert (len(tensors), sum(t.numel() for t in tensors)) == (15, 1_013_760)


def test_what_another_method_reads_moves_no_statistics_and_trains_no_projector(moved, images):
    moved.train()
    before = {name: tensor.clone() for name, tensor in moved.state_dict().items()}
    hidden = torch.randn(2, 7, 64, requires_grad=True)
    view = moved.project(hidden)
    vision = moved.image(images, {"tokens"})
    tokens, frozen = moved.joint_tokens(vision), moved.frozen_image(images, vision)
    assert (view.shape, tokens.shape, frozen.shape) == ((2, 7, 48), (5, 16, 48), (5, 48))
    assert moved.joint_width == 48
    assert moved.joint_tokens(moved.image(images)) is None
    assert not frozen.requires_grad
    (view.sum() + tokens.sum()).backward()
    assert hidden.grad.abs().sum() > 0  # it passes through
    assert moved.image_prompts.rows[0].grad.abs().sum() > 0
    assert all(p.grad is None for p in moved.projector.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in moved.state_dict().items())


def test_frozen_image_is_the_tower_without_prompts_through_the_projector(moved, images, tiny_clip):
    bn = moved.projector.bn
    with torch.no_grad():
        raw = tiny_clip.encode_image(images).double().numpy()
    mean, var = bn.running_mean.double().numpy(), bn.running_var.double().numpy()
    expected = projected(moved.projector, raw, lambda h: mean, lambda h: var)
    np.testing.assert_allclose(moved.frozen_image(images, None).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "both"}, r"TRAINER.PROMPTKD.TARGET must be one of teacher, labels, got 'both'\."),
        ({"kl_mean": "sum"}, r"TRAINER.PROMPTKD.KL_MEAN must be one of elements, batch, got 'sum'\."),
        ({"temperature": 0.0}, r"TRAINER.PROMPTKD.TEMPERATURE must be positive, got 0.0\."),
        ({"kd_weight": -1.0}, r"TRAINER.PROMPTKD.KD_WEIGHT must be positive, got -1.0\."),
    ],
)
def test_bad_options_are_named(student, options, message):
    with pytest.raises(ValueError, match=message):
        student(**options)


def test_a_spotlighter_on_it_learns_from_the_teacher_too(student, images):
    from trainers.spotlighter.method import SpotlighterMethod
    from trainers.spotlighter.release import ReleaseHead

    host = student()
    method = SpotlighterMethod(host, ReleaseHead(host.joint_width, heads=4)).train()
    assert not method.learns_from_labels
    torch.manual_seed(0)
    out = method.losses(images, torch.full((5,), -1))
    assert out.logits.shape == (5, 4)
    assert torch.equal(out.teacher, host.teacher(images))
    out.total.backward()
    assert host.projector.linear2.weight.grad.abs().sum() > 0
    assert method.eval()(images).shape == (5, 4)


def test_prompts_count_in_the_logits(student, images):
    method = student().eval()
    before = method(images)
    with torch.no_grad():
        method.image_prompts.rows[1].add_(1.0)
    assert not torch.allclose(before, method(images))
