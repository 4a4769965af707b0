"""Run a plan: many runs with one command, here or on a SLURM cluster, as often as it takes until all are done.

A plan (plans/*.yaml) says methods x data sets x seeds x shots x changed entries of the config. Each of its runs is what
one script of scripts/ does, and lies where that script puts it. Start the same command again after whatever happened:
finished runs are left alone, interrupted ones go on from their checkpoint, failed ones are tried again. A run that
fails does not stop the others; tests wait for their training. Several sweeps may work on one output folder at once,
they share the runs. The plan alone decides what runs: SHOTS, CFG, TRAINER, SOURCE and LOADEP of the shell do not count.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.protocols import DEFAULT_OUTPUT, ROOT
from tools.sweeps.plan import Job, PlanError, find_plan, read_plan
from tools.sweeps.plan import __doc__ as PLAN_FORM
from tools.sweeps.progress import Progress
from tools.sweeps.queue import Book, SlurmError, queue_states
from tools.sweeps.state import Reader, Status
from tools.sweeps.table import failures, remaining, run_table, time_left, totals

EXAMPLES = """\
examples:
  what would run, and how it stands (changes nothing):
    python -m tools.sweep shapes_all --dry-run
  here: one run a GPU, or one at a time where there is none; Ctrl-C saves what runs, the same command goes on:
    python -m tools.sweep shapes_all
    python -m tools.sweep plans/shapes_all.yaml --jobs 2 --output /tmp/try
  on a SLURM cluster, at most 8 trainings side by side; Ctrl-C ends the watching, not the jobs:
    python -m tools.sweep paper_table1 --executor slurm --partition gpu --account me --time 4:00 --jobs 8
  submit and leave; later, how far is it?
    python -m tools.sweep paper_table1 --executor slurm --partition gpu --no-wait
    python -m tools.sweep paper_table1 --dry-run
  further options of sbatch:
    python -m tools.sweep paper_table3 --executor slurm --slurm qos=high --slurm constraint=a100

states: done; running (by whom); queued (in SLURM); resumable (unfinished, goes on from its checkpoint); failed (with
  the last error line; tried again); blocked (its training failed); pending.
in a run's folder: job.log what it printed, job.json what became of the newest attempt, job.lock who runs it now.
exit code: 0 all runs are done, or submitted with --no-wait; 1 some are not; 2 wrong usage; 130 stopped by Ctrl-C
  (143 by SIGTERM).

