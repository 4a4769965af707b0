"""The states a data set can be in, and reports of them: a table with notes for people, JSON, a list of pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from datasets.preparation.decode import Unreadable
from datasets.splits import PARTS

OK, MISSING, PARTIAL, CORRUPT, FOREIGN, LAYOUT = "ok", "missing", "partial", "corrupt", "foreign-split", "layout"
STATES = {
    OK: "all listed images are there and can be read",
    MISSING: "there is no folder",
    PARTIAL: "the folder is there, but not all that belongs into it",
    CORRUPT: "a list or images cannot be read",
    FOREIGN: "complete, but not the published split; results cannot be compared",
    LAYOUT: "files lie elsewhere or under other names; the note says what to move",
}
COLUMNS = ("data set", "folder", "state", *PARTS, "classes", "missing", "unreadable", "split")
NONE = "–"


@dataclass(frozen=True)
class Report:
    """A data set on disk against what it should be.

    Attributes:
        dataset: name of its reader.
        folder: where it is, or should be.
        state: one of STATES.
        expected: pictures in train, val and test: as published, or as the lists on disk have it.
        found: those of them that are files; None where the lists cannot be read.
        n_classes: expected; 0 where nothing is known.
        n_classes_found: None where the lists cannot be read.
        images: folder of the pictures; None where it was not found.
        missing: paths below `images` of listed pictures that are not there.
        unreadable: of those that cannot be read; None where level quick did not look at files.
        n_outside: pictures that links take out of the folder.
        split_digest: of the content of the split (`Split.digest`); "" where the lists cannot be read.
        split_published: whether that is the published split; None where nothing is published or known.
        notes: sentences, what is wrong first.
    """

    dataset: str
    folder: Path
    state: str
    expected: tuple[int, int, int]
    found: tuple[int, int, int] | None = None
    n_classes: int = 0
    n_classes_found: int | None = None
    images: Path | None = None
    missing: tuple[str, ...] = ()
    unreadable: tuple[Unreadable, ...] | None = None
    n_outside: int = 0
    split_digest: str = ""
    split_published: bool | None = None
    notes: tuple[str, ...] = ()

    @property
    def n_missing(self) -> int | None:
        """Expected pictures that are not there; can exceed `missing`, where the folders are the only list."""
        if self.found is None:
            return None
        return sum(max(wanted - there, 0) for wanted, there in zip(self.expected, self.found, strict=True))


def exit_code(reports: Sequence[Report], strict: bool = False) -> int:
    """0: all good; 4: something is corrupt, or `strict` and not the published split; 1: something is not there."""
    states = {report.state for report in reports}
    foreign = any(report.split_published is False for report in reports)
    if CORRUPT in states or (strict and foreign):
        return 4
    return 1 if states & {MISSING, PARTIAL, LAYOUT} else 0


def to_table(reports: Sequence[Report], root: Path, level: str) -> str:
    """A row a data set, and below them the notes, which name the data set they are about."""
    rows = [_cells(report, root) for report in reports]
    align = ["left"] * 3 + ["right"] * (len(COLUMNS) - 4) + ["left"]
    table = tabulate(rows, COLUMNS, tablefmt="simple", colalign=align, disable_numparse=True)
    notes = [f"{report.dataset}: {note}" for report in reports for note in report.notes]
    return printable("\n".join([f"Data root: {root}, level: {level}", "", table, *([""] if notes else []), *notes]))


def to_json(reports: Sequence[Report], root: Path, level: str) -> str:
    """JSON of all that the reports hold; pure ASCII, so that odd file names survive."""
    return json.dumps({"root": str(root), "level": level, "datasets": [_record(r) for r in reports]}, indent=2)


def to_list(reports: Iterable[Report]) -> bytes:
    """All missing and unreadable pictures, a line each: data set, missing or unreadable, path, reason; tabs between.

    Paths keep the bytes that they have on disk.
    """
    return b"".join(os.fsencode("\t".join(fields) + "\n") for report in reports for fields in _listed(report))


def printable(text: str) -> str:
    """Text that every terminal of ours can take: file names may hold bytes that are no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def _listed(report: Report) -> Iterator[tuple[str, str, str, str]]:
    for path in report.missing:
        yield report.dataset, MISSING, f"{report.images}/{path}", ""
    for path, reason in report.unreadable or ():
        yield report.dataset, "unreadable", f"{report.images}/{path}", reason


def _cells(report: Report, root: Path) -> list[str]:
    found: Sequence[int | None] = report.found or (None,) * len(PARTS)
    return [
        report.dataset,
        os.path.relpath(report.folder, root),
        report.state,
        *(_share(*pair) for pair in zip(found, report.expected, strict=True)),
        _share(report.n_classes_found, report.n_classes),
        NONE if report.n_missing is None else f"{report.n_missing:,}",
        NONE if report.unreadable is None else f"{len(report.unreadable):,}",
        {True: "published", False: "not published", None: NONE}[report.split_published],
    ]


def _share(found: int | None, expected: int) -> str:
    if not (found or expected):
        return NONE
    return f"{'?' if found is None else f'{found:,}'}/{expected:,}"


def _record(report: Report) -> dict[str, Any]:
    found: Sequence[int | None] = report.found or (None,) * len(PARTS)
    return {
        "dataset": report.dataset,
        "folder": str(report.folder),
        "state": report.state,
        "images": {
            part: {"found": there, "expected": wanted}
            for part, there, wanted in zip(PARTS, found, report.expected, strict=True)
        },
        "classes": {"found": report.n_classes_found, "expected": report.n_classes},
        "image_folder": None if report.images is None else str(report.images),
        "n_missing": report.n_missing,
        "missing": list(report.missing),
        "unreadable": None if report.unreadable is None else [item._asdict() for item in report.unreadable],
        "n_outside": report.n_outside,
        "split_digest": report.split_digest or None,
        "split_published": report.split_published,
        "notes": list(report.notes),
    }
