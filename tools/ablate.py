"""Run an ablation of Spotlighter and show it: one run a row and seed, then a CSV, a figure and a table.

    python -m tools.ablate semantic
    python -m tools.ablate losses 1 2 3 --jobs 2
    python -m tools.ablate k 1 OPTIM.MAX_EPOCH 1 --output /tmp/try

A row trains on the base classes and is tested on the new ones by train.py; rows of tables that only vary inference test
the model that the default run has trained. The row that has the config's own values is that default run, trained once
for all tables. Finished runs are skipped and interrupted ones go on: give the same command again. The rows are in
tools/ablation_tables.py. Exit status: 1 if a run failed, 3 if a folder holds a run with another config.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tqdm import tqdm
from yacs.config import CfgNode as CN

import train
from tools.ablation_render import Result, draw, foot, render_csv, render_text
from tools.ablation_tables import TABLES, Row, Table
from tools.run_reader import RunProblem, load_metrics, read_run
from tools.run_state import OtherConfig, current_state, result_line, state_of, trained_epoch
from tools.sweep import at_least_one

ROOT = Path(__file__).resolve().parent.parent
TRAIN = ROOT / "train.py"
TAIL = 15  # lines of a failed run's output to show


@dataclass(frozen=True)
class Run:
    """One run of train.py."""

    folder: Path
    argv: tuple[str, ...]  # for train.py; without the epoch to test, which is known when the model is trained
    model: Path | None = None  # the training run that it tests; None: it trains

    def command(self) -> list[str]:
        """What to start.

        Raises:
            RunProblem: the model to test does not tell its epoch.
        """
        flags: list[str] = []
        if self.model is not None:
            flags = ["--eval-only", "--model-dir", str(self.model)]
            epoch = self.epoch()
            flags += [] if epoch is None else ["--load-epoch", str(epoch)]
        return [sys.executable, str(TRAIN), *flags, *self.argv]

    def epoch(self) -> int | None:
        """The epoch to test; None for the best one, or while nothing is trained."""
        if self.model is None or state_of(self.model) != "finished":
            return None
        return trained_epoch(load_metrics(self.model / "metrics.json"))

    def state(self) -> str:
        """As tools/run_state.py says it, with all that the configuration holds compared.

        Raises:
            OtherConfig: the folder holds a finished run with another config.
        """
        asked = flat(train.setup_cfg(train.parse_args(list(self.argv))))
        return current_state(self.folder, self.model, self.epoch(), settings=asked)


@dataclass(frozen=True)
class Pair:
    """A row's runs of one seed."""

    seed: int
    base: Run
    new: Run


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        seeds, options = split_arguments(args.rest)
        tables = list(TABLES.values()) if args.table == "all" else [TABLES[args.table]]
        plan = Plan(args, seeds, options)
        rows = {table.name: [(row, plan.pairs(table, row)) for row in table.rows] for table in tables}
    except (ValueError, TypeError, KeyError, AssertionError, OSError) as error:
        parser.error(str(error.args[0] if error.args else error))
    refused = list(plan.refusals())
    if refused:
        print("\n".join(f"error: {sentence}" for sentence in refused), file=sys.stderr)
        return 3
    try:
        failed = execute(plan.runs, args.jobs)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    for table in tables:
        results = [Result(row, values_of(pairs), plan.is_default(row)) for row, pairs in rows[table.name]]
        show(table, results, args, seeds)
    print(foot())
    for folder, reason in failed.items():
        print(f"error: {folder}: {reason}", file=sys.stderr)
    return 1 if failed else 0


def build_parser() -> argparse.ArgumentParser:
    lines = [f"  {t.name:<14} {t.title}{f' ({t.source})' if t.source else ''}" for t in TABLES.values()]
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="\n".join(["tables:", *lines, f"  {'all':<14} every one of them"]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("table", choices=[*TABLES, "all"], metavar="TABLE", help="which comparison, see below")
    add("rest", nargs="*", metavar="SEED … KEY VALUE …", help="seeds (default: 1 2 3), then entries for every run")
    add("--config", default="mini_vit8_ep15_paper", help="a file, or its name in configs/trainers/Spotlighter")
    add("--dataset", default="shapes", help="a name in configs/datasets (default: shapes)")
    add("--root", type=Path, default=Path("data"), help="folder that holds the data sets (default: data)")
    add("--output", type=Path, help="folder of the runs and results (default: output/ablation/<dataset>)")
    add("--shots", type=int, default=16, help="training images a class (default: 16)")
    add("--jobs", type=at_least_one, default=1, help="runs side by side, which share the cores (default: 1)")
    return parser


def split_arguments(rest: Sequence[str]) -> tuple[list[int], list[str]]:
    """Seeds and `KEY VALUE …` of what stands behind the table's name.

    Raises:
        ValueError: a seed twice, or a key without a value.
    """
    n = next((i for i, word in enumerate(rest) if not word.isdecimal()), len(rest))
    seeds, options = [int(word) for word in rest[:n]] or [1, 2, 3], list(rest[n:])
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"expected each seed once, got {' '.join(rest[:n])}")
    if len(options) % 2:
        raise ValueError(f"expected pairs KEY VALUE behind the seeds, got {' '.join(options)}")
    return seeds, options


