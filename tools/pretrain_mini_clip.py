"""Train the small CLIPs of the embedded benchmark: Mini-ViT/8 from nothing, Mini-ViT/8-L from it.

    python -m tools.pretrain_mini_clip --work output/pretrain --out clip/weights/mini_vit8.safetensors
    python -m tools.pretrain_mini_clip --work output/pretrain_l --out clip/weights/mini_vit8_l.safetensors \\
        --grow clip/weights/mini_vit8.safetensors --favour neon --steps 600 --batch-size 128 --lr 8e-4 --warmup 40

Pictures are rendered while training, so nothing is downloaded. Batch number s depends on --seed and s only, therefore
a run that was stopped goes on, with the same command, to the same weights as one that was not.
"""

from __future__ import annotations

import argparse
import json
import math
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from clip.clip import tokenize
from clip.layouts import save_compact, unused_rows
from clip.model import CLIP, CLIPSpec, infer_spec
from clip.weights import read_file
from dassl.utils.files import atomic_write
from datasets.shapes.captions import ALL_TEMPLATES, draw_templates
from datasets.shapes.conditions import CONDITIONS
from datasets.shapes.render import COLOURS, NAMES, SHAPES, Draws, Style, picture_keys, render
from tools.grow_mini_clip import deepen_image_tower, widen_joint_space

PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's own
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)
VOCABULARY, TEXT_WIDTH, EMBED_DIM = 49408, 128, 128
GROWN_JOINT, GROWN_AFTER = 256, (1, 3)  # of --grow: joint width, and the blocks that get another one on top
TEXT_RESIDUAL = 0.15  # trained words then are 0.012 large a channel, so that a step of plain SGD moves them noticeably
PLAIN_SHARE = 0.2  # of the pictures: no condition
FAVOURED_SHARE = 0.4  # of the pictures: the condition of --favour, before the others are drawn as without it
# Wider than any domain of the benchmark, so that each of them is within reach.
PRETRAIN_STYLE = Style(radius=(8.0, 24.0), tilt=0.7, distractors=(0, 4), occluded=0.2, textured=0.25)
CURRICULUM = 0.2  # of the steps: pictures go from large, upright and tidy to PRETRAIN_STYLE


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--work", type=Path, required=True, help="folder of the resumable checkpoint and of log.jsonl")
    add("--out", type=Path, help="write the finished model here, as compact fp16 safetensors")
    add("--steps", type=int, default=5200, help="optimiser steps (default: %(default)s)")
    add("--batch-size", type=int, default=256, help="pictures a step (default: %(default)s)")
    add("--lr", type=float, default=2e-3, help="peak learning rate of AdamW (default: %(default)s)")
    add("--weight-decay", type=float, default=0.1, help="on matrices only (default: %(default)s)")
    add("--warmup", type=int, default=300, help="steps of linear warm-up before the cosine (default: %(default)s)")
    add("--width", type=int, default=128, help="image tower, a multiple of 64 (default: %(default)s)")
    add("--layers", type=int, default=4, help="image tower (default: %(default)s)")
    add("--text-layers", type=int, default=2, help="text tower, 128 wide (default: %(default)s)")
    add("--grow", metavar="FILE", help="start as this model, with more image blocks and joint channels; the text stays")
    add("--favour", choices=CONDITIONS[1:], help=f"condition of {FAVOURED_SHARE:.0%}% more of the pictures")
    add("--readout", type=float, default=1.0, help="weight of the auxiliary classifiers (default: %(default)s)")
    add("--seed", type=int, default=1, help="of weights, pictures and captions (default: %(default)s)")
    add(
        "--processes",
        type=int,
        default=2,
        help="that share each batch; several have one thread each (default: %(default)s)",
    )
    add("--precision", choices=["bf16", "fp32"], default="bf16", help="of the towers (default: %(default)s)")
    add("--save-seconds", type=float, default=120, help="between checkpoints (default: %(default)s)")
    add("--eval-every", type=int, default=500, help="steps between held-out evaluations (default: %(default)s)")
    add("--eval-per-class", type=int, default=2, help="held-out pictures a class and condition (default: %(default)s)")
    add("--stop-after", type=int, help="stop at this step as if interrupted; the same command goes on")
    return parser.parse_args(argv)


