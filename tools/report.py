"""Write one page about a run, or about a folder of runs: tables, figures, classes, token maps, versions, commands.

    python -m tools.report output -o output/report
    python -m tools.report output/run -o report --root /data
    python -m tools.report output -o report --look 0

Writes index.html into the folder: a single file with everything inside, so that it works offline, can be sent as it is,
and is replaced as a whole or not at all. Runs that are unfinished or damaged are named on it and left out of figures.

A closer look (results by class, features, nearest words, token maps) loads a run and predicts its test images once
more; --look says for how many runs, wrappers around hosts and few-shot runs first. It needs the data sets on this
machine; what is not there is said on the page.

Exit code: 0 the page is written, 1 it could not be, 2 wrong command line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dassl.utils.files import write_text
from tools.figures.run_view import IMAGES, PARTS, RunView, look_at
from tools.pages.drawn import table_pictures
from tools.pages.html import page
from tools.pages.looked import closer_look
from tools.pages.runs import FoundRun, Group, grouped, read_folder
from tools.pages.sections import curves, made_with, results, what_was_run
from tools.paper_series import Context
from tools.paper_tables import PaperTable
from tools.result_published import PublishedFigures, read_published
from tools.result_runs import collect
from tools.results import build
from tools.run_names import rank_method

LOOK = 4  # runs that are looked at
FILE = "index.html"


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    try:
        if args.look < 0 or args.images < 1:
            raise ValueError(f"--look must be 0 or more and --images 1 or more, got {args.look} and {args.images}.")
        path = write_report(args.folder, args.out, args.look, args.root, args.set, args.images, say)
    except (OSError, ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(path)
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folder", type=Path, metavar="RUN|FOLDER", help="a run folder, or a folder with runs at any depth")
    add("-o", "--out", type=Path, default=Path("report"), metavar="DIR", help=f"folder for {FILE} (default: report)")
    add("--look", type=int, default=LOOK, metavar="N", help=f"runs to look at in detail (default: {LOOK}; 0: none)")
    add("--root", type=Path, metavar="DIR", help="data root (default: that of each run)")
    add("--images", type=int, default=IMAGES, metavar="N", help=f"test images of a run, at most (default: {IMAGES})")
    pair = ("KEY", "VALUE")
    add("--set", nargs=2, action="append", default=[], metavar=pair, help="configuration of the look, e.g. DEVICE cpu")
    return parser


def write_report(
    folder: Path,
    out: Path,
    n_look: int = LOOK,
    root: Path | None = None,
    opts: Sequence[Sequence[str]] = (),
    n_images: int = IMAGES,
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Write the page; returns its path.

    Args:
        folder: of a run, or of runs.
        out: folder of the page.
        n_look: runs to look at.
        root: the data root; None: that of each run.
        opts: pairs KEY, VALUE of the configuration with which runs are looked at.
        n_images: test images of a run, at most.
        say: told what is done now.

    Raises:
        FileNotFoundError: no such folder, or no run in it.
        RuntimeError: the page cannot be written.
    """
    runs = read_folder(folder)
    groups = grouped(runs)
    tables = paper_tables(folder, runs)
    chosen = to_look_at(groups, n_look)
    views: list[tuple[Group, RunView]] = []
    for i, (group, run) in enumerate(chosen, 1):
        say(f"looking at run {i} of {len(chosen)}: {run.folder}")
        flat = [item for pair in opts for item in pair]
        views.append((group, look_at(run.folder, PARTS, root, flat, n_images)))
    drawn = [picture for _, table in tables for picture in table_pictures([table])]
    n_finished = sum(len(group.finished) for group in groups)
    sections = [
        ("run", "What was run", what_was_run(groups)),
        ("results", "Results", results(groups, tables, drawn)),
        ("curves", "Learning curves", curves(groups)),
        ("look", "A closer look", closer_look(views, n_finished - len(views))),
        ("repeat", "How to repeat it", made_with(groups)),
    ]
    path = out / FILE
    write_text(path, page(f"Report: {folder.absolute().name}", lead(folder, runs, groups), sections))
    return path


def lead(folder: Path, runs: Sequence[FoundRun], groups: Sequence[Group]) -> list[str]:
    """What the page is about, in a few sentences."""
    methods = sorted({group.method for group in groups}, key=rank_method)
    datasets = sorted({group.dataset for group in groups})
    usable = sum(run.value is not None for run in runs)
    first = f"{len(runs)} run{'s' * (len(runs) != 1)} in {folder}, {usable} of them finished."
    if len(runs) == 1 and runs[0].value is not None:
        first = f"One run, {folder}: {runs[0].value:.2f} % accuracy on the {runs[0].classes} classes."
    return [first, f"Methods: {', '.join(methods)}. Data: {', '.join(datasets)}."]


def paper_tables(folder: Path, runs: Sequence[FoundRun]) -> list[tuple[str, PaperTable]]:
    """The paper's tables of every output folder at or below `folder`, with its name where there are several."""
    roots = output_folders(folder, runs)
    figures = PublishedFigures(read_published())
    found = []
    for root in roots:
        try:
            tables = build(Context(collect(root), figures))
        except (ValueError, FileNotFoundError) as error:
            print(f"warning: no tables of {root}: {error}", file=sys.stderr)
            continue
        where = "" if len(roots) == 1 else str(root.relative_to(folder) if root.is_relative_to(folder) else root)
        found += [(where, table) for table in tables if any(line.seeds for line in table.lines)]
    return found


def output_folders(folder: Path, runs: Sequence[FoundRun]) -> list[Path]:
    """The folders that scripts called OUTPUT, at or below `folder`; that itself, where it is one protocol's.

    A single run, or a part of a protocol, has no tables: half of what they are made from is elsewhere.
    """
    here = folder.absolute()
    roots: dict[Path, None] = {}
    for run in runs:
        if run.place.protocol is None:
            continue
        parts = run.folder.absolute().parts
        inside = run.place.folder.parts
        root = Path(*parts[: len(parts) - len(inside)])
        if root.is_relative_to(here):
            roots[root] = None
        elif root / inside[0] == here:
            roots[here] = None
    return list(roots)


def to_look_at(groups: Sequence[Group], n: int) -> list[tuple[Group, FoundRun]]:
    """The first finished run of each group, at most n: methods that the tables have last come first."""
    there = [(group, group.finished[0]) for group in groups if group.finished and group.finished[0].record]
    ordered = sorted(there, key=lambda pair: rank_method(pair[0].method), reverse=True)
    chosen = [pair[1].folder for pair in ordered[:n]]
    return [pair for pair in there if pair[1].folder in chosen]


if __name__ == "__main__":
    sys.exit(main())
