"""The bank's initial prototypes (R5): one pass over the training images, before the first epoch."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from clip.layers import take_rows
from dassl import distributed
from dassl.data.datasets import Datum
from dassl.engine.precision import without_autocast
from trainers.spotlighter import activation
from trainers.spotlighter.head import SpotlighterHead
from trainers.spotlighter.memory import kmeans_prototypes, random_prototypes

IMAGES_PER_CLASS = 64  # of the pass, whose activated tokens are in memory at once: 1 GB for 1000 classes of ViT-B/16

if TYPE_CHECKING:
    from trainers.spotlighter.method import SpotlighterMethod
    from trainers.spotlighter.trainer import Spotlighter


def fill_bank(trainer: Spotlighter) -> None:
    """Fill the bank from un-augmented training images, with sample-wise activation by T0 only.

    Per class, the activated tokens of all its images become K prototypes by k-means; a class with fewer than K of them
    takes its images' next-best patches as well. On a host that learns from a teacher, an image belongs to the class
    that the teacher names, and a class that it never names gets the images in which the teacher sees most of it.
    Depends on the configuration's seed, not on the generators' state.

    Raises:
        ValueError: a class has too few patches for K prototypes.
        SystemExit: SIGTERM or SIGINT came.
    """
    cfg, method = trainer.cfg, cast("SpotlighterMethod", trainer.method)
    head = cast(SpotlighterHead, method.head)
    C, K, w = head.memory.prototypes.shape
    k, seed = head.options.top_k, max(cfg.SEED, 0)
    tokens, label, scores = [], [], []
    for images, y in trainer.plain_images("bank", "memory bank", bank_images(trainer)):
        with torch.no_grad(), trainer.precision.autocast():
            tokens.append(best_tokens(method, images, max(k, K)).cpu())
            teacher = method.host.teacher(images)
        if teacher is not None:
            scores.append(teacher.float().cpu())
        label.append((y if teacher is None else teacher.argmax(dim=1)).cpu())
    rows, labels = distributed.gather_rows(tokens), distributed.gather_rows(label)  # [n, kept, w], [n]
    seen = distributed.gather_rows(scores) if scores else None  # [n, C]
    members = images_of_classes(labels, seen, C, -(-K // rows.shape[1]))
    available = [len(images) * rows.shape[1] for images in members]
    if min(available) < K:
        poorest = available.index(min(available))
        raise ValueError(
            f"TRAINER.SPOTLIGHTER.N_PROTOTYPES is {K}, but the training images of class "
            f"'{method.space.names[poorest]}' give only {available[poorest]} tokens; choose a smaller number."
        )
    init = cfg.TRAINER.SPOTLIGHTER.BANK_INIT
    bank = (
        initial_prototypes(rows, members, (C, K, w), k, init, seed) if distributed.is_main() else torch.empty(C, K, w)
    )
    head.memory.fill(distributed.from_main(bank))


def bank_images(trainer: Spotlighter) -> list[Datum]:
    """The training images that `fill_bank` looks at."""
    n_cls, labelled = len(trainer.method.space), trainer.method.learns_from_labels
    return some_images(trainer.train_images, n_cls, labelled, max(trainer.cfg.SEED, 0))


def some_images(source: Sequence[Datum], n_cls: int, labelled: bool, seed: int) -> list[Datum]:
    """At most `IMAGES_PER_CLASS` images of each class, or, without labels, that many times the number of classes."""
    draw = random.Random(seed)
    if not labelled:
        chosen = range(len(source))
        limit = IMAGES_PER_CLASS * n_cls
        return [source[i] for i in (chosen if len(source) <= limit else sorted(draw.sample(chosen, limit)))]
    by_class: dict[int, list[int]] = {}
    for i, item in enumerate(source):
        by_class.setdefault(item.label, []).append(i)
    parts = [i if len(i) <= IMAGES_PER_CLASS else draw.sample(i, IMAGES_PER_CLASS) for i in by_class.values()]
    return [source[i] for i in sorted(index for part in parts for index in part)]


def images_of_classes(label: Tensor, scores: Tensor | None, n_cls: int, least: int) -> list[Tensor]:
    """Numbers of each class's images.

    Args:
        label: [n].
        scores: a teacher's logits [n, C], by which a class with fewer than `least` images gets its best ones.
        least: images that a class needs.
    """
    members = [(label == c).nonzero().flatten() for c in range(n_cls)]
    if scores is not None:
        least = min(least, len(label))
        members = [m if len(m) >= least else scores[:, c].topk(least).indices for c, m in enumerate(members)]
    return members


def initial_prototypes(
    rows: Tensor, members: Sequence[Tensor], shape: tuple[int, int, int], k: int, init: str, seed: int
) -> Tensor:
    """The bank's first rows [C, K, w] from each image's best tokens.

    Args:
        rows: [n, kept, w], best first; the first k of an image are its activated tokens.
        members: numbers of each class's images.
        shape: (C, K, w).
        k: activated tokens an image.
        init: "kmeans", or "random": random directions, as long as activated tokens are on average.
        seed: of k-means and of the random directions.
    """
    K = shape[1]
    if init == "random":
        return random_prototypes(shape, float(rows[:, :k].norm(dim=-1).mean()), seed)
    centres = [kmeans_prototypes(of_class(rows[images], k, K), K, seed) for images in members]
    return torch.from_numpy(np.stack(centres))


@torch.no_grad()
def best_tokens(method: SpotlighterMethod, images: Tensor, kept: int) -> Tensor:
    """The patches with the highest sample-wise activation by T0, best first, [B, kept or all but one, w] in fp32."""
    last = method.backbone.vision.n_blocks - 1
    vision = method.host.image(images, {f"hidden:{last}"}, method.prune if method.prune_train else None)
    with without_autocast(images.device):
        given = method.given(vision, method.host.frozen_text())
        _, patches = given.hidden_parts()
        text = activation.mean_text(given.image, given.text, given.scale)
        scores = activation.sample_scores(given.view(patches), text)
        return take_rows(patches, activation.select(scores, min(kept, patches.shape[1] - 1))).float()


def of_class(rows: Tensor, k: int, n_proto: int) -> np.ndarray:
    """Tokens of one class from its images' best ones [n, kept, w]: k an image, more where n · k is less than K."""
    per_image = max(k, -(-n_proto // max(1, len(rows))))
    return rows[:, :per_image].flatten(0, 1).numpy()
