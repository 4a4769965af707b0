"""The rows of the table of figures to reach. To add one, write what measures it and an entry of `TARGETS`.

"Ours" is the method of the paper, CoOp with Spotlighter's head, unless a row says otherwise; the plain path has no such
head, so the comparison is to our disadvantage. CoOp alone, which computes what the plain path computes, stands beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from torch import Tensor

from tools.benchmarks.cached import with_cache
from tools.benchmarks.memory import Request, training_peak
from tools.benchmarks.plain import PlainCoOp, update_in_loops
from tools.benchmarks.subjects import BARE, PLAIN, Subject, make_subject, plain
from tools.benchmarks.targets import Bench, Measured, Target
from tools.benchmarks.timing import Ratio
from trainers.captured import Captured
from trainers.coop import CoOpMethod
from trainers.spotlighter.memory import PrototypeMemory

TEXT_CHUNK = 100  # classes in one pass of the text tower in the row that must fit in 8 GB
BANK = (500, 5)  # classes, prototypes a class
BANK_TOKENS = (64, 7)  # images, tokens an image, of one update
SAME = {"fp32": 1e-5, "other": 2e-2}  # by how much unit features may differ for the rounding of the last block


def against_bare(bench: Bench, target: Target) -> Measured:
    """Zero-shot CLIP on our path ÷ the bare encoder, which must give the same features."""
    bare, ours = bench.subject(BARE, target), bench.subject("ZeroshotCLIP", target)
    assert bare.features is not None
    assert ours.features is not None
    with torch.no_grad():
        difference = float((ours.features() - bare.features()).abs().max())
    times = bench.time({"bare": bare.inference, "ours": ours.inference}, target)
    allowed = SAME.get(target.precision, SAME["other"])
    objection = "" if difference <= allowed else f"unit features differ by {difference:.1e}, more than {allowed:.0e}"
    notes = [f"unit features differ by at most {difference:.1e}", bench.speeds(times)]
    return Measured.of(times.ratio("bare", "ours"), notes, objection)


def pruned_against_bare(bench: Bench, target: Target) -> Measured:
    """CoOp with Spotlighter's preset `fast`, head included ÷ the bare encoder."""
    bare, ours = bench.subject(BARE, target), bench.subject("Spotlighter, fast", target)
    times = bench.time({"bare": bare.inference, "ours": ours.inference}, target)
    return Measured.of(times.ratio("bare", "ours"), [bench.speeds(times)])


def with_plain(bench: Bench, target: Target) -> tuple[dict[str, Subject], CoOpMethod, PlainCoOp]:
    """The three subjects of a comparison with the plain path."""
    coop = bench.subject("CoOp", target)
    assert isinstance(coop.method, CoOpMethod)
    yardstick = plain(coop.method, bench.setting, bench.frozen(target.precision))
    assert isinstance(yardstick.method, PlainCoOp)
    subjects = {"plain": yardstick, "ours": bench.subject("Spotlighter", target), "CoOp alone": coop}
    return subjects, coop.method, yardstick.method


def inference_against_plain(bench: Bench, target: Target) -> Measured:
    """Images a second, ours ÷ plain path."""
    subjects, coop, yardstick = with_plain(bench, target)
    times = bench.time({name: subject.inference for name, subject in subjects.items()}, target)
    images = bench.frozen(target.precision).images(bench.setting.batch)
    with torch.no_grad(), bench.frozen(target.precision).precision.autocast():
        difference = float((coop.eval()(images) - yardstick.eval()(images)).abs().max())
    notes = [
        f"CoOp alone ÷ plain {times.ratio('plain', 'CoOp alone')}",
        f"their logits differ by at most {difference:.1e}",
        bench.speeds(times),
    ]
    return Measured.of(times.ratio("plain", "ours"), notes)


def training_against_plain(bench: Bench, target: Target) -> Measured:
    """Seconds of a training step, ours ÷ plain path."""
    subjects, _, _ = with_plain(bench, target)
    steps = {name: subject.training for name, subject in subjects.items() if subject.training is not None}
    times = bench.time(steps, target)
    notes = [f"CoOp alone ÷ plain {times.ratio('CoOp alone', 'plain')}", bench.speeds(times)]
    return Measured.of(times.ratio("ours", "plain"), notes)


def memory_against_plain(bench: Bench, target: Target) -> Measured:
    """Bytes at the peak of a training step, frozen weights included, ours ÷ plain path."""
    bench.clear()
    ours, yardstick = (
        training_peak(Request(what, bench.setting, target.precision, target.n_classes))
        for what in (bench.config("Spotlighter"), PLAIN)
    )
    return Measured(ours / yardstick, notes=[f"peak in GB: ours {ours / 1e9:.2f}, plain {yardstick / 1e9:.2f}"])


def memory_in_chunks(bench: Bench, target: Target) -> Measured:
    """Bytes at the peak of a training step of ours, with the classes' text in chunks."""
    bench.clear()
    options = (*bench.setting.options, "TRAINER.SPOTLIGHTER.TEXT_CHUNK", str(TEXT_CHUNK))
    setting = replace(bench.setting, options=options)
    peak = training_peak(Request(bench.config("Spotlighter"), setting, target.precision, target.n_classes))
    return Measured(peak / 1e9, notes=[f"TEXT_CHUNK {TEXT_CHUNK}"])


