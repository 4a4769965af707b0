"""A teacher of other sizes than the student, a folder of pictures, and command lines on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import train
from clip.backbone import Backbone
from clip.model import CLIP, CLIPSpec
from dassl.engine import build_trainer
from dassl.utils import set_random_seed
from trainers.prompting import WORDS, ImagePrompts, PromptedMethod, TextPrompts
from trainers.promptkd import Distillation, PromptKDMethod

LARGE = CLIPSpec(
    embed_dim=48,
    image_resolution=32,
    vision_layers=3,
    vision_width=128,
    vision_patch_size=8,
    transformer_width=128,
    transformer_heads=2,
    transformer_layers=2,
)
COLOURS = ((200, 30, 30), (30, 180, 30), (40, 40, 210), (210, 200, 40))


def make_large() -> CLIP:
    torch.manual_seed(7)
    model = CLIP(LARGE).eval()
    with torch.no_grad():
        model.token_embedding.weight.normal_(std=0.5)
    return model.requires_grad_(False)


@pytest.fixture(scope="session")
def large_clip() -> CLIP:
    return make_large()


@pytest.fixture(scope="session")
def large_weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "large.pt"
    torch.save(make_large().state_dict(), path)
    return path


def with_large_rows(method):
    """Prompts that are seen in the features."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if "prompts" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return method


@pytest.fixture
def teacher(large_clip, space):
    backbone = Backbone(large_clip)
    prompts = TextPrompts(backbone, 4, WORDS, 9), ImagePrompts.random(backbone, 4, 9)
    return with_large_rows(PromptedMethod(backbone, space, *prompts)).requires_grad_(False).eval()


@pytest.fixture
def student(backbone, space, teacher):
    def build(**options):
        torch.manual_seed(2)
        prompts = ImagePrompts.random(backbone, 3, 2)
        return with_large_rows(PromptKDMethod(backbone, space, teacher, prompts, Distillation(**options)))

    return build


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Class folders of four coloured squares, 6 training and 4 test pictures each."""
    generator = np.random.default_rng(0)
    for part, n in (("train", 6), ("val", 2), ("test", 4)):
        for number, colour in enumerate(COLOURS):
            folder = tmp_path / "squares" / part / f"square_{number}"
            folder.mkdir(parents=True)
            for i in range(n):
                pixels = generator.integers(0, 60, (32, 32, 3), dtype=np.uint8)
                pixels[8:24, 8:24] = np.asarray(colour) + generator.integers(0, 30, 3)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path


@pytest.fixture
def make(pictures, tiny_weights):
    """Builds a trainer on these pictures; `output` names its run folder."""

    def build(*opts, trainer="PromptKD", output="student", backbone=tiny_weights, classes="base", seed=1):
        argv = [
            *("--root", str(pictures), "--output-dir", str(pictures / output), "--seed", str(seed)),
            *("--trainer", trainer, "--backbone", str(backbone), "DATASET.NAME", "ImageFolder"),
            *("DATASET.IMAGE_FOLDER.DIR", "squares", "DATASET.SUBSAMPLE_CLASSES", classes, "DATASET.NUM_SHOTS", "4"),
            *("INPUT.SIZE", "(32, 32)", "INPUT.INTERPOLATION", "bicubic", "INPUT.TRANSFORMS", "['normalize']"),
            *("DATALOADER.NUM_WORKERS", "0", "DATALOADER.TRAIN_X.BATCH_SIZE", "4", "DEVICE", "cpu", "VERBOSE", "False"),
            *("OPTIM.NAME", "sgd", "OPTIM.LR", "0.05", "OPTIM.MAX_EPOCH", "2", "OPTIM.LR_SCHEDULER", "cosine"),
            *(("DATASET.NUM_UNLABELLED", "-1") if trainer == "PromptKD" else ()),
            *map(str, opts),
        ]
        cfg = train.setup_cfg(train.parse_args(argv))
        set_random_seed(cfg.SEED)
        return build_trainer(cfg)

    return build


@pytest.fixture
def taught(make, pictures, large_weights):
    """A finished teacher's run folder."""
    make(trainer="PromptSRC", output="teacher", backbone=large_weights).train()
    return pictures / "teacher"


@pytest.fixture
def record_of(pictures):
    return lambda output="student": json.loads((pictures / output / "metrics.json").read_text())