how a plan is written (those of plans/: {plans}):
{form}
"""


def main(argv: Sequence[str] | None = None, root: Path = ROOT) -> int:
    parser = build_parser(root)
    args = parser.parse_args(argv)
    output = relative(args.output or os.environ.get("OUTPUT") or str(root / DEFAULT_OUTPUT), root)
    data = relative(args.data or os.environ.get("DATA") or str(root / "data"), root)
    try:
        path = find_plan(args.plan, root)
        jobs = read_plan(path, output, root)
    except PlanError as error:
        parser.error(str(error))
    if args.dry_run:
        return dry_run(jobs, root / output, args.jobs or 1)
    try:
        (root / output).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"the output folder {output} cannot be made ({error.strerror}); choose another with --output")
    print(f"== {path}: {len(jobs)} runs, in {output}", flush=True)
    python = os.environ.get("PYTHON") or sys.executable
    variables: dict[str, str | None] = {"DATA": data, "PYTHON": os.path.abspath(python) if "/" in python else python}
    run = run_local if args.executor == "local" else run_slurm
    try:
        statuses, stopped_by = run(args, jobs, root / output, variables)
    except SlurmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return conclude(jobs, statuses, stopped_by, args, data)


def build_parser(root: Path = ROOT) -> argparse.ArgumentParser:
    plans = " ".join(sorted(path.stem for path in (root / "plans").glob("*.yaml")))
    parser = argparse.ArgumentParser(
        prog="python -m tools.sweep",
        description=__doc__,
        epilog=EXAMPLES.format(plans=plans, form=(PLAN_FORM or "").partition("\n\n")[2].rstrip()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("plan", metavar="PLAN", help="a yaml file, or its name in plans/")
    add("--dry-run", action="store_true", help="print the table of runs and the totals, and change nothing")
    add("--executor", choices=("local", "slurm"), default="local", help="where the runs are made (default: local)")
    add("--jobs", type=at_least_one, help="runs side by side (default: one a GPU, else 1; slurm: no limit)")
    add("--data", help="folder of the data sets (default: $DATA, else data in the repository)")
    add("--output", help="folder of the runs (default: $OUTPUT, else output in the repository)")
    slurm = parser.add_argument_group("with --executor slurm; the output folder must be on a disk that the nodes see")
    add = slurm.add_argument
    add("--partition", help="where to run (default: the cluster's)")
    add("--account", help="who pays (default: yours)")
    add("--time", type=minutes, default=240, metavar="H:MM", help="limit of a run; H:MM, or minutes (default: 4:00)")
    add("--gpus", type=int, default=1, help="GPUs of a run (default: 1)")
    add("--cpus", type=at_least_one, default=8, help="CPU cores of a run (default: 8)")
    add("--memory", type=float, metavar="GB", help="memory of a run (default: the cluster's)")
    add("--slurm", type=setting, action="append", default=[], metavar="KEY=VALUE", help="any option of sbatch")
    add("--no-requeue", action="store_true", help="let a run end when its time is up; else it saves, and goes on")
    add("--no-wait", action="store_true", help="submit and leave")
    return parser


def at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def minutes(text: str) -> int:
    """Minutes of `90` or `1:30`, hours and minutes."""
    match = re.fullmatch(r"(?:(\d+):)?(\d+)", text)
    total = int(match[1] or 0) * 60 + int(match[2]) if match else 0
    if total < 1:
        raise argparse.ArgumentTypeError(f"must be minutes or H:MM, at least a minute, got '{text}'")
    return total


def setting(text: str) -> tuple[str, str | bool]:
    """`KEY=VALUE`, or `KEY` alone for an option of sbatch without a value."""
    key, equals, value = text.lstrip("-").partition("=")
    if not re.fullmatch(r"[a-z][a-z-]*", key):
        raise argparse.ArgumentTypeError(f"must be an option of sbatch such as qos=high, got '{text}'")
    return key, value if equals else True


def relative(path: str, root: Path) -> str:
    """A path as the scripts name it: relative to the repository where it lies inside, else absolute."""
    absolute = os.path.abspath(os.path.expanduser(path))
    return "." if absolute == str(root) else absolute.removeprefix(f"{root}/")


def dry_run(jobs: Sequence[Job], output: Path, side_by_side: int) -> int:
    """Print how the runs of a plan stand."""
    statuses = reader_of(output).statuses(list(jobs))
    print(run_table(jobs, statuses))
    print("\n" + "; ".join(filter(None, [totals(statuses), remaining(time_left(jobs, statuses, side_by_side))])))
    return 0


def reader_of(output: Path) -> Reader:
    """Reads states of runs below a folder; SLURM is asked only if a sweep submitted some of them."""
    entries = Book(slurm_folder(output)).read()
    states = queue_states() if entries else None
    queued = {Path(entry["key"]): job for job, entry in entries.items() if job in (states or {})}
    return Reader(None if states is None else set(states), queued)


def slurm_folder(output: Path) -> Path:
    return output / ".sweep" / "slurm"


def run_local(
    args: argparse.Namespace, jobs: list[Job], output: Path, variables: dict[str, str | None]
) -> tuple[dict[Path, Status], int]:
    """Run what is missing on this machine; how the runs stand then, and the signal that stopped it or 0."""
    from tools.sweeps.local import LocalSweep, visible_gpus  # submitit takes a moment, which a dry run need not wait

    gpus = visible_gpus()
    n_jobs = args.jobs or max(1, len(gpus))
    slots = [gpus[slot % len(gpus)] if gpus else None for slot in range(n_jobs)]
    variables["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES")
    if n_jobs > 1:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        variables["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores // n_jobs))
    print(f"   here, {n_jobs} at a time{f', GPUs {chr(32).join(gpus)}' if gpus else ''}", flush=True)
    folder = output / ".sweep" / f"local-{platform.node()}-{os.getpid()}"
    sweep = LocalSweep(jobs, reader_of(output), variables, slots, folder, Progress(jobs, n_jobs))
    return sweep.run(), sweep.stopped_by


def run_slurm(
    args: argparse.Namespace, jobs: list[Job], output: Path, variables: dict[str, str | None]
) -> tuple[dict[Path, Status], int]:
    """Submit what is missing to SLURM and watch it; how the runs stand then, and the signal that ended that or 0."""
    from tools.sweeps.slurm import Resources, SlurmSweep

    resources = Resources(
        partition=args.partition,
        account=args.account,
        minutes=args.time,
        gpus=args.gpus,
        cpus=args.cpus,
        memory=args.memory,
        parallel=args.jobs,
        requeue=not args.no_requeue,
        extra=dict(args.slurm),
    )
    variables["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS") or str(args.cpus)  # not all clusters enforce it
    sweep = SlurmSweep(jobs, variables, resources, slurm_folder(output), Progress(jobs, args.jobs))
    print(f"   {sweep.submit()} submitted to SLURM; what they print before they begin: {sweep.folder}", flush=True)
    return (sweep.statuses if args.no_wait else sweep.watch()), sweep.stopped_by


def conclude(
    jobs: Sequence[Job], statuses: Mapping[Path, Status], stopped_by: int, args: argparse.Namespace, data: str
) -> int:
    """Print what came of it; the exit code."""
    prefix = f"DATA={shlex.quote(data)} " if data != "data" else ""
    print("\n".join(["", *failures(jobs, statuses, prefix), totals(statuses)]))
    states = {status.state for status in statuses.values()}
    if stopped_by:
        kept = "the jobs stay in SLURM's queue; " if args.executor == "slurm" else ""
        print(f"stopped; {kept}the same command goes on from here")
        return 128 + stopped_by
    if args.no_wait and args.executor == "slurm" and "failed" not in states:
        return 0
    return 0 if states == {"done"} else 1


if __name__ == "__main__":
    sys.exit(main())
