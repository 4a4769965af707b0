"""Draw which visual tokens a Spotlighter run activates on pictures, and what they are matched with.

    python tools/show_tokens.py output/run photo.jpg -o tokens.png
    python tools/show_tokens.py output/run photos/ --root /data -o tokens.png
    python tools/show_tokens.py output/run photo.jpg --classnames names.txt -o tokens.png

A row a picture: as the model sees it, with the tokens of level 1 (solid) and level 2 (broken lines); sample-wise,
semantic-wise and summed activation; and the prototypes of the memory bank that the tokens are matched with, beside the
training patches nearest to them. Those need the run's training images on this machine; without, they are left out.

Exit code: 0 done, 1 nothing could be drawn, 2 wrong command line.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dassl.data.datasets import Datum
from dassl.utils.files import atomic_write
from dassl.utils.tools import ImageReadError
from tools.figures.examine import RunData, token_views
from tools.figures.picture import DARK, LIGHT, draw_png
from tools.figures.tokens import READING, draw_grid
from tools.run_inputs import add_run, find_images, opts_of, read_classnames
from trainers.predictor import Predictor
from trainers.saved_run import SavedRun

MOST = 12  # pictures in one file


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        run(args)
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("run", metavar="RUN", help="run folder that train.py wrote")
    add("images", nargs="+", metavar="IMAGE", help=f"pictures: paths, folders, patterns; at most {MOST}")
    add("-o", "--out", type=Path, required=True, metavar="FILE", help="PNG file to write")
    add("--root", type=Path, metavar="DIR", help="data root with the training images (default: that of the run)")
    add("--patches", action=argparse.BooleanOptionalAction, default=True, help="look for the nearest training patches")
    add("--dark", action="store_true", help="on dark paper")
    add_run(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    images = find_images(args.images)
    if len(images) > MOST:
        raise ValueError(f"{len(images)} pictures are too many for one figure; name at most {MOST}.")
    names, opts = read_classnames(args.classnames) if args.classnames else None, opts_of(args)
    with contextlib.redirect_stdout(sys.stderr):
        predictor = Predictor.load(args.run, names, args.load_epoch, opts=opts)
        predictions = list(predictor.predict(images))
        if all(prediction.tokens is None for prediction in predictions):
            raise ValueError(
                f"{args.run} chooses no visual tokens in inference; name a run of Spotlighter's paper preset."
            )
        data = RunData(SavedRun.read(args.run), args.root, opts)
        views = token_views(predictor, predictions, training_images(data) if args.patches else ())
    alt = " ".join(view.describe() for view in views)
    png = draw_png(lambda theme: draw_grid(views, theme), DARK if args.dark else LIGHT, alt)
    with atomic_write(args.out) as file:
        file.write(png)
    print(f"{READING}\n{alt}\nwrote {args.out}")


def training_images(data: RunData) -> list[Datum]:
    """The run's training images; [], with a note on stderr, where they are not to be had."""
    try:
        return data.train
    except (OSError, ValueError, RuntimeError, ImageReadError) as error:
        print(f"Note: no nearest training patches: {error}", file=sys.stderr)
        return []


if __name__ == "__main__":
    sys.exit(main())
