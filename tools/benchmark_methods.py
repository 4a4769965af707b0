"""Measure methods side by side, as in Table IV: trained tensors and scalars, images/s in training and in inference.

    python -m tools.benchmark_methods configs/trainers/{CoOp/mini_vit8_ep20,MaPLe/mini_vit8_ep5}.yaml --classes 72
    python -m tools.benchmark_methods configs/trainers/CoOp/vit_b16.yaml --random --device cuda --prec bf16

All methods are in one process and take turns, repetition by repetition, so that a busy machine slows all; figures are
medians. The first row is the bare frozen image encoder, whose features are compared with fixed class vectors; the last
columns are median ratios to it. What is timed in inference is an image's way to its logits, text features not counted
where they don't depend on the image; in training a whole step, optimiser included, without reading pictures.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.nn.functional as F
from tqdm import tqdm

import train
from clip.backbone import Backbone, LabelSpace, load_backbone
from dassl.engine import TRAINER_REGISTRY
from dassl.engine.precision import Precision
from tools.benchmark import Step, inference_step, random_backbone, seconds, training_step
from tools.result_render import to_text
from tools.run_names import method_name
from trainers.base import MethodTrainer
from trainers.method import Method

TITLES = ["", "Tensors", "Scalars", "Batch", "Training/s", "Inference/s", "Ratio", "Spread"]


@dataclass
class Subject:
    """One row of the table; without a method, the bare encoder."""

    name: str
    method: Method | None
    inference: Step
    training: Step | None = None
    batch: int = 0  # images of a training step
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"inference": [], "training": []})

    def measure(self, device: torch.device) -> None:
        self.seconds["inference"].append(seconds(self.inference, device))
        if self.training is not None:
            self.seconds["training"].append(seconds(self.training, device))


def make_subject(path: Path, args: argparse.Namespace, device: torch.device) -> Subject:
    """The method of a config file; its trainer is the file's folder.

    Raises:
        ValueError: it is no method of this project, or can't be made without data.
    """
    name = path.resolve().parent.name
    cfg = train.setup_cfg(train.parse_args(["--config-file", str(path), "--trainer", name, *args.opts]))
    trainer = TRAINER_REGISTRY.get(name)
    if not issubclass(trainer, MethodTrainer):
        raise ValueError(f"{name} is no method of this project.")
    precision = Precision(args.prec, device)
    backbone = backbone_of(cfg.MODEL.BACKBONE.NAME, args.random, precision, device)
    backbone.text.chunk = cfg.TRAINER[trainer.node].TEXT_CHUNK or None
    space = LabelSpace(tuple(f"class {i}" for i in range(args.classes)), "Benchmark")
    method = trainer.make_method(cfg, backbone, space).to(device)
    for module in method.modules():
        if hasattr(module, "prototypes") and hasattr(module, "fill"):  # a bank that training would fill from images
            module.fill(torch.randn_like(module.prototypes))
    size, batch = backbone.spec.image_resolution, cfg.DATALOADER.TRAIN_X.BATCH_SIZE
    images = torch.randn(args.batch, 3, size, size, device=device)
    subject = Subject(method_name(name, {"TRAINER": cfg.TRAINER}), method, inference_step(method, images, precision))
    if method.trainables() and not args.no_training:
        label = torch.randint(args.classes, (batch,), device=device)
        few = torch.randn(batch, 3, size, size, device=device)
        subject.training, subject.batch = training_step(method, few, label, precision), batch
    return subject


def backbone_of(name: str, is_random: bool, precision: Precision, device: torch.device) -> Backbone:
    """A backbone of its own for each method, since some put trained tensors into it."""
    if is_random:
        return random_backbone(name, precision, device)
    return load_backbone(name, dtype=precision.weight_dtype, device=device)


def bare(method: Method, args: argparse.Namespace, device: torch.device) -> Subject:
    """Frozen image features against fixed class vectors."""
    backbone, precision = method.backbone, Precision(args.prec, device)
    size = backbone.spec.image_resolution
    images = torch.randn(args.batch, 3, size, size, device=device)
    text = F.normalize(torch.randn(args.classes, backbone.spec.embed_dim, device=device), dim=1)

    @torch.no_grad()
    def step() -> torch.Tensor:
        with precision.autocast():
            features = backbone.clip.encode_image(images)
        return F.normalize(features.float(), dim=1) @ text.t()

    return Subject("bare encoder", None, step)


def row(subject: Subject, reference: Subject, batch: int) -> list[str]:
    times = subject.seconds["inference"]
    ratios = [a / b for a, b in zip(reference.seconds["inference"], times, strict=True)]
    trained = list(subject.method.trainables().values()) if subject.method else []
    training = subject.seconds["training"]
    return [
        subject.name,
        f"{len(trained)}" if subject.method else "",
        f"{sum(p.numel() for p in trained):,}" if subject.method else "",
        f"{subject.batch}" if training else "",
        f"{subject.batch / statistics.median(training):,.0f}" if training else "",
        f"{batch / statistics.median(times):,.0f}",
        f"{statistics.median(ratios):.2f}",
        f"{min(ratios):.2f}–{max(ratios):.2f}",
    ]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("configs", nargs="+", type=Path, help="configs/trainers/<Trainer>/*.yaml, a row each")
    add("--classes", type=int, default=100, help="default: 100")
    add("--batch", type=int, default=100, help="images a batch of inference (default: 100)")
    add("--repeats", type=int, default=5, help="measurements of each (default: 5)")
    add("--device", default="cpu", help="cpu, cuda, … (default: cpu)")
    add("--prec", default="fp32", help="fp32, amp, bf16 or fp16 (default: fp32)")
    add("--random", action="store_true", help="random weights of the backbone's size, where it is not on this machine")
    add("--no-training", action="store_true", help="measure inference alone")
    add("--opts", nargs="+", default=[], metavar="KEY VALUE", help="entries of the configuration to change, for all")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    device = torch.device(args.device)
    torch.manual_seed(0)
    try:
        subjects = [make_subject(path, args, device) for path in args.configs]
    except (ValueError, AssertionError, RuntimeError, OSError, KeyError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    assert subjects[0].method is not None
    rows = [bare(subjects[0].method, args, device), *subjects]
    for subject in rows:  # warm up: caches, text of the classes
        subject.inference()
        if subject.training is not None:
            subject.training()
    for i in tqdm(range(args.repeats), desc="rounds", disable=None):
        for subject in rows if i % 2 == 0 else rows[::-1]:
            subject.measure(device)
    print(f"{args.classes} classes, batch {args.batch} in inference, {args.prec}, {device}, images/s")
    print(to_text(TITLES, [row(subject, rows[0], args.batch) for subject in rows], "table", 1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
