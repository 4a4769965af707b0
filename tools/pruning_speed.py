"""What pruning costs in accuracy and saves in time: the rows of the ablations `prune` and `prune_train`, with speed.

    bash scripts/spotlighter/ablation.sh prune && bash scripts/spotlighter/ablation.sh prune_train   # the accuracies
    python -m tools.pruning_speed --accuracy output/ablation/shapes
    python -m tools.pruning_speed --accuracy output/ablation/shapes --threads 1 --batch 8 --out docs/ablations

Images/s of Spotlighter on CoOp, head included, are divided by those of the bare encoder: plain CLIP, all rows through
all blocks, the last one included. This is done on Mini-ViT/8, on which the accuracies were measured, and on ViT-B/16
with random weights, where a point after block b of 4 becomes one after block 3b of 12, at the same share of the depth.
Bare and pruned passes take turns, and a figure is the median of paired ratios; the ratio of counted operations, which
has no noise, stands beside it. Writes pruning_speed.csv and a figure, and prints the table.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import matplotlib
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

import train
from clip.backbone import Backbone, LabelSpace, load_backbone
from clip.model import CLIP, convert_weights
from dassl.engine.precision import Precision
from tools.ablation_tables import TABLES, Row
from tools.count_parameters import SPECS
from tools.result_render import FORMATS, to_csv, to_text
from trainers.spotlighter import Spotlighter

MINI, LARGE = "Mini-ViT/8", "ViT-B/16"
N_CLASSES = {MINI: 72, LARGE: 100}
WAYS = {
    "distinct": ("#3b6fb5", "o"),
    "attention": ("#d9822b", "s"),
    "merge": ("#3a8f4d", "D"),
    "none": ("#333333", "*"),
}
SPEED, LOSS = 1.25, 0.5  # the figures to reach

Step = Callable[[], object]


@dataclass
class Point:
    """A row of the ablation: its accuracy, and its speed on each backbone."""

    row: Row
    hm: float
    hm_std: float | None
    tuned: tuple[float, float | None] | None = None  # HM and spread of models that were trained with the same pruning
    ratios: dict[str, list[float]] = field(default_factory=dict)  # backbone -> bare seconds ÷ seconds, round by round
    operations: dict[str, float] = field(default_factory=dict)  # backbone -> bare operations ÷ operations

    @property
    def way(self) -> str:
        return self.row.keys["PRUNE_BY"] if self.row.keys["PRUNE"] else "none"

    def options(self, n_blocks: int) -> list[str]:
        """`KEY VALUE …` for a tower of `n_blocks` blocks; the rows are for four."""
        shares = [[block * n_blocks // 4, share] for block, share in self.row.keys["PRUNE"]]
        node = "TRAINER.SPOTLIGHTER."
        return [node + "PRUNE", str(shares), node + "PRUNE_BY", self.row.keys["PRUNE_BY"]]


def read_points(folder: Path) -> list[Point]:
    """The rows of `prune` with a measured HM, the first of them without pruning.

    Raises:
        FileNotFoundError: the ablation was not run.
        ValueError: it has no result without pruning.
    """
    found = {name: read_accuracies(folder / f"{name}.csv") for name in ("prune", "prune_train")}
    points = []
    for row in TABLES["prune"].rows:
        if row.label in found["prune"]:
            tuned = None if row.label == "none" else found["prune_train"].get(row.label)
            points.append(Point(row, *found["prune"][row.label], tuned))
    if not points or points[0].way != "none":
        raise ValueError(f"{folder / 'prune.csv'} has no result without pruning; finish the ablation prune.")
    return points


def read_accuracies(path: Path) -> dict[str, tuple[float, float | None]]:
    """HM and its spread by row."""
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {path}; run `bash scripts/spotlighter/ablation.sh {path.stem}`, or name its folder with "
            "--accuracy."
        )
    with open(path, encoding="utf-8", newline="") as file:
        rows = [line for line in csv.DictReader(file) if line["hm"]]
    return {line["row"]: (float(line["hm"]), float(line["hm_std"]) if line["hm_std"] else None) for line in rows}


def random_or_shipped(name: str, precision: Precision, device: torch.device) -> Backbone:
    """The embedded model with its weights, the others with random ones, on which speed does not depend."""
    if name not in SPECS:
        return load_backbone(name, precision.weight_dtype, device)
    model = CLIP(SPECS[name]).eval()
    convert_weights(model, precision.weight_dtype)
    return Backbone(model.to(device).requires_grad_(False), name)


def measure(points: Sequence[Point], name: str, args: argparse.Namespace) -> None:
    """Add a backbone's ratios to all points."""
    device = torch.device(args.device)
    precision = Precision(args.prec, device)
    torch.manual_seed(0)
    backbone = random_or_shipped(name, precision, device)
    tower, size = backbone.vision, backbone.spec.image_resolution
    images = torch.randn(args.batch, 3, size, size, device=device)
    space = LabelSpace(tuple(f"class {i}" for i in range(N_CLASSES[name])), "Benchmark")
    text = F.normalize(torch.randn(len(space), backbone.spec.embed_dim, device=device), dim=1)

    @torch.no_grad()
    def bare() -> torch.Tensor:
        with precision.autocast():
            features = tower.project(tower.hidden(images, tower.n_blocks)[:, 0])
        return F.normalize(features.float(), dim=1) @ text.t()

    steps = [inference_step(point, backbone, space, images, precision) for point in points]
    counted = operations(bare)
    for point, step in zip(points, steps, strict=True):
        point.operations[name] = counted / operations(step)  # warms up, too: text of the classes, caches
        point.ratios[name] = []
    for _ in tqdm(range(args.repeats), desc=name, disable=None):
        before = seconds(bare, device)
        for point, step in zip(points, steps, strict=True):
            own, after = seconds(step, device), seconds(bare, device)
            point.ratios[name].append((before + after) / 2 / own)
            before = after


