"""Connects a `Method` to the engine: backbone, optimiser, precision, checkpoints. Knows no method by name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm
from yacs.config import CfgNode as CN

from clip.backbone import Backbone, LabelSpace, load_backbone
from clip.compiled import compile_blocks
from dassl import distributed
from dassl.data.data_manager import build_data_loader
from dassl.data.datasets import Datum
from dassl.data.transforms import build_transform
from dassl.engine import TrainerX
from dassl.engine.precision import Precision
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils.torchtools import load_checkpoint, load_exactly
from datasets.templates import template_of
from trainers.cached_images import CachedTower
from trainers.captured import Captured
from trainers.feature_cache import FeatureCache, check_cache_keys
from trainers.method import Method, StepOutput

Options = TypeVar("Options")
SHARES = ("acc", "agreement")  # what a step reports beside its losses


def declare_compute(node: CN) -> None:
    """Add the keys that every method has."""
    node.PREC = "fp32"  # "fp32" | "amp" | "bf16" | "fp16"; trained tensors and losses are fp32 in all of them
    # Classes, or image-class pairs, in one pass through the text tower; 0: all at once. Fewer need less memory, but
    # training computes each pass again on the way back.
    node.TEXT_CHUNK = 0


def declare_options(node: CN, options: type) -> None:
    """Add a key for each field of a dataclass, upper-case, with its default; what it means is said there."""
    for option in fields(options):
        node[option.name.upper()] = list(option.default) if isinstance(option.default, tuple) else option.default


def options_of(node: CN, options: type[Options]) -> Options:
    """The dataclass with the values of the keys that `declare_options` added."""
    values = {option.name: node[option.name.upper()] for option in fields(options)}  # type: ignore[arg-type]
    return options(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def check_graph(device: torch.device, precision: Precision) -> None:
    """Refuse CUDA_GRAPH where steps can't be recorded.

    Raises:
        ValueError: so it is.
    """
    reason = (
        f"the run is on {device.type}"
        if device.type != "cuda"
        else "several processes meet within a step"
        if distributed.world_size() > 1
        else f"{precision.name} looks at the gradients within a step"
        if precision.scaler is not None
        else ""
    )
    if reason:
        raise ValueError(f"CUDA_GRAPH records steps on one GPU in fp32, bf16 or fp16, but {reason}; set it to False.")


def summary_of(out: StepOutput, label: Tensor) -> dict[str, Tensor]:
    """What a step reports, 0-d each: losses, and in percent what is right of the logits' first choices."""
    summary = {"loss": out.total.detach()}
    if len(out.terms) > 1:
        summary |= {name: term.detach() for name, term in out.terms.items()}
    logits = out.logits.detach()
    if out.teacher is not None:
        return summary | {"agreement": compute_accuracy(logits, out.teacher.argmax(dim=1))[0].squeeze()}
    return summary | {"acc": compute_accuracy(logits, label)[0].squeeze()}


