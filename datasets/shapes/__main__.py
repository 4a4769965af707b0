"""Render the embedded benchmark into the data root, once.

    python -m datasets.shapes --root data

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

from datasets.shapes.domains import DOMAINS
from datasets.shapes.files import ensure_rendered


def main(argv: list[str] | None = None) -> int:
    domains = {domain.folder: domain for domain in DOMAINS.values()}
    parser = argparse.ArgumentParser(
        prog="python -m datasets.shapes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, required=True, help="data root; made if it is missing")
    parser.add_argument(
        "--only", nargs="+", choices=sorted(domains), default=list(domains), help="which of the five (default: all)"
    )
    args = parser.parse_args(argv)
    began = time.monotonic()
    try:
        args.root.mkdir(parents=True, exist_ok=True)
        for name in args.only:
            print(ensure_rendered(domains[name], args.root.expanduser().absolute()))
    except (OSError, RuntimeError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(f"{time.monotonic() - began:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
