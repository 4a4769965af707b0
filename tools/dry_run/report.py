"""The lines of a dry run's report: method, data, estimate, text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from yacs.config import CfgNode as CN

from clip.lengths import TextLengths
from clip.weights import MODELS, find_weights
from dassl import distributed
from dassl.engine.record import count_parameters
from tools.dry_run.folder import Outlook
from tools.dry_run.timing import TIMED, WARM_UP, Measured, estimate, step_loaders, steps_an_epoch
from tools.dry_run.words import gib, plural, seconds
from tools.run_names import shots_title
from trainers.base import MethodTrainer
from trainers.method import Method

LONGEST = 5  # names that are shown where all fit
Lines = list[tuple[str, str]]


def section(title: str, lines: Sequence[tuple[str, str]]) -> None:
    """Print a title and its lines, what and value."""
    width = max(len(what) for what, _ in lines)
    print(f"\n{title}")
    for what, value in lines:
        print(f"  {what:<{width}}  {value}")


def method_lines(trainer: Any, cfg: CN) -> Lines:
    """What is trained around what."""
    host = cfg.TRAINER.get(cfg.TRAINER.NAME.upper(), CN()).get("HOST", "")
    counts = count_parameters(trainer)
    tensors, scalars = counts["trainable_tensors"], counts["trainable_scalars"]
    ours = isinstance(trainer, MethodTrainer)
    if ours:
        trained = list(trainer.method.trainables().values())
        tensors, scalars = len(trained), sum(p.numel() for p in trained)
    backbone = cfg.MODEL.BACKBONE.NAME or "–"
    lines = [
        ("method", cfg.TRAINER.NAME + (f" around {host}" if host else "")),
        ("backbone", f"{backbone}, {find_weights(backbone)}" if ours and backbone in MODELS else backbone),
        ("trained", f"{plural(tensors, 'tensor')}, {plural(scalars, 'scalar')}"),
        ("frozen", plural(counts["total_scalars"] - scalars, "scalar")),
    ]
    teacher = teacher_of(getattr(trainer, "method", None))
    if teacher is not None:
        inside = sum(p.numel() for module in (teacher, teacher.backbone) for p in module.parameters())
        lines.append(("teacher", f"{type(teacher).__name__} on {teacher.backbone.name}, {plural(inside, 'scalar')}"))
    if not ours:
        lines.append(("note", "a trainer of another project: what only its own code knows is left out"))
    return lines


def teacher_of(method: nn.Module | None) -> Method | None:
    """Whom a method, or the host that it stands on, is taught by."""
    while method is not None:
        teacher = getattr(method, "taught_by", None)
        if teacher is not None:
            return teacher
        method = getattr(method, "host", None)
    return None


def data_lines(trainer: Any, cfg: CN, trains: bool) -> Lines:
    """Images, classes, batches and steps."""
    data = trainer.dm.dataset
    splits = ((part, getattr(data, part, None)) for part in ("train_x", "train_u", "val", "test"))
    names = list(trainer.lab2cname.values())
    lines = [
        ("data set", f"{cfg.DATASET.NAME} in {getattr(data, 'folder', Path(cfg.DATASET.ROOT))}"),
        ("images", ", ".join(f"{part} {len(images):,}" for part, images in splits if images)),
        ("classes", f"{len(names):,} ({subset(cfg)}), from '{names[0]}' to '{names[-1]}'"),
        ("shots", shots_title(cfg.DATASET.NUM_SHOTS)),
    ]
    n, loaders = distributed.world_size(), step_loaders(trainer)
    sizes = f"{loaders[0].batch_size:,} in training, " if trains and loaders else ""
    among = f"; divided among {n} processes" if n > 1 else ""
    lines.append(("batch size", f"{sizes}{cfg.DATALOADER.TEST.BATCH_SIZE:,} in tests{among}"))
    if trains:
        steps, epochs = steps_an_epoch(trainer), cfg.OPTIM.MAX_EPOCH
        told = f"{steps:,} an epoch, {steps * epochs:,} in {plural(epochs, 'epoch')}"
        lines.append(("steps", told if loaders else f"{plural(epochs, 'epoch')} without steps that can be counted"))
    return lines


def subset(cfg: CN) -> str:
    """Which classes: all, base or new."""
    return cfg.DATASET.get("SUBSAMPLE_CLASSES", "all")


def estimate_section(trainer: Any, cfg: CN, measured: Measured, outlook: Outlook, trains: bool) -> tuple[str, Lines]:
    """Time and memory, and what they are estimated from."""
    epoch, batch = outlook.done
    steps = max(0, (cfg.OPTIM.MAX_EPOCH - epoch) * steps_an_epoch(trainer) - batch)
    starts_anew = trains and outlook.done == (0, 0) and not cfg.MODEL.INIT_WEIGHTS
    looks_at = trainer.images_before_training() if starts_anew and isinstance(trainer, MethodTrainer) else 0
    workers, epochs = cfg.DATALOADER.NUM_WORKERS, cfg.OPTIM.MAX_EPOCH - epoch
    found = estimate(trainer, measured, steps, workers, looks_at, trains, epochs)
    basis = f"{TIMED} steps behind {WARM_UP} to warm up, and one test batch" if measured.step else "one test batch"
    lines: Lines = []
    if measured.step is not None and found.step is not None and found.training is not None:
        alone = f"{seconds(measured.step.load)} to load its images, {seconds(measured.step.compute)} to compute"
        lines.append(("a step", f"{seconds(found.step)}: {alone}{beside(workers)}"))
        lines.append(("training", f"{seconds(found.training)} for {plural(steps, 'step')}"))
    elif trains:
        lines.append(("training", "not estimated: the trainer's epochs are not made of steps that can be run alone"))
    if looks_at:
        looked = f"{seconds(found.first_look)} to look at {plural(looks_at, 'image')} first"
        lines.insert(1, ("before", f"{looked}, what is made of them not counted"))
    lines.append(("tests", f"{seconds(found.evaluation)} for {plural(found.n_evaluations, 'test')}"))
    if found.total is not None:
        lines.append(("in all", f"{seconds(found.total)}, the start of the program left out"))
    memory = "" if measured.memory is None else f"{gib(measured.memory)} "
    lines.append(("memory", f"{memory}{measured.memory_of}"))
    if cfg.DATALOADER.CACHE:
        lines.append(("cache", "measured without DATALOADER.CACHE, which makes all but the first run faster"))
    return f"Estimate for {trainer.device}, from {basis}", lines


def beside(workers: int) -> str:
    return f", {plural(workers, 'process', 'processes')} loading beside it" if workers else ""


def text_lines(trainer: Any, texts: Mapping[str, TextLengths]) -> Lines:
    """How many tokens are left for a class name, and which names need most or too many."""
    if not texts:
        what = "reads no text" if isinstance(trainer, MethodTrainer) else "makes its texts itself; they are not counted"
        return [("tokens", f"{type(trainer).__name__} {what}")]
    tightest = max(texts.values(), key=lambda kind: (len(kind.too_long), max(kind.tokens.values())))
    lines = [(f"'{kind.sentence}'", room(kind)) for kind in texts.values() if kind.too_long or kind is tightest]
    others = len(texts) - len(lines)
    if others:
        lines.append(("others", f"{plural(others, 'kind')} of text, all shorter"))
    for kind in texts.values():
        lines += [("too long", f"{kind.tokens[name] - kind.overhead} tokens: '{name}'") for name in kind.too_long]
    if not any(kind.too_long for kind in texts.values()):
        listed = ", ".join(f"'{name}' {tokens}" for name, tokens in tightest.longest(LONGEST))
        lines.append(("longest", f"{listed}"))
    return lines


def room(kind: TextLengths) -> str:
    """The sum that leaves the budget."""
    return f"{kind.limit} tokens - {kind.overhead} of start, end and sentence = {kind.budget} for a class name"
