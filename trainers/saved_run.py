"""A run folder, read back: what ran there, and its trainer once more, with trained tensors but without a data set."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yacs.config import CfgNode as CN

from dassl.config import get_cfg_default, merge_opts
from dassl.engine import TRAINER_REGISTRY
from dassl.engine.record import FILE, read_record
from dassl.utils.torchtools import model_file
from trainers.base import MethodTrainer
from trainers.config import extend_cfg
from trainers.feature_cache import leave_cache_out


def final_epoch(record: Mapping[str, Any]) -> int | None:
    """The epoch that a finished training run ended with; None: its best one."""
    test = record["config"]["TEST"]
    if test["FINAL_MODEL"] != "last_step" and not test["NO_TEST"]:
        return None
    return int(record["epochs"][-1]["epoch"])


@dataclass(frozen=True)
class SavedRun:
    """A run folder of this project, trained or evaluated.

    Args:
        folder: where it is.
        record: its metrics.json.
        trainer_class: the trainer that ran.
    """

    folder: Path
    record: dict[str, Any]
    trainer_class: type[MethodTrainer]

    @classmethod
    def read(cls, folder: str | os.PathLike) -> SavedRun:
        """Find out what a folder holds; no weights are read.

        Raises:
            FileNotFoundError: there is no such folder, or no metrics.json in it.
            ValueError: metrics.json is damaged, or of a trainer that is no method of this project.
        """
        path = Path(folder).expanduser()
        if not path.is_dir():
            raise FileNotFoundError(f"No run folder at {path}; name the folder that train.py wrote (--output-dir).")
        if not (path / FILE).is_file():
            raise FileNotFoundError(
                f"{path} holds no {FILE}, so it does not say what ran there; name the folder that train.py wrote "
                "(--output-dir)."
            )
        record = read_record(path)
        if record is None or not all(record.get(key) for key in ("mode", "trainer", "config", "class_names")):
            raise ValueError(f"{path / FILE} is damaged or not of a run of train.py; restore it, or run again.")
        name = record["trainer"]
        known = name in TRAINER_REGISTRY.registered_names()
        if not known or not issubclass(TRAINER_REGISTRY.get(name), MethodTrainer):
            raise ValueError(f"{path} is a run of {name}, which is no method of this project.")
        return cls(path, record, TRAINER_REGISTRY.get(name))

    @property
    def names(self) -> tuple[str, ...]:
        """Class names of the run, in the order of its logits."""
        return tuple(self.record["class_names"])

    def config(self, opts: Sequence[str] = ()) -> CN:
        """The run's configuration, on the best device of this machine, with nothing printed and nothing cached.

        Args:
            opts: KEY, VALUE, …, later than the run's own.

        Raises:
            ValueError: this version does not know a key of the run, or a value of `opts` is of a wrong kind.
            AssertionError: an unknown key in `opts`.
        """
        cfg = get_cfg_default()
        extend_cfg(cfg)
        recorded = dict(self.record["config"])
        # options of methods that are not registered here can't have been used: the run's own trainer is
        recorded["TRAINER"] = {key: value for key, value in recorded["TRAINER"].items() if key in cfg.TRAINER}
        try:
            cfg.merge_from_other_cfg(CN(recorded))
        except (KeyError, ValueError) as error:
            reason = error.args[0] if error.args else error
            raise ValueError(f"{self.folder} has options that this version does not know: {reason}.") from None
        cfg.DEVICE, cfg.USE_CUDA, cfg.VERBOSE = "auto", True, False
        # of no use where nothing is trained; files may be gone, and this machine may have no GPU and no compiler
        cfg.MODEL.INIT_WEIGHTS, cfg.MODEL.BACKBONE.COMPILE, cfg.CUDA_GRAPH = "", False, False
        leave_cache_out(cfg)
        merge_opts(cfg, opts)
        cfg.freeze()
        return cfg

    def weights(self, epoch: int | None = None) -> tuple[str, int | None]:
        """Folder and epoch of the trained tensors, as `load_model` takes them; "" where the run trained none.

        Of a training run they are those that it ended with, of an evaluation those that it tested.

        Args:
            epoch: another one instead.

        Raises:
            ValueError: the run is not finished, or has no epochs to choose.
            FileNotFoundError: the folder that an evaluation tested is not there, or holds no such weights.
        """
        record = self.record
        if not record.get("finished") and (epoch is None or record["mode"] != "train"):
            done = len(record.get("epochs") or ())
            told = f" ({done} of {record['config']['OPTIM']['MAX_EPOCH']} epochs)" if record["mode"] == "train" else ""
            raise ValueError(
                f"The run in {self.folder} is not finished{told}; give its command again, or name a saved epoch with "
                "--load-epoch."
            )
        if record["mode"] == "train":
            where, epoch = self.folder, final_epoch(record) if epoch is None else epoch
        else:
            tested = record["final"]["model_dir"]
            if not tested:
                if epoch is not None:
                    raise ValueError(f"{record['trainer']} trains nothing, so {self.folder} has no epochs to choose.")
                return "", None
            where = self._tested_folder(tested)
            if epoch is None:
                epoch = self._tested_epoch(where)
        model_file(where, self.trainer_class.model_name, epoch)  # refuses what is not there
        return str(where), epoch

    def _tested_folder(self, tested: str) -> Path:
        """The folder that an evaluation took its weights from; if it was a relative one, seen from where that ran.

        Raises:
            FileNotFoundError: it is gone.
        """
        own, here = Path(self.record["config"]["OUTPUT_DIR"]), self.folder.resolve()
        places = [Path(tested)]
        if not own.is_absolute() and here.parts[-len(own.parts) :] == own.parts:
            places.insert(0, Path(*here.parts[: -len(own.parts)]) / tested)
        for place in places:
            if place.is_dir():
                return place
        raise FileNotFoundError(
            f"The evaluation in {self.folder} tested the run in {tested}, where no folder is; name that run instead."
        )

    def _tested_epoch(self, where: Path) -> int | None:
        """The epoch of the file that an evaluation read; None: that of the best epoch."""
        epoch = self.record["final"]["epoch"]
        try:
            model_file(where, self.trainer_class.model_name, epoch)
        except FileNotFoundError:  # best epochs have no file of their own
            return None
        return epoch

    def trainer(
        self, names: Sequence[str] | None = None, epoch: int | None = None, opts: Sequence[str] = ()
    ) -> MethodTrainer:
        """The run's trainer as its evaluation has it, but with class names in the place of a data set.

        Args:
            names: other classes than the run's.
            epoch: load the weights of this epoch instead of those that the run ended with.
            opts: KEY, VALUE, …, such as MODEL.BACKBONE.NAME where its weights lie elsewhere now.

        Raises:
            ValueError: the run is not finished, or can't be used so.
            FileNotFoundError: weights are missing, trained ones or the backbone's.
            RuntimeError: they are damaged, or belong to another backbone or other classes.
        """
        where, epoch = self.weights(epoch)
        classes = self.names if names is None else tuple(names)
        kind = type(self.trainer_class.__name__, (_NamesOnly, self.trainer_class), {"names": classes})
        trainer = kind(self.config(opts))
        if where:
            trainer.load_model(where, epoch)
        trainer.method.eval()
        return trainer


class _NamesOnly:
    """In front of a trainer class: no pictures, no loaders, only the names of the classes."""

    names: tuple[str, ...]

    def build_data_loader(self: Any) -> None:
        self.dm = _Manager(_Classes(list(self.names), list(self.names)))
        self.lab2cname = dict(enumerate(self.names))
        self.num_classes, self.num_source_domains = len(self.names), 0
        self.train_loader_x = self.val_loader = self.test_loader = None
        # a method that learns from a teacher asks whether there are images for it
        self.train_loader_u: Any = [] if self.cfg.DATASET.NUM_UNLABELLED else None


@dataclass(frozen=True)
class _Classes:
    classnames: list[str]
    all_classnames: list[str]


@dataclass(frozen=True)
class _Manager:
    dataset: _Classes
