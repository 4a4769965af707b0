"""Features of the frozen image encoder, computed once and shared by methods, seeds and runs (docs/cache.md).

A method does not know of it: batches of a cached loader hold `CachedImages` in the place of pixels, and the backbone's
image tower is a `CachedTower`, which answers for them from `feature_store`. What a method asks the tower for ("want",
pruning) names the store; one that is not there yet is filled at the first question, for all images of the loader.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import PIL
import torch
import torchvision
from torch.utils.data import Dataset
from tqdm import tqdm
from yacs.config import CfgNode as CN

from clip.backbone import Backbone
from clip.vision import VisionOut, VisionTower
from dassl.data import DatasetWrapper
from dassl.data.digests import file_digests
from dassl.data.loader import EpochLoader, seeded_batches
from dassl.data.samples import digest
from dassl.data.transforms import describe
from dassl.engine.precision import Precision
from trainers.cached_images import DTYPES, Asked, CachedImages, from_columns, storable, to_columns
from trainers.feature_store import GIB, FeatureWriter, StoredFeatures, open_store, store_lock

FORMAT = 2  # one more whenever the files, or how features are computed from images, change
LIBRARIES = f"torch {torch.__version__}, torchvision {torchvision.__version__}, pillow {PIL.__version__}"


def check_cache_keys(cfg: CN) -> None:
    """Refuse keys of the cache that are not possible, or not possible with others.

    Raises:
        ValueError: so it is.
    """
    node = cfg.DATALOADER
    if node.CACHE_DTYPE not in DTYPES:
        raise ValueError(f"DATALOADER.CACHE_DTYPE must be fp32 or fp16, got {node.CACHE_DTYPE!r}.")
    if node.CACHE_VIEWS < 0:
        raise ValueError(f"DATALOADER.CACHE_VIEWS must be a number of views, or 0, got {node.CACHE_VIEWS}.")
    if node.CACHE_LIMIT <= 0:
        raise ValueError(f"DATALOADER.CACHE_LIMIT must be above 0 GiB, got {node.CACHE_LIMIT}.")
    if not node.CACHE:
        if node.CACHE_VIEWS or node.CACHE_DTYPE != "fp32":
            raise ValueError(
                f"DATALOADER.CACHE_VIEWS is {node.CACHE_VIEWS} and CACHE_DTYPE {node.CACHE_DTYPE}, but "
                "DATALOADER.CACHE names no folder; name one, or leave both out."
            )
    elif cfg.INPUT.ON_ERROR == "replace":
        raise ValueError(
            "DATALOADER.CACHE keeps the features of every image, so INPUT.ON_ERROR replace can't be used with it; "
            "restore the damaged images, or leave one of the two out."
        )


def leave_cache_out(cfg: CN) -> None:
    """Set the keys of the cache to those of a run without one."""
    node = cfg.DATALOADER
    node.CACHE, node.CACHE_VIEWS, node.CACHE_DTYPE = "", 0, "fp32"


class FeatureCache:
    """The cache of one run.

    Args:
        cfg: reads DATALOADER, and DATASET.NAME for the names of folders.
        backbone: frozen CLIP.
        precision: in which features are computed.
        device: where they are computed.
        stop: called between two batches while features are computed; may raise.
    """

    def __init__(
        self, cfg: CN, backbone: Backbone, precision: Precision, device: torch.device, stop: Callable[[], None]
    ):
        node = cfg.DATALOADER
        self.folder = Path(node.CACHE).expanduser()
        self.views, self.dtype, self.limit = node.CACHE_VIEWS, node.CACHE_DTYPE, node.CACHE_LIMIT * GIB
        self.batch_size, self.num_workers = node.TEST.BATCH_SIZE, node.NUM_WORKERS
        self.dataset = cfg.DATASET.NAME
        self.backbone, self.precision, self.device, self.stop = backbone, precision, device, stop
        self.visual = backbone.vision.visual
        self.tower = VisionTower(self.visual)
        self._versions = self._weight_versions()

    def loader(self, loader: EpochLoader) -> EpochLoader:
        """A loader that gives `CachedImages`; the loader itself where augmentation is not cached.

        Raises:
            ValueError: a sample is more than one transformed image, or the transform doesn't describe itself.
        """
        if loader.varies and not self.views:
            return loader
        dataset = loader.dataset
        if type(dataset) is not DatasetWrapper or not callable(dataset.transform) or dataset.more_than_img:
            raise ValueError(
                "DATALOADER.CACHE takes one transformed picture an image; leave INPUT.NO_TRANSFORM, K_TRANSFORMS, "
                "RETURN_IMG0 and the data set's wrapper as they are, or CACHE empty."
            )
        try:
            described = describe(dataset.transform)
        except ValueError as error:
            raise ValueError(
                f"DATALOADER.CACHE can't tell the transform from others: {error}; leave CACHE empty."
            ) from error
        return CachedLoader(loader, CachedPart(self, dataset, described, self.views if loader.varies else 0))

    @cached_property
    def weights(self) -> str:
        """Digest of every weight of the image encoder as it is loaded; `Backbone.fingerprint` is that of some."""
        total = hashlib.sha256()
        for name, tensor in sorted(self.visual.state_dict().items()):
            total.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            total.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().data)
        return total.hexdigest()[:32]

    def refuse_moved_weights(self) -> None:
        """Raise once the encoder is not the one whose digest names the stores.

        Raises:
            RuntimeError: so it is.
        """
        if self._weight_versions() != self._versions:
            raise RuntimeError(
                "The weights of the image encoder changed during the run, so cached features are not its own any more; "
                "leave DATALOADER.CACHE empty."
            )

    def _weight_versions(self) -> list[tuple[int, int]]:
        return [(id(p), p._version) for p in self.visual.parameters()]


class CachedPart:
    """The images of one loader, in the order of its data source.

    Args:
        cache: of the run.
        dataset: its images and its transform.
        described: what the transform does.
        n_views: of an augmented image; 0: not augmented.
    """

    def __init__(self, cache: FeatureCache, dataset: DatasetWrapper, described: str, n_views: int):
        self.cache, self.dataset, self.described, self.n_views = cache, dataset, described, n_views
        self._stores: dict[Asked, StoredFeatures] = {}

    @cached_property
    def digests(self) -> list[str]:
        """Of the images' files when the run first asked for features."""
        return self._digests_now()

    def _digests_now(self) -> list[str]:
        return file_digests([item.impath for item in self.dataset.data_source], self.cache.folder / "digests")

    def features(self, images: CachedImages, asked: Asked) -> VisionOut:
        """What the tower gives for these images; the first question of its kind may have to fill the store."""
        self.cache.refuse_moved_weights()
        if asked not in self._stores:
            self._stores[asked] = self._store(asked)
        return read_features(self._stores[asked], images)

    def facts(self, asked: Asked) -> dict[str, Any]:
        """All that decides what the features are, as plain data; its digest is the store's key."""
        cache = self.cache
        return {
            "format": FORMAT,
            "images": hashlib.sha256("\n".join(self.digests).encode()).hexdigest(),
            "views": self.n_views,
            "transform": self.described,
            "weights": cache.weights,
            "precision": cache.precision.name,
            "want": sorted(asked[0]),
            "prune": None if asked[1] is None else [asked[1].by, *(list(pair) for pair in asked[1].shares)],
            "dtype": cache.dtype,
            "batch": cache.batch_size,  # and the rest of what may move the last bits
            "device": cache.device.type,
            "libraries": LIBRARIES,
        }

    def _store(self, asked: Asked) -> StoredFeatures:
        facts = self.facts(asked)
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
        place = self.cache.folder / f"{self.cache.dataset}-{f'views{self.n_views}' if self.n_views else 'plain'}-{key}"
        store = open_store(place, facts)
        if store is None:
            with store_lock(place, self.cache.stop):
                store = open_store(place, facts)  # another process may have written it meanwhile
                if store is None:
                    self._fill(place, facts, asked)
                    store = open_store(place, facts)
        if store is None:
            raise RuntimeError(f"The feature cache {place} can't be read back; check the disk, or leave CACHE empty.")
        print(f"Feature cache: reading {place}")
        return store

    def _fill(self, place: Path, facts: dict[str, Any], asked: Asked) -> None:
        """Compute and write the features of all images, view after view."""
        cache, (want, prune) = self.cache, asked
        # an image's view depends on its content and the view's number: not on the run's seed, nor on other images
        samples = [
            (index, digest(f"view/{content}/{view}"))
            for view in range(self.n_views or 1)
            for index, content in enumerate(self.digests)
        ]
        about = {"dataset": cache.dataset, "backbone": cache.backbone.name, "images": len(self.digests)}
        batches = seeded_batches(self.dataset, samples, cache.batch_size, cache.num_workers)
        total = -(-len(samples) // cache.batch_size)
        with FeatureWriter(place, facts, about, len(samples), cache.limit) as writer:
            for i, batch in enumerate(tqdm(batches, "features", total, leave=False, disable=None)):
                cache.stop()
                with torch.no_grad(), cache.precision.autocast():
                    out = cache.tower(batch["img"].to(cache.device), want=want, prune=prune)
                write_features(writer, out, cache.dtype, begins=i == 0)
            if self._digests_now() != self.digests:
                raise RuntimeError(
                    f"Images of {cache.dataset} changed while their features were computed, so these are not kept; run "
                    "again."
                )


def read_features(store: StoredFeatures, images: CachedImages) -> VisionOut:
    """What a store holds of these images, on their device, in the types that the tower gave."""
    columns = {
        name: torch.from_numpy(store.read(name, images.rows)).to(images.device).to(getattr(torch, store.dtypes[name]))
        for name in store.columns
    }
    return from_columns(columns, store.scalars)


def write_features(writer: FeatureWriter, out: VisionOut, dtype: str, begins: bool) -> None:
    """Append what the tower gave for a batch; the first one begins the store."""
    columns = to_columns(out)
    arrays = {name: storable(tensor, dtype, name) for name, tensor in columns.items()}
    if begins:
        dtypes = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in columns.items()}
        writer.begin(arrays, dtypes, {"n_fused": out.n_fused})
    writer.add(arrays)


class CachedLoader(EpochLoader):
    """A loader's batches, in their order, with `CachedImages` in the place of pixels; epoch e gives view e mod V."""

    def __init__(self, loader: EpochLoader, part: CachedPart):
        assert loader.batch_size is not None
        super().__init__(
            _Facts(part.dataset),
            loader.sampler,  # type: ignore[arg-type]  # EpochLoader takes no other
            loader.batch_size,
            loader.drop_last,
            loader.seed,
            loader.stream,
            loader.order_generator,
            loader.varies,
            loader.divides,
        )
        self.part = part

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        view = self._next[0] % (self.part.n_views or 1)
        for batch in super().__iter__():
            yield {**batch, "img": CachedImages(self.part, batch["index"].numpy() + view * len(self.dataset))}  # type: ignore[arg-type]


class _Facts(Dataset):
    """Items of a `DatasetWrapper` without their images."""

    def __init__(self, wrapper: DatasetWrapper):
        self.wrapper = wrapper

    def __len__(self) -> int:
        return len(self.wrapper)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        return self.wrapper.facts(idx)
