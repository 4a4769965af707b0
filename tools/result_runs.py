"""Collect the finished runs below a folder, by protocol, and say which ones no figure contains.

Reads what `tools/run_reader.py` reads, where `tools/run_layout.py` says that it lies. Nothing here prints: a run that
is left out comes back as a `LeftOut`, and the command line names it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.protocols import transfers
from tools.run_layout import FOLDERS, PROTOCOLS, Place, place_of
from tools.run_names import method_name, natural
from tools.run_reader import Run, RunProblem, find_runs, load_metrics, read_run
from tools.run_state import is_older, tested_other_epoch

Pair = tuple[Run, Run | None]  # base, new; None: its method knows the base classes only


@dataclass(frozen=True)
class LeftOut:
    """A run that no figure contains, and why."""

    folder: Path
    reason: str

    def __str__(self) -> str:
        return f"left out {self.folder}: {self.reason}"


@dataclass(frozen=True)
class Found:
    """A run folder, whether its run can be used or not."""

    folder: Path
    place: Place
    method: str


@dataclass
class Collection:
    """All runs below an output folder."""

    root: Path  # holds the protocols' folders
    pairs: list[Pair] = field(default_factory=list)  # of base2new
    runs: list[Run] = field(default_factory=list)  # of the other protocols
    found: list[Found] = field(default_factory=list)  # of all protocols, unusable ones included
    left_out: list[LeftOut] = field(default_factory=list)

    def all_runs(self) -> Iterator[Run]:
        """Every finished run that a figure contains."""
        for pair in self.pairs:
            yield from filter(None, pair)
        yield from self.runs


def collect(folder: Path) -> Collection:
    """Read all runs below an output folder, or below the folder of one protocol; of xd with the training in fewshot.

    Raises:
        FileNotFoundError: no folder of a protocol there.
    """
    here = folder if folder.name else folder.resolve()  # "." has no name
    if here.name in FOLDERS:
        root, names = here.parent, ["fewshot", "xd"] if here.name == "xd" else [here.name]
    else:
        root, names = folder, [name for name in FOLDERS if (folder / name).is_dir()]
    if not folder.is_dir() or not names:
        wanted = ", ".join(f"{name}/" for name in FOLDERS[:-1])
        raise FileNotFoundError(
            f"found no {wanted} or {FOLDERS[-1]}/ in {folder}; name the folder that the scripts call OUTPUT"
        )
    collection = Collection(root)
    for name in names:
        _collect_folder(collection, name)
    known = {(found.place.trainer, found.place.config): found.method for found in collection.found if found.method}
    for i, found in enumerate(collection.found):
        if not found.method:  # its metrics.json does not tell; another run of the same config may
            trainer, config = found.place.trainer, found.place.config
            method = known.get((trainer, config)) or trainer or "?"
            collection.found[i] = Found(found.folder, found.place, method)
    return collection


def _collect_folder(collection: Collection, name: str) -> None:
    root = collection.root / name
    strangers, found = [], []
    for folder in find_runs(root):
        place = place_of(folder)
        if place.protocol and PROTOCOLS[place.protocol].place.startswith(f"{name}/"):
            found.append(Found(folder, place, _method_of(folder, place)))
        else:
            strangers.append(LeftOut(folder, f"its path below {root} is not laid out as the scripts do it"))
    collection.found += found
    collection.left_out += strangers
    if name == "base2new":
        pairs, left_out = pair_runs(root / "train_base", root / "test_new")
        collection.pairs = [pair for pair in pairs if pair[0].place.protocol]
        told = {item.folder for item in strangers}
        collection.left_out += [item for item in left_out if item.folder not in told]
        return
    for item in found:
        run = _usable(item.folder, "all")
        if isinstance(run, Run) and (reason := _other_model(run, _model_of(collection.root, item.place))):
            run = LeftOut(item.folder, reason)
        if isinstance(run, Run):
            collection.runs.append(run)
        else:
            collection.left_out.append(run)


def _model_of(root: Path, place: Place) -> Run | None:
    """The finished training run behind a test on another data set; None if there is none."""
    run = _usable(root / place.model.folder, "all") if place.model else None
    return run if isinstance(run, Run) else None


def _method_of(folder: Path, place: Place) -> str:
    """The method of a run, finished or not; "" where a damaged or missing metrics.json leaves it open."""
    path = folder / "metrics.json"
    if not path.is_file() and (folder / "log.txt").is_file():
        return method_name(place.trainer or "?", {})
    try:
        config = load_metrics(path).get("config")
    except RunProblem:
        return ""
    return method_name(place.trainer or "?", config if isinstance(config, dict) else {})


def pair_runs(base: Path, new: Path, keyword: str = "accuracy") -> tuple[list[Pair], list[LeftOut]]:
    """Read the runs below two folders and pair those with the same path below them.

    Returns:
        pairs (base, new), and what had to be left out: runs that are missing, unfinished or damaged, that evaluated
        other classes than their side says, that tested an older model or another epoch, or that have no usable partner.
        A base run of a method that knows its own classes only needs none: its new run is None.
    """
    base_runs, base_bad = _usable_runs(base, "base", keyword)
    new_runs, new_bad = _usable_runs(new, "new", keyword)
    left_out = [*base_bad.values(), *new_bad.values()]
    pairs: list[Pair] = []
    for tail in sorted(base_runs.keys() | new_runs.keys(), key=natural):
        if tail in base_runs and tail in new_runs:
            trained, tested = base_runs[tail], new_runs[tail]
            if reason := _other_model(tested, trained):
                left_out.append(LeftOut(tested.folder, reason))
            else:
                pairs.append((trained, tested))
        elif tail in base_runs and not transfers(base_runs[tail].trainer or ""):
            pairs.append((base_runs[tail], None))
        elif tail in base_runs:
            left_out.append(_partnerless(base_runs[tail], "new", new / tail, tail in new_bad))
        else:
            left_out.append(_partnerless(new_runs[tail], "base", base / tail, tail in base_bad))
    return pairs, left_out


def _usable_runs(root: Path, classes: str, keyword: str) -> tuple[dict[Path, Run], dict[Path, LeftOut]]:
    usable: dict[Path, Run] = {}
    bad: dict[Path, LeftOut] = {}
    for folder in find_runs(root):
        run = _usable(folder, classes, keyword)
        if isinstance(run, Run):
            usable[folder.relative_to(root)] = run
        else:
            bad[folder.relative_to(root)] = run
    return usable, bad


def _usable(folder: Path, classes: str, keyword: str = "accuracy") -> Run | LeftOut:
    """Read a run; `classes` is what it should have evaluated: "base", "new" or "all"."""
    try:
        run = read_run(folder, keyword)
    except RunProblem as problem:
        return LeftOut(folder, str(problem))
    evaluated = (run.metrics or {}).get("classes")
    if evaluated not in (None, classes):
        return LeftOut(folder, f"it evaluated the {evaluated!r} classes, expected {classes!r} here")
    return run


def _other_model(tested: Run, trained: Run | None) -> str | None:
    """Why a test is not one of the model that was trained; None if it is, or if nothing tells."""
    if trained is None or tested.metrics is None or trained.metrics is None or trained.metrics.get("mode") != "train":
        return None
    if is_older(tested.metrics, than=trained.metrics):
        return "it was tested before its model was trained (anew); test again"
    final: dict[str, Any] = trained.metrics.get("final") or {}
    if tested_other_epoch(tested.metrics, final.get("epoch")):
        epoch = tested.metrics["final"]["epoch"]
        return f"it tested epoch {epoch}, and its training run measured epoch {final['epoch']}; test again"
    return None


def _partnerless(run: Run, classes: str, partner: Path, is_bad: bool) -> LeftOut:
    return LeftOut(run.folder, f"its partner on {classes} classes, {partner}, is {'left out' if is_bad else 'missing'}")
