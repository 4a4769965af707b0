"""Measure speed and memory: methods side by side, and the figures to reach; docs/speed.md says what is compared.

    python -m tools.benchmark                                       # ViT-B/16 with random weights, all methods
    python -m tools.benchmark --backbone Mini-ViT/8 --classes 72    # the embedded model
    python -m tools.benchmark configs/trainers/{CoOp/vit_b16_ep15_ctxv1,Spotlighter/vit_b16_ep15_paper}.yaml --flops
    python -m tools.benchmark --targets --device cuda --json gpu.json --figure gpu.svg     # all figures to reach
    python -m tools.benchmark --targets eval-bare train-50 --batch 4                       # some of them
    python -m tools.benchmark --from-json gpu.json --markdown docs/speed.md                # show them elsewhere
    python -m tools.benchmark --sync-check --device cuda            # does a training step wait for the GPU?

All subjects are in one process, on the same frozen weights, and take turns, round by round, so that a busy machine
slows all; figures are medians, ratios medians of paired ratios. Batches are random and already on the device. What is
timed in inference is an image's way to its logits, text features not counted where they don't depend on the image (on
the plain path they are, that is what it is for); in training a whole step, optimiser included.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from dassl.engine.precision import Precision
from tools.benchmarks import figure, report
from tools.benchmarks.methods import make_subjects, measure_methods
from tools.benchmarks.rows import TARGETS, choose
from tools.benchmarks.subjects import Setting, backbone_of, make_subject
from tools.benchmarks.targets import BACKBONE, BATCH, Bench, run_targets
from tools.benchmarks.trace import synchronisations, write_trace


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        if args.from_json:
            found = report.read_json(args.from_json)
            print(report.plain_text(found))
        else:
            check(args)
            setting = setting_of(args)
            found = measure(args, setting) if not (args.sync_check or args.profile) else look(args, setting)
        if args.json and args.from_json:
            report.write_json(args.json, found)
        if args.markdown:
            report.insert(args.markdown, report.markdown(found), report.place_of(found))
        if args.figure:
            figure.draw(found, args.figure)
    except (ValueError, AssertionError, RuntimeError, OSError, KeyError) as error:
        print(f"Error: {error.args[0] if isinstance(error, KeyError) and error.args else error}", file=sys.stderr)
        return 1
    return 0


def check(args: argparse.Namespace) -> None:
    """Refuse what can't be measured before anything is built.

    Raises:
        ValueError: it says what.
    """
    for name in ("batch", "train_batch", "repeats"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}.")
    if min(args.classes) < 1:
        raise ValueError(f"--classes must be at least 1, got {min(args.classes)}.")
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda needs a CUDA GPU, and torch finds none here; leave it out to measure the CPU.")
    for precision in args.prec or []:
        Precision(precision, device)
    looks = args.sync_check or args.profile
    if looks and (args.targets is not None or args.json or args.markdown or args.figure):
        raise ValueError(
            "--sync-check and --profile measure nothing; run them without --targets, --json, --markdown and --figure."
        )


def setting_of(args: argparse.Namespace) -> Setting:
    backbone = args.backbone or (backbone_of(args.configs) if args.configs else BACKBONE)
    options = tuple(args.opts)
    return Setting(backbone, args.device, args.batch, args.train_batch, args.compile, args.graph, options)


def measure(args: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    """Methods unless only targets are asked for, targets if they are; prints them one by one."""
    chosen = choose(args.targets, args.prec or []) if args.targets is not None else []
    bench = Bench(setting, args.repeats)
    print(f"{report.device_name(bench.device)}, torch {torch.__version__}: {setting.backbone}, batch {setting.batch}")
    tables = []
    if args.targets is None or args.configs:
        configs = args.configs or list(setting.configs.values())
        for precision in args.prec or ["fp32"]:
            for n_classes in args.classes:
                frozen = bench.frozen(precision)
                subjects = make_subjects(configs, setting, frozen, n_classes)
                sizes = (n_classes, args.repeats, not args.no_training, args.flops)
                tables.append(measure_methods(subjects, setting, frozen, *sizes).record())
                print("\n" + report.methods_text(tables[-1]), flush=True)
                keep(args, setting, tables, [])
    targets: list[dict[str, Any]] = []
    if args.targets is not None:
        for result in run_targets(bench, chosen):
            targets.append(result.record())
            print(report.target_line(targets[-1]), flush=True)
            keep(args, setting, tables, targets)
    found = report.content(setting, args.repeats, tables, targets)
    rest = [report.table4_text(found)] * bool(found["table4"]) + [report.conditions(found)] * bool(targets)
    print("".join(f"\n{part}\n" for part in rest if part), end="")
    return found


def keep(
    args: argparse.Namespace, setting: Setting, tables: list[dict[str, Any]], targets: list[dict[str, Any]]
) -> None:
    """Write what is measured so far, so that nothing is lost where a time limit ends a run."""
    if args.json:
        report.write_json(args.json, report.content(setting, args.repeats, tables, targets))


def look(args: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    """A trace of the last method, or which methods wait for the GPU."""
    configs = args.configs or list(setting.configs.values())
    if args.profile:
        configs = [args.configs[-1] if args.configs else setting.configs["Spotlighter"]]
    bench = Bench(setting)
    for precision in args.prec or ["fp32"]:
        subjects = (make_subject(path, setting, bench.frozen(precision), args.classes[0]) for path in configs)
        if args.sync_check:
            for line in synchronisations(subjects, bench.device):
                print(f"{precision}: {line}", flush=True)
        else:
            (subject,) = subjects
            print(write_trace(subject, args.profile, bench.device))
            print(f"{subject.name}, {precision}: {args.profile}; open it in chrome://tracing or Perfetto")
    return {}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("configs", nargs="*", type=Path, help="configs/trainers/<Trainer>/*.yaml, a row each (default: all methods)")
    add("--backbone", help="a CLIP size, with random weights, Mini-ViT/8, or a file (default: the configs', ViT-B/16)")
    add("--device", default="cpu", help="cpu, cuda, … (default: cpu)")
    add("--prec", nargs="+", help="fp32, bf16, amp, fp16 (default: fp32; with --targets all that have a target)")
    add("--classes", nargs="+", type=int, default=[100], help="of the methods; targets have their own (default: 100)")
    add("--batch", type=int, default=BATCH, help=f"images of a batch (default: {BATCH})")
    add("--train-batch", type=int, help="images of the methods' training steps (default: as in their configs)")
    add("--repeats", type=int, help="rounds (default: 5, or 20 on a GPU; fewer, at least 3, where they take long)")
    add(
        "--compile",
        action="store_true",
        help="torch.compile the methods' blocks (not the bare encoder's)",
    )
    add("--graph", action="store_true", help="steps as CUDA graphs, as CUDA_GRAPH True in a run (not the plain path's)")
    add("--no-training", action="store_true", help="time the methods in inference alone")
    add("--flops", action="store_true", help="count the methods' operations, too")
    names = ", ".join(dict.fromkeys(target.name for target in TARGETS))
    add("--targets", nargs="*", metavar="ROW", help=f"the figures to reach, all or some of: {names}")
    add("--opts", nargs="+", default=[], metavar="KEY VALUE", help="entries of the configurations to change")
    add("--json", type=Path, metavar="FILE", help="write all figures, and where they come from")
    add("--figure", type=Path, metavar="FILE", help="draw them: .png, .svg, .pdf")
    add("--markdown", type=Path, metavar="FILE", help="write tables into a page, between the marks of this device")
    add("--from-json", type=Path, metavar="FILE", help="show the figures of a file instead of measuring")
    add("--profile", type=Path, metavar="FILE", help="write a Chrome trace of the last method's steps, and stop")
    add("--sync-check", action="store_true", help="say where training steps wait for a CUDA GPU, and stop")
    return parser


if __name__ == "__main__":
    sys.exit(main())