def style_at(progress: float) -> Style:
    """How pictures look after this share of the curriculum; easy ones first, or shapes are learned late."""
    hard, done = PRETRAIN_STYLE, min(1.0, progress)
    return Style(
        radius=(20.0 + done * (hard.radius[0] - 20.0), hard.radius[1]),
        tilt=done * hard.tilt,
        distractors=(0, math.floor(done * hard.distractors[1])),
        occluded=done * hard.occluded,
        textured=done * hard.textured,
        clutter=done * hard.clutter,
    )


class Batches:
    """Item s is the whole batch of step s: pictures, caption templates, and which captions say the same."""

    def __init__(
        self, batch_size: int, seed: str, steps: int, favour: str | None = None, curriculum: float = CURRICULUM
    ) -> None:
        self.batch_size, self.seed, self.favour = batch_size, seed, favour
        self.easy_steps = curriculum * steps

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        number = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        draw = Draws(picture_keys(self.seed, "pretrain", "choice", np.zeros_like(number), number))
        labels = draw.integers(0, len(NAMES) - 1)
        conditions = np.where(draw()[:, 0] < PLAIN_SHARE, 0, draw.integers(1, len(CONDITIONS) - 1))
        if self.favour:
            conditions = np.where(draw()[:, 0] < FAVOURED_SHARE, CONDITIONS.index(self.favour), conditions)
        strengths = draw(0.5, 1.0)[:, 0]
        templates, named = draw_templates(draw, conditions)
        keys = picture_keys(self.seed, "pretrain", "train", labels, number)
        style = style_at(step / self.easy_steps) if self.easy_steps else PRETRAIN_STYLE
        pictures = render(keys, labels, style, conditions, strengths)
        meaning = labels * len(CONDITIONS) + named
        arrays = {"pictures": pictures, "labels": labels, "conditions": conditions}
        arrays |= {"templates": templates, "meaning": meaning}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


class Readout(nn.Module):
    """Linear classifiers of colour, shape and condition on raw image features; trained along, then thrown away.

    They shorten the plateau on which a small model knows colours but no shapes.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(width, n) for n in (len(COLOURS), len(SHAPES), len(CONDITIONS)))

    def loss(self, features: Tensor, labels: Tensor, conditions: Tensor) -> Tensor:
        """Cross-entropy of each of the three, [3]; features [B, d], labels [B], conditions [B]."""
        answers = (labels // len(SHAPES), labels % len(SHAPES), conditions)
        losses = [F.cross_entropy(head(features), y) for head, y in zip(self.heads, answers, strict=True)]
        return torch.stack(losses)


class Vocabulary:
    """The token ids that captions use, renumbered 0..n-1 in their order, so that the end token stays the largest."""

    def __init__(self) -> None:
        texts = [t.replace("_", " ") for t in ALL_TEMPLATES] + [f"{name}." for name in NAMES]
        words = [*texts, "X", "a photo of a"]
        self.ids = torch.unique(tokenize(words))  # sorted
        full = tokenize([t.format(name) for t in ALL_TEMPLATES for name in NAMES])
        self.captions = torch.searchsorted(self.ids, full).view(len(ALL_TEMPLATES), len(NAMES), -1)
        assert torch.equal(self.ids[self.captions].view_as(full), full)

    def __call__(self, templates: Tensor, labels: Tensor) -> Tensor:
        """[B, 77] renumbered ids; both arguments are [B] indices."""
        return self.captions[templates, labels]


def build(args: argparse.Namespace, vocabulary: Vocabulary) -> CLIP:
    """A random model, or the grown one, whose token table holds the vocabulary's rows only."""
    torch.manual_seed(args.seed)
    if args.grow:
        return grown(args, vocabulary)
    spec = CLIPSpec(
        embed_dim=EMBED_DIM,
        image_resolution=64,
        vision_layers=args.layers,
        vision_width=args.width,
        vision_patch_size=8,
        vocab_size=len(vocabulary.ids),
        transformer_width=TEXT_WIDTH,
        transformer_heads=TEXT_WIDTH // 64,
        transformer_layers=args.text_layers,
    )
    model = CLIP(spec)
    with torch.no_grad():
        model.token_embedding.weight.copy_(torch.from_numpy(unused_rows(VOCABULARY, TEXT_WIDTH))[vocabulary.ids])
    return model


