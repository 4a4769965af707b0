"""What a run folder's metrics.json says, in a word or two: the question that the shell scripts ask.

    python -m tools.run_state state  DIR [--after TRAIN_DIR] [--epoch N] [--config YAML ...] [--options KEY VALUE ...]
    python -m tools.run_state epoch  DIR
    python -m tools.run_state result DIR

`state` prints finished, unfinished, absent, or stale: the run is older than the one in TRAIN_DIR whose model it tested,
or it tested another epoch than N. It exits 3 if DIR finished with other values than --config and --options ask for, so
that nobody takes an old result for that of a new command. `epoch` prints the epoch that training
ended with, or `best`. `result` prints one line for a person. Exit code 1: the folder does not tell.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tools.run_reader import (
    RunProblem,
    config_differences,
    is_older,
    load_metrics,
    read_run,
    state_of,
    tested_other_epoch,
    trained_epoch,
)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Tell a run's state, trained epoch or result from its metrics.json.")
    parser.add_argument("question", choices=("state", "epoch", "result"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--after", type=Path, help="the training run whose model this run tested")
    parser.add_argument("--epoch", type=int, help="the epoch that this run should have tested")
    parser.add_argument("--config", type=Path, nargs="+", default=[], help="config files asked for now")
    parser.add_argument(
        "--options", nargs=argparse.REMAINDER, default=[], help="config entries asked for now: KEY VALUE ..."
    )
    args = parser.parse_args(argv)
    try:
        print(_answer(args))
    except RunProblem as problem:
        print(f"error: {args.folder}: {problem}", file=sys.stderr)
        return 1
    except OtherConfig as difference:
        print(f"error: {difference}", file=sys.stderr)
        return 3
    return 0


def settings_of(files: list[Path]) -> dict[str, Any]:
    """Entries of yaml files, `A.B.C` -> value; of two files the later one counts."""
    settings: dict[str, Any] = {}

    def add(node: Any, prefix: str) -> None:
        if isinstance(node, dict):
            for name, value in node.items():
                add(value, f"{prefix}.{name}" if prefix else str(name))
        elif prefix:
            settings[prefix] = node

    for file in files:
        try:
            add(yaml.safe_load(file.read_text(encoding="utf-8")), "")
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise RunProblem("damaged", f"{file} cannot be read ({' '.join(str(error).split())})") from error
    return settings


class OtherConfig(ValueError):
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
    return current_state(args.folder, args.after, args.epoch, args.options, settings_of(args.config))


def current_state(
    folder: Path,
    after: Path | None = None,
    epoch: int | None = None,
    options: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> str:
    """Whether a run is finished, unfinished, absent, or stale.

    Args:
        folder: of the run.
        after: folder of the training run whose model it tested.
        epoch: the epoch that it should have tested.
        options: config entries asked for now, `KEY VALUE KEY VALUE …`.
        settings: entries of config files asked for now.

    Raises:
        OtherConfig: it finished with another config.
    """
    state = state_of(folder)
    if state != "finished":
        return state
    metrics = load_metrics(folder / "metrics.json")
    if after and state_of(after) == "finished":
        trained = load_metrics(after / "metrics.json")
        if trained.get("mode") == "train" and is_older(metrics, than=trained):
            return "stale"
    if tested_other_epoch(metrics, epoch):
        return "stale"
    changed = config_differences(metrics, options, settings)
    if changed:
        raise OtherConfig(
            f"{folder} holds a finished run with another config ({'; '.join(changed)}). "
            "Set OUTPUT to another folder, or delete this one to run again."
        )
    return state


if __name__ == "__main__":
    sys.exit(main())
