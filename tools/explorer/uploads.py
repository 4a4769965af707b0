"""Where uploaded pictures lie, and for how long. No gradio: it reads its environment when it is imported."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

SWEEP_SECONDS = 5.0  # between two looks for files that are old


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """A folder of this user alone, in which gradio and Python put all temporary files; gone afterwards.

    Gradio's own variables are set anew: no word to its makers, no history of runs, no public addresses or paths.
    """
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="explorer-", ignore_cleanup_errors=True) as folder:
        os.environ.update(GRADIO_TEMP_DIR=folder, GRADIO_ANALYTICS_ENABLED="False", GRADIO_RUN_HISTORY="False")
        os.environ.update(HF_HUB_DISABLE_TELEMETRY="1")
        before, tempfile.tempdir = tempfile.tempdir, folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = before


def sweep(folder: Path, seconds: float) -> None:
    """Delete files below a folder that were last changed longer ago than that, and folders that are left empty."""
    before = time.time() - seconds
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder comes before it
        try:
            if path.is_dir():
                path.rmdir()
            elif path.lstat().st_mtime < before:
                path.unlink()
        except OSError:  # not empty, or gone already
            continue


def keep_sweeping(folder: Path, seconds: float, stop: Event) -> None:
    """Sweep again and again until `stop` is set."""
    while not stop.wait(min(SWEEP_SECONDS, seconds)):
        sweep(folder, seconds)
