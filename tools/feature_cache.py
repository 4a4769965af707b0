"""Show and remove what DATALOADER.CACHE keeps: features of frozen image encoders (docs/cache.md).

    python tools/feature_cache.py list output/cache
    python tools/feature_cache.py clear output/cache                        # all of it
    python tools/feature_cache.py clear output/cache/Shapes-plain-0123456789abcdef

A cache that a run is writing is left alone. One that a run is reading can be removed: the run keeps what it has opened.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from filelock import FileLock, Timeout

from dassl.utils.files import TEMPORARY
from tools.result_render import to_text
from trainers.feature_store import GIB, MANIFEST, UNREADABLE, StoredFeatures, disk_errors, folder_bytes, lock_file


@dataclass(frozen=True)
class Entry:
    """A store, or what a killed writer left of one."""

    path: Path
    n_bytes: int
    state: str  # "whole" | "unfinished" | "damaged"
    manifest: dict[str, Any]  # {} unless it is whole


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        found = entries(Path(args.folder).expanduser())
        if args.command == "clear":
            clear(found)
        else:
            show(found)
    except (OSError, RuntimeError, ValueError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("list", "clear"))
    parser.add_argument("folder", help="the folder of DATALOADER.CACHE, or one cache in it")
    return parser


def entries(folder: Path) -> list[Entry]:
    """What lies in a cache's folder, by name, or the one cache that the folder is; other files are left out.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}; name that of DATALOADER.CACHE.")
    inside = sorted(path for path in folder.iterdir() if path.is_dir())
    return [entry_of(path) for path in ([folder] if is_store(folder) else inside) if is_store(path)]


def is_store(path: Path) -> bool:
    return (path / MANIFEST).is_file() or (path.name.startswith(".") and TEMPORARY in path.name)


def entry_of(path: Path) -> Entry:
    size = folder_bytes(path)
    if TEMPORARY in path.name:
        return Entry(path, size, "unfinished", {})
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        StoredFeatures(path, manifest)
        return Entry(path, size, "whole", manifest)
    except UNREADABLE:
        return Entry(path, size, "damaged", {})


def show(found: Sequence[Entry]) -> None:
    """Print a table and the sum of the sizes."""
    rows = []
    for entry in found:
        about, facts = entry.manifest.get("about", {}), entry.manifest.get("facts", {})
        columns = " ".join(entry.manifest.get("columns", {}))
        told = [about.get("images", "–"), facts.get("views", "–"), facts.get("precision", "–"), facts.get("dtype", "–")]
        told += [about.get("backbone", "–"), columns or "–"]
        rows.append([entry.path.name, entry.state, *map(str, told), f"{entry.n_bytes / GIB:.3f}"])
    titles = ["Cache", "State", "Images", "Views", "Precision", "Stored", "Backbone", "Features", "GiB"]
    if rows:
        print(to_text(titles, rows, "table", 8))
    print(f"{len(found)} caches, {sum(entry.n_bytes for entry in found) / GIB:.3f} GiB")


def clear(found: Sequence[Entry]) -> None:
    """Remove them, one line each."""
    for entry in found:
        print(f"{'removed' if remove(entry) else 'in use, left alone:'} {entry.path} ({entry.n_bytes / GIB:.3f} GiB)")


def remove(entry: Entry) -> bool:
    """Delete a store, or what is left of one; False, and nothing is deleted, while a process writes it.

    Raises:
        RuntimeError: it can't be deleted.
    """
    name = entry.path.name.split(TEMPORARY)[0]
    if TEMPORARY in entry.path.name:
        name = name.removeprefix(".")
    with disk_errors(entry.path.parent):
        try:
            with FileLock(lock_file(entry.path.with_name(name)), timeout=0):
                shutil.rmtree(entry.path)
        except Timeout:
            return False
    return True


if __name__ == "__main__":
    sys.exit(main())