class Plan:
    """Turns rows into runs and gives rows that ask for the same thing the same run.

    Raises:
        ValueError: no such config file, its preset has no tables, or an option is none of the configuration.
    """

    def __init__(self, args: argparse.Namespace, seeds: Sequence[int], options: Sequence[str]):
        self.args, self.seeds, self.options = args, seeds, options
        self.runs: dict[Path, Run] = {}
        self.output = args.output or Path("output/ablation") / args.dataset
        args.output = self.output
        self.config = find_file(args.config, ROOT / "configs/trainers/Spotlighter")
        self.dataset_config = find_file(args.dataset, ROOT / "configs/datasets")
        default = train.setup_cfg(train.parse_args(list(self.argv("default", "base", 0, {}))))
        self.node = default.TRAINER.SPOTLIGHTER
        if self.node.PRESET != "paper":
            raise ValueError(f"The rows vary keys of the preset paper, and {self.config} has {self.node.PRESET}.")

    def changes(self, row: Row) -> dict[str, Any]:
        """The keys whose values are not the config's own."""
        return {key: value for key, value in row.keys.items() if self.node[key] != value}

    def is_default(self, row: Row) -> bool:
        return not self.changes(row)

    def pairs(self, table: Table, row: Row) -> list[Pair]:
        """The runs of a row, one pair a seed; they are put on the list of runs."""
        changed = self.changes(row)
        pairs = []
        for seed in self.seeds:
            trained = self.add({} if table.inference_only else changed, "base", seed)
            if table.inference_only and changed:
                base, new = (self.add(changed, classes, seed, trained, "eval_") for classes in ("base", "new"))
            else:
                base, new = trained, self.add(changed, "new", seed, trained)
            pairs.append(Pair(seed, base, new))
        return pairs

    def add(self, changed: dict[str, Any], classes: str, seed: int, model: Run | None = None, prefix: str = "") -> Run:
        folder = self.output / (prefix + slug(changed)) / ("train_base" if classes == "base" else "test_new")
        run = Run(
            folder / f"seed{seed}",
            self.argv(folder / f"seed{seed}", classes, seed, changed),
            None if model is None else model.folder,
        )
        return self.runs.setdefault(run.folder, run)

    def argv(self, folder: str | Path, classes: str, seed: int, changed: dict[str, Any]) -> tuple[str, ...]:
        keys = [part for key, value in changed.items() for part in (f"TRAINER.SPOTLIGHTER.{key}", str(value))]
        return (
            *("--root", str(self.args.root), "--seed", str(seed), "--trainer", "Spotlighter"),
            *("--dataset-config-file", str(self.dataset_config), "--config-file", str(self.config)),
            *("--output-dir", str(folder), "DATASET.NUM_SHOTS", str(self.args.shots)),
            *("DATASET.SUBSAMPLE_CLASSES", classes, *self.options, *keys),
        )

    def refusals(self) -> Iterable[str]:
        """A sentence for each folder that holds another run than the one asked for."""
        for run in self.runs.values():
            try:
                run.state()
            except OtherConfig as difference:
                yield str(difference)


def find_file(name: str, folder: Path) -> Path:
    """A yaml file by its path, or by its name in a folder.

    Raises:
        ValueError: there is none.
    """
    for path in (Path(name), folder / f"{name}.yaml"):
        if path.suffix == ".yaml" and path.is_file():
            return path
    raise ValueError(f"no config {name}; there are: {', '.join(sorted(p.stem for p in folder.glob('*.yaml')))}")


def slug(changed: dict[str, Any]) -> str:
    """A folder name that says what a run changes: `top_k-3`, `losses-text-kl`; `default` for nothing."""
    parts = []
    for key, value in changed.items():
        words = re.findall(r"[\w.]+", str(value)) or ["none"]
        parts.append("-".join([key.lower(), *words]))
    return "_".join(parts) or "default"


