"""What is to be done for a data set: what is there, what is at hand, what must come from where. Nothing is written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clip.progress import readable_bytes
from datasets.preparation.arrange import presence
from datasets.preparation.catalogue import Artefact, Dataset, Piece

ARCHIVES = "archives"  # folder below that of a data set, for what was downloaded


@dataclass(frozen=True)
class Options:
    """What the user asked for."""

    root: Path  # of the data sets
    archives: Path | None = None  # folder with archives that the user has
    offline: bool = False  # open no connection
    accept_terms: bool = False  # of the data sets that want it said
    delete_archives: bool = False  # those that were downloaded, once the data set is there
    listed_only: bool = False  # unpack only the pictures that the split file lists
    quiet: bool = False  # no progress


@dataclass(frozen=True)
class Step:
    """What becomes of one artefact.

    `action`: "there" (in place), "use" (`path` is here), "make" (written on this machine), "download", "bring" (the
    user must), "blocked" (`reason` says what stands in the way), "spare" (another one gives the same).
    """

    artefact: Artefact
    action: str
    path: Path | None = None
    reason: str = ""


@dataclass(frozen=True)
class Plan:
    """The steps for one data set, in the order of the catalogue."""

    dataset: Dataset
    folder: Path
    steps: tuple[Step, ...]

    @property
    def complete(self) -> bool:
        return all(step.action in ("there", "spare") for step in self.steps)

    def select(self, *actions: str) -> Iterator[Step]:
        return (step for step in self.steps if step.action in actions)

    @property
    def download(self) -> int:
        """Bytes that still have to come."""
        parts = (self.folder / ARCHIVES / f"{step.artefact.file}.part" for step in self.select("download"))
        have = sum(part.stat().st_size for part in parts if part.is_file())
        return max(0, sum(step.artefact.size for step in self.select("download")) - have)

    @property
    def unpacked(self) -> int:
        """Bytes that unpacking takes, roughly, of what is here or can be downloaded."""
        return sum(step.artefact.unpacked for step in self.select("download", "use"))

    @property
    def unpacked_later(self) -> int:
        """Bytes that unpacking takes, roughly, of what the user has to bring."""
        return sum(step.artefact.unpacked for step in self.select("bring") if not step.artefact.alternative)

    def lack_of_space(self) -> str | None:
        """A sentence if the disk has too little space for this plan."""
        free, needed = free_space(self.folder), self.download + self.unpacked
        if free >= needed:
            return None
        return (
            f"{self.folder} has {readable_bytes(free)} free, but {self.dataset.name} needs {readable_bytes(needed)} "
            f"({readable_bytes(self.download)} to download, {readable_bytes(self.unpacked)} to unpack); free some "
            f"space, or choose another --root."
        )


def free_space(folder: Path) -> int:
    """Bytes that are free on the disk on which a folder is, or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def make_plan(dataset: Dataset, options: Options) -> Plan:
    """Look at the disk and decide.

    Archives that are here go before downloads, whichever of several that give the same.

    Raises:
        RuntimeError: the folder of the data set, or the data root, is no folder.
    """
    folder = options.root / dataset.folder
    for path in (options.root, folder):
        if path.is_symlink() and not path.exists():
            raise RuntimeError(f"{path} is a link to {os.readlink(path)}, which does not exist; mend it.")
        if path.exists() and not path.is_dir():
            raise RuntimeError(f"{path} should be a folder, but is none; move it away, or choose another --root.")
    absent = {place.to for artefact in dataset.artefacts for place in _open_places(artefact, folder)}
    steps: dict[str, Step] = {}
    covered: set[str] = set()

    def decide(artefact: Artefact, action: str, path: Path | None = None, reason: str = "") -> None:
        steps[artefact.file] = Step(artefact, action, path, reason)
        if action in ("use", "make", "download"):
            covered.update(place.to for place in artefact.places())

    for artefact in dataset.artefacts:
        needed = _needed(artefact, absent, covered)
        reason = _obstacle(artefact, folder)
        if reason and not artefact.alternative:
            decide(artefact, "blocked", reason=reason)
        elif needed and artefact.made:
            decide(artefact, "make")
        elif needed and (archive := find_archive(artefact, folder, options.archives)):
            decide(artefact, "use", archive)
    for artefact in (*dataset.primary, *(a for a in dataset.artefacts if a.alternative)):
        if artefact.file in steps:
            continue
        if not _needed(artefact, absent, covered):
            elsewhere = artefact.alternative or artefact.needed_for or _needed(artefact, absent, set())
            decide(artefact, "spare" if elsewhere else "there")
        elif artefact.sources and not options.offline:
            decide(artefact, "download")
        else:
            decide(artefact, "bring")
    return Plan(dataset, folder, tuple(steps[artefact.file] for artefact in dataset.artefacts))


def find_archive(artefact: Artefact, folder: Path, archives: Path | None) -> Path | None:
    """Where the user, or an earlier download, has put a file."""
    places = [archives, archives / folder.name] if archives else []
    places += [folder / ARCHIVES, *([folder] if artefact.pieces or artefact.needed_for else [])]
    candidates = (place / name for place in places for name in (artefact.file, *artefact.aliases))
    return next((path for path in candidates if path.is_file()), None)


def _open_places(artefact: Artefact, folder: Path) -> list[Piece]:
    return [p for p in artefact.places() if not p.optional and presence(folder / p.to) == "absent"]


def _needed(artefact: Artefact, absent: set[str], covered: set[str]) -> bool:
    """Whether something is absent that this artefact gives, and that no other one has promised."""
    if artefact.needed_for:
        return artefact.needed_for in absent
    return any(place.to in absent - covered for place in artefact.places() if not place.optional)


def _obstacle(artefact: Artefact, folder: Path) -> str:
    """Why an artefact cannot be put in place; "" if it can, or is."""
    for place in artefact.places():
        state = presence(folder / place.to)
        if state not in ("absent", "there") and not place.optional:
            return state
    path = folder / artefact.file
    if artefact.pieces or artefact.needed_for or not path.is_file() or not (fault := artefact.fault(path)):
        return ""
    return f"{path} is not the published file ({fault}); move it away to have that downloaded."