def grown(args: argparse.Namespace, vocabulary: Vocabulary) -> CLIP:
    """The model of `--grow` with more blocks and joint channels, which computes the same; its text tower is frozen."""
    generator = torch.Generator().manual_seed(args.seed)
    state = {name: tensor.float() for name, tensor in read_file(args.grow).items()}
    state["token_embedding.weight"] = state["token_embedding.weight"][vocabulary.ids]
    state = widen_joint_space(deepen_image_tower(state, GROWN_AFTER), GROWN_JOINT, generator)
    model = CLIP(infer_spec(state))
    model.load_state_dict(state)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("visual.") or name == "logit_scale")
    return model


def build_optimizer(model: nn.Module, args: argparse.Namespace) -> torch.optim.AdamW:
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in trained if p.ndim >= 2 and "embedding" not in name]
    others = [p for name, p in trained if p.ndim < 2 or "embedding" in name]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": args.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98), eps=1e-6, fused=True)


def learning_rate(step: int, args: argparse.Namespace) -> float:
    """Linear warm-up, then a cosine to zero."""
    if step < args.warmup:
        return args.lr * (step + 1) / args.warmup
    done = (step - args.warmup) / max(1, args.steps - args.warmup)
    return args.lr * 0.5 * (1 + math.cos(math.pi * done))


def normalise(pictures: Tensor) -> Tensor:
    """[B, 64, 64, 3] uint8 -> [B, 3, 64, 64] with CLIP's mean and deviation."""
    mean, std = torch.tensor(PIXEL_MEAN), torch.tensor(PIXEL_STD)
    return ((pictures.float() / 255 - mean) / std).permute(0, 3, 1, 2)


def contrastive_loss(image_features: Tensor, text_features: Tensor, scale: Tensor, meaning: Tensor) -> Tensor:
    """Symmetric cross-entropy of CLIP in which all captions of one meaning (class, named condition) are right.

    A batch holds several pictures of a class in a condition; as negatives of each other they would be false.

    Args:
        image_features, text_features: [B, d], unit length.
        scale: exponential of the model's `logit_scale`.
        meaning: [B] integers, equal where captions say the same.
    """
    logits = scale * image_features @ text_features.t()  # [B, B]
    same = (meaning[:, None] == meaning[None, :]).float()
    target = same / same.sum(1, keepdim=True)  # symmetric up to its rows' sums, which are those of its columns
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target)) / 2


