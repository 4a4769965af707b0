"""Whole runs on toy data: what starts where, what is saved, what loads on which classes, and every option."""

import itertools
import json
import signal

import pytest
import torch

from trainers.base import MethodTrainer
from trainers.spt import SPT, start
from trainers.spt.methods import LinearSelfPrompted

N = "TRAINER.SPT."
SMALL = (N + "N_CTX_VISION", "2")
LINEAR = (*SMALL, N + "HEAD", "linear")
TIMM = (*LINEAR, "MODEL.BACKBONE.NAME", "timm:vit_base_patch16_224.mae")
BASE, NEW = ("DATASET.SUBSAMPLE_CLASSES", "base"), ("DATASET.SUBSAMPLE_CLASSES", "new")


def weights(tmp_path, output="run", epoch=2):
    path = tmp_path / output / "prompt_learner" / f"model.pth.tar-{epoch}"
    return torch.load(path, weights_only=True)["state_dict"]


def record(tmp_path, output="run"):
    return json.loads((tmp_path / output / "metrics.json").read_text())


def flags_to_test(tmp_path):
    return ("--eval-only", "--model-dir", str(tmp_path / "run"), "--load-epoch", "2")


# --- the start


@pytest.mark.parametrize("depth", ["1", "2"])
def test_normal_is_vpt(run, tmp_path, depth):
    sizes = ("N_CTX_VISION", "3", "PROMPT_DEPTH_VISION", depth)
    spt, vpt = ([f"TRAINER.{node}.{part}" if part[0].isupper() else part for part in sizes] for node in ("SPT", "VPT"))
    assert run(*spt, N + "STRATEGY", "normal")[0] == 0
    assert run(*vpt, trainer="VPT", output="vpt")[0] == 0
    ours, theirs = weights(tmp_path), weights(tmp_path, "vpt")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert record(tmp_path)["final"]["metrics"] == record(tmp_path, "vpt")["final"]["metrics"]


def first_look(trainer):
    trainer.method.before_training(lambda: (images for images, _ in trainer.plain_images("start", "first look")))
    return [rows.detach().clone() for rows in trainer.method.prompt_rows()]


def test_prototypes_come_from_each_training_image_once_without_augmentation(trainer_of):
    trainer = trainer_of(*SMALL, *BASE, trainer="SPT")
    batches = [list(trainer.plain_images("start", "")) for _ in range(2)]
    images = torch.cat([images for images, _ in batches[0]])
    assert len(images) == 12  # six of each of two classes, none of the new ones
    assert torch.equal(images, torch.cat([images for images, _ in batches[1]]))  # no random crop
    pool = trainer.backbone.vision.vit.patch_embed(images).flatten(0, 1)
    for row in first_look(trainer)[0]:
        assert (pool - row).abs().amax(dim=1).min() < 1e-5


def test_strategies_differ_in_the_start_of_the_prompts_only(run, tmp_path, monkeypatch):
    """The order of images and the head's start are the same: prototypes are drawn from generators of their own."""
    seen = {}
    for strategy in start.STRATEGIES:
        heads, order = [], []
        monkeypatch.setattr(
            LinearSelfPrompted,
            "losses",
            lambda self, images, label, losses=LinearSelfPrompted.losses, heads=heads, order=order: (
                heads.append(self.head.weight.detach().clone()),
                order.append(images),
                losses(self, images, label),
            )[-1],
        )
        assert run(*LINEAR, N + "STRATEGY", strategy, output=strategy)[0] == 0
        monkeypatch.undo()
        seen[strategy] = (heads[0], torch.cat(order), weights(tmp_path, strategy)["rows.0"])
    first = seen.pop("normal")
    for other in seen.values():
        assert torch.equal(first[0], other[0])
        assert torch.equal(first[1], other[1])
        assert not torch.equal(first[2], other[2])


def test_a_resumed_run_does_not_start_anew_and_ends_alike(run, tmp_path, monkeypatch):
    calls = []
    starts = start.start_prompts
    monkeypatch.setattr("trainers.spt.methods.start_prompts", lambda *args: (calls.append(1), starts(*args)))
    assert run(*SMALL, output="whole")[0] == 0
    assert len(calls) == 1
    step, steps = MethodTrainer.forward_backward, []

    def interrupted(self, batch):
        steps.append(1)
        if len(steps) == 3:  # in the first epoch
            signal.raise_signal(signal.SIGTERM)
        return step(self, batch)

    monkeypatch.setattr(MethodTrainer, "forward_backward", interrupted)
    with pytest.raises(SystemExit):
        run(*SMALL)
    assert len(calls) == 2
    monkeypatch.setattr(MethodTrainer, "forward_backward", step)
    code, out, _ = run(*SMALL)
    assert code == 0
    assert "Resuming from" in out
    assert len(calls) == 2
    assert all(torch.equal(value, weights(tmp_path, "whole")[name]) for name, value in weights(tmp_path).items())


