"""The paper's tables and figures, from run folders alone, with the published figures beside ours."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.paper_all_classes import fewshot_table, transfer_tables
from tools.paper_base_new import base_new_table, efficiency_table
from tools.paper_render import ENDINGS, commands, comparison_records, render
from tools.paper_series import Context
from tools.paper_tables import NAMES, PaperTable
from tools.result_published import PublishedFigures, read_published
from tools.result_render import FORMATS, to_csv
from tools.result_runs import collect

EPILOG = """
tables:
  base2new    Table I: base, new and HM by data set and method, and averages
  fewshot     Table II, Figure 7: accuracy on all classes by images a class
  cross       trained on a source (a few-shot run on all its classes), tested on other data sets
  domains     Table III: trained on a source, tested on its other domains
  efficiency  Table IV: trained parameters, images/s in test, HM; what a wrapper adds to its host
  all         those for which there are runs

examples:
  python -m tools.results output
      everything that the runs below output/ give, for the terminal
  python -m tools.results output --table base2new --format latex > table1.tex
      a booktabs table; published figures, tests and missing runs as comments below it
  python -m tools.results output --table fewshot --figures output/figures
      curves over images a class, as PNG and SVG, besides the table
  python -m tools.results output --save output/results --no-published
      every table as .txt, .md, .csv, .tex and .json, tests as _tests.csv; without published figures
  python -m tools.results output --versus PromptSRC --seeds 1 2 3
      paired tests of all methods against PromptSRC; cells without three seeds are gaps
  python -m tools.results output --commands > missing.sh && bash missing.sh
      run what is missing; finished runs are skipped, interrupted ones go on

A line of ours is followed by what is published for the method, and by the signed difference, ours - published.
Published figures stand in docs/published/, with sources and what is known against them. They are of ViT-B/16 and real
data; nothing is published for the embedded benchmark. Runs that cannot be used are named on stderr.
Exit code: 0 if something could be shown, 1 if nothing could be read, 2 for a wrong command line.
"""


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        collection = collect(args.output)
        figures = PublishedFigures(read_published() if args.published else ())
        context = Context(collection, figures, args.seeds, args.versus)
        tables = build(context, args.table)
    except (ValueError, FileNotFoundError) as error:
        return _fail(str(error))
    for item in collection.left_out:
        print(f"warning: {item}", file=sys.stderr)
    if not tables:
        what = "run" if args.table == "all" else f"run for the table {args.table}"
        return _fail(f"found no {what} in {args.output}; see --help for what each table needs")
    if args.commands:
        lines = commands(gap for table in tables for gap in table.gaps)
        print("\n".join(lines or ["# nothing is missing"]))
    else:
        print(render(tables, args.format))
    if args.save:
        save(tables, args.save)
        print(f"wrote tables to {args.save}", file=sys.stderr)
    if args.figures:
        from tools.paper_figures import draw_all

        for path in draw_all(tables, args.figures, context.versus):
            print(f"wrote {path}", file=sys.stderr)
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.results",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "output",
        type=Path,
        metavar="OUTPUT",
        help="the scripts' folder of runs, or its base2new, fewshot, xd, zeroshot",
    )
    add("--table", choices=[*NAMES, "all"], default="all", help="which table, see below (default: all)")
    add("--format", choices=FORMATS, default="table", help="default: table, for the terminal")
    add("--figures", type=Path, metavar="DIR", help="draw figures of the tables into DIR, as PNG and SVG")
    add("--save", type=Path, metavar="DIR", help="write every table in every format into DIR, too")
    add("--published", action=argparse.BooleanOptionalAction, default=True, help="published figures beside ours")
    add("--versus", metavar="METHOD", help="reference of the paired tests (default: a wrapper's host, else CoOp)")
    add("--seeds", type=int, nargs="+", default=[], help="seeds that every cell needs (default: those found)")
    add("--commands", action="store_true", help="print the commands that fill the gaps, and no table")
    return parser


def build(context: Context, name: str = "all") -> list[PaperTable]:
    """The tables for which there are runs.

    Args:
        name: one of NAMES, or "all".
    """
    tables: list[PaperTable | None] = []
    for wanted in NAMES if name == "all" else [name]:
        if wanted == "base2new":
            tables.append(base_new_table(context))
        elif wanted == "fewshot":
            tables.append(fewshot_table(context))
        elif wanted == "efficiency":
            tables.append(efficiency_table(context))
        else:
            tables += transfer_tables(context, wanted)
    found = [table for table in tables if table is not None]
    has_base_new = any(table.name == "base2new" for table in found)  # then its gaps need not be told twice
    found = [replace(table, notes=(*table.notes, *chosen_on_test(context))) for table in found]
    return [replace(table, gaps=()) if has_base_new and table.name == "efficiency" else table for table in found]


def chosen_on_test(context: Context) -> tuple[str, ...]:
    """A sentence on the methods whose epoch was chosen on the test images, if there are any."""
    runs = context.collection.all_runs()
    methods = {run.method for run in runs if run.recorded("final").get("chosen_on") == "test"}
    if not methods:
        return ()
    return (f"Best epoch on the test images, not comparable with the others: {', '.join(sorted(methods))}.",)


def save(tables: Sequence[PaperTable], folder: Path) -> None:
    """Write each kind of table in every format, and its tests as CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in dict.fromkeys(table.name for table in tables):
        chosen = [table for table in tables if table.name == name]
        for fmt, ending in ENDINGS.items():
            (folder / f"{name}.{ending}").write_text(render(chosen, fmt) + "\n", encoding="utf-8")
        tests = [record for table in chosen for record in comparison_records(table)]
        if tests:
            (folder / f"{name}_tests.csv").write_text(to_csv(tests) + "\n", encoding="utf-8")


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
