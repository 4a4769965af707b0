"""The commands `verify` and `stats` of the preparation tool."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from dassl.utils.files import atomic_write
from datasets.base import Found, SplitDataset
from datasets.errors import DatasetError, DatasetMissing
from datasets.layout import data_root
from datasets.preparation import states, stats
from datasets.preparation.find import find
from datasets.preparation.names import resolve
from datasets.preparation.picture import save_sheet
from datasets.preparation.verify import LEVELS, verify

INTERRUPTED = 130  # what a shell makes of Ctrl-C

NAMES_HELP = "registry name, name of the config file, or folder, in any case; all: those whose folder is there"


def _listed(meanings: dict[str, str]) -> str:
    return "\n".join(f"  {name:<14} {meaning}" for name, meaning in meanings.items())


VERIFY = f"""Compare data sets on disk with what they should be. Nothing is written, downloaded or drawn.

levels:
{_listed(LEVELS)}

states:
{_listed(states.STATES)}
"""
VERIFY_EXAMPLES = """examples:
  verify all --root data --level quick
      which data sets are there, in seconds (ImageNet: half a minute)
  verify dtd oxford_pets --root data
      decode every image, several hundred a second and CPU
  verify eurosat --root data --picture eurosat.png
      and draw images of eight classes with their names
  verify image_folder --root mushrooms
      images of your own: --root holds the class folders, or train, val and test
  verify all --root data --list bad.tsv --json > report.json
      every missing and unreadable image; and all that is known, for other programs

Exit code: 0 all good; 1 something is missing, partial or laid out in another way; 4 something is corrupt, or, with
--strict, not the published split; 2 wrong command line; 130 Ctrl-C, after the table of what was finished.
"""
STATS = """Show numbers of classes and images, the class subsets, and digests by which people can compare their data.

A digest is the beginning of a SHA-256. Two data sets with the same split digest have the same lists, class names
included; two runs with the same sample digest have seen the same images.
"""
STATS_EXAMPLES = """examples:
  stats all --root data
  stats dtd --root data --shots 16 --seed 1
      and the few-shot sample that a run with these numbers trains on
  stats all --root data --images --json > stats.json

Exit code: 0 all shown; 1 some are not there; 4 a list of some cannot be read; 2 wrong command line.
"""


def add_commands(subparsers: argparse._SubParsersAction) -> None:
    """Add `verify` and `stats`; each sets `run`, which takes the parsed arguments and returns the exit code."""
    add = _add_command(subparsers, "verify", "check data sets on disk", VERIFY, VERIFY_EXAMPLES, run_verify)
    add("--level", choices=LEVELS, default="full", help="how closely to look (default: full)")
    add("--workers", type=_whole, metavar="N", help="processes that decode; 0: none but this (default: one a CPU)")
    add("--strict", action="store_true", help="a split that is not the published one is a failure")
    add("--picture", type=_png, metavar="FILE.png", help="draw sample images; of several data sets: FILE-NAME.png each")
    add("--list", type=Path, metavar="FILE", help="write all missing and unreadable images: data set, what, path, why")
    add("--json", action="store_true", help="print JSON instead of the table")

    add = _add_command(subparsers, "stats", "show what data sets hold", STATS, STATS_EXAMPLES, run_stats)
    add("--shots", type=_positive, metavar="K", help="digest the few-shot sample of K training images a class")
    add("--seed", type=_whole, default=1, metavar="S", help="seed of that sample (default: 1)")
    add("--images", action="store_true", help=f"read the headers of up to {stats.MEASURED} images of each data set")
    add("--json", action="store_true", help="print JSON instead of the table")


def add_root(parser: argparse.ArgumentParser) -> None:
    """Add the flag that all commands have."""
    default = Path(os.environ.get("DATA") or "data")
    parser.add_argument("--root", type=Path, default=default, help="folder of the data sets (default: $DATA, or data)")


def run_verify(args: argparse.Namespace) -> int:
    """The command `verify`."""

    def work(readers: Sequence[type[SplitDataset]], root: Path) -> int:
        reports: list[states.Report] = []
        stopped = 0
        try:
            for reader in readers:
                reports.append(verify(reader, root, args.level, args.workers))
        except KeyboardInterrupt:
            stopped = _stop("Interrupted", INTERRUPTED)
        except (ValueError, KeyError, RuntimeError) as error:
            stopped = _stop(f"Error: {error}", 1)
        show = states.to_json if args.json else states.to_table
        print(show(reports, root, args.level))
        if args.list:
            with atomic_write(args.list) as file:
                file.write(states.to_list(reports))
        if stopped:
            rest = ", ".join(reader.__name__ for reader in readers[len(reports) :])
            return _stop(f"Not looked at to the end: {rest}", stopped)
        if args.picture:
            _draw(args.picture, readers, root)
        return states.exit_code(reports, args.strict)

    return _with_readers(args, work)


def run_stats(args: argparse.Namespace) -> int:
    """The command `stats`."""

    def work(readers: Sequence[type[SplitDataset]], root: Path) -> int:
        rows, codes = [], [0]
        for reader in readers:
            found, code = _find(reader, root)
            codes.append(code)
            if found:
                rows.append(stats.describe(reader, found, args.shots, args.seed, args.images))
        if args.json or rows:
            show = stats.to_json if args.json else stats.to_table
            print(show(rows, args.shots, args.seed))
        return max(codes)

    return _with_readers(args, work)


def _draw(path: Path, readers: Sequence[type[SplitDataset]], root: Path) -> None:
    for reader in readers:
        found, _ = _find(reader, root)
        if found:
            name = path if len(readers) == 1 else path.with_name(f"{path.stem}-{reader.__name__}{path.suffix}")
            save_sheet(name, found, reader.__name__)
            print(f"Sample images: {name}", file=sys.stderr)


def _find(reader: type[SplitDataset], root: Path) -> tuple[Found | None, int]:
    """The data set and 0, or None and an exit code after a line on stderr."""
    try:
        return find(reader, root).found, 0
    except (DatasetError, OSError) as error:
        return None, _stop(f"{reader.__name__}: {error}", 1 if isinstance(error, DatasetMissing) else 4)


def _with_readers(args: argparse.Namespace, work: Callable[[Sequence[type[SplitDataset]], Path], int]) -> int:
    """Do the work of a command; what stops it is one sentence."""
    try:
        root = data_root(args.root)
        try:
            readers = resolve(args.names, root)
        except ValueError as error:
            return _stop(f"Error: {error}", 2)
        return work(readers, root)
    except (ValueError, KeyError, RuntimeError, OSError) as error:
        return _stop(f"Error: {error}", 1)
    except KeyboardInterrupt:
        return _stop("Interrupted", INTERRUPTED)


def _stop(sentence: str, code: int) -> int:
    print(states.printable(sentence), file=sys.stderr)
    return code


def _add_command(
    subparsers: argparse._SubParsersAction,
    name: str,
    summary: str,
    description: str,
    examples: str,
    run: Callable[[argparse.Namespace], int],
) -> Callable[..., argparse.Action]:
    parser = subparsers.add_parser(
        name,
        help=summary,
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help=NAMES_HELP)
    add_root(parser)
    parser.set_defaults(run=run)
    return parser.add_argument


def _whole(text: str) -> int:
    return _number(text, 0)


def _positive(text: str) -> int:
    return _number(text, 1)


def _number(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of {least} or more, got {text!r}")
    return int(text)


def _png(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(f"expected a file name that ends in .png, got {text!r}")
    return path
