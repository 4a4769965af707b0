"""Text priors against loops in NumPy over classes and sentences, from CLIP's plain text side."""

import json

import numpy as np
import pytest
import torch

import clip
import train
from clip.backbone import LabelSpace
from datasets.descriptions import Descriptions
from trainers.spotlighter.head import HeadOptions, SpotlighterHead
from trainers.spotlighter.method import SpotlighterMethod
from trainers.textpriors import TextPriorsMethod
from trainers.zsclip import TemplateMethod

TEMPLATE = "a photo of a {}."
TEXTS = {
    "red square": ["a square as red as a tomato.", "four equal sides", "red"],
    "Green Square": ["four equal sides"],
    "blue square": ["blue like the sea", "blue like the sky"],
    "yellow square (large)": ["a large one", "yellow"],
}
NODE = "TRAINER.TEXTPRIORS."


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "texts.json"
    path.write_text(json.dumps(TEXTS))
    return path


@pytest.fixture
def method_of(backbone, space, path):
    def build(**options):
        return TextPriorsMethod(backbone, space, TEMPLATE, Descriptions(path), **options)

    return build


def unit(x):
    return x / np.sqrt((x * x).sum())


def text_by_hand(model, sentence, mode, weight):
    def encode(text):
        return unit(model.encode_text(clip.tokenize([text]))[0].double().numpy())

    result = []
    for name, texts in TEXTS.items():
        name = name.lower()
        own = encode(TEMPLATE.format(name))
        features = [encode(sentence.replace("{name}", name).replace("{description}", text)) for text in texts]
        if mode == "attend":
            scores = np.array([float(model.logit_scale.exp()) * own @ e for e in features])
            share = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        else:
            share = np.full(len(features), 1 / len(features))
        prior = unit(sum(a * e for a, e in zip(share, features, strict=True)))
        result.append(unit((1 - weight) * own + weight * prior))
    return np.array(result)


@pytest.mark.parametrize("mode", ["average", "attend"])
@pytest.mark.parametrize("weight", [0.3, 1.0])
@pytest.mark.parametrize("sentence", ["{description}", "a photo of a {name}, {description}."])
def test_text_is_that_of_the_loops(tiny_clip, method_of, mode, weight, sentence):
    method = method_of(sentence=sentence, mode=mode, weight=weight)
    expected = text_by_hand(tiny_clip, sentence, mode, weight)
    np.testing.assert_allclose(method.text().double().numpy(), expected, atol=1e-5)
    assert method.trainables() == {}
    assert method.state_dict() == {}


def test_without_weight_it_is_zero_shot_clip(backbone, space, method_of, images):
    expected = TemplateMethod(backbone, space, [TEMPLATE])(images)
    torch.testing.assert_close(method_of(weight=0.0)(images), expected, atol=1e-4, rtol=0)


def test_other_classes_are_an_argument(method_of, images, space):
    method = method_of()
    part = LabelSpace(space.names[2:], space.dataset)
    torch.testing.assert_close(method(images, part), method(images)[:, 2:], atol=1e-4, rtol=0)


def test_spotlighter_can_stand_on_it(method_of, images):
    head = SpotlighterHead(HeadOptions(top_k=3, gate="fixed", rho=0.0), 4, 64, 32)
    head.memory.fill(torch.randn(4, 5, 64))
    method = method_of()
    torch.testing.assert_close(SpotlighterMethod(method, head).eval()(images), method(images), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "max"}, "MODE must be one of average, attend, got 'max'"),
        ({"weight": 1.2}, r"WEIGHT must be in \[0, 1\], got 1.2"),
        ({"sentence": "a {name}."}, r"SENTENCE must hold \{description\}, got 'a \{name\}.'"),
    ],
)
def test_bad_options_are_named(method_of, options, message):
    with pytest.raises(ValueError, match=message):
        method_of(**options)


def test_a_sentence_that_is_too_long(method_of, path):
    texts = TEXTS | {"blue square": ["blue", " ".join(["sea"] * 76)]}
    path.write_text(json.dumps(texts))
    with pytest.raises(ValueError, match=r"of class 'blue square' has 78 tokens, and the text tower takes 77; shorten"):
        method_of()
    texts["blue square"][1] = " ".join(["sea"] * 75)
    path.write_text(json.dumps(texts))
    method_of()


def test_a_class_without_descriptions(method_of, path):
    path.write_text(json.dumps({name: texts for name, texts in TEXTS.items() if name != "blue square"}))
    with pytest.raises(ValueError, match="describes 3 of 4 classes; 'blue square' is not among them"):
        method_of()


def test_whole_runs(command, tmp_path, path, capsys):
    argv = command(NODE + "DESCRIPTIONS", str(path), trainer="TextPriors", flags=("--eval-only",))
    assert train.run(argv) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["finished"]
    capsys.readouterr()
    assert train.run(command(trainer="TextPriors", output="other", flags=("--eval-only",))) == 1
    assert "name their file in TRAINER.TEXTPRIORS.DESCRIPTIONS" in capsys.readouterr().err


@pytest.mark.parametrize("change", [("MODE", "attend"), ("WEIGHT", "0.9"), ("SENTENCE", "a {description}")])
def test_every_key_changes_the_logits(trainer_of, images, path, change):
    base = (NODE + "DESCRIPTIONS", str(path))
    plain = trainer_of(*base, trainer="TextPriors")
    changed = trainer_of(*base, NODE + change[0], change[1], trainer="TextPriors")
    assert not torch.equal(plain.model_inference(images), changed.model_inference(images))
