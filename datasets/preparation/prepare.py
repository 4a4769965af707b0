"""Making a data set out of its plan: downloading, checking, unpacking, and saying what a person has to do.

A data set is done file by file; what is in place is never touched, so that the same command goes on after an
interruption. One data set is prepared by one process at a time.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from clip.download import DownloadError, WrongFileError, fetch_any
from clip.progress import readable_bytes
from datasets.preparation import gdrive
from datasets.preparation.arrange import remove_leftovers, unpack_into
from datasets.preparation.catalogue import Artefact, Dataset, content_digest
from datasets.preparation.extract import ArchiveError, Place
from datasets.preparation.imagenet import train_place, val_place
from datasets.preparation.plan import ARCHIVES, Options, Plan, Step, find_archive, make_plan

logger = logging.getLogger(__name__)

OK, INCOMPLETE, NETWORK, DAMAGED = 0, 1, 3, 4  # exit codes; 2 is that of a wrong command line
RECEIVERS = {gdrive.SCHEME: gdrive.receive}


@dataclass
class Outcome:
    """What became of a data set: a word or two, an exit code, and sentences."""

    dataset: Dataset
    state: str
    code: int = OK
    notes: list[str] = field(default_factory=list)


def prepare(dataset: Dataset, options: Options) -> Outcome:
    """Bring a data set into the data root, as far as that goes; errors become notes of the outcome."""
    try:
        plan = make_plan(dataset, options)
        if plan.complete:
            if options.delete_archives:
                _delete_archives(dataset, plan.folder)
            return Outcome(dataset, "already there", notes=[f"{plan.folder} has all that {dataset.name} needs."])
        if dataset.acknowledge and not options.accept_terms:
            return Outcome(dataset, "terms", INCOMPLETE, [_ask_for_terms(dataset), *to_bring(plan)])
        if not any(plan.select("use", "make", "download")):
            return _incomplete(plan, [])
        if lack := plan.lack_of_space():
            return Outcome(dataset, "no space", INCOMPLETE, [lack])
        plan.folder.mkdir(parents=True, exist_ok=True)
        with _lock(dataset, options):
            return _carry_out(make_plan(dataset, options), options)
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return Outcome(dataset, "failed", INCOMPLETE, [f"{dataset.name} cannot be prepared ({what})."])
    except RuntimeError as error:
        return Outcome(dataset, "failed", INCOMPLETE, [str(error)])


def _ask_for_terms(dataset: Dataset) -> str:
    return (
        f"{dataset.name} may be used only under its terms ({dataset.licence}; {dataset.homepage}); add --accept-terms "
        f"if you accept them."
    )


@contextlib.contextmanager
def _lock(dataset: Dataset, options: Options) -> Iterator[None]:
    lock = FileLock(options.root / f".{dataset.folder}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.warning("Another process is preparing %s; waiting for it.", dataset.name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _carry_out(plan: Plan, options: Options) -> Outcome:
    dataset, folder = plan.dataset, plan.folder
    remove_leftovers(folder)
    failures: list[tuple[int, str]] = []
    helpers: list[Path] = []  # archives that another one needs
    for step in plan.select("use", "make", "download"):
        try:
            _do(step, dataset, folder, helpers, options)
        except (ArchiveError, WrongFileError) as error:
            failures.append((DAMAGED, _advise(step, folder, str(error))))
        except DownloadError as error:
            failures.append((NETWORK, _advise(step, folder, str(error))))
        except (RuntimeError, ValueError, OSError) as error:
            failures.append((INCOMPLETE, str(error)))
    after = make_plan(dataset, options)
    if not after.complete:
        return _incomplete(after, failures)
    if options.delete_archives:  # failures do not matter any more: another archive, or address, gave the same
        _delete_archives(dataset, folder)
    with contextlib.suppress(OSError):
        (folder / ARCHIVES).rmdir()  # if nothing is in it
    return Outcome(dataset, "ready", notes=[f"{dataset.name} is in {folder}."])


def _incomplete(plan: Plan, failures: list[tuple[int, str]]) -> Outcome:
    by_hand = to_bring(plan)
    if not by_hand and any(code in (NETWORK, DAMAGED) for code, _ in failures):
        by_hand = list(plan.dataset.manual)  # nothing that goes by itself has worked
    failures = [*((DAMAGED, step.reason) for step in plan.select("blocked")), *failures]
    code = max([INCOMPLETE, *(code for code, _ in failures)])
    return Outcome(plan.dataset, "incomplete", code, [*(note for _, note in failures), *by_hand])


def _do(step: Step, dataset: Dataset, folder: Path, helpers: list[Path], options: Options) -> None:
    """Carry out one step."""
    artefact = step.artefact
    if artefact.made:
        _place(_class_names(artefact), folder / artefact.file)
        return
    path = step.path or _download(artefact, folder, options)
    _check(artefact, path, step.action == "download", options)
    if artefact.needed_for:
        helpers.append(path)
    elif not artefact.pieces:
        _place(path, folder / artefact.file)
        if path.parent == folder / ARCHIVES:
            path.unlink()
    else:
        logger.info("Unpacking %s ...", path)
        rules: dict[str, Place] = {"imagenet_train": train_place}
        if any(piece.rule == "imagenet_val" for piece in artefact.pieces):
            if not helpers:
                raise RuntimeError(f"{path} has no labels; bring the development kit, too.")
            rules["imagenet_val"] = val_place(helpers[0])
        listed = _listed(dataset, folder) if options.listed_only else None
        unpack_into(path, artefact, folder, rules, listed, options.quiet)


def _listed(dataset: Dataset, folder: Path) -> set[str] | None:
    """Paths of the split file's pictures; None for a data set without one.

    Raises:
        RuntimeError: it is not there, or cannot be read.
    """
    names = [artefact.file for artefact in dataset.artefacts if artefact.file.startswith("split_zhou_")]
    if not names:
        return None
    path = folder / names[0]
    try:
        tree = json.loads(path.read_text(encoding="utf-8-sig"))
        return {item[0] for part in ("train", "val", "test") for item in tree[part]}
    except FileNotFoundError:
        raise RuntimeError(f"--listed-only needs {path}, which has to come first.") from None
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise RuntimeError(f"{path} is no split file, which --listed-only needs ({error!r:.200}).") from error


def _class_names(artefact: Artefact) -> bytes:
    from datasets.imagenet_classes import classnames_text  # loads two large libraries

    text = classnames_text()
    if content_digest(text, is_split=False) != artefact.content:
        raise RuntimeError("The installed open_clip_torch or timm has other class names of ImageNet; install another.")
    return text.encode()


def _download(artefact: Artefact, folder: Path, options: Options) -> Path:
    target = folder / ARCHIVES / artefact.file
    logger.info("Fetching %s (%s) ...", artefact.file, readable_bytes(artefact.size))
    fetch_any(artefact.sources, target, RECEIVERS, options.quiet)
    target.with_name(f"{target.name}.lock").unlink(missing_ok=True)  # the lock of the data set is ours
    return target


def _check(artefact: Artefact, path: Path, fetched: bool, options: Options) -> None:
    """Compare the digest; what was fetched just now has been compared, if its source has one."""
    unknown = any(not copy.expected.digest for copy in artefact.copies)
    if fetched and not unknown:
        return
    fault = artefact.fault(path, options.quiet)
    if fault and unknown:
        logger.warning("%s is taken unchecked, because no digest of it has been published (%s).", path, fault)
    elif fault:
        raise WrongFileError(f"{path} has {fault}; move it away, or put the right file there.")


def _place(content: Path | bytes, target: Path) -> None:
    """Write or copy a file, whole or not at all."""
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    try:
        if isinstance(content, bytes):
            temporary.write_bytes(content)
        else:
            shutil.copyfile(content, temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise RuntimeError(f"Cannot write {target} ({error.strerror or error}).") from error
    finally:
        temporary.unlink(missing_ok=True)


def _advise(step: Step, folder: Path, sentence: str) -> str:
    """What a person can do after a file has failed to come."""
    if step.action != "download":
        return sentence
    artefact = step.artefact
    pages = " or ".join(dict.fromkeys(gdrive.browser_address(source.address) for source in artefact.sources))
    return f"{sentence} You can get it with a browser from {pages} and put it to {destination(artefact, folder)}."


def destination(artefact: Artefact, folder: Path) -> str:
    """Where a person puts a file, with its digest."""
    digest = f" ({artefact.digests[0]})" if artefact.digests else ""
    return f"{folder / artefact.file}{digest}"


def to_bring(plan: Plan) -> list[str]:
    """What the user has to do by hand, as sentences: the steps, then the files with size, digest and place."""
    steps = list(plan.select("bring"))
    if not steps:
        return []
    lines = list(plan.dataset.manual)
    for step in steps:
        artefact = step.artefact
        size = f" of {readable_bytes(artefact.size)}" if artefact.size else ""
        pages = " or ".join(dict.fromkeys(gdrive.browser_address(source.address) for source in artefact.sources))
        lines.append(
            f"{'Or instead bring' if artefact.alternative else 'Bring'} {artefact.file}{size}"
            f"{f' from {pages}' if pages else ''} to {destination(artefact, plan.folder)}."
        )
    flags = " --accept-terms" if plan.dataset.acknowledge else ""
    lines.append(
        f"Files may also lie in another folder that you name with --archives. Then run: python tools/prepare_data.py "
        f"download {plan.dataset.name}{flags} --root {plan.folder.parent}"
    )
    return lines


def _delete_archives(dataset: Dataset, folder: Path) -> None:
    """Those in our own folder; what the user keeps elsewhere is his."""
    for artefact in dataset.artefacts:
        path = find_archive(artefact, folder, None)
        if path is not None and path.parent == folder / ARCHIVES:
            path.unlink()
