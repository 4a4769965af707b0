"""From an archive to the folder of a data set: what goes where, what is there already, renaming into place."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath

from datasets.preparation.catalogue import Artefact, Piece
from datasets.preparation.extract import ArchiveError, Place, unpack

TEMPORARY = ".unpacking-"  # begins the name of the folder into which an archive is unpacked
PICTURES = {".jpg", ".jpeg", ".png"}


def place_of(pieces: Sequence[Piece], places: Collection[str], rules: Mapping[str, Place]) -> Place:
    """The rule by which the pieces sort the members of an archive.

    Args:
        places: what is wanted, `to` of the pieces; members of other pieces stay in the archive.
        rules: the special rules that pieces name.
    """

    def place(name: str) -> str | Place | None:
        for piece in pieces:
            if piece.rule and piece.to in places:
                return _below(piece.to, rules[piece.rule](name))
            for source in piece.sources:
                if name == source and any(inner.to in places for inner in piece.pieces):
                    return place_of(piece.pieces, places, rules)
                if piece.to in places and (name == source or name.startswith(f"{source}/")):
                    return piece.to + name[len(source) :]
        return None

    return place


def _below(folder: str, inner: str | Place | None) -> str | Place | None:
    if callable(inner):
        return lambda name: _below(folder, inner(name))
    return None if inner is None else f"{folder}/{inner}"


def listed_only(place: Place, listed: Collection[str]) -> Place:
    """Leave out pictures that are not listed, by paths below the folder of the data set or one folder deeper."""

    def narrowed(name: str) -> str | Place | None:
        to = place(name)
        if callable(to):
            return listed_only(to, listed)
        if to is None or PurePosixPath(to).suffix.lower() not in PICTURES:
            return to
        return to if to in listed or to.partition("/")[2] in listed else None

    return narrowed


def presence(path: Path) -> str:
    """State of a place: "absent", "there", or a sentence that says what stands in the way.

    A folder is there if it holds anything; whether it holds everything is for `verify` to say. A name with a suffix is
    that of a file.
    """
    if path.is_symlink() and not path.exists():
        return f"{path} is a link to {os.readlink(path)}, which does not exist; mend it or move it away."
    if not path.exists():
        return "absent"
    if PurePosixPath(path.name).suffix:
        if path.is_file():
            return "there" if path.stat().st_size else f"{path} is an empty file; move it away."
        return f"{path} should be a file, but is none; move it away."
    if not path.is_dir():
        return f"{path} should be a folder, but is none; move it away."
    return "there" if any(path.iterdir()) else "absent"


def unpack_into(
    archive: Path,
    artefact: Artefact,
    folder: Path,
    rules: Mapping[str, Place],
    listed: Collection[str] | None = None,
    quiet: bool = False,
) -> None:
    """Unpack what an archive is good for and is not there yet; an error or an interruption leaves nothing behind.

    Args:
        archive: the file of `artefact`.
        folder: of the data set.
        listed: the only pictures to unpack, see `listed_only`.

    Raises:
        ArchiveError: the archive is unsafe or damaged, or lacks something.
        RuntimeError: the disk did not take it.
    """
    absent = [place for place in artefact.places() if presence(folder / place.to) == "absent"]
    temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=folder))
    try:
        rule = place_of(artefact.pieces, {place.to for place in absent}, rules)
        rule = rule if listed is None else listed_only(rule, listed)
        unpack(archive, temporary, rule, artefact.unpacked, quiet)
        for place in absent:
            _flatten(temporary / place.to)
            if not place.optional and presence(temporary / place.to) != "there":
                found = place.sources[0] if place.sources else "picture"
                raise ArchiveError(f"{archive} holds no {found}; it is not the archive that was expected.")
        for to in (place.to for place in absent if (temporary / place.to).exists()):
            (folder / to).parent.mkdir(parents=True, exist_ok=True)
            (temporary / to).rename(folder / to)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _flatten(path: Path) -> None:
    """`cars_train/cars_train/...` is an accident of packing."""
    inner = path / path.name
    if path.is_dir() and inner.is_dir() and len(list(path.iterdir())) == 1:
        aside = path.with_name(f"{path.name}.outer")
        path.rename(aside)
        (aside / path.name).rename(path)
        aside.rmdir()


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed process left of an archive that it was unpacking."""
    for leftover in folder.glob(f"{TEMPORARY}*"):
        shutil.rmtree(leftover, ignore_errors=True)
