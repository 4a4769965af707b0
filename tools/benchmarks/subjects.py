"""What is measured: the bare encoder, the plain path and the methods of config files, on the same frozen weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode as CN

import train
from clip.backbone import Backbone, LabelSpace, load_backbone
from clip.compiled import compile_blocks
from clip.model import CLIP, CLIPSpec, convert_weights
from dassl.engine import TRAINER_REGISTRY
from dassl.engine.precision import Precision
from tools.benchmarks.plain import PlainCoOp
from tools.benchmarks.timing import Step
from tools.count_parameters import SPECS
from tools.run_names import method_name
from trainers.base import MethodTrainer
from trainers.captured import Captured
from trainers.coop import CoOpMethod
from trainers.method import Method

CONFIGS = Path(__file__).resolve().parents[2] / "configs/trainers"
BARE, PLAIN = "bare encoder", "plain path"
# Trainer -> its config for a backbone, of all that can be made without data, a teacher or a file of descriptions.
MINI = {
    "ZeroshotCLIP": "ZeroshotCLIP/mini_vit8",
    "LinearProbe": "LinearProbe/mini_vit8",
    "CoOp": "CoOp/mini_vit8_ep20",
    "CoCoOp": "CoCoOp/mini_vit8_ep3",
    "VPT": "VPT/mini_vit8_ep5",
    "IVLP": "IVLP/mini_vit8_ep5",
    "MaPLe": "MaPLe/mini_vit8_ep5",
    "PromptSRC": "PromptSRC/mini_vit8_ep8",
    "CLIPFit": "CLIPFit/mini_vit8_ep10",
    "SPT": "SPT/mini_vit8_ep5",
    "TextRefiner": "TextRefiner/mini_vit8_ep10",
    "Spotlighter": "Spotlighter/mini_vit8_ep15_paper",
    "Spotlighter, fast": "Spotlighter/mini_vit8_ep15_fast",
    "Spotlighter, release": "Spotlighter/mini_vit8_ep20_release",
    "Spotlighter on CoCoOp": "Spotlighter/mini_vit8_ep3_cocoop_paper",
    "Spotlighter on MaPLe": "Spotlighter/mini_vit8_ep5_maple_paper",
    "Spotlighter on PromptSRC": "Spotlighter/mini_vit8_ep8_promptsrc_paper",
    "Spotlighter on CLIPFit": "Spotlighter/mini_vit8_ep10_clipfit_paper",
}
LARGE = {
    "ZeroshotCLIP": "ZeroshotCLIP/vit_b16",
    "LinearProbe": "LinearProbe/vit_b16",
    "CoOp": "CoOp/vit_b16_ep15_ctxv1",
    "CoCoOp": "CoCoOp/vit_b16_c4_ep10_batch1_ctxv1",
    "VPT": "VPT/vit_b16_ep5_batch4_2ctx_shallow",
    "IVLP": "IVLP/vit_b16_c2_ep5_batch4_2+2ctx",
    "MaPLe": "MaPLe/vit_b16_c2_ep5_batch4_2ctx",
    "PromptSRC": "PromptSRC/vit_b16_c4_ep20_batch4_4+4ctx",
    "CLIPFit": "CLIPFit/vit_b16_ep10",
    "SPT": "SPT/vit_b16_ep5_deep8",
    "TextRefiner": "TextRefiner/vit_b16_ep10",
    "Spotlighter": "Spotlighter/vit_b16_ep15_paper",
    "Spotlighter, fast": "Spotlighter/vit_b16_ep15_fast",
    "Spotlighter, release": "Spotlighter/vit_b16_ep20_release",
    "Spotlighter on CoCoOp": "Spotlighter/vit_b16_ep10_batch1_cocoop_paper",
    "Spotlighter on MaPLe": "Spotlighter/vit_b16_ep5_batch4_maple_paper",
    "Spotlighter on PromptSRC": "Spotlighter/vit_b16_ep20_batch4_promptsrc_paper",
    "Spotlighter on CLIPFit": "Spotlighter/vit_b16_ep30_clipfit_paper",
}


@dataclass(frozen=True)
class Setting:
    """Where everything is measured, and at which size."""

    backbone: str = "ViT-B/16"
    device: str = "cpu"
    batch: int = 32  # images of a batch in inference, and of a training step unless `train_batch` says otherwise
    train_batch: int | None = None  # None: that of the method's config
    is_compiled: bool = False  # blocks of the methods' towers; the bare encoder and the plain path never are
    is_graphed: bool = False  # on a GPU, steps as CUDA graphs; the plain path's, which waits for it, never are
    options: tuple[str, ...] = ()  # KEY, value, … for all configs
    spec: CLIPSpec | None = None  # sizes of a backbone that is none of the known ones; its weights are random

    @property
    def configs(self) -> dict[str, Path]:
        """Trainer, or variant of one, to its config file for this backbone."""
        stems = MINI if self.backbone.startswith("Mini") else LARGE
        return {name: CONFIGS / f"{stem}.yaml" for name, stem in stems.items()}


class Frozen:
    """One precision's frozen weights, from which subjects get backbones of their own modules over the same tensors.

    Args:
        setting: which model and where.
        precision: "fp32", "bf16", "amp" or "fp16".

    Raises:
        ValueError: the precision is not possible there.
        RuntimeError, FileNotFoundError: the backbone is neither a known size nor a model on this machine.
    """

    def __init__(self, setting: Setting, precision: str):
        self.setting, self.device = setting, torch.device(setting.device)
        self.precision = Precision(precision, self.device)
        self._images: dict[int, Tensor] = {}
        spec = setting.spec or SPECS.get(setting.backbone)
        torch.manual_seed(0)
        if spec is None:
            dtype = self.precision.weight_dtype
            self._first = load_backbone(setting.backbone, dtype=dtype, device=self.device)
            return
        with self.device:
            model = CLIP(spec).eval().requires_grad_(False)
        convert_weights(model, self.precision.weight_dtype)
        self._first = Backbone(model, setting.backbone)

    def backbone(self) -> Backbone:
        """Some methods put tensors in place of the frozen ones, so each has modules of its own."""
        return copy.deepcopy(self._first, {id(p): p for p in self._first.parameters()})

    def images(self, n: int) -> Tensor:
        """The same batch [n, 3, H, H] whoever asks."""
        if n not in self._images:
            size = self._first.spec.image_resolution
            self._images[n] = torch.randn(n, 3, size, size, device=self.device)
        return self._images[n]

    def labels(self, n: int, n_classes: int) -> Tensor:
        return torch.randint(n_classes, (n,), device=self.device)


@dataclass
class Subject:
    """A row: what runs in inference, what in training, and what is trained. Batches are made once and stay."""

    name: str
    inference: Step
    training: Step | None = None
    train_batch: int = 0
    trained: Sequence[nn.Parameter] = ()
    method: Method | PlainCoOp | None = None
    features: Callable[[], Tensor] | None = field(default=None, repr=False)  # unit image features of the batch [B, d]


def make_subject(what: str | Path, setting: Setting, frozen: Frozen, n_classes: int) -> Subject:
    """`BARE`, `PLAIN`, or the method of a config file, whose folder is its trainer's name.

    Raises:
        ValueError: no such backbone for it, no method of this project, or it can't be made without data.
        FileNotFoundError: no such file.
    """
    if what == BARE:
        return bare(setting, frozen, n_classes)
    if what == PLAIN:
        _, coop = make_method(setting.configs["CoOp"], setting, frozen, n_classes)
        assert isinstance(coop, CoOpMethod)
        return plain(coop, setting, frozen)
    path = Path(what)
    cfg, method = make_method(path, setting, frozen, n_classes)
    if setting.is_compiled:
        compile_blocks(method.backbone)
    images = frozen.images(setting.batch)
    name = method_name(path.resolve().parent.name, {"TRAINER": cfg.TRAINER})
    inference = inference_step(method, images, frozen.precision, setting.is_graphed)
    subject = Subject(name, inference, method=method)
    subject.trained = tuple(method.trainables().values())
    subject.features = lambda: F.normalize(method.image(images).pooled.float(), dim=1)
    if subject.trained and trains_in_steps(path):
        n = subject.train_batch = setting.train_batch or cfg.DATALOADER.TRAIN_X.BATCH_SIZE
        batch = frozen.images(n), frozen.labels(n, n_classes)
        loss = training_loss(method, *batch, frozen.precision)
        subject.training = training_step(method, loss, subject.trained, setting.is_graphed)
    return subject


def backbone_of(configs: Sequence[Path]) -> str:
    """The backbone that config files name.

    Raises:
        ValueError: they name different ones.
        FileNotFoundError: one is not there.
    """
    names = {config_of(path, ()).MODEL.BACKBONE.NAME for path in configs}
    if len(names) > 1:
        raise ValueError(f"The configs name several backbones, {', '.join(sorted(names))}; choose one with --backbone.")
    return names.pop()


def config_of(path: Path, options: Sequence[str]) -> CN:
    """The configuration of a file whose folder is its trainer's name."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no config file {path}; name one of configs/trainers/<Trainer>/*.yaml.")
    name = path.resolve().parent.name
    return train.setup_cfg(train.parse_args(["--config-file", str(path), "--trainer", name, *options]))