def inference_step(
    point: Point, backbone: Backbone, space: LabelSpace, images: torch.Tensor, precision: Precision
) -> Step:
    """Logits of a batch."""
    options = point.options(backbone.vision.n_blocks)
    cfg = train.setup_cfg(train.parse_args(["--trainer", "Spotlighter", *options]))
    method = Spotlighter.make_method(cfg, backbone, space).to(images.device).eval()
    memory = method.head.memory
    memory.fill(torch.randn_like(memory.prototypes))

    @torch.no_grad()
    def step() -> torch.Tensor:
        with precision.autocast():
            return method(images)

    step()  # text of the classes is computed once
    return step


def seconds(step: Step, device: torch.device) -> float:
    """Of one thread of a CPU the processor's time, which other programs disturb less; otherwise a clock's."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    begin = clock()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - begin


def operations(step: Step) -> float:
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def records(points: Sequence[Point], backbones: Sequence[str]) -> list[dict[str, Any]]:
    """A line of the CSV each, at full precision."""
    lines = []
    for point in points:
        line: dict[str, Any] = {"row": point.row.label, "by": point.way, "hm": point.hm, "hm_std": point.hm_std}
        line |= {"hm_loss": points[0].hm - point.hm}
        line |= dict(zip(("hm_tuned", "hm_tuned_std"), point.tuned or (None, None), strict=True))
        for name in backbones:
            ratios = point.ratios[name]
            line |= {
                f"{name} {what}": f(ratios) for what, f in (("ratio", statistics.median), ("low", min), ("high", max))
            }
            line[f"{name} operations"] = point.operations[name]
        lines.append(line)
    return lines


def render(points: Sequence[Point], backbones: Sequence[str], fmt: str) -> str:
    titles = ["Pruned", "HM", "Loss", "HM, tuned so"]
    titles += [title for name in backbones for title in (f"{name}: speed", "operations")]
    cells = []
    for point in points:
        cells.append([point.row.label, with_spread(point.hm, point.hm_std), f"{points[0].hm - point.hm:+.2f}"])
        cells[-1].append("" if point.tuned is None else with_spread(*point.tuned))
        for name in backbones:
            ratios = point.ratios[name]
            cells[-1].append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})")
            cells[-1].append(f"{point.operations[name]:.2f}")
    return to_text(titles, cells, fmt, 1)


def with_spread(mean: float, std: float | None) -> str:
    return f"{mean:.2f}" + ("" if std is None else f" ± {std:.2f}")


def draw(points: Sequence[Point], backbones: Sequence[str], caption: str, path: Path) -> None:
    """HM lost against speed-up, a panel each backbone; the corner to be in is shaded."""
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "spotlighter"  # the same file for the same results
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(backbones), figsize=(4.6 * len(backbones), 4), sharey=True, squeeze=False)
    for axes, name in zip(panels[0], backbones, strict=True):
        for way, (colour, marker) in WAYS.items():
            own = [point for point in points if point.way == way]
            x = [statistics.median(point.ratios[name]) for point in own]
            style: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": "none", "markersize": 6}
            axes.plot(x, [points[0].hm - point.hm for point in own], label=way, **style)
            tuned = [(r, points[0].hm - p.tuned[0]) for r, p in zip(x, own, strict=True) if p.tuned is not None]
            if tuned:
                label = f"{way}, tuned so"
                axes.plot(*zip(*tuned, strict=True), label=label, **style, fillstyle="none")
        axes.set_yscale("symlog", linthresh=1)
        axes.set_yticks([-0.5, 0, 0.5, 1, 2, 5, 10, 20], ["-0.5", "0", "0.5", "1", "2", "5", "10", "20"])
        axes.axvline(SPEED, color="#999999", linewidth=0.8, linestyle="--")
        axes.axhline(LOSS, color="#999999", linewidth=0.8, linestyle="--")
        axes.set_xlabel(f"images/s ÷ bare encoder, {name}")
        axes.grid(alpha=0.25)
    panels[0][0].set_ylabel("HM lost on shapes, points")
    panels[0][-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    figure.text(0.01, 0.01, caption, fontsize=7, color="#555555")
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--accuracy", type=Path, default=Path("docs/ablations"), help="folder of prune.csv (default: docs/ablations)")
    add("--out", type=Path, default=Path("output/pruning"), help="folder to write to (default: output/pruning)")
    add("--backbones", nargs="+", default=[MINI, LARGE], choices=[MINI, LARGE], help="default: both")
    add("--batch", type=int, default=32, help="images a batch (default: 32)")
    add("--repeats", type=int, default=5, help="measurements of each (default: 5)")
    add("--threads", type=int, help="CPU threads (default: as torch chooses)")
    add("--device", default="cpu", help="cpu, cuda, … (default: cpu)")
    add("--prec", default="fp32", help="fp32, amp, bf16 or fp16 (default: fp32)")
    add("--format", default="table", choices=[f for f in FORMATS if f in ("table", "markdown")], help="default: table")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        points = read_points(args.accuracy)
        for name in args.backbones:
            measure(points, name, args)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "pruning_speed.csv").write_text(to_csv(records(points, args.backbones)) + "\n", encoding="utf-8")
    where = (
        torch.cuda.get_device_name() if args.device.startswith("cuda") else f"CPU, {torch.get_num_threads()} threads"
    )
    caption = f"{where}, batch {args.batch}, {args.prec}, medians of {args.repeats}; filled: tuned without pruning"
    draw(points, args.backbones, caption, args.out / "pruning_speed.svg")
    print(f"{caption}\n{render(points, args.backbones, args.format)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
