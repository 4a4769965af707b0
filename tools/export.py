"""Write a trained run as one file that needs nothing of this project: image tower, head, and the classes' folded text.

    python tools/export.py output/run --to onnx                      # output/run/model.onnx
    python tools/export.py output/run --to torch_export -o model.pt2
    python tools/export.py output/run --to onnx --classnames names.txt --images photos/

Input: normalised images, float32 [batch, 3, H, W], any number at once. Outputs: logits, probabilities, and the numbers
of the chosen tokens where the method chooses some. Class names, preprocessing, backbone and versions are in the file's
metadata. The file computes in fp32.

The file is compared with PyTorch, on random images and on pictures (--images, else rendered ones), 1 and 3 at once,
before it gets its name: one that differs by more than 1e-4 of the largest logit is not left behind.

Exit code: 0 written, 1 not, 2 wrong command line. ONNX needs: pip install -r requirements-export.txt
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dassl.utils.files import TEMPORARY
from datasets.shapes.render import Style, picture_keys, render
from tools.export_graph import (
    BATCHES,
    ENDINGS,
    TOLERANCE,
    WRITERS,
    Difference,
    PictureClassifier,
    compare,
    expectations,
    metadata_of,
    traced,
)
from tools.run_inputs import add_run, find_images, opts_of, read_classnames
from trainers.predictor import Picture, Predictor
from trainers.saved_run import SavedRun


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        export(args)
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("run", metavar="RUN", help="run folder that train.py wrote")
    add("--to", required=True, choices=tuple(WRITERS), help="form of the file")
    add("-o", "--out", type=Path, metavar="FILE", help="file to write; default: RUN/model.onnx or RUN/model.pt2")
    add_run(parser)
    add("--images", nargs="+", metavar="IMAGE", help="pictures to compare on: paths, folders, patterns")
    return parser


def export(args: argparse.Namespace) -> None:
    """Make, write, compare, rename; prints the differences.

    Raises:
        ValueError: the run can't be exported.
        RuntimeError: a package is missing, the file differs from PyTorch, or it can't be written.
    """
    saved = SavedRun.read(args.run)
    out = args.out or saved.folder / f"model{ENDINGS[args.to]}"
    if out.suffix != ENDINGS[args.to]:
        raise ValueError(f"A file for {args.to} must end in {ENDINGS[args.to]}, got {out}.")
    names = read_classnames(args.classnames) if args.classnames else None
    pictures = find_images(args.images) if args.images else rendered(max(BATCHES))
    opts = [*opts_of(args), "DEVICE", "cpu", f"TRAINER.{saved.trainer_class.node}.PREC", "fp32"]
    with contextlib.redirect_stdout(sys.stderr):
        trainer = saved.trainer(names, args.load_epoch, opts)
    size = trainer.cfg.INPUT.SIZE
    random = torch.randn(max(BATCHES), 3, *size, generator=torch.Generator().manual_seed(0))
    batches = {"random": random, "pictures": batch_of(Predictor(trainer, 1), pictures)}
    expected = expectations(trainer, batches)
    metadata = metadata_of(trainer, saved.weights(args.load_epoch)[1], args.to)
    program = traced(PictureClassifier(trainer), size)
    temporary = out.with_name(f".{out.stem}{TEMPORARY}{os.getpid()}{ENDINGS[args.to]}")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        difference = compare(WRITERS[args.to](program, temporary, metadata), expected)
        accept(difference, out)
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    report(difference)
    print(f"Wrote {out} ({out.stat().st_size / 2**20:.1f} MiB, {len(trainer.test_space)} classes)")


def accept(difference: Difference, out: Path) -> None:
    """Refuse a file that computes something else.

    Raises:
        RuntimeError: it does.
    """
    if not difference.relative <= TOLERANCE:  # NaN is refused, too
        raise RuntimeError(
            f"The exported logits differ from PyTorch's by up to {difference.largest:.3g}, which is more than "
            f"{TOLERANCE:g} of the largest, {difference.scale:.3g}; {out} was not written."
        )


def report(difference: Difference) -> None:
    for what, value in difference.by_batch.items():
        print(f"{what}: largest difference of the logits {value:.3g}")
    print(
        f"largest difference of the logits {difference.largest:.3g} ({difference.relative:.2g} of the largest logit), "
        f"of the probabilities {difference.probabilities:.3g}"
    )


def batch_of(predictor: Predictor, pictures: Sequence[Picture]) -> Tensor:
    """As many pictures as the largest batch takes, as the model takes them; a few are repeated."""
    seen = [predictor.preprocessed(picture) for picture in pictures[: max(BATCHES)]]
    return torch.stack(list(islice(cycle(seen), max(BATCHES))))


def rendered(n: int) -> list[Image.Image]:
    """Pictures of the embedded benchmark."""
    labels = np.arange(n)
    keys = picture_keys(0, "export", "test", labels, np.zeros(n))
    return [Image.fromarray(pixels) for pixels in render(keys, labels, Style())]


if __name__ == "__main__":
    sys.exit(main())
