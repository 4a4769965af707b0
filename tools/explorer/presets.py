"""What can be asked: trained runs, and zero-shot CLIP of their backbones; loaded for the class names at hand."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dassl.engine import TRAINER_REGISTRY
from tools.run_names import method_name
from trainers.predictor import Predictor
from trainers.saved_run import SavedRun

ZERO_SHOT = "ZeroshotCLIP"


@dataclass(frozen=True)
class Preset:
    """A way to classify, under the name that the page has for it."""

    title: str
    run: SavedRun
    epoch: int | None = None  # None: what the run ended with
    opts: tuple[str, ...] = ()  # KEY, VALUE, … of this machine

    def load(self, names: Sequence[str]) -> Predictor:
        """A predictor for these classes, a picture at a time.

        Raises:
            ValueError, FileNotFoundError, RuntimeError: as `Predictor.load`.
        """
        return Predictor(self.run.trainer(names, self.epoch, self.opts), batch_size=1)


def zero_shot_of(run: SavedRun) -> SavedRun:
    """The run as if its backbone had been evaluated untrained: same weights, template, preprocessing, precision."""
    config = run.record["config"]
    node = config["TRAINER"].get(run.trainer_class.node, {})
    trainer = {"NAME": ZERO_SHOT, "ZEROSHOTCLIP": {"PREC": node.get("PREC", "fp32")}}
    dataset = {**config["DATASET"], "NUM_UNLABELLED": 0}
    record = {
        **run.record,
        **{"trainer": ZERO_SHOT, "mode": "eval", "finished": True, "final": {"model_dir": None, "epoch": None}},
        "config": {**config, "TRAINER": trainer, "DATASET": dataset},
    }
    return replace(run, record=record, trainer_class=TRAINER_REGISTRY.get(ZERO_SHOT))


def find_presets(
    folders: Sequence[str | os.PathLike], epoch: int | None = None, opts: Sequence[str] = ()
) -> list[Preset]:
    """Zero-shot CLIP of every backbone among the runs, then the runs, in order.

    Raises:
        FileNotFoundError, ValueError: a folder holds no run that can be used, or is named twice.
    """
    runs = [SavedRun.read(folder) for folder in folders]
    places = [run.folder.resolve() for run in runs]
    for place in places:
        if places.count(place) > 1:
            raise ValueError(f"{place} is named twice; name each run once.")
    titles = distinct([method_name(run.record["trainer"], run.record["config"]) for run in runs], places)
    trained = [Preset(title, run, epoch, tuple(opts)) for title, run in zip(titles, runs, strict=True)]
    given = {_sees(run) for run in runs if run.record["trainer"] == ZERO_SHOT}  # they need no second one
    untrained = {_sees(run): zero_shot_of(run) for run in reversed(runs)}  # of the first run of each kind
    kept = [run for kind, run in reversed(untrained.items()) if kind not in given]
    names = distinct([f"zero-shot {backbone_title(run)}" for run in kept], [run.folder.resolve() for run in kept])
    return [Preset(name, run, None, tuple(opts)) for name, run in zip(names, kept, strict=True)] + trained


def _sees(run: SavedRun) -> str:
    """All of a run that its zero-shot CLIP depends on."""
    config = zero_shot_of(run).record["config"]
    seen = [config["INPUT"][key] for key in ("SIZE", "INTERPOLATION", "PIXEL_MEAN", "PIXEL_STD")]
    texts = [config["DATASET"].get(key, "") for key in ("NAME", "TEMPLATE")]
    return repr((config["MODEL"]["BACKBONE"]["NAME"], seen, texts, config["TRAINER"]))


def backbone_title(run: SavedRun) -> str:
    """The backbone's name; of a file's path only the end."""
    name = str(run.record["config"]["MODEL"]["BACKBONE"]["NAME"])
    return Path(name).name if Path(name).suffix else name


def distinct(titles: Sequence[str], places: Sequence[Path]) -> list[str]:
    """Titles that tell runs apart: where several are the same, with as much of the folder as it takes."""
    result = []
    for title, place in zip(titles, places, strict=True):
        same = [other for name, other in zip(titles, places, strict=True) if name == title]
        depth = 0
        while depth < len(place.parts) and len({other.parts[-depth:] if depth else () for other in same}) < len(same):
            depth += 1
        result.append(f"{title} ({'/'.join(place.parts[-depth:])})" if depth else title)
    return result


class Predictors:
    """The predictors that were asked last, by preset and class names; not safe for threads by itself.

    Args:
        bound: how many are kept; each holds its own copy of the backbone.

    Raises:
        ValueError: the bound is below 1.
    """

    def __init__(self, bound: int):
        if bound < 1:
            raise ValueError(f"--cache must be at least 1, got {bound}.")
        self.bound = bound
        self._kept: OrderedDict[tuple[str, tuple[str, ...]], Predictor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, preset: Preset, names: tuple[str, ...]) -> Predictor:
        """The predictor, loaded if it is not here; the one that was not asked for longest makes room first."""
        key = preset.title, names
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        while len(self._kept) >= self.bound:
            self._kept.popitem(last=False)
        self._kept[key] = preset.load(names)
        return self._kept[key]
