"""`train.py --dry-run`: what a run would train, on what, how long, and what stands in its way. Nothing is written.

The run's own trainer is made, does a few steps and one test batch, and is thrown away; where it writes, if it does, is
a temporary folder. Generators of random numbers are put back.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from yacs.config import CfgNode as CN

from clip.download import no_downloads
from clip.lengths import TextLengths, watch_texts
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import build_trainer
from dassl.engine.resume import rng_state, set_rng_state
from datasets.errors import DatasetMissing
from datasets.layout import data_root
from datasets.samples import samples_not_kept
from datasets.shapes import RenderedDataset
from tools.dry_run import report
from tools.dry_run.folder import Outlook, evaluation_outlook, training_outlook
from tools.dry_run.recipe import recipe_lines
from tools.dry_run.timing import Measured, measure
from trainers.base import MethodTrainer
from trainers.feature_cache import leave_cache_out

TOLD = ("Warning:", "Note:", "Cannot read the image")  # lines of a trainer's making that are passed on


def dry_run(args: Namespace, cfg: CN, configuration: Callable[[str], CN]) -> None:
    """Print the plan of a run.

    Args:
        args: what was typed.
        cfg: what it amounts to.
        configuration: makes the configuration of another config file on the same data, without what was typed.

    Raises:
        ValueError: the run could not start, or class names do not fit the text tower; the plan is printed before.
        Others: what the run itself would raise before its first step, such as files that are missing.
    """
    trains = not (args.eval_only or args.no_train)
    generators = rng_state()
    try:
        with tempfile.TemporaryDirectory() as place, no_traces(), watch_texts() as texts:
            refuse_undrawn(cfg)
            with told() as lines:
                trainer = build_trainer(without_traces(cfg, place))
                if trains:
                    trainer.check_training()
                elif args.eval_only:
                    trainer.load_model(args.model_dir, epoch=args.load_epoch)
                measured = measure(trainer, trains)
                trainer.cfg = cfg
                refuse_cache(trainer)
            outlook = evaluation_outlook(cfg) if args.eval_only else training_outlook(trainer, cfg)
    finally:
        set_rng_state(generators)
    print_plan(args, cfg, trainer, measured, texts, outlook, trains, lines, configuration)
    refuse(outlook, texts)


def print_plan(
    args: Namespace,
    cfg: CN,
    trainer: Any,
    measured: Measured,
    texts: Mapping[str, TextLengths],
    outlook: Outlook,
    trains: bool,
    lines: list[str],
    configuration: Callable[[str], CN],
) -> None:
    """All sections of the report."""
    print(f"Dry run: nothing is trained, and nothing is written to {cfg.OUTPUT_DIR or 'the current folder'}.")
    for line in lines:
        print(line)
    report.section("Method", report.method_lines(trainer, cfg))
    report.section("Data", report.data_lines(trainer, cfg, trains))
    report.section(*report.estimate_section(trainer, cfg, measured, outlook, trains))
    report.section("Text", report.text_lines(trainer, texts))
    report.section(*recipe_lines(cfg, Path(args.config_file).stem, configuration))
    does = "builds everything, and stops (--no-train)" if args.no_train and not args.eval_only else outlook.does
    report.section(f"Output folder {cfg.OUTPUT_DIR}", [("holds", outlook.found), ("the command", does)])


def without_traces(cfg: CN, place: str) -> CN:
    """The configuration of the trainer that is thrown away.

    It writes into a temporary folder, loads images itself, which changes none of them, and keeps no features.
    """
    own = cfg.clone()
    own.defrost()
    own.OUTPUT_DIR, own.VERBOSE = place, False
    own.DATALOADER.NUM_WORKERS = 0
    leave_cache_out(own)
    own.freeze()
    return own


def refuse_undrawn(cfg: CN) -> None:
    """A run draws the embedded benchmark where it is missing; a dry run does not.

    Raises:
        DatasetMissing: it is missing.
    """
    name = cfg.DATASET.NAME
    reader = DATASET_REGISTRY.get(name) if name in DATASET_REGISTRY.registered_names() else None
    if not (isinstance(reader, type) and issubclass(reader, RenderedDataset)):
        return
    root = data_root(cfg.DATASET.ROOT)
    if not reader.is_drawn(root):
        raise DatasetMissing(
            f"No pictures of {name} below {root}; a run draws them first, or draw them now with: "
            f"{reader.draw_command(root)}."
        )


def refuse_cache(trainer: Any) -> None:
    """What the run would say of DATALOADER.CACHE, without which the trainer was made and measured; reads no features.

    Raises:
        ValueError: as the run.
    """
    if isinstance(trainer, MethodTrainer):
        trainer.check_cfg(trainer.cfg)
        trainer.feature_cache = trainer.build_cache()
        for loader in (trainer.train_loader_x, trainer.val_loader, trainer.test_loader):
            trainer.cached(loader)


def refuse(outlook: Outlook, texts: Mapping[str, TextLengths]) -> None:
    """End with the reason why the run could not start, if there is one.

    Raises:
        ValueError: there is.
    """
    if outlook.refusal:
        raise ValueError(outlook.refusal)
    long = {name for kind in texts.values() for name in kind.too_long}
    if long:
        limit = next(iter(texts.values())).limit
        names = "1 class name is" if len(long) == 1 else f"{len(long)} class names are"
        raise ValueError(
            f"{names} too long for the text tower's {limit} tokens, as listed above; shorten the names, or take a "
            "shorter context."
        )


@contextlib.contextmanager
def no_traces() -> Iterator[None]:
    """Inside, nothing is downloaded, and no few-shot sample is kept beside the data."""
    with no_downloads(), samples_not_kept():
        yield


@contextlib.contextmanager
def told() -> Iterator[list[str]]:
    """Inside, what is printed is kept back; the list then holds its warnings and notes."""
    kept = io.StringIO()
    lines: list[str] = []
    with contextlib.redirect_stdout(kept):
        yield lines
    lines += [line for line in kept.getvalue().splitlines() if line.startswith(TOLD)]
