"""What a feature cache is worth: the steps of a method on a batch whose features lie in the files of a store.

The pictures of the batch without a cache are tensors on the device already; a run would have to read, decode and resize
them first, so it gains more than is measured here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clip.vision import VisionOut, VisionTower
from tools.benchmarks.subjects import Frozen, Subject, inference_step, training_loss, training_step
from trainers.cached_images import Asked, CachedImages, CachedTower
from trainers.feature_cache import read_features, write_features
from trainers.feature_store import GIB, FeatureWriter, StoredFeatures, open_store
from trainers.method import Method

LIMIT = 4 * GIB  # bytes that the stores of a batch may take


class StoredBatch:
    """Where the features of one batch are; what has not been asked before is computed and written first.

    Args:
        folder: for the stores.
        tower: computes the features.
        images: [B, 3, H, H].
        frozen: its precision is that of the features.
    """

    def __init__(self, folder: Path, tower: VisionTower, images: Tensor, frozen: Frozen):
        self.folder, self.tower, self.images, self.frozen = folder, tower, images, frozen
        self._stores: dict[Asked, StoredFeatures] = {}

    def features(self, images: CachedImages, asked: Asked) -> VisionOut:
        if asked not in self._stores:
            self._stores[asked] = self._write(asked)
        return read_features(self._stores[asked], images)

    def _write(self, asked: Asked) -> StoredFeatures:
        place, facts = self.folder / f"batch-{len(self._stores)}", {"asked": repr(asked)}
        with FeatureWriter(place, facts, {}, len(self.images), LIMIT) as writer:
            with torch.no_grad(), self.frozen.precision.autocast():
                out = self.tower(self.images, want=asked[0], prune=asked[1])
            write_features(writer, out, "fp32", begins=True)
        store = open_store(place, facts)
        assert store is not None
        return store


def with_cache(subject: Subject, frozen: Frozen, folder: Path) -> Subject:
    """The same method, which goes on taking pixels, on the batch of its inference as a cache gives it.

    Raises:
        ValueError: the method changes the image encoder.
    """
    method = subject.method
    assert isinstance(method, Method)
    if method.image_trains:
        raise ValueError(f"{subject.name} changes the image encoder, so its features can't be cached.")
    backbone, n = method.backbone, subject.train_batch
    pixels = frozen.images(n)
    source = StoredBatch(folder, VisionTower(backbone.vision.visual), pixels, frozen)
    backbone.vision = CachedTower(backbone.vision.visual)
    images = CachedImages(source, np.arange(n), frozen.device)
    loss = training_loss(method, images, frozen.labels(n, len(method.space)), frozen.precision)  # type: ignore[arg-type]
    inference = inference_step(method, images, frozen.precision)  # type: ignore[arg-type]
    return Subject(f"{subject.name}, cached", inference, training_step(method, loss, subject.trained), n, method=method)
