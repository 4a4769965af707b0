"""TextRefiner against loops in NumPy over images, classes, tokens and slots; hosts, precisions, whole runs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import train
from clip.backbone import Backbone, LabelSpace
from clip.model import CLIP, CLIPSpec
from tests.trainers.cache_oracle import array, read_by_hand, softmax, unit, write_by_hand
from trainers.coop import CoOpMethod
from trainers.method import Method
from trainers.prompting import ImagePrompts, PromptedMethod, TextPrompts
from trainers.textrefiner import RefinerOptions, TextRefinerMethod
from trainers.zsclip import TemplateMethod

LABEL = torch.tensor([0, 1, 2, 3, 0])
NODE = "TRAINER.TEXTREFINER."
OPTIONS = RefinerOptions(n_slots=6, top_k=3)


def cross_entropy(logits, label):
    return -np.log(softmax(logits)[label])


def kl(target, logits):
    """KL of two rows of logits."""
    q, p = softmax(target), softmax(logits)
    return sum(a * (np.log(a) - np.log(b)) for a, b in zip(q, p, strict=True))


# ---- the method


class Distilled(CoOpMethod):
    """A host that learns from a teacher."""

    classification_weight = 5.0

    def teacher(self, images):
        generator = torch.Generator().manual_seed(11)
        return 3 * torch.randn(len(images), len(self.space), generator=generator)


def refiner(backbone, space, options=OPTIONS, host=CoOpMethod):
    torch.manual_seed(4)
    method = TextRefinerMethod(host(backbone, space, 4), options)
    with torch.no_grad():
        method.local.bn.weight.add_(0.2 * torch.randn(32))
        method.local.bn.bias.add_(0.2 * torch.randn(32))
    return method


def refined_by_hand(method, options):
    text, slots, A = array(method.host.text()), array(method.cache.slots), array(method.extractor.weight)
    refined = [
        t + options.alpha * A @ np.concatenate([t, read_by_hand(slots, t, options.read_temperature)]) for t in text
    ]
    return text, np.array([unit(t) if options.normalise else t for t in refined])


def step_by_hand(method, images, options, teacher=None):
    """Terms, logits and the cache after the write, of one training step."""
    tower, scale = method.backbone.vision, float(method.backbone.logit_scale.exp())
    text, refined = refined_by_hand(method, options)
    out = tower(images, want={"tokens", "cls_attn"})
    image, patches, attention = array(out.pooled), array(out.tokens), array(out.cls_attn)
    logits = np.array([[scale * unit(v) @ t for t in refined] for v in image])
    rows = [row for b in range(len(image)) for row in (image[b], *patches[b])]
    first, last, bn = method.local.linear1, method.local.linear2, method.local.bn
    hidden = np.array([array(first.weight) @ row + array(first.bias) for row in rows])
    hidden = (hidden - hidden.mean(axis=0)) / np.sqrt(hidden.var(axis=0) + 1e-5) * array(bn.weight) + array(bn.bias)
    z = np.array([array(last.weight) @ np.maximum(row, 0) + array(last.bias) for row in hidden])
    per_image, local, against = len(rows) // len(image), [], []
    for b in range(len(image)):
        own = z[b * per_image : (b + 1) * per_image]
        seen = attention[b].mean(axis=0)
        best = sorted(range(len(seen)), key=lambda n: -seen[n])[: options.top_k]
        for token in (own[0], *(own[1 + n] for n in best), own.mean(axis=0)):
            local.append([scale * (unit(token) if options.normalise else token) @ t for t in text])
            against.append(b)
    local = np.array(local)
    terms = {"text_l1": np.mean([np.abs(unit(r) - t).mean() for r, t in zip(refined, text, strict=True)])}
    if teacher is None:
        terms["global_ce"] = np.mean([cross_entropy(row, y) for row, y in zip(logits, LABEL, strict=True)])
        terms["local_ce"] = np.mean([cross_entropy(row, LABEL[b]) for row, b in zip(local, against, strict=True)])
    else:
        C = logits.shape[1]
        terms["kl"] = sum(kl(q, row) for q, row in zip(teacher, logits, strict=True)) / logits.size
        terms["local_kl"] = sum(kl(teacher[b], row) for row, b in zip(local, against, strict=True)) / (len(local) * C)
    return terms, logits, write_by_hand(array(method.cache.slots), z, options.momentum, options.write)


VARIANTS = [
    OPTIONS,
    replace(OPTIONS, normalise=True, local_weight=0.5, text_weight=2.0, kd_local_weight=0.1, kd_text_weight=0.3),
    replace(OPTIONS, read_temperature=0.05, alpha=0.7, momentum=0.3),
    replace(OPTIONS, write="mean", top_k=16),
]


@pytest.mark.parametrize("options", VARIANTS)
def test_a_step_on_labels_is_that_of_the_loops(backbone, space, images, options):
    method = refiner(backbone, space, options)
    expected, logits, slots = step_by_hand(method, images, options)
    out = method.train().losses(images, LABEL)
    np.testing.assert_allclose(array(out.logits), logits, atol=1e-4)
    assert set(out.terms) == {"global_ce", "local_ce", "text_l1"}
    for name, value in expected.items():
        assert out.terms[name].item() == pytest.approx(value, rel=1e-4), name
    assert out.weights == {"global_ce": 1.0, "local_ce": options.local_weight, "text_l1": options.text_weight}
    total = sum(out.weights[name] * value for name, value in expected.items())
    assert out.total.item() == pytest.approx(total, rel=1e-4)
    np.testing.assert_allclose(array(method.cache.slots), slots, atol=1e-5)


@pytest.mark.parametrize("options", VARIANTS[:2])
def test_a_step_with_a_teacher_is_that_of_the_loops(backbone, space, images, options):
    method = refiner(backbone, space, options, Distilled)
    teacher = array(method.host.teacher(images))
    expected, _, slots = step_by_hand(method, images, options, teacher)
    out = method.train().losses(images, LABEL)
    assert set(out.terms) == {"kl", "local_kl", "text_l1"}
    for name, value in expected.items():
        assert out.terms[name].item() == pytest.approx(value, rel=1e-4), name
    K_w = 5.0 * 4  # the host's weight is that of a KL divided by images only
    weights = {"kl": K_w, "local_kl": K_w * options.kd_local_weight, "text_l1": K_w * options.kd_text_weight}
    assert out.weights == pytest.approx(weights)
    np.testing.assert_allclose(array(method.cache.slots), slots, atol=1e-5)


def test_the_weights_are_the_published_ones():
    o = RefinerOptions()
    assert (o.local_weight, o.text_weight) == (1 / 50, 20)
    assert (o.kd_local_weight, o.kd_text_weight) == (1 / 100, 1 / 50)
    assert (o.n_slots, o.momentum, o.alpha, o.top_k) == (25, 0.8, 0.2, 5)


def test_text_in_inference_is_read_and_aggregated(backbone, space, images):
    method = refiner(backbone, space).eval()
    _, refined = refined_by_hand(method, OPTIONS)
    np.testing.assert_allclose(array(method.class_vectors()), refined, atol=1e-5)
    np.testing.assert_allclose(array(method.text()), refined, atol=1e-5)
    assert abs(np.linalg.norm(refined, axis=1) - 1).max() > 0.01  # not unit, as released
    image = array(backbone.vision(images).pooled)
    scale = float(backbone.logit_scale.exp())
    expected = [[scale * unit(v) @ t for t in refined] for v in image]
    np.testing.assert_allclose(array(method(images)), expected, atol=1e-4)


def test_refined_text_is_computed_once_and_follows_the_cache(backbone, space):
    method = refiner(backbone, space).eval()
    first = method.class_vectors()
    assert method.class_vectors() is first
    method.cache.write(torch.randn(50, 32))
    second = method.class_vectors()
    assert not torch.allclose(first, second)
    with torch.no_grad():
        method.extractor.weight.mul_(2)
    assert not torch.allclose(method.class_vectors(), second)


def test_tokens_are_asked_for_in_training_only(backbone, space, images, monkeypatch):
    method, asked = refiner(backbone, space), []
    image = method.host.image

    def noted(images, want=frozenset(), prune=None):
        asked.append(want)
        return image(images, want, prune)

    monkeypatch.setattr(method.host, "image", noted)
    method.train().losses(images, LABEL)
    method.eval()(images)
    assert asked == [{"tokens", "cls_attn"}, set()]


def test_the_cache_moves_in_training_only_and_training_sees_it_as_it_was(backbone, space, images):
    method = refiner(backbone, space)
    before = method.cache.slots.clone()
    evaluated = method.eval()(images)
    assert torch.equal(method.cache.slots, before)
    out = method.train().losses(images, LABEL)
    torch.testing.assert_close(out.logits, evaluated, atol=1e-4, rtol=0)
    assert not torch.equal(method.cache.slots, before)
    out.total.backward()  # the write has not disturbed what it needs
    assert all(p.grad is not None for p in method.trainables().values())


def test_trained_tensors_of_coop_on_vit_b16():
    """8 tensors, 1,052,672 scalars: context 2,048, adapter 526,336, extractor 524,288."""
    spec = CLIPSpec(512, 32, 1, 64, 8, 77, 49408, 512, 8, 1)
    host = CoOpMethod(Backbone(CLIP(spec).requires_grad_(False)), LabelSpace(("a", "b")), ctx_init="a photo of a")
    method = TextRefinerMethod(host)
    trained = method.trainables()
    assert (len(trained), sum(p.numel() for p in trained.values())) == (8, 1052672)
    assert set(trained) == {
        *("host.ctx", "extractor.weight", "local.bn.weight", "local.bn.bias"),
        *(f"local.linear{i}.{part}" for i in (1, 2) for part in ("weight", "bias")),
    }
    state = set(method.state_dict())
    assert state == {*trained, "cache.slots", "local.bn.running_mean", "local.bn.running_var",
                     "local.bn.num_batches_tracked"}  # fmt: skip


def test_a_trained_model_loads_strictly_on_other_classes(backbone, space, images):
    method = refiner(backbone, space)
    method.train().losses(images, LABEL)
    other = LabelSpace(("a crane (bird)", "Boeing 737-200"))
    fresh = TextRefinerMethod(CoOpMethod(backbone, other, 4), OPTIONS)
    fresh.load_state_dict(method.state_dict())
    torch.testing.assert_close(fresh.eval()(images), method.eval()(images, other))


def test_prompt_rows_of_a_host_are_no_tokens(backbone, space, images):
    torch.manual_seed(2)
    host = PromptedMethod(
        backbone, space, TextPrompts(backbone, 4, "a photo of a", 2), ImagePrompts.random(backbone, 3, 2)
    )
    method = TextRefinerMethod(host, OPTIONS)
    seen = []
    method.local.register_forward_hook(lambda module, rows, result: seen.append(rows[0].shape))
    method.train().losses(images, LABEL).total.backward()
    assert seen == [(5 * 17, 32)]
    assert all(p.grad.abs().max() > 0 for p in host.parameters())


def test_a_frozen_host_is_refined_too(backbone, space, images):
    host = TemplateMethod(backbone, space, ["a photo of a {}."])
    method = TextRefinerMethod(host, OPTIONS)
    method.train().losses(images, LABEL).total.backward()
    assert all(p.grad is not None for p in method.trainables().values())


def test_a_hosts_penalties_are_added(backbone, space, images):
    class Penalised(CoOpMethod):
        def penalties(self, images, vision, text):
            return {"norm": self.ctx.square().sum()}, {"norm": 3.0}

    method = refiner(backbone, space, host=Penalised)
    out = method.train().losses(images, LABEL)
    assert out.terms["host_norm"].item() == pytest.approx((array(method.host.ctx) ** 2).sum(), rel=1e-5)
    assert out.weights["host_norm"] == 3.0


def test_the_host_hears_of_the_end_of_an_epoch(backbone, space):
    class Listening(CoOpMethod):
        heard = ()

        def after_epoch(self, epoch, n_epochs):
            self.heard = (epoch, n_epochs)

    method = refiner(backbone, space, host=Listening)
    method.after_epoch(2, 7)
    assert method.host.heard == (2, 7)


# ---- mistakes


def test_a_host_whose_text_depends_on_the_image(backbone, space):
    class PerImage(Method):
        text_depends_on_image = True

    with pytest.raises(ValueError, match="PerImage makes other text features for each image; TextRefiner needs"):
        TextRefinerMethod(PerImage(backbone, space))


def test_a_backbone_without_tokens(space):
    resnet = CLIP(CLIPSpec(32, 32, (1, 1, 1, 1), 8, None, 77, 49408, 64, 1, 2)).requires_grad_(False)
    with pytest.raises(ValueError, match="choose a ViT"):
        TextRefinerMethod(CoOpMethod(Backbone(resnet), space, 2))


def test_more_patches_than_there_are(backbone, space):
    with pytest.raises(ValueError, match=r"TEXTREFINER\.TOP_K must be at most the 16 patches, got 17"):
        refiner(backbone, space, replace(OPTIONS, top_k=17))
    with pytest.raises(ValueError, match=r"TEXTREFINER\.TOP_K must be at least 1, got 0"):
        RefinerOptions(top_k=0)


def sentence(code, err):
    assert code == 1
    (line,) = [line for line in err.splitlines() if line.startswith("Error: ")]
    return line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((NODE + "HOST", "Coop"), "TRAINER.TEXTREFINER.HOST must be one of CLIPFit, "),
        ((NODE + "HOST", "TextRefiner"), "got 'TextRefiner'"),
        ((NODE + "HOST", "Spotlighter"), "got 'Spotlighter'"),
        (
            ("TRAINER.COOP.PREC", "bf16"),
            "TRAINER.COOP.PREC is not read under TextRefiner; set TRAINER.TEXTREFINER.PREC",
        ),
    ],
)
def test_wrong_hosts(command, capsys, options, message):
    code = train.run(command(*options, trainer="TextRefiner"))
    assert message in sentence(code, capsys.readouterr().err)


# ---- whole runs


@pytest.mark.parametrize(
    "change",
    [
        ("HOST", "ZeroshotCLIP"),
        ("N_SLOTS", "9"),
        ("READ_TEMPERATURE", "0.1"),
        ("ALPHA", "0.9"),
        ("NORMALISE", "True"),
        ("PREC", "bf16"),
    ],
)
def test_keys_change_the_logits(trainer_of, images, change):
    plain = trainer_of("TRAINER.COOP.N_CTX", "2", trainer="TextRefiner")
    changed = trainer_of("TRAINER.COOP.N_CTX", "2", NODE + change[0], change[1], trainer="TextRefiner")
    assert not torch.equal(plain.model_inference(images), changed.model_inference(images))


@pytest.mark.parametrize("prec", ["fp32", "amp", "bf16"])
def test_train_on_base_then_test_on_new_with_the_trained_cache(command, trainer_of, tmp_path, images, prec):
    options = ("TRAINER.COOP.N_CTX", "2", NODE + "TEXT_WEIGHT", "1.0", NODE + "PREC", prec, "OPTIM.LR", "0.01")
    assert train.run(command("DATASET.SUBSAMPLE_CLASSES", "base", *options, trainer="TextRefiner")) == 0
    path = tmp_path / "run" / "prompt_learner" / "model.pth.tar-2"
    state = torch.load(path, weights_only=True)["state_dict"]
    assert all(t.isfinite().all() for t in state.values())
    assert {t.dtype for t in state.values()} == {torch.float32, torch.int64}
    new = trainer_of("DATASET.SUBSAMPLE_CLASSES", "new", *options, trainer="TextRefiner", output="new")
    new.load_model(str(tmp_path / "run"), epoch=2)
    assert all(torch.equal(new.method.state_dict()[name], tensor) for name, tensor in state.items())
    logits = new.model_inference(images)
    new.method.cache.slots.copy_(F.normalize(torch.randn(25, 32), dim=1))
    assert (new.model_inference(images) - logits).abs().max() > 1e-3
