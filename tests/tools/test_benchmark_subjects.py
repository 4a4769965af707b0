"""What is measured is what it is said to be; nothing here looks at times."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from clip.model import CLIPSpec
from dassl.engine import TRAINER_REGISTRY
from tools.benchmarks import subjects
from tools.benchmarks.subjects import BARE, LARGE, MINI, PLAIN, Frozen, Setting, backbone_of, make_subject
from trainers.base import MethodTrainer

CONFIGS = Path(__file__).parents[2] / "configs/trainers"
SETTING = Setting(batch=3, train_batch=2, spec=CLIPSpec(32, 32, 12, 64, 8, 77, 49408, 64, 1, 2))
NEED_DATA = {"PromptKD", "TextPriors", "ZeroshotCLIP2"}  # a teacher, a file; no config of its own


@pytest.fixture(scope="module")
def frozen():
    return Frozen(SETTING, "fp32")


@pytest.fixture
def bare(frozen):
    return make_subject(BARE, SETTING, frozen, 5)


def counted(module, calls):
    """Rows that enter the MLP's first layer of a block."""
    return module.register_forward_hook(lambda _, given, out: calls.append(given[0].shape[1]))


def test_the_bare_encoder_computes_all_rows_of_the_last_block(frozen, monkeypatch):
    calls = []
    backbone = frozen.backbone()
    monkeypatch.setattr(frozen, "backbone", lambda: backbone)
    subject = make_subject(BARE, SETTING, frozen, 5)
    hooks = [counted(block.mlp, calls) for block in backbone.vision.vit.transformer.blocks()]
    assert subject.inference().shape == (3, 5)
    assert calls == [17] * 12
    calls.clear()
    assert make_subject(SETTING.configs["ZeroshotCLIP"], SETTING, frozen, 5).inference().shape == (3, 5)
    assert calls == [17] * 11 + [1]
    for hook in hooks:
        hook.remove()


def test_zero_shot_gives_the_bare_encoders_features(frozen, bare):
    ours = make_subject(SETTING.configs["ZeroshotCLIP"], SETTING, frozen, 5)
    with torch.no_grad():
        expected = F.normalize(frozen.backbone().clip.encode_image(frozen.images(3)), dim=1)
        torch.testing.assert_close(bare.features(), expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(ours.features(), bare.features(), rtol=0, atol=1e-6)


def test_subjects_share_weights_but_not_modules(frozen):
    one, other = frozen.backbone(), frozen.backbone()
    assert one.clip.visual is not other.clip.visual
    assert one.vision.visual is one.clip.visual
    assert one.clip.visual.conv1.weight is other.clip.visual.conv1.weight
    clipfit = make_subject(SETTING.configs["CLIPFit"], SETTING, frozen, 5)
    clipfit.training()  # puts tensors of its own in the place of frozen ones, and moves them
    assert not any(p.requires_grad for p in one.parameters())
    assert torch.equal(one.clip.visual.ln_pre.weight, torch.ones(64))


@pytest.mark.parametrize("what", [PLAIN, *LARGE])
def test_all_methods_run(frozen, what):
    subject = make_subject(SETTING.configs.get(what, what), SETTING, frozen, 4)
    before = [p.detach().clone() for p in subject.trained]
    assert subject.inference().shape == (3, 4)
    if subject.training is None:
        assert what in ("ZeroshotCLIP", "LinearProbe")
        return
    for _ in range(2):
        subject.training()
    assert subject.train_batch == 2
    assert any(not torch.equal(a, b) for a, b in zip(before, subject.trained, strict=True))


def test_every_trainer_is_measured_unless_it_needs_data():
    names = {n for n in TRAINER_REGISTRY.registered_names() if TRAINER_REGISTRY.get(n).__module__[:9] == "trainers."}
    names = {n for n in names if issubclass(TRAINER_REGISTRY.get(n), MethodTrainer)}
    for stems in (MINI, LARGE):
        assert {stem.split("/")[0] for stem in stems.values()} == names - NEED_DATA
        assert all((CONFIGS / f"{stem}.yaml").is_file() for stem in stems.values())
    assert list(MINI) == list(LARGE)


def test_the_backbone_of_configs():
    assert backbone_of([MINI_COOP, CONFIGS / "MaPLe/mini_vit8_ep5.yaml"]) == "Mini-ViT/8"
    with pytest.raises(ValueError, match=r"several backbones, Mini-ViT/8, ViT-B/16; choose one with --backbone"):
        backbone_of([MINI_COOP, CONFIGS / "CoOp/vit_b16.yaml"])
    with pytest.raises(FileNotFoundError, match=r"There is no config file nowhere.yaml; name one of configs"):
        backbone_of([Path("nowhere.yaml")])


MINI_COOP = CONFIGS / "CoOp/mini_vit8_ep20.yaml"


def test_only_the_methods_blocks_are_compiled(frozen, monkeypatch):
    compiled = []
    monkeypatch.setattr(subjects, "compile_blocks", compiled.append)
    setting = replace(frozen.setting, is_compiled=True)
    make_subject(BARE, setting, frozen, 3)
    make_subject(PLAIN, setting, frozen, 3)
    assert not compiled
    subject = make_subject(setting.configs["CoOp"], setting, frozen, 3)
    assert compiled == [subject.method.backbone]
