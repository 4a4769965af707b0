"""Few-shot samples as files: drawn once for a data set, shots and seed, then kept as JSON.

A kept sample outlives a change of Python's `random.sample`, can be read and compared by people, and carries the
fingerprint of the split it was drawn from, so that a changed split is noticed. Pickles of other projects are never
loaded: they could run code, and the same seed draws the same sample anyway.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from dassl.utils.files import write_json_file
from datasets.splits import VAL_SHOTS, Item, Split, by_label, sample_few_shot, sample_generator

SCHEMA = 1
FOLDER = "split_fewshot"

_kept: ContextVar[bool] = ContextVar("kept", default=True)


@contextmanager
def samples_not_kept() -> Iterator[None]:
    """Inside, samples are read as ever, but those that are drawn are not written."""
    token = _kept.set(False)
    try:
        yield
    finally:
        _kept.reset(token)


def few_shot(
    split: Split, digest: str, shots: int, seed: int, name: str, folder: Path, take_whole: bool = False
) -> Split:
    """The few-shot sample of a split, from its file if there is a valid one, else drawn and written.

    Args:
        digest: the split's; handed over, since it takes seconds for a million pictures.
        seed: of the run; a negative one asks for no reproducibility, so nothing is kept.
        folder: where samples are kept; one that can't be written is done without.
        shots, name, take_whole: as in `sample_few_shot`.

    Raises:
        ValueError: as in `sample_few_shot`.
    """
    if shots < 1 or seed < 0:
        return sample_few_shot(split, shots, sample_generator(seed), name, take_whole)
    path = folder / f"shot_{shots}-seed_{seed}.json"
    facts = {"schema": SCHEMA, "dataset": name, "shots": shots, "seed": seed, "split_digest": digest}
    kept = _read(path, facts, split, shots) if path.is_file() else None
    if kept is not None:
        return kept
    sample = sample_few_shot(split, shots, sample_generator(seed), name, take_whole)
    if not _kept.get():
        return sample
    paths = {"train": [item.path for item in sample.train], "val": [item.path for item in sample.val]}
    try:
        write_json_file(path, {**facts, **paths})
    except RuntimeError as error:
        print(f"Note: the sample is not kept, which changes no result: {error}")
    return sample


def samples_folder(folder: Path, inside: bool = True) -> Path:
    """Where samples of the data set in `folder` are kept: in it if it can be written, else in the user's cache."""
    if inside and os.access(folder, os.W_OK):
        return folder / FOLDER
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:12]
    return cache / "spotlighter" / f"{folder.name}-{place}"


def sample_digest(items: Sequence[Item]) -> str:
    """SHA-256 (hex) of the paths in order, a line each: two runs saw the same pictures if theirs are equal."""
    return hashlib.sha256("\n".join(item.path for item in items).encode()).hexdigest()


def report_pickles(folder: Path) -> None:
    """Say that pickles of other projects in a data set's folder are left alone, if there are any."""
    found = [path for path in (folder / "preprocessed.pkl", folder / FOLDER) if path.exists()]
    pickles = [p for path in found for p in ([path] if path.is_file() else sorted(path.glob("*.pkl")))]
    if pickles:
        print(
            f"Note: {pickles[0]} is not loaded, because a pickle can run code; nothing needs to be converted, since "
            f"the same seed and shots draw the same sample"
        )


def _read(path: Path, facts: dict[str, object], split: Split, shots: int) -> Split | None:
    """The sample in a file; None, with a line that says why, if it is damaged or of another split."""
    reason = "is damaged"
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if tree["split_digest"] != facts["split_digest"]:
            reason = "was drawn from another split"
        elif all(tree[key] == value for key, value in facts.items()):
            train = _items(split.train, tree["train"], shots)
            val = _items(split.val, tree["val"], min(shots, VAL_SHOTS))
            return Split(train, val, split.test)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    print(f"Note: {path} {reason}; the sample of {facts['dataset']} is drawn anew")
    return None


def _items(items: Sequence[Item], paths: Sequence[str], shots: int) -> list[Item]:
    """The items at the paths.

    Raises:
        ValueError: they are not `shots` different ones of each class (all, of a smaller class).
        KeyError: there is no such path.
    """
    by_path = {item.path: item for item in items}
    chosen = [by_path[path] for path in paths]
    counts = {group[0].label: len(set(group)) for group in by_label(chosen)}
    if counts != {group[0].label: min(len(group), shots) for group in by_label(items)} or len(set(paths)) != len(paths):
        raise ValueError("not a sample of these items")
    return chosen