def make_method(path: Path, setting: Setting, frozen: Frozen, n_classes: int) -> tuple[CN, Method]:
    """The configuration of a file and its method, with modules of its own.

    Raises:
        ValueError: it is no method of this project, or can't be made without data.
    """
    cfg = config_of(path, ("MODEL.BACKBONE.NAME", setting.backbone, *setting.options))
    name = path.resolve().parent.name
    trainer = TRAINER_REGISTRY.get(name)
    if not issubclass(trainer, MethodTrainer):
        raise ValueError(f"{name} is no method of this project.")
    backbone = frozen.backbone()
    backbone.text.chunk = cfg.TRAINER[trainer.node].TEXT_CHUNK or None
    space = LabelSpace(tuple(f"class {i}" for i in range(n_classes)), "Benchmark")
    method = trainer.make_method(cfg, backbone, space).to(frozen.device)
    for module in method.modules():
        if hasattr(module, "prototypes") and hasattr(module, "fill"):  # a bank that training would fill from images
            module.fill(torch.randn_like(module.prototypes))
    return cfg, method


def trains_in_steps(path: Path) -> bool:
    """Whether the trainer of a config takes steps of an optimiser over batches, as all but solvers do."""
    return TRAINER_REGISTRY.get(path.resolve().parent.name).run_epoch is MethodTrainer.run_epoch


