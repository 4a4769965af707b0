"""What pruning costs in accuracy and saves in time: the rows of the ablations `prune` and `prune_train`, with speed.

    bash scripts/spotlighter/ablation.sh prune && bash scripts/spotlighter/ablation.sh prune_train   # the accuracies
    python -m tools.pruning_speed --accuracy output/ablation/shapes
    python -m tools.pruning_speed --threads 1 --out docs/ablations
    python -m tools.pruning_speed --speed docs/ablations/pruning_speed.csv      # figure and table, nothing measured

Images/s of Spotlighter on CoOp, head included, are divided by those of the bare encoder: plain CLIP, all rows through
all blocks, the last one included. This is done on Mini-ViT/8, on which the accuracies were measured, and on ViT-B/16
with random weights, where a point after block b of 4 becomes one after block 3b of 12, at the same share of the depth.
Bare and pruned passes take turns, and a figure is the median of paired ratios; the ratio of counted operations, which
has no noise, stands beside it. Writes pruning_speed.csv and a figure, and prints the table.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from tqdm import tqdm

import train
from clip.backbone import LabelSpace
from tools.ablation_tables import TABLES
from tools.benchmarks.methods import gflop
from tools.benchmarks.subjects import Frozen, Setting, bare, inference_step
from tools.benchmarks.timing import Step, synchronise
from tools.pruning_render import Point, draw, records, render
from tools.result_render import to_csv
from trainers.spotlighter import Spotlighter

MINI, LARGE = "Mini-ViT/8", "ViT-B/16"
N_CLASSES = {MINI: 72, LARGE: 100}
BATCH = {MINI: 100, LARGE: 4}  # images, where the user asks for no number


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


def read_speed(points: Sequence[Point], path: Path, backbones: Sequence[str]) -> None:
    """Add what an earlier run measured: lowest, median and highest ratio.

    Raises:
        ValueError: a row or a backbone was not measured.
    """
    with open(path, encoding="utf-8", newline="") as file:
        measured = {line["row"]: line for line in csv.DictReader(file)}
    for point in points:
        line = measured.get(point.row.label, {})
        for name in backbones:
            if not line.get(f"{name} ratio"):
                raise ValueError(
                    f"{path} has no speed of '{point.row.label}' on {name}; measure again, without --speed."
                )
            point.ratios[name] = [float(line[f"{name} {what}"]) for what in ("low", "ratio", "high")]
            point.operations[name] = float(line[f"{name} operations"])


def measure(points: Sequence[Point], name: str, args: argparse.Namespace) -> None:
    """Add a backbone's ratios to all points."""
    setting = Setting(name, args.device, args.batch or BATCH[name])
    frozen = Frozen(setting, args.prec)
    unpruned = bare(setting, frozen, N_CLASSES[name]).inference
    steps = [pruned_step(point, setting, frozen) for point in points]
    counted = gflop(unpruned)
    for point, step in zip(points, steps, strict=True):
        point.operations[name] = counted / gflop(step)  # warms up, too: caches
        point.ratios[name] = []
    for _ in tqdm(range(args.repeats), desc=name, disable=None):
        before = seconds(unpruned, frozen.device)
        for point, step in zip(points, steps, strict=True):
            own, after = seconds(step, frozen.device), seconds(unpruned, frozen.device)
            point.ratios[name].append((before + after) / 2 / own)
            before = after


def pruned_step(point: Point, setting: Setting, frozen: Frozen) -> Step:
    """Logits of a batch; the text of the classes is computed here, once."""
    backbone = frozen.backbone()
    options = point.options(backbone.vision.n_blocks)
    cfg = train.setup_cfg(train.parse_args(["--trainer", "Spotlighter", *options]))
    space = LabelSpace(tuple(f"class {i}" for i in range(N_CLASSES[setting.backbone])), "Benchmark")
    method = Spotlighter.make_method(cfg, backbone, space).to(frozen.device)
    memory = method.head.memory
    memory.fill(torch.randn_like(memory.prototypes))
    step = inference_step(method, frozen.images(setting.batch), frozen.precision)
    step()
    return step


def seconds(step: Step, device: torch.device) -> float:
    """Of one thread of a CPU the processor's time, which other programs disturb less; otherwise a clock's."""
    synchronise(device)
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    begin = clock()
    step()
    synchronise(device)
    return clock() - begin


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--accuracy", type=Path, default=Path("docs/ablations"), help="folder of prune.csv (default: docs/ablations)")
    add("--speed", type=Path, help="a pruning_speed.csv, whose speeds are taken instead of measuring")
    add("--caption", help="of the figure, where the speeds are from a file")
    add("--out", type=Path, default=Path("output/pruning"), help="folder to write to (default: output/pruning)")
    add("--backbones", nargs="+", default=[MINI, LARGE], choices=[MINI, LARGE], help="default: both")
    add("--batch", type=int, help="images a batch (default: 100 on Mini-ViT/8, 4 on ViT-B/16)")
    add("--repeats", type=int, default=5, help="measurements of each (default: 5)")
    add("--threads", type=int, help="CPU threads (default: as torch chooses)")
    add("--device", default="cpu", help="cpu, cuda, … (default: cpu)")
    add("--prec", default="fp32", help="fp32, amp, bf16 or fp16 (default: fp32)")
    add("--format", default="table", choices=["table", "markdown"], help="default: table")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        points = read_points(args.accuracy)
        if args.speed:
            read_speed(points, args.speed, args.backbones)
        else:
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
    caption = args.caption or f"{where}, {args.prec}, medians of {args.repeats} paired ratios"
    draw(points, args.backbones, caption, args.out / "pruning_speed.svg")
    print(f"{caption}\n{render(points, args.backbones, args.format)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
