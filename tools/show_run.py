"""Draw what one run learned: curves, results by class, features before and after tuning, nearest words, token maps.

    python tools/show_run.py output/run -o figures/
    python tools/show_run.py output/run -o figures/ --what curves classes
    python tools/show_run.py output/run -o figures/ --root /data --seed 3

Writes PNG files with a description inside, classes.csv and words.csv, and says on the terminal what each figure shows
and what cannot be shown. Test images are predicted once more, so the data set must be on this machine for classes,
features and tokens. A page with everything: tools/report.py.

Exit code: 0 something was written, 1 nothing could be, 2 wrong command line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dassl.utils.files import atomic_write, write_text
from tools.figures.curves import curve_pictures
from tools.figures.features import SEED
from tools.figures.picture import Picture
from tools.figures.run_view import IMAGES, PARTS, RunView, look_at
from tools.figures.words import LIMITS
from tools.result_render import to_csv
from tools.run_reader import RunProblem, load_metrics


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        written = run(args)
    except (OSError, RuntimeError, ValueError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0 if written else 1


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="run folder that train.py wrote")
    add("-o", "--out", type=Path, required=True, metavar="DIR", help="folder to write into")
    add("--what", nargs="+", choices=["curves", *PARTS], default=["curves", *PARTS], help="default: all")
    add("--root", type=Path, metavar="DIR", help="data root (default: that of the run)")
    add("--images", type=int, default=IMAGES, metavar="N", help=f"test images to predict, at most (default: {IMAGES})")
    add("--seed", type=int, default=SEED, help=f"of t-SNE (default: {SEED})")
    add("--dark", action="store_true", help="on dark paper")
    return parser


def run(args: argparse.Namespace) -> list[Path]:
    """Write the files; returns them."""
    if args.images < 1:
        raise ValueError(f"--images must be at least 1, got {args.images}.")
    pictures: list[Picture] = []
    view = RunView(args.run)
    if "curves" in args.what:
        pictures += curves(args.run)
    if parts := set(args.what) - {"curves"}:
        view = look_at(args.run, parts, args.root, (), args.images, args.seed)
    pictures += [picture for part in view.pictures.values() for picture in part]
    written = []
    for picture in pictures:
        path = args.out / f"{picture.name}.png"
        with atomic_write(path) as file:
            file.write(picture.dark if args.dark else picture.light)
        print(f"{path}\n  {picture.caption}")
        written.append(path)
    written += write_tables(view, args.out)
    for note in view.notes:
        print(f"Note: {note}")
    return written


def curves(folder: Path) -> list[Picture]:
    """Learning curves; none of a run that trained nothing.

    Raises:
        FileNotFoundError: there is no metrics.json.
        ValueError: it is damaged.
    """
    if not (folder / "metrics.json").is_file():
        raise FileNotFoundError(f"{folder} holds no metrics.json; name the folder that train.py wrote (--output-dir).")
    try:
        record = load_metrics(folder / "metrics.json")
    except RunProblem as problem:
        raise ValueError(f"{folder}: {problem}") from None
    return curve_pictures({"run": record}, "the run")


def write_tables(view: RunView, out: Path) -> list[Path]:
    """Classes and words as CSV; the words on the terminal, too."""
    written = []
    if view.classes:
        records = [
            {
                "label": row.label,
                "class": row.name,
                "images": row.n_images,
                "correct": row.n_correct,
                "accuracy": row.accuracy,
                "most_taken_for": row.taken_for,
                "times": row.n_taken,
            }
            for row in view.classes
        ]
        write_text(out / "classes.csv", to_csv(records) + "\n")
        written.append(out / "classes.csv")
    if view.words:
        records = [
            {"row": near.row, "rank": i, "word": word, "distance": distance}
            for near in view.words
            for i, (word, distance) in enumerate(zip(near.words, near.distances, strict=True), 1)
        ]
        write_text(out / "words.csv", to_csv(records) + "\n")
        written.append(out / "words.csv")
        for near in view.words:
            words = ", ".join(f"{w} {d:.3f}" for w, d in zip(near.words, near.distances, strict=True))
            print(f"row {near.row}: {words}")
        print(f"A word lies {view.word_distance:.3f} from its nearest other word (median). {LIMITS}")
    for path in written:
        print(path)
    return written


if __name__ == "__main__":
    sys.exit(main())