def bare(setting: Setting, frozen: Frozen, n_classes: int) -> Subject:
    """Frozen image features against fixed class vectors: what plain CLIP does with an image, all rows in all blocks.

    The blocks are this project's, with fused attention; the last one computes all 1+N rows as the others do, and only
    then is the class token taken, normed and projected.
    """
    backbone = frozen.backbone()
    tower, images = backbone.vision, frozen.images(setting.batch)
    text = F.normalize(torch.randn(n_classes, backbone.spec.embed_dim, device=frozen.device), dim=1)

    @torch.no_grad()
    def features(images: Tensor) -> Tensor:
        with frozen.precision.autocast():
            last = tower.hidden(images, tower.n_blocks)  # [B, 1+N, w]
            raw = tower.project(last[:, 0])
        return F.normalize(raw.float(), dim=1)

    def infer(images: Tensor) -> Tensor:
        return features(images) @ text.t()

    logits = Captured(infer) if setting.is_graphed else infer
    return Subject(BARE, lambda: logits(images), features=lambda: features(images))


def plain(coop: CoOpMethod, setting: Setting, frozen: Frozen) -> Subject:
    """See `tools.benchmarks.plain`."""
    path = PlainCoOp(coop).to(frozen.device)
    n = setting.train_batch or setting.batch
    images, label = frozen.images(n), frozen.labels(n, len(coop.space))

    def loss() -> Tensor:
        with frozen.precision.autocast():
            return path.loss(images, label)

    subject = Subject(PLAIN, inference_step(path, frozen.images(setting.batch), frozen.precision), method=path)
    subject.trained, subject.train_batch = (path.ctx,), n
    subject.training = training_step(path, loss, subject.trained)
    return subject


def training_loss(method: Method, images: Tensor, label: Tensor, precision: Precision) -> Callable[[], Tensor]:
    def loss() -> Tensor:
        with precision.autocast():
            return method.losses(images, label).total

    return loss


def training_step(
    module: nn.Module, loss: Callable[[], Tensor], trained: Sequence[nn.Parameter], is_graphed: bool = False
) -> Step:
    """Forward, backward and optimiser step."""
    optimiser = torch.optim.SGD(trained, lr=1e-4, momentum=0.9)

    def gradients(*_: Tensor) -> Tensor:
        optimiser.zero_grad()
        total = loss()
        total.backward()
        return total.detach()

    forward_backward = Captured(gradients, trained) if is_graphed else gradients
    on_device = trained[0].new_zeros(1)  # a graph looks at its inputs to know where it runs

    def step() -> None:
        switch(module, training=True)
        forward_backward(on_device)
        optimiser.step()

    return step


def inference_step(module: nn.Module, images: Tensor, precision: Precision, is_graphed: bool = False) -> Step:
    """Logits of a batch."""

    @torch.no_grad()
    def infer(images: Tensor) -> Tensor:
        with precision.autocast():
            return module(images)

    logits = Captured(infer) if is_graphed else infer

    def step() -> Tensor:
        switch(module, training=False)
        return logits(images)

    return step


def switch(module: nn.Module, training: bool) -> None:
    """Into training or evaluation mode; walking through the modules in each step would be timed."""
    if module.training is not training:
        module.train(training)
