"""Read run folders and print what came out: mean and spread over seeds, or a base / new / HM table."""

import argparse
import sys
from pathlib import Path

from tools.result_render import FORMATS, render_base_new, to_csv, to_json, to_text
from tools.result_runs import pair_runs
from tools.result_stats import Spread, summarise
from tools.result_tables import base_new_rows, uneven_averages
from tools.run_names import natural
from tools.run_reader import RunProblem, find_runs, is_run_folder, read_run

SIDES = ("train_base", "test_new")  # what scripts/*/base2new_*.sh write below output/base2new

EXAMPLES = """
examples:
  python parse_test_res.py output/base2new/train_base/shapes/shots_16/CoOp/mini_vit8_ep20
      the family's summary of the seeds in a folder: "* accuracy: 77.10% +- 0.42%"
  python parse_test_res.py output/base2new/test_new/shapes/shots_16/CoOp/mini_vit8_ep20 --test-log
      the same for runs of --eval-only; needed where their folder is that of a training run, or has no metrics.json
  python parse_test_res.py output/base2new
      base / new / HM of every data set, trainer and config below train_base/ and test_new/
  python parse_test_res.py --base output/base2new/train_base/shapes --new output/base2new/test_new/shapes
      the same for one data set; runs are paired by their path below the two folders
  python parse_test_res.py output/base2new --format markdown --details > table.md
  python -m tools.results output
      all tables of the paper, with published figures, paired tests, figures, and commands for what is missing

A run is used only if it finished. Every other one is named on stderr and left out of all figures.
Exit code: 0 if something could be shown, 1 if nothing could be read, 2 for a wrong command line.
"""


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    base, new = args.base, args.new
    if (base is None) != (new is None):
        parser.error("--base and --new belong together")
    if (args.directory is None) == (base is None):
        parser.error("expected either a directory or --base DIR --new DIR")
    for folder in (args.directory, base, new):
        if folder is not None and not folder.is_dir():
            return _fail(f"no folder at {folder}")
    if args.directory:
        there = [side for side in SIDES if (args.directory / side).is_dir()]
        if len(there) == 1:
            lacking = next(side for side in SIDES if side not in there)
            return _fail(f"{args.directory} holds {there[0]}/ but no {lacking}/, so there is nothing to pair")
        if there:
            base, new = (args.directory / side for side in SIDES)
    if base:
        if args.multi_exp or args.test_log:
            parser.error("--multi-exp and --test-log are for the summary of one directory, not for base / new tables")
        return base_new(base, new, args)
    if args.details:
        parser.error("--details is for base / new tables")
    return multi_summary(args) if args.multi_exp else single_summary(args)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "directory",
        type=Path,
        nargs="?",
        help="folder of run folders (seed1, seed2, …), or of train_base/ and test_new/",
    )
    add("--base", type=Path, metavar="DIR", help="folder of the runs on base classes, at any depth")
    add("--new", type=Path, metavar="DIR", help="folder of the runs on new classes, laid out alike")
    add("--ci95", action="store_true", help="show 1.96·std/√n instead of the standard deviation")
    add("--test-log", action="store_true", help="read metrics-eval.json, or log.txt after '=> result'")
    add("--multi-exp", action="store_true", help="summarise each sub-directory, then average them")
    add("--keyword", default="accuracy", help="metric to read, e.g. macro_f1 (default: accuracy)")
    add("--format", choices=FORMATS, help="default: the family's lines for a directory, a table for base / new")
    add("--details", action="store_true", help="base / new: add backbone, trained tensors and scalars, epoch, seconds")
    return parser


def base_new(base: Path, new: Path, args: argparse.Namespace) -> int:
    """Print the base / new / HM table."""
    pairs, left_out = pair_runs(base, new, args.keyword)
    for item in left_out:
        _warn(item)
    if not pairs:
        return _fail(f"no run of {base} has a finished partner in {new}")
    try:
        rows = base_new_rows(pairs, args.ci95)
    except ValueError as error:
        return _fail(str(error))
    uneven = uneven_averages(rows)
    if uneven:
        _warn(uneven)
    options = {"ci95": args.ci95, "keyword": args.keyword, "details": args.details, "left_out": left_out}
    print(render_base_new(rows, args.format or "table", **options))
    return 0


def single_summary(args: argparse.Namespace) -> int:
    """Print the family's summary of one directory."""
    result = summarise_directory(args.directory, args)
    if result is None:
        return _fail(_nothing(args.directory))
    if args.format:
        print(_summary_table([(args.directory, result)], args))
    return 0


def multi_summary(args: argparse.Namespace) -> int:
    """Print the summary of each sub-directory, then the mean of their means."""
    results = []
    for folder in _entries(args.directory):
        result = summarise_directory(folder, args)
        if result is None:
            _warn(f"left out {_nothing(folder)}")
        else:
            results.append((folder, result))
    if not results:
        return _fail(_nothing(args.directory))
    average = summarise([result.mean for _, result in results]).mean
    if args.format:
        print(_summary_table(results, args))
    else:
        print("Average performance")
        print(f"* {args.keyword}: {average:.2f}%")
    return 0


def summarise_directory(directory: Path, args: argparse.Namespace) -> Spread | None:
    """Read the runs of a directory and print the family's lines (unless --format is given); None: no usable run."""
    say = print if args.format is None else (lambda *_: None)
    say(f"Parsing files in {directory}")
    values = []
    for folder in [directory] if is_run_folder(directory) else _entries(directory):
        try:
            run = read_run(folder, args.keyword, args.test_log)
        except RunProblem as problem:
            _warn(f"left out {folder}: {problem}")
            continue
        values.append(run.value)
        say(f"file: {run.source}. {args.keyword}: {run.value:.2f}%. ")
    if not values:
        return None
    result = summarise(values, args.ci95)
    say("===")
    say(f"Summary of directory: {directory}")
    say(f"* {args.keyword}: {result.mean:.2f}% +- {result.spread or 0:.2f}%")
    say("===")
    return result


def _summary_table(results: list[tuple[Path, Spread]], args: argparse.Namespace) -> str:
    if args.format in ("csv", "json"):
        records = [{"directory": str(d), "n": r.n, "mean": r.mean, "spread": r.spread} for d, r in results]
        if args.format == "csv":
            return to_csv(records)
        return to_json({"keyword": args.keyword, "rows": records})
    cells = [[str(directory), str(result.n), str(result)] for directory, result in results]
    return to_text(["Directory", "Runs", args.keyword], cells, args.format, n_left=1)


def _entries(directory: Path) -> list[Path]:
    """The folders of a directory, seed2 before seed10; hidden ones are passed over, stray files are named."""
    entries = sorted((p for p in directory.iterdir() if not p.name.startswith(".")), key=lambda p: natural(p.name))
    for path in entries:
        if not path.is_dir():
            print(f"note: {path} is a file beside the runs, passed over", file=sys.stderr)
    return [path for path in entries if path.is_dir()]


def _nothing(directory: Path) -> str:
    runs = list(find_runs(directory))
    if runs and runs[0].parent != directory:
        return f"{directory}: no run directly in it; runs lie deeper, e.g. in {runs[0].parent}: name that folder"
    return f"{directory}: nothing found, no finished run in it"


def _warn(message: object) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
