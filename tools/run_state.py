"""What a run folder's metrics.json says, in a word or two: the question that the shell scripts ask.

    python -m tools.run_state state  DIR [--after TRAIN_DIR] [--options KEY VALUE ...]
    python -m tools.run_state epoch  DIR
    python -m tools.run_state result DIR

`state` prints finished, unfinished, absent, or, with --after, stale: the run is older than the one in TRAIN_DIR whose
model it tested. With --options it exits 3 if DIR was run with other values. `epoch` prints the epoch that training
ended with, or `best`. `result` prints one line for a person. Exit code 1: the folder does not tell.
"""

import argparse
import sys
from pathlib import Path

from tools.run_reader import RunProblem, config_differences, is_older, load_metrics, read_run, state_of, trained_epoch


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Tell a run's state, trained epoch or result from its metrics.json.")
    parser.add_argument("question", choices=("state", "epoch", "result"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--after", type=Path, help="the training run whose model this run tested")
    parser.add_argument(
        "--options", nargs=argparse.REMAINDER, default=[], help="config entries asked for now: KEY VALUE ..."
    )
    args = parser.parse_args(argv)
    try:
        print(_answer(args))
    except RunProblem as problem:
        print(f"error: {args.folder}: {problem}", file=sys.stderr)
        return 1
    except _OtherConfig as difference:
        print(f"error: {difference}", file=sys.stderr)
        return 3
    return 0


class _OtherConfig(ValueError):
    """The folder holds a run with another config."""


def _answer(args: argparse.Namespace) -> str:
    path = args.folder / "metrics.json"
    if args.question == "epoch":
        if not path.is_file():
            raise RunProblem("missing", "it has no metrics.json, which would tell the trained epoch")
        epoch = trained_epoch(load_metrics(path))
        return "best" if epoch is None else str(epoch)
    if args.question == "result":
        run = read_run(args.folder)
        seconds = (run.metrics or {}).get("wall_seconds")
        return f"{run.value:.2f}%" + (f" ({seconds:.0f} s)" if isinstance(seconds, (int, float)) else "")
    state = state_of(args.folder)
    if state != "finished":
        return state
    metrics = load_metrics(path)
    if args.after and state_of(args.after) == "finished":
        trained = load_metrics(args.after / "metrics.json")
        if trained.get("mode") == "train" and is_older(metrics, than=trained):
            return "stale"
    changed = config_differences(metrics, args.options)
    if changed:
        raise _OtherConfig(
            f"{args.folder} holds a finished run with another config ({'; '.join(changed)}). "
            "Set OUTPUT to another folder, or delete this one to run again."
        )
    return state


if __name__ == "__main__":
    sys.exit(main())
