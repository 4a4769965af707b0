"""Shared fixtures: a tiny random CLIP, a toy data set of coloured squares, and a command line for them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from yacs.config import CfgNode as CN

import train
from clip import compiled
from clip.backbone import Backbone, LabelSpace
from clip.model import CLIP, CLIPSpec
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from tests.trainers.every import OPTIONS, TEACHER

TINY = CLIPSpec(
    embed_dim=32,
    image_resolution=32,
    vision_layers=2,
    vision_width=64,
    vision_patch_size=8,
    context_length=77,
    vocab_size=49408,
    transformer_width=64,
    transformer_heads=1,
    transformer_layers=2,
)
NAMES = ("red square", "green_square", "blue square", "yellow square (large)")
COLOURS = ((200, 30, 30), (30, 180, 30), (40, 40, 210), (210, 200, 40))


def make_clip(seed: int = 0) -> CLIP:
    torch.manual_seed(seed)
    model = CLIP(TINY).eval()
    with torch.no_grad():
        model.token_embedding.weight.normal_(std=0.5)  # texts far enough apart for gradients to show
    return model


@pytest.fixture(scope="session")
def tiny_clip() -> CLIP:
    """A CLIP with random weights; tests must not change it."""
    return make_clip().requires_grad_(False)


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same CLIP as a plain state dict on disk."""
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    torch.save(make_clip().state_dict(), path)
    return path


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.fx.GraphModule]]:
    """Graphs that torch.compile was given; they run as they are, which needs no compiler."""
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compile_with = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compile_with(function, backend=backend))
    forget = (compiled._compiled_block.cache_clear, torch.compiler.reset)  # no test sees what another one compiled
    for act in forget:
        act()
    yield graphs
    for act in forget:
        act()


@pytest.fixture
def backbone(tiny_clip: CLIP) -> Backbone:
    return Backbone(tiny_clip)


@pytest.fixture
def space() -> LabelSpace:
    return LabelSpace(NAMES, "Toy")


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(3))


@DATASET_REGISTRY.register()
class Toy(DatasetBase):
    """Six training and four test pictures of each of four coloured squares, written on first use."""

    dataset_dir = "toy"

    def __init__(self, cfg: CN):
        folder = Path(cfg.DATASET.ROOT) / self.dataset_dir
        classes = {"all": range(4), "base": range(2), "new": range(2, 4)}[cfg.DATASET.SUBSAMPLE_CLASSES]
        parts: dict[str, list[Datum]] = {}
        for part, n in (("train", 6), ("val", 2), ("test", 4)):
            parts[part] = [
                Datum(impath=str(square(folder, part, c, i)), label=label, classname=NAMES[c])
                for label, c in enumerate(classes)
                for i in range(n)
            ]
        super().__init__(train_x=parts["train"], val=parts["val"], test=parts["test"])


def square(folder: Path, part: str, colour: int, index: int) -> Path:
    path = folder / f"{part}_{colour}_{index}.png"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng([colour, index, len(part)])
        pixels = generator.integers(0, 60, (40, 40, 3), dtype=np.uint8)
        pixels[8:32, 8:32] = np.asarray(COLOURS[colour]) + generator.integers(0, 30, 3)
        Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def command(tiny_weights: Path, tmp_path: Path):
    """Builds the command line of a run on the toy data; extra items are opts."""
    return command_below(tmp_path, tiny_weights)


def command_below(folder: Path, weights: Path):
    """What the fixture `command` gives, for runs and data in any folder."""

    def build(*opts: str, trainer: str = "CoOp", output: str = "run", flags: tuple[str, ...] = ()) -> list[str]:
        return [
            *("--root", str(folder / "data"), "--output-dir", str(folder / output), "--seed", "1"),
            *("--trainer", trainer, "--backbone", str(weights), *flags),
            *("DATASET.NAME", "Toy", "INPUT.SIZE", "(32, 32)", "INPUT.INTERPOLATION", "bicubic"),
            *("INPUT.TRANSFORMS", "['random_resized_crop', 'random_flip', 'normalize']"),
            *("DATALOADER.NUM_WORKERS", "0", "DATALOADER.TRAIN_X.BATCH_SIZE", "4", "DEVICE", "cpu"),
            *("OPTIM.NAME", "sgd", "OPTIM.LR", "0.1", "OPTIM.MAX_EPOCH", "2", "OPTIM.LR_SCHEDULER", "cosine"),
            *("TRAIN.PRINT_FREQ", "2", *opts),
        ]

    return build


@pytest.fixture
def trainer_of(command):
    """Builds the trainer of a command line without running it."""
    from dassl.engine import build_trainer
    from dassl.utils import set_random_seed

    def build(*opts: str, **kwargs):
        cfg = train.setup_cfg(train.parse_args(command(*opts, **kwargs)))
        set_random_seed(cfg.SEED)
        return build_trainer(cfg)

    return build


@pytest.fixture
def make_any(trainer_of, tmp_path):
    """Builds any trainer on the two base classes, or on others: make_any(name, KEY, value, …)."""

    def build(name, *opts, classes="base", output="run"):
        opts = ("DATASET.SUBSAMPLE_CLASSES", classes, *OPTIONS.get(name, ()), *(str(opt) for opt in opts))
        if TEACHER in opts:
            if not (tmp_path / "teacher").exists():
                trainer_of("DATASET.SUBSAMPLE_CLASSES", "base", trainer="PromptSRC", output="teacher").train()
            opts = tuple(str(tmp_path / "teacher") if opt == TEACHER else opt for opt in opts)
        return trainer_of(*opts, trainer=name, output=output)

    return build


@pytest.fixture
def run_folder(tmp_path):
    return str(tmp_path / "run")


@pytest.fixture
def run_trainer(command, capsys):
    """Run train.py on the toy data: run_trainer(KEY, value, …, trainer=…); gives exit status, stdout and stderr."""

    def go(*opts: str, **kwargs):
        stdout = sys.stdout
        try:
            code = train.run(command(*opts, **kwargs))
        finally:
            sys.stdout = stdout  # the logger stands in its place after a run
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return go