@torch.no_grad()
def evaluate(model: CLIP, vocabulary: Vocabulary, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Zero-shot accuracy in % of held-out pictures of each condition, with the plain sentence and with the word."""
    number = np.arange(len(NAMES) * args.eval_per_class)
    labels = number % len(NAMES)
    result: dict[str, dict[str, float]] = {}
    for i, condition in enumerate(CONDITIONS):
        keys = picture_keys(args.seed, "pretrain", f"held-out {condition}", labels, number)
        strengths = Draws(keys)(0.5, 1.0)[:, 0]
        pictures = render(keys, labels, PRETRAIN_STYLE, np.full_like(labels, i), strengths)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16"):
            features = torch.cat([model.encode_image(x) for x in normalise(torch.from_numpy(pictures)).split(256)])
        sentences = {"plain": "a photo of a {}."}
        if i:
            sentences["word"] = f"a {condition} photo of a {{}}."
        result[condition] = {}
        for kind, sentence in sentences.items():
            template = torch.full((len(NAMES),), ALL_TEMPLATES.index(sentence))
            text = model.encode_text(vocabulary(template, torch.arange(len(NAMES))))
            logits = F.normalize(features.float(), dim=-1) @ F.normalize(text.float(), dim=-1).t()
            result[condition][kind] = 100 * (logits.argmax(1).numpy() == labels).mean().item()
    return result


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """What decides the weights; a checkpoint continues only under the same."""
    others = ("work", "out", "save_seconds", "eval_every", "eval_per_class", "stop_after")
    return {key: value for key, value in vars(args).items() if key not in others}


def resume(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, args: argparse.Namespace
) -> tuple[int, float]:
    """Step to go on from, and seconds spent so far."""
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["settings"] != settings(args):
        changed = {k: (v, settings(args)[k]) for k, v in state["settings"].items() if settings(args)[k] != v}
        raise ValueError(
            f"{path} was written with other settings (there, now): {changed}; repeat them or choose another --work."
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["seconds"]


def average_gradients(parameters: list[nn.Parameter], processes: int) -> None:
    """Mean over the processes, in place."""
    flat = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    dist.all_reduce(flat)
    at = 0
    for p in parameters:
        if p.grad is not None:
            p.grad.copy_(flat[at : at + p.numel()].view_as(p) / processes)
            at += p.numel()


def shrink_text_residual(state: dict[str, Tensor], factor: float) -> dict[str, Tensor]:
    """The same text tower with a residual stream that is `factor` times as large.

    Every branch begins with a LayerNorm, so nothing changes but for its epsilon. What changes is how far a step of
    plain SGD moves a learned word: 1 / factor² as far, measured in the words' own size.
    """
    writers = ("token_embedding.", "positional_embedding", "attn.out_proj.", "mlp.c_proj.")
    return {
        name: tensor * factor if not name.startswith("visual.") and any(w in name for w in writers) else tensor
        for name, tensor in state.items()
    }


def expand(model: CLIP, vocabulary: Vocabulary, shrink: bool = True) -> dict[str, Tensor]:
    """The finished state dict: residual stream shrunk unless it was already, whole token table of CLIP's vocabulary."""
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    if shrink:
        state = shrink_text_residual(state, TEXT_RESIDUAL)
    table = torch.from_numpy(unused_rows(VOCABULARY, TEXT_WIDTH))
    table[vocabulary.ids] = state["token_embedding.weight"]
    return state | {"token_embedding.weight": table}


class Run:
    """One of `--processes` equal processes. Each takes its share of every batch; rank 0 reports and saves."""

    def __init__(self, args: argparse.Namespace, rank: int) -> None:
        self.args, self.rank = args, rank
        self.vocabulary = Vocabulary()
        self.frozen_texts: Tensor | None = None  # [templates * classes, d]
        self.model = build(args, self.vocabulary)
        self.readout = Readout(self.model.text_projection.shape[1])
        self.trained = nn.ModuleDict({"clip": self.model, "readout": self.readout})
        self.optimizer = build_optimizer(self.trained, args)
        curriculum = 0 if args.grow else CURRICULUM  # a grown model has been through it
        self.batches = Batches(
            args.batch_size // args.processes, f"{args.seed}/{rank}", args.steps, args.favour, curriculum
        )
        self.checkpoint = args.work / "checkpoint.pt"
        self.start, self.spent = resume(self.checkpoint, self.trained, self.optimizer, args)
        self.stop = min(args.steps, args.stop_after or args.steps)
        self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the beginning, interruptions not counted."""
        return self.spent + time.monotonic() - self.began

    def step(self, number: int) -> tuple[Tensor, Tensor]:
        """One update; returns the contrastive loss and the readout's three losses of this process's share."""
        args, batch = self.args, self.batches[number]
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(number, args)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16"):
            raw = self.model.encode_image(normalise(batch["pictures"]))
            text = self.texts(batch["templates"], batch["labels"])
        readout = self.readout.loss(raw.float(), batch["labels"], batch["conditions"])
        image, text = F.normalize(raw.float(), dim=-1), F.normalize(text.float(), dim=-1)
        contrast = contrastive_loss(image, text, self.model.logit_scale.exp(), batch["meaning"])
        self.optimizer.zero_grad(set_to_none=True)
        (contrast + args.readout * readout.mean()).backward()
        if args.processes > 1:
            average_gradients(list(self.trained.parameters()), args.processes)
        norm = nn.utils.clip_grad_norm_(self.trained.parameters(), 1.0)
        if not torch.isfinite(norm):
            raise RuntimeError(
                f"The gradient of step {number} is {norm}; lower --lr (now {args.lr}) or raise --warmup."
            )
        self.optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, math.log(100))
        return contrast.detach(), readout.detach()

    def texts(self, templates: Tensor, labels: Tensor) -> Tensor:
        """Raw features of captions, [B, d]; those of a frozen text tower are computed once."""
        if self.args.grow is None:
            return self.model.encode_text(self.vocabulary(templates, labels))
        if self.frozen_texts is None:
            with torch.no_grad():
                parts = self.vocabulary.captions.flatten(0, 1).split(1024)
                self.frozen_texts = torch.cat([self.model.encode_text(part) for part in parts])
        return self.frozen_texts[templates * len(NAMES) + labels]

    def train(self) -> None:
        """From the checkpoint's step to the last one."""
        args, losses, saved = self.args, [], time.monotonic()
        own = sum(p.numel() for p in self.model.parameters()) - self.model.token_embedding.weight.numel()
        self.report(f"{own:,} parameters beside the token table; steps {self.start} to {self.stop} of {args.steps}")
        for number in range(self.start, self.stop):
            contrast, readout = self.step(number)
            losses.append(torch.cat([contrast[None], readout]))
            done = number + 1
            if done % 50 == 0 or done == self.stop:
                speed = (done - self.start) * args.batch_size / (time.monotonic() - self.began)
                means = [f"{value:.2f}" for value in torch.stack(losses).mean(0).tolist()]
                self.report(
                    f"step {done}/{args.steps}: loss {means[0]}, of colour, shape, condition {' '.join(means[1:])}; "
                    f"{speed:.0f} pictures/s, {(self.stop - done) * args.batch_size / speed / 60:.1f} min left"
                )
                losses.clear()
            if self.rank == 0 and (done % args.eval_every == 0 or done == args.steps):
                self.log(done, evaluate(self.model, self.vocabulary, args))
            if self.rank == 0 and (time.monotonic() - saved > args.save_seconds or done == self.stop):
                self.save(done)
                saved = time.monotonic()
        if self.rank == 0 and self.stop == args.steps and args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            save_compact(expand(self.model, self.vocabulary, not args.grow), self.vocabulary.ids.tolist(), args.out)
            self.report(f"wrote {args.out}")

    def report(self, text: str) -> None:
        if self.rank == 0:
            print(text, flush=True)

    def log(self, step: int, accuracy: dict[str, dict[str, float]]) -> None:
        line = {"step": step, "seconds": round(self.seconds), "accuracy": accuracy}
        with open(self.args.work / "log.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")
        cells = [f"{name} {'/'.join(f'{v:.0f}' for v in values.values())}" for name, values in accuracy.items()]
        self.report("held out, plain sentence/with the word: " + ", ".join(cells))

    def save(self, step: int) -> None:
        state = {"model": self.trained.state_dict(), "optimizer": self.optimizer.state_dict(), "step": step}
        with atomic_write(self.checkpoint) as file:
            torch.save(state | {"settings": settings(self.args), "seconds": self.seconds}, file)


def work(rank: int, args: argparse.Namespace, port: int) -> None:
    """Life of one of several processes, each on one thread: they meet once a step, not once an operation."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=args.processes)
    Run(args, rank).train()
    dist.destroy_process_group()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    args.work.mkdir(parents=True, exist_ok=True)
    if args.batch_size % args.processes:
        raise ValueError(
            f"--batch-size {args.batch_size} cannot be shared by {args.processes} processes; make it a multiple."
        )
    if args.processes == 1:
        Run(args, 0).train()
    else:
        torch.multiprocessing.spawn(work, (args, free_port()), nprocs=args.processes)


if __name__ == "__main__":
    main()
