"""CLIPFit against a second CLIP whose state dict holds the tuned values under OpenAI's names."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import clip
import train
from clip.backbone import Backbone, LabelSpace, VisionTower
from clip.model import CLIP, CLIPSpec, convert_weights
from tests.conftest import make_clip
from trainers.clipfit import CLIPFit, CLIPFitMethod, TunedWeights, tuned_places

TEMPLATE = "a photo of a {}, a type of shape."
LABEL = torch.tensor([0, 1, 2, 3, 0])


@pytest.fixture
def model():
    return make_clip().requires_grad_(False)  # one's own: the method changes it


@pytest.fixture
def method(model, space):
    return CLIPFitMethod(Backbone(model), space, TEMPLATE)


@torch.no_grad()
def displace(method, seed=5):
    generator = torch.Generator().manual_seed(seed)
    for p in method.parameters():
        p.add_(0.3 * torch.randn(p.shape, generator=generator))


def openai_name(name):
    """tuned.vision.block.1.ln_2.bias -> visual.transformer.resblocks.1.ln_2.bias"""
    name = re.sub(r"^tuned\.text\.block\.(\d+)\.mlp\.out\.bias$", r"transformer.resblocks.\1.mlp.c_proj.bias", name)
    name = re.sub(r"^tuned\.vision\.block\.", "visual.transformer.resblocks.", name)
    return name.replace("tuned.vision.", "visual.")


def tuned_clip(method):
    """A CLIP of its own with the tuned values."""
    model = make_clip()
    state = {openai_name(name): p.detach().clone() for name, p in method.named_parameters()}
    unknown = model.load_state_dict(state, strict=False).unexpected_keys
    assert not unknown
    return model.requires_grad_(False)


def text_of(model, space, template=TEMPLATE):
    ids = clip.tokenize([template.format(name) for name in space.cleaned])
    return F.normalize(model.encode_text(ids), dim=-1)


def close(ours, expected):
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


# ---- what trains


def test_the_published_tensors_of_vit_b16_train():
    with torch.device("meta"):
        vit_b16 = CLIP(CLIPSpec(512, 224, 12, 768, 16)).requires_grad_(False)
        tuned = TunedWeights(tuned_places(SimpleNamespace(clip=vit_b16, vision=VisionTower(vit_b16.visual))))
    shapes = [tuple(p.shape) for p in tuned.parameters()]
    assert (len(shapes), sum(p.numel() for p in tuned.parameters())) == (64, 46080)
    assert (shapes.count((512,)), shapes.count((768,))) == (12, 52)  # text biases; weight and bias of 26 norms


def test_tensors_are_chosen_by_their_role(method):
    norms = ["ln_pre", "block.0.ln_1", "block.0.ln_2", "block.1.ln_1", "block.1.ln_2", "ln_post"]
    expected = [f"tuned.text.block.{i}.mlp.out.bias" for i in range(2)]
    expected += [f"tuned.vision.{norm}.{part}" for norm in norms for part in ("weight", "bias")]
    assert list(method.trainables()) == expected
    assert set(method.state_dict()) == set(expected)


def test_one_step_moves_the_tuned_tensors_and_nothing_else(model, method, images):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimiser = torch.optim.SGD(method.trainables().values(), lr=0.1)
    method.losses(images, LABEL).total.backward()
    assert all(p.grad is not None for p in method.parameters())
    optimiser.step()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(before[name], tensor)}
    assert moved == {openai_name(name) for name in method.trainables()}


def test_features_are_those_of_a_clip_with_the_tuned_values(method, images, space):
    displace(method)
    expected = tuned_clip(method)
    close(method.text(), text_of(expected, space))
    close(method.image(images).pooled, expected.encode_image(images))


def test_the_gradient_is_that_of_training_the_clip_itself(method, images, space):
    displace(method)
    whole = tuned_clip(method)
    parameters = dict(whole.named_parameters())
    names = {name: openai_name(name) for name in method.trainables()}
    for name in names.values():
        parameters[name].requires_grad_(True)
    text, image = text_of(whole, space), F.normalize(whole.encode_image(images), dim=-1)
    text0 = text_of(make_clip(), space).detach()
    loss = F.cross_entropy(whole.logit_scale.exp() * image @ text.t(), LABEL)
    loss = loss + 8 * (1 - (text * text0).sum(dim=1).mean())
    loss.backward()
    out = method.losses(images, LABEL)
    out.total.backward()
    assert out.total.item() == pytest.approx(loss.item(), rel=1e-5)
    for name, p in method.named_parameters():
        torch.testing.assert_close(p.grad, parameters[names[name]].grad, atol=1e-5, rtol=1e-4)


def test_recomputing_text_in_chunks_gives_the_same_gradient(method, images):
    displace(method)
    method.losses(images, LABEL).total.backward()
    expected = [p.grad.clone() for p in method.parameters()]
    method.zero_grad()
    method.backbone.text.chunk = 2
    method.losses(images, LABEL).total.backward()
    for p, gradient in zip(method.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, gradient, atol=1e-6, rtol=1e-4)


# ---- the loss


def test_similarity_is_zero_at_first(method, images):
    out = method.losses(images, LABEL)
    assert abs(out.terms["similarity"].item()) < 1e-6
    assert out.weights["similarity"] == 8.0


def test_similarity_is_one_minus_the_mean_cosine(model, method, images, space):
    text0 = text_of(model, space).detach().numpy().astype(np.float64)
    displace(method)
    text = text_of(tuned_clip(method), space).numpy().astype(np.float64)
    cosines = [a @ b / np.sqrt((a @ a) * (b @ b)) for a, b in zip(text, text0, strict=True)]
    out = method.losses(images, LABEL)
    assert out.terms["similarity"].item() == pytest.approx(1 - np.mean(cosines), abs=1e-6)
    assert out.terms["similarity"].item() > 1e-3
    assert set(out.terms) == {"ce", "similarity"}


# ---- the frozen side, which heads ask for


def test_frozen_features_are_those_before_training(model, method, images, space):
    text0, own0, image0 = text_of(model, space, "a photo of a {}."), text_of(model, space), model.encode_image(images)
    displace(method)
    close(method.frozen_text(), text0)
    close(method.untuned_text(), own0)
    with torch.no_grad():  # also where nothing records gradients
        close(method.frozen_image(images, method.image(images)), image0)
    assert not method.frozen_image(images, method.image(images)).requires_grad
    close(method.image(images).pooled, tuned_clip(method).encode_image(images))  # and the tuned ones are back


def test_the_tuned_tensors_return_after_an_error(method, images, model):
    with pytest.raises(ValueError, match="shape"):
        method.frozen_image(images[:, :1], method.image(images))
    assert model.visual.ln_pre.weight is method.tuned.vision.ln_pre.weight


def test_the_last_block_and_the_projection_have_trained_values_without_gradient(method):
    displace(method)
    whole = tuned_clip(method)
    x = torch.randn(3, 7, 64, requires_grad=True)
    out = method.last_block().run(x)
    close(out, whole.visual.transformer.resblocks[-1].run(x))
    projected = method.project(x)
    close(projected, whole.visual.project(x))
    (out.sum() + projected.square().sum()).backward()
    assert x.grad.abs().max() > 0
    assert all(p.grad is None for p in method.parameters())


def test_the_last_block_follows_training(method):
    block = method.last_block()
    displace(method)
    assert torch.equal(block.ln_1.weight, method.tuned.vision.block.get_submodule("1").ln_1.weight)


# ---- other classes, other precisions


def test_inference_follows_a_changed_parameter(method, images):
    before = method(images)
    displace(method)
    assert not torch.allclose(before, method(images))


def test_tuned_values_load_strictly_on_other_classes(method, images):
    displace(method)
    other = LabelSpace(("a crane (bird)", "Boeing 737-200"))
    fresh = CLIPFitMethod(Backbone(make_clip().requires_grad_(False)), other, TEMPLATE)
    fresh.load_state_dict(method.state_dict())
    torch.testing.assert_close(fresh(images), method(images, other))


def test_half_precision_weights_have_fp32_masters(images, space):
    model = make_clip()
    convert_weights(model, torch.bfloat16)
    method = CLIPFitMethod(Backbone(model.requires_grad_(False)), space, TEMPLATE)
    displace(method)
    method.losses(images, LABEL).total.backward()
    assert {p.dtype for p in method.parameters()} == {torch.float32}
    assert all(p.grad.isfinite().all() and p.grad.abs().max() > 0 for p in method.parameters())
    expected = tuned_clip(method)
    torch.testing.assert_close(method.text(), text_of(expected, space), atol=0.05, rtol=0)


# ---- mistakes


def test_a_second_method_on_the_same_backbone(model, method, space):
    with pytest.raises(ValueError, match=r"text.block.0.mlp.out.bias of this backbone is not frozen"):
        CLIPFitMethod(Backbone(model), space, TEMPLATE)


def test_a_resnet_has_no_norms_to_tune(space):
    spec = CLIPSpec(32, 32, (1, 1, 1, 1), 8, None, 77, 49408, 64, 1, 2)
    with pytest.raises(ValueError, match="choose a ViT"):
        CLIPFitMethod(Backbone(CLIP(spec).requires_grad_(False)), space, TEMPLATE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"template": "a photo."}, r"TEMPLATE needs exactly one \{\} for the class name, got 'a photo.'"),
        ({"similarity_weight": -1.0}, "SIMILARITY_WEIGHT must not be negative, got -1.0"),
    ],
)
def test_bad_options_are_named(model, space, options, message):
    with pytest.raises(ValueError, match=message):
        CLIPFitMethod(Backbone(model), space, **{"template": TEMPLATE, **options})


# ---- the trainer


@pytest.mark.parametrize(
    ("dataset", "options", "template"),
    [
        ("DescribableTextures", (), "a photo of a {}, a type of texture."),
        ("Food101", (), "a photo of {}, a type of food."),
        ("MyPhotos", (), "a photo of a {}."),
        ("DescribableTextures", ("DATASET.TEMPLATE", "{} cloth."), "{} cloth."),
        ("Food101", ("DATASET.TEMPLATE", "{} meal.", "TRAINER.CLIPFIT.TEMPLATE", "a plate of {}."), "a plate of {}."),
    ],
)
def test_the_template_is_clipfits_own_for_the_data_set(model, dataset, options, template):
    cfg = train.setup_cfg(train.parse_args(["--trainer", "CLIPFit", "DATASET.NAME", dataset, *options]))
    method = CLIPFit.make_method(cfg, Backbone(model), LabelSpace(("a", "b"), dataset))
    assert method.template == template


def test_train_then_test_on_new_classes(command, trainer_of, tmp_path, images, capsys):
    argv = command("DATASET.SUBSAMPLE_CLASSES", "base", "OPTIM.LR", "0.01", trainer="CLIPFit")
    assert train.run(argv) == 0
    assert "Trainable: 14 tensors, 896 scalars" in capsys.readouterr().out
    path = tmp_path / "run" / "prompt_learner" / "model.pth.tar-2"
    state = torch.load(path, weights_only=True)["state_dict"]
    assert len(state) == 14
    new = trainer_of("DATASET.SUBSAMPLE_CLASSES", "new", trainer="CLIPFit", output="new")
    untrained = new.model_inference(images)
    new.load_model(str(tmp_path / "run"), epoch=2)
    assert all(torch.equal(new.method.state_dict()[name], tensor) for name, tensor in state.items())
    assert (new.model_inference(images) - untrained).abs().max() > 1e-3


@pytest.mark.parametrize("prec", ["amp", "bf16"])
def test_other_precisions_train(command, tmp_path, prec):
    assert train.run(command("TRAINER.CLIPFIT.PREC", prec, "OPTIM.LR", "0.01", trainer="CLIPFit")) == 0
    saved = torch.load(tmp_path / "run" / "prompt_learner" / "model.pth.tar-2", weights_only=True)["state_dict"]
    assert all(t.dtype == torch.float32 and t.isfinite().all() for t in saved.values())


def test_spotlighter_stands_on_it(trainer_of, images):
    options = ("TRAINER.SPOTLIGHTER.HOST", "CLIPFit", "TRAINER.SPOTLIGHTER.TOP_K", "3")
    trainer = trainer_of(*options, "TRAINER.SPOTLIGHTER.BANK_INIT", "random", trainer="Spotlighter")
    method = trainer.method
    method.head.memory.fill(torch.randn(4, 5, 64, generator=torch.Generator().manual_seed(1)))
    out = method.train().losses(images, LABEL)
    out.total.backward()
    assert out.weights["host_similarity"] == 8.0
    assert abs(out.terms["host_similarity"].item()) < 1e-6
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.host.parameters())
