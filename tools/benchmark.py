"""Measure what the Spotlighter head costs: time, operations and memory beside its host, in one process.

    python -m tools.benchmark                                  # ViT-B/16 with random weights, 100 classes, batch 32
    python -m tools.benchmark --backbone ViT-L/14 --classes 1000 --batch 8 --device cuda --prec bf16
    python -m tools.benchmark --profile                        # and where the head's time goes, operator by operator

Host and host with head take turns, repetition by repetition, so that a busy machine slows both; the figure is the
median of the paired ratios. Speed does not depend on the values of weights and images, so these are random.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

import train
from clip.backbone import Backbone, LabelSpace
from clip.model import CLIP, convert_weights
from dassl.engine.precision import Precision
from tools.count_parameters import SPECS
from tools.result_render import to_text
from trainers.coop import CoOp
from trainers.method import Method
from trainers.spotlighter import Spotlighter

Step = Callable[[], object]


def random_backbone(name: str, precision: Precision, device: torch.device) -> Backbone:
    """Frozen CLIP of a known size with random weights."""
    model = CLIP(SPECS[name]).eval()
    model.initialize_parameters()
    convert_weights(model, precision.weight_dtype)
    return Backbone(model.to(device).requires_grad_(False), name)


def training_step(method: Method, images: torch.Tensor, label: torch.Tensor, precision: Precision) -> Step:
    """Forward, backward and optimiser step."""
    optimiser = torch.optim.SGD(method.trainables().values(), lr=1e-4, momentum=0.9)

    def step() -> None:
        method.train()
        optimiser.zero_grad()
        with precision.autocast():
            total = method.losses(images, label).total
        total.backward()
        optimiser.step()

    return step


def inference_step(method: Method, images: torch.Tensor, precision: Precision) -> Step:
    """Logits of a batch; the classes' text is computed before, once."""

    @torch.no_grad()
    def step() -> torch.Tensor:
        method.eval()
        with precision.autocast():
            return method(images)

    return step


def seconds(step: Step, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def flops(step: Step) -> float:
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def compare(plain: Step, with_head: Step, repeats: int, device: torch.device, what: str) -> list[str]:
    """A line of the table: median seconds of both, median of paired ratios, operations of both."""
    for step in (plain, with_head):  # warm up: caches, text of the classes
        step()
    pairs = []
    for i in tqdm(range(repeats), desc=what, disable=None):
        order = (plain, with_head) if i % 2 == 0 else (with_head, plain)
        times = {step: seconds(step, device) for step in order}
        pairs.append((times[plain], times[with_head]))
    first, second = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    counted = flops(plain), flops(with_head)
    return [
        what,
        f"{first:.3f}",
        f"{second:.3f}",
        f"{100 * (ratio - 1):+.1f}%",
        f"{counted[0] / 1e9:,.0f}",
        f"{counted[1] / 1e9:,.0f}",
        f"{100 * (counted[1] / counted[0] - 1):+.2f}%",
    ]


def profile(step: Step) -> str:
    from torch.profiler import profile as record

    with record() as events:
        step()
    return events.key_averages().table(sort_by="self_cpu_time_total", row_limit=15, max_name_column_width=40)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--backbone", default="ViT-B/16", choices=[n for n in SPECS if n.startswith("ViT")], help="default: ViT-B/16")
    add("--classes", type=int, default=100, help="default: 100")
    add("--batch", type=int, default=32, help="images a batch (default: 32)")
    add("--repeats", type=int, default=5, help="measurements of each (default: 5)")
    add("--device", default="cpu", help="cpu, cuda, … (default: cpu)")
    add("--prec", default="fp32", help="fp32, amp, bf16 or fp16 (default: fp32)")
    add("--profile", action="store_true", help="print the operators of a training step with the head")
    add("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="entries of the configuration to change")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    device = torch.device(args.device)
    try:
        cfg = train.setup_cfg(train.parse_args(["--trainer", "Spotlighter", *args.opts]))
        precision = Precision(args.prec, device)
        torch.manual_seed(0)
        backbone = random_backbone(args.backbone, precision, device)
        space = LabelSpace(tuple(f"class {i}" for i in range(args.classes)), "Benchmark")
        host = CoOp.make_method(cfg, backbone, space).to(device)
        headed = Spotlighter.make_method(cfg, backbone, space).to(device)
    except (ValueError, AssertionError, RuntimeError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    memory = getattr(headed.head, "memory", None)
    if memory is not None:
        memory.fill(torch.randn_like(memory.prototypes))
    size = backbone.spec.image_resolution
    images = torch.randn(args.batch, 3, size, size, device=device)
    label = torch.randint(args.classes, (args.batch,), device=device)
    steps = [training_step(m, images, label, precision) for m in (host, headed)]
    tests = [inference_step(m, images, precision) for m in (host, headed)]
    lines = [compare(*steps, args.repeats, device, "training step"), compare(*tests, args.repeats, device, "inference")]
    print(f"{args.backbone}, {args.classes} classes, batch {args.batch}, {args.prec}, {device}")
    titles = ["", "CoOp s", "with head s", "head adds", "CoOp GFLOP", "with head", "head adds"]
    print(to_text(titles, lines, "table", 1))
    if memory is not None:
        print(f"memory bank: {memory.prototypes.numel() * 4 / 2**20:.1f} MiB")
    if args.profile:
        print(profile(steps[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