class MethodTrainer(TrainerX):
    """Trains, saves and evaluates one `Method`.

    A subclass names its options (`node`, `extend_cfg`) and builds its method (`make_method`); the rest is here.
    """

    node = ""  # the method's options are cfg.TRAINER.<node>
    model_name = "prompt_learner"  # the folder of its checkpoints, as the family calls it
    rebuilt_on_load = ("token_prefix", "token_suffix")  # in the family's checkpoints; made from the class names
    trained_names: tuple[str, ...] = ()  # classes of the checkpoint that was loaded last, if it tells them
    method: Method

    @classmethod
    def extend_cfg(cls, cfg: CN) -> None:
        """Declare the method's keys, once, with their defaults."""
        raise NotImplementedError

    @classmethod
    def default_node(cls) -> CN:
        """The method's keys with their defaults."""
        cfg = CN({"TRAINER": CN()})
        cls.extend_cfg(cfg)
        return cfg.TRAINER[cls.node]

    @classmethod
    def make_method(cls, cfg: CN, backbone: Backbone, space: LabelSpace) -> Method:
        """The method with the options of `cfg`; needs no trainer object, so that another method can stand on it."""
        raise NotImplementedError

    def check_cfg(self, cfg: CN) -> None:
        check_cache_keys(cfg)
        node = cfg.TRAINER[self.node]
        device = self.select_device(cfg)
        precision = Precision(node.PREC, device)
        if cfg.CUDA_GRAPH:
            check_graph(device, precision)
        if node.TEXT_CHUNK < 0:
            raise ValueError(
                f"TRAINER.{self.node}.TEXT_CHUNK must be a number of classes, or 0 for all, got {node.TEXT_CHUNK}."
            )

    def build_model(self) -> None:
        cfg = self.cfg
        self.precision = Precision(cfg.TRAINER[self.node].PREC, self.device)
        self.backbone = self.load_frozen()
        self.test_space = self._space(self.dm.dataset.classnames)
        unlabelled = self.train_loader_u is not None  # images of all classes, whichever are tested
        space = (
            self._space(getattr(self.dm.dataset, "all_classnames", self.dm.dataset.classnames))
            if unlabelled
            else self.test_space
        )
        self.method = self.make_method(cfg, self.backbone, space).to(self.device)
        if self.method.learns_from_labels == unlabelled:
            source = "labels" if unlabelled else "a teacher on unlabelled images"
            remedy = "0" if unlabelled else "-1 (all training images) or to a number of images a class"
            raise ValueError(
                f"{cfg.TRAINER.NAME} learns from {source} here, but DATASET.NUM_UNLABELLED is "
                f"{cfg.DATASET.NUM_UNLABELLED}; set it to {remedy}."
            )
        self.feature_cache = self.build_cache()
        self.train_loader_x = self.cached(self.train_loader_x)
        self.val_loader, self.test_loader = self.cached(self.val_loader), self.cached(self.test_loader)
        if cfg.MODEL.INIT_WEIGHTS:
            path = Path(cfg.MODEL.INIT_WEIGHTS)
            load_exactly(self.method, self._weights_of(load_checkpoint(path), path), path)
        self.method.eval()  # a method without trainable tensors is not registered and would never be switched
        trainables = list(self.method.trainables().values())
        if trainables:
            self.register_model(self.model_name, self.method, *self.build_optim())
        scalars = sum(p.numel() for p in trainables)
        print(f"Trainable: {len(trainables)} tensors, {scalars:,} scalars")
        self.scaler = self.precision.scaler
        self.test_graph: Captured | None = None
        self.graph = Captured(self.gradients, trainables) if cfg.CUDA_GRAPH else None
        self.summary_names: list[str] = []

    def build_cache(self) -> FeatureCache | None:
        """The cache of image features that DATALOADER.CACHE names, with the backbone's image tower reading it.

        Raises:
            ValueError: the method changes the image encoder.
        """
        if not self.cfg.DATALOADER.CACHE:
            return None
        if self.method.image_trains:
            raise ValueError(
                f"{self.cfg.TRAINER.NAME} changes the image encoder here, so its features can't be cached; leave "
                "DATALOADER.CACHE empty."
            )
        stop = partial(self.answer_stop, "while image features were computed")
        cache = FeatureCache(self.cfg, self.backbone, self.precision, self.device, stop)
        self.backbone.vision = CachedTower(self.backbone.vision.visual)
        return cache

    def cached(self, loader: Any) -> Any:
        """The loader, or one that takes features from the cache where there is one; None stays None."""
        return loader if self.feature_cache is None or loader is None else self.feature_cache.loader(loader)

    def build_optim(self) -> tuple[Optimizer | None, LRScheduler | None]:
        """What trains the tensors, step by step; None and None where the trainer does it otherwise."""
        optim = build_optimizer(self.param_groups(), self.cfg.OPTIM)
        return optim, build_lr_scheduler(optim, self.cfg.OPTIM)

    def _space(self, names: list[str]) -> LabelSpace:
        return LabelSpace(tuple(names), self.cfg.DATASET.NAME, template_of(self.cfg))

    def run_epoch(self) -> None:
        """One pass over the labelled images, or over the unlabelled ones where the method learns from a teacher."""
        self.set_model_mode("train")
        if self.graph is not None:
            self.graph.forget()  # a method may do otherwise from epoch to epoch
        loader = self.train_loader_x if self.method.learns_from_labels else self.train_loader_u
        for (batch,) in self.training_steps(len(loader), loader):
            self.finish_step(self.forward_backward(batch))

    def load_frozen(self) -> Backbone:
        """The frozen model of the run."""
        node = self.cfg.MODEL.BACKBONE
        print(f"Loading CLIP (backbone: {node.NAME})")
        backbone = load_backbone(node.NAME, dtype=self.precision.weight_dtype, device=self.device)
        if node.COMPILE:
            compile_blocks(backbone)
        backbone.text.chunk = self.cfg.TRAINER[self.node].TEXT_CHUNK or None
        return backbone

    def param_groups(self) -> list[Any]:
        """What the optimiser gets: the trainable tensors, or groups of them with options of their own."""
        return list(self.method.trainables().values())

    def before_train(self) -> None:
        """As in the engine; the method of a run that starts anew may look at the training images first."""
        super().before_train()
        if not (self.start_epoch or self._point or self.cfg.MODEL.INIT_WEIGHTS):
            self.method.before_training(lambda: (images for images, _ in self.plain_images("start", "first look")))
            for parameter in self.method.trainables().values():  # each process looked at its own part of the images
                distributed.from_main(parameter)

    def images_before_training(self) -> int:
        """How many images `before_train` looks at where a run starts anew, for the estimate of a dry run."""
        return len(self.train_images) if self.method.looks_first else 0

    def ready_to_measure(self) -> None:
        """Give the method what its first step needs and only `before_train` makes; the values do not matter."""

    @property
    def train_images(self) -> Sequence[Datum]:
        """What the method trains on: labelled images, or unlabelled ones where it learns from a teacher."""
        return self.dm.dataset.train_x if self.method.learns_from_labels else self.dm.dataset.train_u

    def plain_images(
        self, stream: str, title: str, source: Sequence[Datum] | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The training images without augmentation, each once and in a fixed order, in batches of the test.

        With several processes, each has a part of the batches.

        Args:
            source: these instead of all that the run trains on.
            stream: name that distinguishes this loader from the run's others.
            title: what the progress bar says.

        Yields:
            images [B, 3, H, W] and labels [B], on the run's device; models are in evaluation mode.

        Raises:
            SystemExit: SIGTERM or SIGINT came.
        """
        loader = self.cached(
            build_data_loader(
                self.cfg,
                data_source=self.train_images if source is None else source,
                batch_size=self.cfg.DATALOADER.TEST.BATCH_SIZE,
                tfm=build_transform(self.cfg, is_train=False),
                is_train=False,
                stream=stream,
                replace=True,
            )
        )
        loader.damaged = self.train_loader_x.damaged  # so that training does not name an image once more
        self.set_model_mode("eval")
        for batch in self.until_stopped(tqdm(loader, desc=title, disable=None, leave=False)):
            yield self.parse_batch_test(batch)

    def forward_backward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        images, label, _ = self.parse_batch_train(batch)
        if self.graph is None:
            with self.precision.autocast():
                out = self.method.losses(images, label)
            self.check_losses({"loss": out.total, **out.terms})
            self.step(out.total)
            summary = summary_of(out, label)
        else:
            values = self.graph(images, label)
            summary = dict(zip(self.summary_names, values.unbind(), strict=True))
            self.check_losses({name: value for name, value in summary.items() if name not in SHARES})
            self.model_update()
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return summary

    def gradients(self, images: Tensor, label: Tensor) -> Tensor:
        """A step as far as the gradients, which replace those of the step before; its summary's values, [n]."""
        self.model_zero_grad()
        with self.precision.autocast():
            out = self.method.losses(images, label)
        out.total.backward()
        summary = summary_of(out, label)
        self.summary_names = list(summary)
        return torch.stack([value.float() for value in summary.values()])

    def step(self, total: Tensor) -> None:
        """One optimiser step for a loss that is checked; with loss scaling where the precision needs it."""
        self.model_zero_grad()
        total = distributed.own_part(total)
        if self.scaler is None:
            total.backward()
            self.model_update()
            return
        self.scaler.scale(total).backward()
        self.combine_gradients()  # before the scaler looks for infinities, so that all processes skip a step or none
        for optim in {id(o): o for o in self._optims.values()}.values():
            self.scaler.step(optim)
        self.scaler.update()

    def after_epoch(self) -> None:
        self.method.after_epoch(self.epoch + 1, self.max_epoch)
        super().after_epoch()

    def test(self, split: str | None = None) -> float:
        """As in the engine; where CUDA_GRAPH is set, whole batches are replayed."""
        self.test_graph = Captured(self.infer) if self.cfg.CUDA_GRAPH else None  # the next pass may read other weights
        try:
            return super().test(split)
        finally:
            self.test_graph = None

    def model_inference(self, input: Tensor) -> Tensor:
        return self.infer(input) if self.test_graph is None else self.test_graph(input)

    @torch.no_grad()
    def infer(self, images: Tensor) -> Tensor:
        """Logits [B, C] over the classes that are tested."""
        with self.precision.autocast():
            return self.method(images, self.test_space)

    def checkpoint_facts(self) -> dict[str, Any]:
        space = self.method.space
        return {
            "trainer": self.cfg.TRAINER.NAME,
            "backbone": self.backbone.name,
            "fingerprint": self.backbone.fingerprint,
            "dataset": space.dataset,
            "class_names": list(space.names),
        }

    def check_checkpoint_facts(self, facts: dict[str, Any], path: Path) -> None:
        """Refuse trained tensors that belong to other frozen weights or classes; their shapes alone would not tell.

        Raises:
            RuntimeError: the file was made with another backbone, or on other classes by a method tied to them.
        """
        names, options = facts.get("class_names") or [], facts.get("options") or {}
        if not (isinstance(names, list) and all(isinstance(n, str) for n in names) and isinstance(options, dict)):
            raise RuntimeError(
                f"{path} is damaged: what it says of its making (made_with) is none of ours; train again."
            )
        if facts and facts.get("fingerprint") != self.backbone.fingerprint:
            raise RuntimeError(
                f"{path} was made with another backbone: {facts.get('backbone')} (fingerprint "
                f"{facts.get('fingerprint')}), now it is {self.backbone.name} ({self.backbone.fingerprint}); "
                "set MODEL.BACKBONE.NAME to the former one."
            )
        names = self.trained_names = tuple(names)
        if self.method.tied_to_classes and names and names != self.method.space.names:
            raise RuntimeError(
                f"{path} was trained on other classes ({len(names)}, from '{names[0]}' to '{names[-1]}'), and what "
                f"{self.cfg.TRAINER.NAME} trains here belongs to its classes; test it on the same ones, in their order."
            )

    def load_model(self, directory: str | os.PathLike, epoch: int | None = None) -> None:
        """Load the trained tensors of a run.

        Raises:
            ValueError: the method has trained tensors, but no folder to take them from is named.
            FileNotFoundError, RuntimeError: as in the engine.
        """
        if self._models and not directory:
            raise ValueError(
                f"{self.cfg.TRAINER.NAME} needs its trained tensors to be tested; name the run folder with --model-dir."
            )
        super().load_model(directory, epoch)
