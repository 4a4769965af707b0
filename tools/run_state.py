"""What state a run is in, and whether it is the run that is asked for now; its result in a few words.

python -m tools.run_state DIR        prints "77.09% (12 s)"; exit code 1: there is no finished run in DIR
"""

import argparse
import ast
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from tools.run_reader import RunProblem, load_metrics, read_run

FREE_KEYS = {  # may change without making another run, as in dassl.engine.resume
    *("OUTPUT_DIR", "RESUME", "DEVICE", "USE_CUDA", "VERBOSE", "DATASET.ROOT", "DATALOADER.NUM_WORKERS"),
    *("TRAIN.PRINT_FREQ", "TRAIN.CHECKPOINT_FREQ", "TRAIN.CHECKPOINT_SECONDS", "INPUT.ON_ERROR"),
    *("DATALOADER.CACHE", "DATALOADER.CACHE_LIMIT", "CUDA_GRAPH"),
}
_ABSENT = object()


class OtherConfig(ValueError):
    """The folder holds a run with another config."""


def state_of(folder: Path) -> str:
    """`finished`, `unfinished` or `absent`. A damaged metrics.json is an unfinished run: running again mends it.

    What a sweep notes beside a run (job.json, job.lock, …) is no beginning of the run itself.
    """
    path = folder / "metrics.json"
    if not path.is_file():
        begun = folder.is_dir() and any(not entry.name.startswith("job.") for entry in folder.iterdir())
        return "unfinished" if begun else "absent"
    try:
        return "finished" if load_metrics(path).get("finished") is True else "unfinished"
    except RunProblem:
        return "unfinished"


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


def is_older(metrics: dict[str, Any], than: dict[str, Any]) -> bool:
    """Whether a run started before another one did, for example a test before its model was trained anew."""
    here, there = (_moment(m.get("started")) for m in (metrics, than))
    if here is None or there is None or (here.tzinfo is None) != (there.tzinfo is None):
        return False
    return here < there


def trained_epoch(metrics: dict[str, Any]) -> int | None:
    """The epoch whose checkpoint a finished training run ended with; None: `model-best`, if FINAL_MODEL chose it.

    Raises:
        RunProblem: the file tells no epoch.
    """
    config = metrics.get("config") or {}
    if (config.get("TEST") or {}).get("FINAL_MODEL") in ("best_val", "released_best_val"):
        return None
    history = metrics.get("epochs") or []
    candidates = [
        history[-1].get("epoch") if history else None,
        (metrics.get("final") or {}).get("epoch"),
        (config.get("OPTIM") or {}).get("MAX_EPOCH"),
    ]
    for epoch in candidates:
        if isinstance(epoch, int) and epoch > 0:
            return epoch
    raise RunProblem("damaged", "metrics.json names no trained epoch")


def tested_other_epoch(tested: dict[str, Any], wanted: Any) -> bool:
    """Whether an evaluation loaded another epoch than the one wanted; False where one of them is not known."""
    epoch = (tested.get("final") or {}).get("epoch")
    return isinstance(epoch, int) and isinstance(wanted, int) and epoch != wanted


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


def config_differences(
    metrics: dict[str, Any], options: Sequence[str], settings: Mapping[str, Any] | None = None
) -> list[str]:
    """What the recorded config holds otherwise than asked for now, one sentence part each.

    Args:
        options: `KEY VALUE KEY VALUE …` as typed.
        settings: entries of config files, which options override; here keys that the run did not know are passed over.
    """
    typed = dict(zip(options[::2], options[1::2], strict=True))
    found = []
    for key, value in {**(settings or {}), **typed}.items():
        node: Any = metrics.get("config") or {}
        for part in key.split("."):
            node = node.get(part, _ABSENT) if isinstance(node, dict) else _ABSENT
        if key in FREE_KEYS or (node is _ABSENT and key not in typed):
            continue
        if node is _ABSENT:
            found.append(f"{key}: not in the run's config")
        elif not is_same(node, value):
            found.append(f"{key}: the run has {node!r}, now {value}")
    return found


def is_same(recorded: Any, asked: Any) -> bool:
    """Whether a recorded entry of a config is what stands in a file or on a command line, read as yacs reads it."""
    return _plain(recorded) == _plain(_literal(asked))


def result_line(folder: Path) -> str:
    """Accuracy and duration of a finished run, for a person.

    Raises:
        RunProblem: there is none.
    """
    run = read_run(folder)
    seconds = (run.metrics or {}).get("wall_seconds")
    return f"{run.value:.2f}%" + (f" ({seconds:.0f} s)" if isinstance(seconds, (int, float)) else "")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.run_state", description="Print the accuracy and duration of a finished run."
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(argv).folder
    try:
        print(result_line(folder))
    except RunProblem as problem:
        print(f"error: {folder}: {problem}", file=sys.stderr)
        return 1
    return 0


def _literal(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return ast.literal_eval(text)  # as yacs decodes what stands on the command line
    except (ValueError, SyntaxError):
        return text


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _moment(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00"))
    except (AttributeError, ValueError):
        return None


if __name__ == "__main__":
    sys.exit(main())