def test_initial_weights_are_not_overwritten(run, tmp_path):
    assert run(*SMALL)[0] == 0
    path = tmp_path / "run" / "prompt_learner" / "model.pth.tar-2"
    still = ("OPTIM.LR", "0.0", "OPTIM.WEIGHT_DECAY", "0.0")
    code, out, _ = run(*SMALL, *still, "MODEL.INIT_WEIGHTS", str(path), output="from")
    assert code == 0
    assert "Prompts start as" not in out
    assert all(torch.equal(value, weights(tmp_path, "from")[name]) for name, value in weights(tmp_path).items())


# --- checkpoints


def test_prompts_trained_on_base_classes_load_on_new_ones(run, tmp_path):
    code, out, _ = run(*SMALL, *BASE)
    assert code == 0
    assert "Prompts start as random prototypes of the patch tokens of 12 training images" in out
    assert set(weights(tmp_path)) == {"image_prompts.rows.0", "image_prompts.rows.1"}
    code, out, _ = run(*SMALL, *NEW, output="new", flags=flags_to_test(tmp_path))
    assert code == 0
    assert "Prompts start as" not in out
    assert record(tmp_path, "new")["class_names"] == ["blue square", "yellow square (large)"]


def test_a_linear_head_refuses_other_classes_even_as_many(run, sentence, tmp_path):
    assert run(*LINEAR, *BASE)[0] == 0
    assert run(*LINEAR, *BASE, output="again", flags=flags_to_test(tmp_path))[0] == 0
    assert record(tmp_path, "again")["final"]["metrics"] == record(tmp_path)["final"]["metrics"]
    line = sentence(*LINEAR, *NEW, output="new", flags=flags_to_test(tmp_path))
    assert "was trained on other classes (2, from 'red square' to 'green_square')" in line


# --- a plain ViT out of timm


def test_a_timm_vit_trains_and_is_tested(run, tmp_path, small_timm):
    code, out, _ = run(*TIMM, N + "READOUT", "mean", N + "STRATEGY", "max")
    assert code == 0
    assert small_timm == [("vit_base_patch16_224.mae", True)]
    assert "Loading a plain ViT (backbone: timm:vit_base_patch16_224.mae)" in out
    assert "Prompts start as max prototypes of the patch tokens of 24 training images" in out
    assert set(weights(tmp_path)) == {"rows.0", "rows.1", "rows.2", "head.weight", "head.bias"}
    known = record(tmp_path)
    assert known["backbone"] == "timm:vit_base_patch16_224.mae"
    assert known["parameters"]["trainable_scalars"] == 3 * 2 * 32 + 4 * 32 + 4
    assert run(*TIMM, N + "READOUT", "mean", output="again", flags=flags_to_test(tmp_path))[0] == 0
    assert record(tmp_path, "again")["final"]["metrics"] == known["final"]["metrics"]


def test_random_weights_by_the_backbones_own_key(trainer_of, small_timm):
    trainer_of(*TIMM, "MODEL.BACKBONE.PRETRAINED", "False", trainer="SPT")
    assert small_timm == [("vit_base_patch16_224.mae", False)]


def test_a_head_of_another_vit(run, sentence, tmp_path, small_timm, monkeypatch, make_vit):
    assert run(*TIMM)[0] == 0
    monkeypatch.setattr("timm.create_model", lambda *args, **kwargs: make_vit(1))
    assert "another backbone" in sentence(*TIMM, output="other", flags=flags_to_test(tmp_path))


@pytest.mark.parametrize("prec", ["amp", "bf16"])
def test_other_precisions_train_fp32_parameters(run, tmp_path, small_timm, prec):
    assert run(*TIMM, N + "PREC", prec)[0] == 0
    assert {value.dtype for value in weights(tmp_path).values()} == {torch.float32}


# --- the recipe


def test_weight_decay_of_prompts_head_and_bias(trainer_of):
    options = ("OPTIM.NAME", "adamw", "OPTIM.WEIGHT_DECAY", "0.01", N + "HEAD_WEIGHT_DECAY", "0.5")
    trainer = trainer_of(*LINEAR, *options, trainer="SPT")
    groups = trainer._optims["prompt_learner"].param_groups
    assert [group["weight_decay"] for group in groups] == [0.01, 0.5, 0.0]
    method = trainer.method
    assert [list(map(id, group["params"])) for group in groups] == [
        [id(rows) for rows in method.rows],
        [id(method.head.weight)],
        [id(method.head.bias)],
    ]


