"""Get the data sets: list them, download and unpack them into the data root, verify them, show what they hold.

    python tools/prepare_data.py list
    python tools/prepare_data.py download EuroSAT dtd food-101 --root data
    python tools/prepare_data.py download all --root data --dry-run
    python tools/prepare_data.py download ImageNet --root data --archives ~/Downloads --accept-terms
    python tools/prepare_data.py verify all --root data --picture samples.png
    python tools/prepare_data.py stats dtd --root data --shots 16 --seed 1

A data set is named by its registry name, its config or its folder, in any case; "all" is all of them. Downloads go on
after an interruption, are checked, and are kept in ROOT/<folder>/archives; what is in place already is left alone.
Archives that you have are taken from ROOT/<folder> or from --archives instead of being downloaded.

Exit code: 0 all is there, 1 something is missing or to be done by hand, 2 wrong command line, 3 network, 4 wrong or
damaged file. Of several the highest counts.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from datasets.preparation.catalogue import SOURCES, find_datasets, read_catalogue
from datasets.preparation.commands import add_commands, add_root
from datasets.preparation.plan import Options, make_plan
from datasets.preparation.prepare import prepare
from datasets.preparation.report import catalogue_table, plans_text, summary_table

INTERRUPTED = 130  # as shells say it


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    level = logging.WARNING if getattr(args, "quiet", False) else logging.INFO
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    try:
        return args.run(args)
    except ValueError as error:  # of names and of the catalogue
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except (OSError, RuntimeError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on from here.", file=sys.stderr)
        return INTERRUPTED


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (add_list, add_download, add_commands):
        add(commands)
    return parser


def add_list(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("list", help="the data sets: size, licence, source, and what comes by itself")
    _add_sources(parser)
    parser.set_defaults(run=run_list)


def add_download(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("download", help="download, check and unpack data sets")
    add = parser.add_argument
    add("names", nargs="+", metavar="NAME", help="data sets, or all")
    add_root(parser)
    add("--archives", type=Path, metavar="DIR", help="folder with archives that you have")
    add("--accept-terms", action="store_true", help="accept the terms of the data sets that ask for it (ImageNet)")
    add("--offline", action="store_true", help="open no connection; also with HF_HUB_OFFLINE=1")
    add("--delete-archives", action="store_true", help="delete ROOT/<folder>/archives once a data set is there")
    add("--listed-only", action="store_true", help="unpack only pictures of the split (SUN397: 15 GB, not 40)")
    add("--dry-run", action="store_true", help="only say what would be done: no network, nothing written")
    add("--quiet", action="store_true", help="no progress")
    _add_sources(parser)
    parser.set_defaults(run=run_download)


def _add_sources(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sources", type=Path, metavar="FILE", default=SOURCES, help="another catalogue, for example of a mirror"
    )


def run_list(args: argparse.Namespace) -> int:
    print(catalogue_table(read_catalogue(args.sources).values()))
    return 0


def run_download(args: argparse.Namespace) -> int:
    datasets = find_datasets(args.names, read_catalogue(args.sources))
    archives = args.archives.expanduser().absolute() if args.archives else None
    if archives and not archives.is_dir():
        raise ValueError(f"--archives must be a folder, but there is none at {archives}.")
    options = Options(
        args.root.expanduser().absolute(),
        archives,
        offline=args.offline or os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"),
        accept_terms=args.accept_terms,
        delete_archives=args.delete_archives,
        listed_only=args.listed_only,
        quiet=args.quiet,
    )
    if args.dry_run:
        print(plans_text([make_plan(dataset, options) for dataset in datasets]))
        return 0
    outcomes = []
    for dataset in datasets:
        print(f"{dataset.name}: {dataset.licence} ({dataset.homepage})", flush=True)
        outcomes.append(prepare(dataset, options))
        print("".join(f"  {note}\n" for note in outcomes[-1].notes), flush=True)
    print(summary_table(outcomes))
    return max(outcome.code for outcome in outcomes)


if __name__ == "__main__":
    sys.exit(main())