def bank_update(bench: Bench, target: Target) -> Measured:
    """Seconds of one update of the bank ÷ seconds of a training step of ours."""
    ours = bench.subject("Spotlighter", target)
    assert ours.training is not None
    assert ours.method is not None
    (n_cls, n_proto), (n_images, n_tokens) = BANK, BANK_TOKENS
    backbone, device = ours.method.backbone, bench.device
    width, scale = backbone.vision.vit.transformer.width, backbone.logit_scale.exp()
    memory = PrototypeMemory(n_cls, n_proto, width).to(device)
    memory.fill(torch.randn_like(memory.prototypes))
    tokens = torch.randn(n_images, n_tokens, width, device=device)
    label = torch.randint(n_cls, (n_images,), device=device)
    joint = torch.randn(n_cls, n_proto, backbone.spec.embed_dim, device=device)
    joint_tokens = torch.randn(n_images, n_tokens, backbone.spec.embed_dim, device=device)

    def view(rows: Tensor) -> Tensor:
        return F.normalize(backbone.vision.project(rows).float(), dim=-1)

    def update(tokens: Tensor) -> Tensor:
        memory.update(tokens, label, view, scale)
        return memory.prototypes

    in_one = Captured(update) if bench.setting.is_graphed else update
    steps = {
        "step": ours.training,
        "update": lambda: in_one(tokens),
        "in loops": lambda: update_in_loops(joint, joint_tokens, label, scale, memory.momentum),
    }
    times = bench.time(steps, target)
    shown = ", ".join(f"{name} {1000 * times.median(name):,.2f}" for name in steps)
    return Measured.of(times.ratio("update", "step"), [f"ms: {shown}"])


def cached_inference(bench: Bench, target: Target) -> Measured:
    """Images a second of a repeated evaluation, CoOp on stored features ÷ CoOp on pixels."""
    ratio, notes = _cached(bench, target, bench.subject("CoOp", target), is_training=False)
    head, _ = _cached(bench, target, bench.subject("Spotlighter", target), is_training=False)
    return Measured.of(ratio, [f"with Spotlighter's head, which reads all tokens, {head}", *notes])


def cached_training(bench: Bench, target: Target) -> Measured:
    """Training steps a second of Spotlighter's head on zero-shot CLIP, on stored features ÷ on pixels."""
    setting = replace(bench.setting, options=(*bench.setting.options, "TRAINER.SPOTLIGHTER.HOST", "ZeroshotCLIP"))
    head = make_subject(bench.config("Spotlighter"), setting, bench.frozen(target.precision), target.n_classes)
    return Measured.of(*_cached(bench, target, head, is_training=True))


def _cached(bench: Bench, target: Target, subject: Subject, is_training: bool) -> tuple[Ratio, list[str]]:
    with TemporaryDirectory() as folder:
        cached = with_cache(subject, bench.frozen(target.precision), Path(folder))
        pairs = {"pixels": subject, "cached": cached}
        steps = {name: pair.training if is_training else pair.inference for name, pair in pairs.items()}
        times = bench.time({name: step for name, step in steps.items() if step is not None}, target)
    return times.ratio("pixels", "cached"), [bench.speeds(times)]


def _rows(
    name: str, figure: str, limits: Sequence[tuple[str, float]], is_least: bool, n_classes: int, measure, unit: str = ""
) -> list[Target]:
    """One figure at several precisions."""
    return [Target(name, figure, limit, is_least, prec, n_classes, measure, unit) for prec, limit in limits]


TARGETS = [
    *_rows(
        "eval-bare",
        "images/s, zero-shot ÷ bare encoder, all tokens",
        [("fp32", 1.03), ("bf16", 1.03)],
        True,
        100,
        against_bare,
    ),
    *_rows(
        "eval-pruned",
        "images/s, Spotlighter fast ÷ bare encoder",
        [("fp32", 1.25), ("bf16", 1.25)],
        True,
        100,
        pruned_against_bare,
    ),
    *_rows("eval-100", "images/s ÷ plain path", [("fp32", 1.8), ("bf16", 5)], True, 100, inference_against_plain),
    *_rows("eval-1000", "images/s ÷ plain path", [("fp32", 6)], True, 1000, inference_against_plain),
    *_rows("train-50", "training step ÷ plain path", [("fp32", 0.6), ("bf16", 0.2)], False, 50, training_against_plain),
    *_rows(
        "train-500", "training step ÷ plain path", [("fp32", 0.3), ("bf16", 0.12)], False, 500, training_against_plain
    ),
    *_rows("memory-500", "peak memory in training ÷ plain path", [("fp32", 0.35)], False, 500, memory_against_plain),
    *_rows("memory-1000", "peak memory in training", [("fp32", 8)], False, 1000, memory_in_chunks, "GB"),
    *_rows("bank", "bank update ÷ training step", [("fp32", 0.02), ("bf16", 0.02)], False, 500, bank_update),
    *_rows("cache-eval", "images/s, with a feature cache ÷ without", [("fp32", 20)], True, 100, cached_inference),
    *_rows("cache-train", "steps/s of the head, cached ÷ without", [("fp32", 20)], True, 100, cached_training),
]


def choose(names: Sequence[str], precisions: Sequence[str]) -> list[Target]:
    """Rows of these names and precisions; all where none is named.

    Raises:
        ValueError: unknown name, or no row is left.
    """
    known = list(dict.fromkeys(target.name for target in TARGETS))
    for name in names:
        if name not in known:
            raise ValueError(f"There is no target '{name}'; there are {', '.join(known)}.")
    chosen = [t for t in TARGETS if (not names or t.name in names) and (not precisions or t.precision in precisions)]
    if not chosen:
        raise ValueError(f"No target {' '.join(names)} is set for {' or '.join(precisions)}; leave --prec out.")
    return chosen