def flat(node: CN, prefix: str = "") -> dict[str, Any]:
    """All entries of a configuration, `A.B.C` -> value."""
    entries: dict[str, Any] = {}
    for name, value in node.items():
        entries |= flat(value, f"{prefix}{name}.") if isinstance(value, CN) else {f"{prefix}{name}": value}
    return entries


def execute(runs: dict[Path, Run], jobs: int) -> dict[Path, str]:
    """Start what is not finished: all training runs, then all tests.

    Returns:
        reasons of the runs that failed, by folder; those that were not started because of them included.
    """
    failed: dict[Path, str] = {}
    children = Children(threads=max(1, n_cores() // jobs))
    with tqdm(total=len(runs), unit="run", dynamic_ncols=True, disable=None) as bar:

        def report(run: Run, reason: str | None, was_there: bool) -> None:
            if reason is not None:
                failed[run.folder] = reason
                bar.write(f"{run.folder}: failed")
            elif not was_there:
                bar.write(f"{run.folder}: {describe(run.folder)}")
            bar.update()

        with ThreadPoolExecutor(jobs) as pool:
            try:
                for part in (
                    [run for run in runs.values() if run.model is None],
                    [run for run in runs.values() if run.model is not None],
                ):
                    todo = {}
                    for run in part:
                        if run.model in failed:
                            report(run, "not tested, since its training failed", False)
                            continue
                        try:
                            command = None if run.state() == "finished" else run.command()
                        except (OtherConfig, RunProblem) as problem:
                            report(run, str(problem), False)
                            continue
                        if command is None:
                            report(run, None, True)
                        else:
                            todo[pool.submit(children.start, command, run.folder)] = run
                    collect(todo, report)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                children.stop()
                raise
    return failed


def collect(todo: dict[Future, Run], report: Callable[[Run, str | None, bool], None]) -> None:
    """Report runs as they end."""
    left = set(todo)
    while left:
        done, left = wait(left, return_when=FIRST_COMPLETED)
        for future in done:
            report(todo[future], future.result(), False)


class Children:
    """Processes of train.py, started from threads, so that all of them can be stopped."""

    def __init__(self, threads: int):
        self.environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self.processes: set[subprocess.Popen] = set()
        self.lock = threading.Lock()
        self.stopped = False

    def start(self, command: Sequence[str], folder: Path) -> str | None:
        """Run a command to its end; None if all went well, else the reason with the last lines of its output."""
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        with self.lock:
            if self.stopped:
                return "not started"
            process = subprocess.Popen(command, env=self.environment, errors="replace", **pipes)
            self.processes.add(process)
        output, _ = process.communicate()
        with self.lock:
            self.processes.discard(process)
        if process.returncode == 0 and state_of(folder) == "finished":
            return None
        lines = "\n".join(f"    {line}" for line in output.splitlines()[-TAIL:])
        return f"train.py ended with exit code {process.returncode}; the last lines of its output:\n{lines}"

    def stop(self) -> None:
        with self.lock:
            self.stopped = True
            for process in self.processes:
                process.terminate()


def n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe(folder: Path) -> str:
    """The accuracy of a run and how long it took, or why it has none."""
    try:
        return result_line(folder)
    except RunProblem as problem:
        return str(problem)


def values_of(pairs: Iterable[Pair]) -> dict[int, tuple[float, float]]:
    """Accuracies of the pairs whose runs both finished."""
    values = {}
    for pair in pairs:
        try:
            values[pair.seed] = (read_run(pair.base.folder).value, read_run(pair.new.folder).value)
        except RunProblem:
            continue
    return values


def show(table: Table, results: Sequence[Result], args: argparse.Namespace, seeds: Sequence[int]) -> None:
    """Write a table's CSV and figure, and print it."""
    output = args.output
    output.mkdir(parents=True, exist_ok=True)
    (output / f"{table.name}.csv").write_text(render_csv(table, results) + "\n", encoding="utf-8")
    caption = (
        f"{args.dataset}, {Path(args.config).stem}, {args.shots} shots, seeds {' '.join(map(str, seeds))}; "
        "bars: population standard deviation; * the config's own value"
    )
    paths = [output / f"{table.name}.csv", *draw(table, results, caption, output / table.name)]
    print(f"\n{render_text(table, results, args.dataset)}\n{', '.join(map(str, paths))}")


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupt)  # so that no run stays behind
    sys.exit(main())
