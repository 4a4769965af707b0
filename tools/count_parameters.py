"""Count a method's parameters, module by module, as tensors and as scalars; needs no weights of CLIP.

    python -m tools.count_parameters --config-file configs/trainers/Spotlighter/mini_vit8_ep15_paper.yaml
    python tools/count_parameters.py --config-file configs/trainers/CoOp/vit_b16.yaml --classes 1000 --json

The paper's "21 extra parameters" most likely counts tensors, weights and biases of whole layers, and not the numbers in
them: its modules hold matrices of the width of the tower, each with hundreds of thousands of numbers. So both are shown
here. Buffers, such as the memory bank, are moved by updates but not trained; they are listed and not part of the total.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor, nn

import train
from clip.backbone import Backbone, LabelSpace
from clip.model import CLIP, CLIPSpec, infer_spec
from clip.weights import read_weights
from dassl.engine import TRAINER_REGISTRY
from tools.result_render import to_text
from trainers.base import MethodTrainer
from trainers.method import Method

# Sizes of OpenAI's models, whose weights are a download. Other names are files on this machine, and tell their sizes.
SPECS = {
    "RN50": CLIPSpec(1024, 224, (3, 4, 6, 3), 64, None),
    "RN101": CLIPSpec(512, 224, (3, 4, 23, 3), 64, None),
    "RN50x4": CLIPSpec(640, 288, (4, 6, 10, 6), 80, None, transformer_width=640, transformer_heads=10),
    "RN50x16": CLIPSpec(768, 384, (6, 8, 18, 8), 96, None, transformer_width=768, transformer_heads=12),
    "RN50x64": CLIPSpec(1024, 448, (3, 15, 36, 10), 128, None, transformer_width=1024, transformer_heads=16),
    "ViT-B/32": CLIPSpec(512, 224, 12, 768, 32),
    "ViT-B/16": CLIPSpec(512, 224, 12, 768, 16),
    "ViT-L/14": CLIPSpec(768, 224, 24, 1024, 14, transformer_width=768, transformer_heads=12),
    "ViT-L/14@336px": CLIPSpec(768, 336, 24, 1024, 14, transformer_width=768, transformer_heads=12),
}


@dataclass(frozen=True)
class Line:
    """Parameters, or buffers, of one module."""

    module: str
    trainable_tensors: int
    trainable_scalars: int
    total_tensors: int
    total_scalars: int
    is_buffer: bool = False


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    name = args.trainer or Path(args.config_file).resolve().parent.name
    try:
        cfg = train.setup_cfg(train.parse_args(["--config-file", args.config_file, "--trainer", name, *args.opts]))
        if args.classes < 1:
            raise ValueError(f"--classes must be at least 1, got {args.classes}")
        trainer = TRAINER_REGISTRY.get(name)
        if not issubclass(trainer, MethodTrainer):
            raise ValueError(f"{name} is no method of this project: it does not build a trainers.method.Method.")
        backbone = empty_backbone(cfg.MODEL.BACKBONE.NAME)
        space = LabelSpace(tuple(f"class {i}" for i in range(1, args.classes + 1)), cfg.DATASET.NAME)
        method = trainer.make_method(cfg, backbone, space)
    except (ValueError, TypeError, KeyError, AssertionError, OSError, RuntimeError) as error:
        print(f"Error: {error.args[0] if isinstance(error, KeyError) and error.args else error}", file=sys.stderr)
        return 1
    lines = [*clip_lines(backbone), *method_lines(method)]
    about = {"trainer": name, "backbone": cfg.MODEL.BACKBONE.NAME, "classes": args.classes}
    if args.json:
        print(json.dumps({**about, "modules": [asdict(x) for x in lines], "total": asdict(total(lines))}, indent=2))
    else:
        print(f"{name}, {about['backbone']}, {args.classes} classes")
        print(render(lines))
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--config-file", required=True, help="which numbers: configs/trainers/<Trainer>/*.yaml")
    add("--trainer", help="which method (default: the folder of the config file)")
    add("--classes", type=int, default=100, help="classes of the task (default: 100)")
    add("--json", action="store_true", help="print JSON")
    add("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="entries of the configuration to change")
    return parser


def empty_backbone(name: str) -> Backbone:
    """A frozen CLIP of the right shapes; its weights are whatever is in memory, which is not even allocated."""
    spec = SPECS.get(name) or infer_spec(read_weights(name))
    with torch.device("meta"):
        model = CLIP(spec)
    return Backbone(model.to_empty(device="cpu").requires_grad_(False).eval(), name)


def clip_lines(backbone: Backbone) -> list[Line]:
    """The frozen towers; what belongs to no tower alone is the scale."""
    parts: dict[str, dict[str, Tensor]] = {"text tower": {}, "image tower": {}, "logit scale": {}}
    for name, parameter in backbone.clip.named_parameters():
        part = "image tower" if name.startswith("visual.") else "text tower"
        parts["logit scale" if name == "logit_scale" else part][name] = parameter
    lines = [_line(f"frozen CLIP: {part}", tensors, ()) for part, tensors in parts.items()]
    buffers = dict(backbone.clip.named_buffers())
    return [*lines, _line("frozen CLIP", buffers, (), is_buffer=True)] if buffers else lines


def method_lines(method: Method) -> list[Line]:
    """One line a module of the method, and for a module that has modules, one line for each of those."""
    trained = set(method.trainables())
    lines: list[Line] = []
    for tensors, is_buffer in ((method.named_parameters(), False), (saved_buffers(method), True)):
        parts: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors:
            parts.setdefault(_module_of(method, name), {})[name] = tensor
        lines += [_line(part, found, trained, is_buffer) for part, found in parts.items()]
    return lines


def saved_buffers(method: nn.Module) -> Iterable[tuple[str, Tensor]]:
    """Buffers that a checkpoint holds."""
    saved = method.state_dict().keys()
    return ((name, buffer) for name, buffer in method.named_buffers() if name in saved)


def _module_of(method: nn.Module, name: str) -> str:
    first, *rest = name.split(".")
    has_modules = any(True for _ in getattr(method, first).children()) if rest else False
    return f"{first}.{rest[0]}" if has_modules else first


def _line(module: str, tensors: dict[str, Tensor], trained: Iterable[str], is_buffer: bool = False) -> Line:
    chosen = [] if is_buffer else [tensor for name, tensor in tensors.items() if name in trained]
    return Line(
        module,
        len(chosen),
        sum(tensor.numel() for tensor in chosen),
        len(tensors),
        sum(tensor.numel() for tensor in tensors.values()),
        is_buffer,
    )


def total(lines: Iterable[Line]) -> Line:
    """The sum over parameters; buffers are not counted."""
    counted = [line for line in lines if not line.is_buffer]
    fields = ("trainable_tensors", "trainable_scalars", "total_tensors", "total_scalars")
    return Line("total", *(sum(getattr(line, field) for line in counted) for field in fields))


def render(lines: Sequence[Line]) -> str:
    """A table for a terminal."""
    titles = ["Module", "Trained tensors", "Trained scalars", "Tensors", "Scalars"]
    rows = [
        [
            line.module + (" (buffer, not trained)" if line.is_buffer else ""),
            f"{line.trainable_tensors:,}",
            f"{line.trainable_scalars:,}",
            f"{line.total_tensors:,}",
            f"{line.total_scalars:,}",
        ]
        for line in [*lines, total(lines)]
    ]
    note = "\nBuffers are not part of the total." if any(line.is_buffer for line in lines) else ""
    return to_text(titles, rows, "table", 1) + note


if __name__ == "__main__":
    sys.exit(main())