def test_the_schedule_of_the_timm_configs(trainer_of):
    """Warm-up of ten epochs, then a cosine that is LR in epoch 10 and about 0 in the last."""
    options = ("OPTIM.MAX_EPOCH", "100", "OPTIM.WARMUP_EPOCH", "10", "OPTIM.WARMUP_TYPE", "linear", "OPTIM.LR", "0.05")
    trainer = trainer_of(
        *LINEAR, *options, "OPTIM.WARMUP_MIN_LR", "0.0025", "OPTIM.WARMUP_RECOUNT", "False", trainer="SPT"
    )
    rates = []
    for _ in range(100):
        rates.append(trainer.get_current_lr())
        trainer._optims["prompt_learner"].step()
        trainer.update_lr()
    assert rates[0] == pytest.approx(0.0025)
    assert rates[1:10] == pytest.approx([0.05 * e / 10 for e in range(1, 10)])
    assert rates[10] == pytest.approx(0.05)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert rates[-1] < 2e-5


# --- options


@pytest.mark.parametrize(
    ("base", "change"),
    [
        (SMALL, ("N_CTX_VISION", "3")),
        (SMALL, ("PROMPT_DEPTH_VISION", "1")),
        (SMALL, ("STRATEGY", "mean")),
        (SMALL, ("INJECT", "post_ln")),
        (SMALL, ("CTX_INIT", "a")),
        (SMALL, ("PREC", "bf16")),
        (SMALL, ("HEAD", "linear")),
        ((*SMALL, N + "STRATEGY", "kmeans"), ("KMEANS_ROWS", "9")),
        (LINEAR, ("READOUT", "mean")),
        (LINEAR, ("INJECT", "post_ln")),
        (TIMM, ("PROMPT_DEPTH_VISION", "2")),
        (TIMM, ("PREC", "bf16")),
    ],
)
def test_every_key_changes_the_logits(trainer_of, images, small_timm, base, change):
    plain, changed = (trainer_of(*base, *more, trainer="SPT") for more in ((), (N + change[0], change[1])))
    for trainer in (plain, changed):
        first_look(trainer)
    assert not torch.equal(plain.model_inference(images), changed.model_inference(images))


def test_text_chunk_bounds_the_pass_through_the_text_tower(trainer_of):
    assert trainer_of(*SMALL, N + "TEXT_CHUNK", "2", trainer="SPT").backbone.text.chunk == 2


def test_vit_weights_are_loaded(trainer_of, small_timm, make_vit, tmp_path):
    torch.save(make_vit(5).state_dict(), tmp_path / "w.pth")
    trainer = trainer_of(*TIMM, N + "VIT_WEIGHTS", str(tmp_path / "w.pth"), trainer="SPT")
    assert torch.equal(trainer.backbone.vit.cls_token, make_vit(5).cls_token)


def test_every_key_is_known_to_these_tests():
    from yacs.config import CfgNode as CN

    cfg = CN({"TRAINER": CN()})
    SPT.extend_cfg(cfg)
    assert set(cfg.TRAINER.SPT) == {
        *("N_CTX_VISION", "PROMPT_DEPTH_VISION", "STRATEGY", "KMEANS_ROWS", "HEAD", "CTX_INIT", "READOUT"),
        *("HEAD_WEIGHT_DECAY", "VIT_WEIGHTS", "INJECT", "PREC", "TEXT_CHUNK"),
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((N + "STRATEGY", "median"), "STRATEGY must be one of random, mean, max, kmeans, normal"),
        ((N + "HEAD", "mlp"), "TRAINER.SPT.HEAD must be text or linear, got 'mlp'."),
        ((*TIMM, N + "HEAD", "text"), "timm:vit_base_patch16_224.mae has no text tower; set TRAINER.SPT.HEAD linear"),
        ((N + "READOUT", "mean"), "TRAINER.SPT.READOUT is set, but HEAD text does not read it"),
        ((N + "HEAD_WEIGHT_DECAY", "0.5"), "TRAINER.SPT.HEAD_WEIGHT_DECAY is set, but HEAD text"),
        ((*LINEAR, N + "CTX_INIT", "a"), "TRAINER.SPT.CTX_INIT is set, but HEAD linear does not read it"),
        ((*LINEAR, N + "TEXT_CHUNK", "5"), "TRAINER.SPT.TEXT_CHUNK is set, but HEAD linear"),
        ((*LINEAR, N + "VIT_WEIGHTS", "x.pth"), "TRAINER.SPT.VIT_WEIGHTS is a file for a timm model"),
        ((N + "N_CTX_VISION", "0"), "Image prompts need"),
        ((N + "N_CTX_VISION", "400"), "N_CTX_VISION is 400, but the training images give only 384 tokens"),
    ],
)
def test_mistakes(sentence, options, message):
    assert message in sentence(*options)


# --- as a host


def test_under_spotlighter_prompts_start_as_prototypes_too(run):
    code, out, _ = run(*SMALL, "TRAINER.SPOTLIGHTER.HOST", "SPT", trainer="Spotlighter")
    assert code == 0
    assert "Prompts start as random prototypes of the patch tokens of 24 training images" in out


def test_no_method_stands_on_a_linear_head(run, sentence):
    line = sentence(*LINEAR, "TRAINER.SPOTLIGHTER.HOST", "SPT", trainer="Spotlighter")
    assert "A linear head has no text features" in line
