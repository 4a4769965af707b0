"""Render the embedded benchmark into the data root, once.

    python -m datasets.shapes --root data
    python -m datasets.shapes --sample photos --classes "red star" "blue heart" --each 4   # a few, in class folders

Five data sets of 144 classes (12 colours x 12 shapes), 64 x 64 pixels: shapes (train, val, test), shapes_v2,
shapes_sketch, shapes_a and shapes_r (test only). Each becomes a folder ROOT/<name>/ with PNG files and a split file.
What is there already is left alone; after a change of the renderer it is drawn anew. Training does the same by itself
when it needs a data set, so this command is for those who want to look at the pictures first.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.shapes.domains import CLASS_NAMES, DOMAINS
from datasets.shapes.files import ensure_rendered
from datasets.splits import PARTS


def label_of(name: str) -> int:
    """Label of a class of `shapes`.

    Raises:
        ValueError: there is no such class.
    """
    if name not in CLASS_NAMES:
        raise ValueError(f"There is no class '{name}' in shapes; its names are like '{CLASS_NAMES[0]}'.")
    return CLASS_NAMES.index(name)


def draw_sample(folder: Path, labels: list[int], each: int, part: str) -> int:
    """Draw the first pictures of some classes into FOLDER/<class name>/; how many there are.

    Raises:
        ValueError: `each` is below 1.
    """
    if each < 1:
        raise ValueError(f"--each must be at least 1, got {each}.")
    for label in labels:
        place = folder / CLASS_NAMES[label]
        place.mkdir(parents=True, exist_ok=True)
        pictures = DOMAINS["Shapes"].pictures(part, np.full(each, label), np.arange(each))
        for number, picture in enumerate(pictures):
            Image.fromarray(picture).save(place / f"{part}_{number:03d}.png")
    return len(labels) * each


def main(argv: list[str] | None = None) -> int:
    domains = {domain.folder: domain for domain in DOMAINS.values()}
    parser = argparse.ArgumentParser(
        prog="python -m datasets.shapes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--root", type=Path, help="data root; made if it is missing")
    what.add_argument("--sample", type=Path, metavar="FOLDER", help="draw a few of its pictures, in class folders")
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="of the sample (default: the first five)")
    parser.add_argument("--each", type=int, default=4, metavar="N", help="pictures a class in the sample (default: 4)")
    parser.add_argument("--part", choices=PARTS, default="train", help="whose pictures the sample has (default: train)")
    parser.add_argument(
        "--only", nargs="+", choices=sorted(domains), default=list(domains), help="which of the five (default: all)"
    )
    args = parser.parse_args(argv)
    began = time.monotonic()
    try:
        if args.sample:
            labels = [label_of(name) for name in args.classes or CLASS_NAMES[:5]]
            print(f"{draw_sample(args.sample, labels, args.each, args.part)} pictures in {args.sample}")
            return 0
        args.root.mkdir(parents=True, exist_ok=True)
        for name in args.only:
            print(ensure_rendered(domains[name], args.root.expanduser().absolute()))
    except (OSError, RuntimeError, ValueError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(f"{time.monotonic() - began:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
