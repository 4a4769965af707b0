"""Classify pictures with a trained run: the run folder says all that is needed, no data set is read.

    python tools/predict.py --model-dir output/run photo.jpg
    python tools/predict.py --model-dir output/run photos/ "more/**/*.png" --format csv -o predictions.csv
    python tools/predict.py --model-dir output/run photos/ --classnames names.txt --top 3

Pictures are paths, folders (all pictures below them) and patterns. Other class names need no training: trained prompts
and a trained memory bank are used with them. What a run of another machine needs elsewhere is said by --set.

Exit code: 0 all pictures are classified, 1 nothing could be done, 2 wrong command line, 3 some pictures could not be
read and were skipped (named on stderr and in the output).
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tqdm import tqdm

from dassl.utils.files import atomic_write
from tools.result_render import to_text
from tools.run_inputs import add_run, find_images, opts_of, read_classnames
from trainers.chosen_tokens import TokenChoice
from trainers.predictor import Prediction, Predictor, Unreadable

SKIPPED = 3
FORMATS = ("table", "csv", "json")
Result = Prediction | Unreadable


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        return run(args)
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("images", nargs="+", metavar="IMAGE", help="pictures: paths, folders, patterns")
    add("--model-dir", required=True, metavar="RUN", help="run folder that train.py wrote")
    add_run(parser)
    add("--top", type=int, default=5, metavar="N", help="classes to show of each picture (default: 5)")
    add("--format", choices=FORMATS, default="table", help="of the output (default: table)")
    add("-o", "--out", type=Path, metavar="FILE", help="file to write; default: the terminal")
    add("--batch-size", type=int, metavar="N", help="pictures in one pass; default: as in the run's test")
    return parser


def run(args: argparse.Namespace) -> int:
    if args.top < 1:
        raise ValueError(f"--top must be at least 1, got {args.top}.")
    images = find_images(args.images)
    names = read_classnames(args.classnames) if args.classnames else None
    with contextlib.redirect_stdout(sys.stderr):  # what trainers say of themselves is not the output
        predictor = Predictor.load(args.model_dir, names, args.load_epoch, args.batch_size, opts_of(args))
    skipped: list[str] = []
    results = watched(predictor.attempt(images), len(images), skipped)
    with opened(args.out) as out:
        if args.format == "csv":
            write_csv(results, out, args.top)
        elif args.format == "json":
            write_json(results, out, args.top, about(predictor, args))
        else:
            write_table(results, out, args.top)
    if not skipped:
        return 0
    print(f"{len(skipped)} of {len(images)} pictures could not be read", file=sys.stderr)
    return SKIPPED if len(skipped) < len(images) else 1


def watched(results: Iterable[Result], total: int, skipped: list[str]) -> Iterator[Result]:
    """The results, with a progress bar on a terminal; what is skipped is noted and named on stderr."""
    for result in tqdm(results, total=total, unit="picture", disable=None, leave=False):
        if isinstance(result, Unreadable):
            skipped.append(result.path)
            with tqdm.external_write_mode(file=sys.stderr):
                print(f"Skipped: {result.error}", file=sys.stderr)
        yield result


@contextlib.contextmanager
def opened(path: Path | None) -> Iterator[IO[str]]:
    """A text file that is there when it is whole, or the terminal."""
    if path is None:
        yield sys.stdout
        return
    with atomic_write(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        yield text
        text.detach()


def about(predictor: Predictor, args: argparse.Namespace) -> dict[str, Any]:
    """What a JSON file says of the run."""
    trainer = predictor.trainer
    return {
        "run": args.model_dir,
        "trainer": trainer.cfg.TRAINER.NAME,
        "backbone": trainer.backbone.name,
        "precision": trainer.precision.name,
        "classes": list(predictor.names),
    }


def write_table(results: Iterable[Result], out: IO[str], top: int) -> None:
    """For people: a row a picture, best classes first."""
    rows = []
    for result in results:
        if isinstance(result, Unreadable):
            rows.append([result.path, "cannot be read"])
        else:
            rows.append([result.path, *(f"{name} {100 * p:.1f}%" for name, p in result.top(top))])
    width = max(map(len, rows))
    titles = ["Picture", *(f"{place}." for place in range(1, width))]
    out.write(to_text(titles, [row + [""] * (width - len(row)) for row in rows], "table", width) + "\n")


def write_csv(results: Iterable[Result], out: IO[str], top: int) -> None:
    """For programs, written as it comes: path, error, then class and probability of each place."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["path", "error", *(f"{what}_{i}" for i in range(1, top + 1) for what in ("class", "probability"))])
    for result in results:
        if isinstance(result, Unreadable):
            row: list[Any] = [result.path, str(result.error)]
        else:
            row = [result.path, "", *(item for pair in result.top(top) for item in pair)]
        writer.writerow(row + [""] * (2 + 2 * top - len(row)))


def write_json(results: Iterable[Result], out: IO[str], top: int, about: dict[str, Any]) -> None:
    """For programs: what the run is, and an object a picture, with the tokens that were chosen where there are any."""
    pictures: list[dict[str, Any]] = []
    for result in results:
        if isinstance(result, Unreadable):
            pictures.append({"path": result.path, "error": str(result.error)})
            continue
        entry: dict[str, Any] = {"path": result.path}
        entry["top"] = [{"name": name, "probability": p} for name, p in result.top(top)]
        if result.tokens is not None:
            entry["tokens"] = tokens_of(result.tokens)
        pictures.append(entry)
    json.dump(about | {"pictures": pictures}, out, indent=2, ensure_ascii=False)
    out.write("\n")


def tokens_of(choice: TokenChoice) -> dict[str, Any]:
    """The numbers of the chosen tokens, their scores and what of the bank they matched; maps are the library's."""
    return {
        "grid": choice.grid,
        "level1": choice.level1.tolist(),
        "level2": choice.level2.tolist(),
        "scores": choice.scores.tolist(),
        "matched_class": choice.matched_name or choice.matched_class,
        "prototypes": choice.prototypes.tolist(),
    }


if __name__ == "__main__":
    sys.exit(main())
