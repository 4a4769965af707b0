"""What lies in the output folder, and what the command without --dry-run would do about it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yacs.config import CfgNode as CN

from dassl.engine import record, resume
from dassl.utils.torchtools import load_checkpoint
from tools.dry_run.words import plural
from tools.run_state import state_of


@dataclass(frozen=True)
class Outlook:
    """What would happen.

    Attributes:
        found: what the folder holds.
        does: what the command would do.
        refusal: why it would not start; "" if it would.
        done: finished epochs, and batches of the next one, from which it would go on.
        skipped: whether the run is finished already.
    """

    found: str
    does: str
    refusal: str = ""
    done: tuple[int, int] = (0, 0)
    skipped: bool = False


def training_outlook(trainer: Any, cfg: CN) -> Outlook:
    """Of a training run.

    Args:
        trainer: made with `cfg`, but for where it writes.
        cfg: of the command.
    """
    folder = Path(cfg.OUTPUT_DIR)
    found = contents(folder)
    try:
        refuse_unwritable(folder)
        earlier = record.read_record(folder)
        if earlier is not None and earlier.get("mode") == "train" and earlier.get("finished"):
            resume.refuse_other_config(earlier.get("config") or {}, cfg, folder / record.FILE)
            return Outlook(found, "skips it; delete the folder to train again", skipped=True)
        start = Path(resume.start_folder(cfg.OUTPUT_DIR, cfg.RESUME))
        if (start / resume.FILE).is_file():
            state = resume.read(start / resume.FILE)
            resume.check(trainer, state, start / resume.FILE)
            epoch, batch = state["epoch"], state["batch"]
            done = f"{plural(epoch, 'epoch')} and {plural(batch, 'batch', 'batches')} done"
            return Outlook(found, f"goes on from {start / resume.FILE}: {done}", done=(epoch, batch))
        paths = trainer._newest_of_all(start)
    except (ValueError, RuntimeError, OSError) as error:
        return Outlook(found, "refuses to start", str(error))
    if not paths:
        return Outlook(found, "trains from the beginning")
    return _from_models(found, start, next(iter(paths.values())), cfg)


def _from_models(found: str, start: Path, path: Path, cfg: CN) -> Outlook:
    """Where there is no resume file, but a saved model."""
    earlier = record.read_record(start)
    try:
        if earlier is not None and earlier.get("mode") == "train":
            resume.refuse_other_config(earlier.get("config") or {}, cfg, start / record.FILE)
        epoch = int(load_checkpoint(path)["epoch"])
    except (ValueError, RuntimeError) as error:
        return Outlook(found, "refuses to start", str(error))
    return Outlook(found, f"goes on from {path}: {plural(epoch, 'epoch')} done", done=(epoch, 0))


def evaluation_outlook(cfg: CN) -> Outlook:
    """Of a test with --eval-only."""
    folder = Path(cfg.OUTPUT_DIR)
    earlier, found = record.read_record(folder), contents(folder)
    try:
        refuse_unwritable(folder)
    except RuntimeError as error:
        return Outlook(found, "refuses to start", str(error))
    if earlier is not None and earlier.get("mode") == "train":
        return Outlook(found, f"tests, and writes {record.EVAL_FILE} beside the training run's {record.FILE}")
    return Outlook(found, f"tests, and replaces {record.FILE}" if earlier is not None else "tests")


def contents(folder: Path) -> str:
    """What is in a folder, in a few words."""
    earlier = record.read_record(folder)
    if earlier is not None:
        kind = "test" if earlier.get("mode") == "eval" else "training run"
        return f"a finished {kind}" if earlier.get("finished") else f"an unfinished {kind}"
    if not folder.is_dir():
        return "nothing: there is no such folder"
    return "an unfinished run" if state_of(folder) == "unfinished" else "nothing"


def refuse_unwritable(folder: Path) -> None:
    """Make sure that the folder can be made, or written.

    Raises:
        RuntimeError: it can't.
    """
    place = Path(os.path.abspath(folder))
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        reason = "is no folder" if not place.is_dir() else "cannot be written"
        raise RuntimeError(f"OUTPUT_DIR is {folder}, but {place} {reason}; choose a folder that you may write to.")
