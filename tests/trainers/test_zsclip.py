import pytest
import torch
import torch.nn.functional as F

import clip
from datasets.templates import dataset_template
from trainers.zsclip import TemplateMethod, ensemble_templates


def encode(model, template, space):
    return F.normalize(model.encode_text(clip.tokenize([template.format(name) for name in space.cleaned])), dim=-1)


def test_one_template(tiny_clip, backbone, space):
    method = TemplateMethod(backbone, space, ["a photo of a {}, a type of pet."])
    expected = encode(tiny_clip, method.templates[0], space)
    torch.testing.assert_close(method.text(), expected, atol=1e-5, rtol=0)
    assert method.trainables() == {}


def test_ensemble_normalises_before_and_after_averaging(tiny_clip, backbone, space):
    templates = ["itap of a {}.", "art of the {}.", "a {} in a video game."]
    mean = sum(encode(tiny_clip, t, space) for t in templates) / 3
    expected = F.normalize(mean, dim=-1)
    torch.testing.assert_close(TemplateMethod(backbone, space, templates).text(), expected, atol=1e-5, rtol=0)


def test_the_ensemble_does_not_grow_with_use():
    assert len(ensemble_templates("ImageNet")) == 7
    assert [len(ensemble_templates("OxfordPets")) for _ in range(3)] == [8, 8, 8]
    assert ensemble_templates("OxfordPets")[-1] == "a photo of a {}, a type of pet."


def test_a_data_set_without_a_template_gets_the_plain_one():
    assert dataset_template("MyPhotos") == "a photo of a {}."
    assert dataset_template("DescribableTextures") == "{} texture."


@pytest.mark.parametrize("templates", [["a photo."], ["a {} of {}."]])
def test_template_needs_one_place_for_the_name(backbone, space, templates):
    with pytest.raises(ValueError, match=r"exactly one \{\} for the class name"):
        TemplateMethod(backbone, space, templates)


def test_no_template_is_an_error(backbone, space):
    with pytest.raises(ValueError, match="at least one template"):
        TemplateMethod(backbone, space, [])
