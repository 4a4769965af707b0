"""Data set, transforms and loaders of a run.

Loaders are `EpochLoader`s (see `loader.py` for `start_epoch`, `loader_state` and `restore_loader`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from tabulate import tabulate
from torch.utils.data import Dataset
from torchvision.transforms import v2 as T
from yacs.config import CfgNode

from dassl.utils import read_image

from .datasets import build_dataset
from .datasets.base_dataset import Datum
from .loader import EpochLoader
from .samplers import build_sampler
from .transforms import INTERPOLATION_MODES, ToTensor, build_transform

__all__ = ["DataManager", "DatasetWrapper", "build_data_loader"]

Transform = Callable | Sequence[Callable] | None


def build_data_loader(
    cfg: CfgNode,
    sampler_type: str = "SequentialSampler",
    data_source: Sequence[Datum] | None = None,
    batch_size: int = 64,
    n_domain: int = 0,
    n_ins: int = 2,
    tfm: Transform = None,
    is_train: bool = True,
    dataset_wrapper: Callable[..., Dataset] | None = None,
    stream: str = "",
    replace: bool | None = None,
) -> EpochLoader:
    """Build a loader over `data_source`.

    Args:
        cfg: reads SEED, DEVICE, USE_CUDA, DATALOADER.NUM_WORKERS, INPUT.ON_ERROR and what the wrapper reads.
        sampler_type: see `build_sampler`, which also takes `batch_size`, `n_domain` and `n_ins`.
        tfm: transform, or a list of them, passed to the wrapper.
        is_train: incomplete batches are dropped (unless there is no other) and each pass differs.
        dataset_wrapper: called with (cfg, data_source, transform=, is_train=); default `DatasetWrapper`.
        stream: a name mixed into the seed, so that two loaders of a run differ.
        replace: whether INPUT.ON_ERROR counts; elsewhere a damaged image always stops the run. None: as `is_train`.

    Raises:
        ValueError: there is no image, no batch can be made of them, or INPUT.ON_ERROR is neither stop nor replace.
    """
    if cfg.INPUT.ON_ERROR not in ("stop", "replace"):
        raise ValueError(f"INPUT.ON_ERROR must be stop or replace, got {cfg.INPUT.ON_ERROR!r}.")
    source: Sequence[Datum] = data_source if data_source is not None else []
    if batch_size < 1:
        raise ValueError(f"the batch size must be at least 1, got {batch_size}")
    generator = torch.Generator()
    sampler = build_sampler(sampler_type, cfg, source, batch_size, n_domain, n_ins, generator)
    wrapper = dataset_wrapper or DatasetWrapper
    loader = EpochLoader(
        wrapper(cfg, source, transform=tfm, is_train=is_train),
        sampler,
        batch_size,
        drop_last=is_train and len(source) >= batch_size,
        seed=cfg.SEED if cfg.SEED >= 0 else torch.initial_seed(),
        stream=stream,
        generator=generator,
        varies=is_train,
        divides=is_train,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        pin_memory=cfg.USE_CUDA and cfg.DEVICE in ("auto", "cuda") and torch.cuda.is_available(),
        replace=cfg.INPUT.ON_ERROR == "replace" and (is_train if replace is None else replace),
    )
    if len(loader) == 0:
        raise ValueError(
            f"{sampler_type} makes no batch of {batch_size} from {len(source)} images; choose a smaller batch."
        )
    return loader


class DataManager:
    """The data set of `cfg` and its loaders.

    Args:
        cfg: configuration.
        custom_tfm_train: replaces the training transform; a list or tuple gives `img`, `img2`, … .
        custom_tfm_test: replaces the test transform.
        dataset_wrapper: replaces `DatasetWrapper`.

    Attributes:
        dataset: the data set.
        train_loader_x: labelled training images.
        train_loader_u: unlabelled training images, or None.
        val_loader: validation images, or None.
        test_loader: test images.

    Raises:
        ValueError: the data set has no test images.
    """

    def __init__(
        self,
        cfg: CfgNode,
        custom_tfm_train: Transform = None,
        custom_tfm_test: Transform = None,
        dataset_wrapper: Callable[..., Dataset] | None = None,
    ):
        dataset = build_dataset(cfg)
        if not dataset.test:
            raise ValueError(f"{cfg.DATASET.NAME} gave no test image; check DATASET.ROOT and the split it reads.")
        tfm_train = _transform_or_custom(cfg, True, custom_tfm_train)
        tfm_test = _transform_or_custom(cfg, False, custom_tfm_test)

        def build(node: CfgNode, source: list[Datum] | None, stream: str) -> EpochLoader | None:
            if not source:
                return None
            is_train = stream.startswith("train")
            return build_data_loader(
                cfg,
                sampler_type=node.SAMPLER,
                data_source=source,
                batch_size=node.BATCH_SIZE,
                n_domain=node.get("N_DOMAIN", 0),
                n_ins=node.get("N_INS", 16),
                tfm=tfm_train if is_train else tfm_test,
                is_train=is_train,
                dataset_wrapper=dataset_wrapper,
                stream=stream,
            )

        node_x, node_u = cfg.DATALOADER.TRAIN_X, cfg.DATALOADER.TRAIN_U
        self.train_loader_x = build(node_x, dataset.train_x, "train_x")
        self.train_loader_u = build(node_x if node_u.SAME_AS_X else node_u, dataset.train_u, "train_u")
        if self.train_loader_x is not None and self.train_loader_u is not None:
            self.train_loader_u.damaged = self.train_loader_x.damaged  # a file that is in both is named once
        self.val_loader = build(cfg.DATALOADER.TEST, dataset.val, "val")
        self.test_loader = build(cfg.DATALOADER.TEST, dataset.test, "test")
        self.dataset = dataset
        self._num_classes = dataset.num_classes
        self._num_source_domains = len(cfg.DATASET.SOURCE_DOMAINS)
        self._lab2cname = dataset.lab2cname
        if cfg.VERBOSE:
            self.show_dataset_summary(cfg)

    @property
    def num_classes(self) -> int:
        return self._num_classes

    @property
    def num_source_domains(self) -> int:
        return self._num_source_domains

    @property
    def lab2cname(self) -> dict[int, str]:
        return self._lab2cname

    def show_dataset_summary(self, cfg: CfgNode) -> None:
        """Print name, domains and sizes as a table."""
        rows: list[tuple[str, str]] = [("Dataset", cfg.DATASET.NAME)]
        if cfg.DATASET.SOURCE_DOMAINS:
            rows.append(("Source", ", ".join(cfg.DATASET.SOURCE_DOMAINS)))
        if cfg.DATASET.TARGET_DOMAINS:
            rows.append(("Target", ", ".join(cfg.DATASET.TARGET_DOMAINS)))
        rows.append(("# classes", f"{self.num_classes:,}"))
        for split in ("train_x", "train_u", "val", "test"):
            images = getattr(self.dataset, split)
            if images:
                rows.append((f"# {split}", f"{len(images):,}"))
        print(tabulate(rows))


class DatasetWrapper(Dataset):
    """Images of a list of `Datum`, opened and transformed.

    An item is a dict: `label`, `domain`, `index` (position in `data_source`), `impath`; `img`, and with a list of
    transforms also `img2`, `img3`, …, all of the same raw image; `img0`, the image without augmentation, if
    DATALOADER.RETURN_IMG0. In training with DATALOADER.K_TRANSFORMS = k > 1, each `img*` is a list of k views.

    Args:
        cfg: reads DATALOADER.K_TRANSFORMS, DATALOADER.RETURN_IMG0 and INPUT.
        data_source: the images.
        transform: PIL image → tensor, or a list of such; None: the item holds the PIL image.
        is_train: whether DATALOADER.K_TRANSFORMS counts.

    Raises:
        ValueError: K_TRANSFORMS > 1 without a transform.
    """

    def __init__(self, cfg: CfgNode, data_source: Sequence[Datum], transform: Transform = None, is_train: bool = False):
        self.cfg = cfg
        self.data_source = data_source
        self.transform = transform
        self.is_train = is_train
        self.k_tfm = cfg.DATALOADER.K_TRANSFORMS if is_train else 1
        self.return_img0 = cfg.DATALOADER.RETURN_IMG0
        if self.k_tfm > 1 and transform is None:
            raise ValueError(
                f"DATALOADER.K_TRANSFORMS = {self.k_tfm} needs a transform, but INPUT.NO_TRANSFORM is set."
            )
        steps: list[Callable] = [
            T.Resize(tuple(cfg.INPUT.SIZE), interpolation=INTERPOLATION_MODES[cfg.INPUT.INTERPOLATION]),
            ToTensor(),
        ]
        if "normalize" in cfg.INPUT.TRANSFORMS:
            steps.append(T.Normalize(mean=cfg.INPUT.PIXEL_MEAN, std=cfg.INPUT.PIXEL_STD))
        self.to_tensor = T.Compose(steps)

    def __len__(self) -> int:
        return len(self.data_source)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        output = self.facts(idx)
        img0 = read_image(output["impath"])
        if self.transform is None:
            output["img"] = img0
        elif isinstance(self.transform, list | tuple):
            for i, tfm in enumerate(self.transform, start=1):
                output["img" if i == 1 else f"img{i}"] = self._transform_image(tfm, img0)
        else:
            output["img"] = self._transform_image(self.transform, img0)
        if self.return_img0:
            output["img0"] = self.to_tensor(img0)
        return output

    @property
    def more_than_img(self) -> bool:
        """Whether an item holds other pictures than one `img`."""
        return self.return_img0 or self.k_tfm > 1 or isinstance(self.transform, list | tuple)

    def facts(self, idx: int) -> dict[str, Any]:
        """What is known of an item without opening its image."""
        item = self.data_source[idx]
        return {"label": item.label, "domain": item.domain, "impath": item.impath, "index": idx}

    def replacements(self, idx: int, generator: torch.Generator) -> tuple[str, list[int]]:
        """What may stand in for an item that cannot be read.

        Args:
            idx: the item.
            generator: draws the order.

        Returns:
            The name of its class, for a message, and the indices of the class's other items, to be tried in this order.
        """
        item = self.data_source[idx]
        others = [i for i, other in enumerate(self.data_source) if other.label == item.label and i != idx]
        order = torch.randperm(len(others), generator=generator).tolist()
        return f"class {item.classname or item.label!r}", [others[i] for i in order]

    def _transform_image(self, tfm: Any, img0: Any) -> Any:
        """One view, or a list of k of them."""
        views = [tfm(img0) for _ in range(self.k_tfm)]
        return views[0] if self.k_tfm == 1 else views


def _transform_or_custom(cfg: CfgNode, is_train: bool, custom: Transform) -> Transform:
    if custom is None:
        return build_transform(cfg, is_train=is_train)
    print(f"Using a custom transform for {'training' if is_train else 'test'}")
    return custom
