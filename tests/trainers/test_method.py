import pytest
import torch
from torch import nn

from clip.backbone import LabelSpace
from trainers.method import ClassVectors, Method, StepOutput


class Shifted(Method):
    """Text features of a fixed template, shifted by one trainable vector."""

    def __init__(self, backbone, space):
        super().__init__(backbone, space)
        self.shift = nn.Parameter(torch.zeros(32))

    def prepare(self, space):
        return self.backbone.text.templates(space, "a photo of a {}.")

    def raw_text(self, space):
        return super().raw_text(space) + self.shift


def test_total_is_the_weighted_sum_of_the_terms():
    terms = {"ce": torch.tensor(2.0), "text_l1": torch.tensor(0.5)}
    assert StepOutput(torch.zeros(1, 2), terms, {"text_l1": 20.0}).total == 2.0 + 20.0 * 0.5
    assert StepOutput(torch.zeros(1, 2), terms).total == 2.5


def test_class_vectors_are_built_once_per_space_and_parameter_state(space):
    cache, parameter, calls = ClassVectors(), nn.Parameter(torch.zeros(3)), []

    def build(asked):
        calls.append(asked)
        return torch.full((len(asked), 3), float(len(calls)))

    first = cache.get(space, [parameter], build)
    assert cache.get(space, [parameter], build) is first
    with torch.no_grad():
        parameter.add_(1)
    assert cache.get(space, [parameter], build) is not first
    cache.get(LabelSpace(("one", "two")), [parameter], build)
    assert len(calls) == 3


def test_state_holds_only_what_is_trained(backbone, space):
    method = Shifted(backbone, space)
    assert set(method.state_dict()) == {"shift"}
    assert list(method.trainables()) == ["shift"]


def test_logits_are_scaled_cosines(backbone, space, images, tiny_clip):
    method = Shifted(backbone, space)
    with torch.no_grad():
        logits = method(images).double().numpy()
        image = tiny_clip.encode_image(images).double().numpy()
        text = method.raw_text(space).double().numpy()
    for b in range(len(images)):
        for c in range(len(space)):
            cosine = image[b] @ text[c] / ((image[b] @ image[b]) ** 0.5 * (text[c] @ text[c]) ** 0.5)
            assert logits[b, c] == pytest.approx(float(tiny_clip.logit_scale.exp()) * cosine, abs=1e-4)


def test_inference_follows_a_changed_parameter(backbone, space, images):
    method = Shifted(backbone, space)
    before = method(images)
    with torch.no_grad():
        method.shift.add_(torch.linspace(-1, 1, 32))
    assert not torch.allclose(before, method(images))


def test_other_label_space_is_an_argument(backbone, space, images):
    method = Shifted(backbone, space)
    part = LabelSpace(space.names[2:], space.dataset)
    torch.testing.assert_close(method(images, part), method(images)[:, 2:])
