"""Small JSON files of a sweep, whole or not there."""

from __future__ import annotations

import contextlib
import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any


def write_json(path: Path, tree: dict[str, Any]) -> None:
    """Write a file in one step, so that a reader meets the earlier one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.uname().nodename}-{os.getpid()}")
    try:
        temporary.write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file; None if there is no such file, or something else is in it."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return tree if isinstance(tree, dict) else None


def now() -> str:
    """This moment with the local offset, as metrics.json writes it."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def span(seconds: float) -> str:
    """A time span for people: `45 s`, `12:05`, `3:12:05`, `2 d 03:12`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours:02}:{minutes:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
