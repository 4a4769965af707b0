"""The transforms of `cfg.INPUT`, in one fixed order whatever the order of their names.

They are torchvision's `v2` transforms on PIL images, so that resizing always smooths first (antialias), and end in
`ToTensor`. Under the same seed they give what the classic transforms of the published pipelines give, to the last bit,
but for three kinds that have the same distribution: AutoAugment and RandAugment draw their operations otherwise, a crop
of exactly the picture's height or width draws no number for that side, and Gaussian blur rounds a few pixels otherwise.
"""

import random
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2 as T
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import crop, pil_to_tensor, resize
from yacs.config import CfgNode

from dassl.utils import check_availability

from .autoaugment import CIFAR10Policy, ImageNetPolicy, SVHNPolicy
from .randaugment import RandAugment, RandAugment2, RandAugmentFixMatch

__all__ = [
    "AVAI_CHOICES",
    "INTERPOLATION_MODES",
    "Cutout",
    "GaussianNoise",
    "InstanceNormalization",
    "Random2DTranslation",
    "ToTensor",
    "build_transform",
]

AVAI_CHOICES = [
    "random_flip",
    "random_resized_crop",
    "normalize",
    "instance_norm",
    "random_crop",
    "random_translation",
    "center_crop",  # accepted for old configs; the test pipeline always crops, the training one never does
    "cutout",
    "imagenet_policy",
    "cifar10_policy",
    "svhn_policy",
    "randaugment",
    "randaugment_fixmatch",
    "randaugment2",
    "gaussian_noise",
    "colorjitter",
    "randomgrayscale",
    "gaussian_blur",
]

INTERPOLATION_MODES = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "nearest": InterpolationMode.NEAREST,
}


class Random2DTranslation:
    """With probability `p`, resize to 9/8 of the size and crop it at a random place; else resize to the size.

    Args:
        height: pixels.
        width: pixels.
        p: probability of the crop.
        interpolation: of the resize.
    """

    def __init__(
        self,
        height: int,
        width: int,
        p: float = 0.5,
        interpolation: InterpolationMode = InterpolationMode.BILINEAR,
    ):
        self.height = height
        self.width = width
        self.p = p
        self.interpolation = interpolation

    def __call__(self, img: Image.Image) -> Image.Image:
        size = [self.height, self.width]
        if random.random() >= self.p:
            return resize(img, size, self.interpolation)
        larger = [round(side * 1.125) for side in size]
        top, left = (random.randint(0, big - small) for big, small in zip(larger, size, strict=True))
        return crop(resize(img, larger, self.interpolation), top, left, self.height, self.width)


class ToTensor(nn.Module):
    """PIL image of 8 bits a channel → float32 tensor [channels, H, W] in [0, 1]."""

    def forward(self, img: Image.Image) -> Tensor:
        # `v2.ToDtype(scale=True)` multiplies by 1/255, which differs in the last bit from the division that every
        # published pipeline makes. The memory layout would decide the kernels, and so the last bits, of a convolution.
        return pil_to_tensor(img).to(torch.float32, memory_format=torch.contiguous_format).div_(255)


class InstanceNormalization:
    """Give each channel of an image mean 0 and standard deviation 1."""

    def __init__(self, eps: float = 1e-8):
        self.eps = eps

    def __call__(self, img: Tensor) -> Tensor:
        mean = img.mean(dim=(1, 2), keepdim=True)  # [3, 1, 1]
        std = img.std(dim=(1, 2), keepdim=True)
        return (img - mean) / (std + self.eps)


class Cutout:
    """Set squares at random places to 0 (DeVries and Taylor, 2017); they may reach over the border.

    Args:
        n_holes: squares an image.
        length: their side in pixels.
    """

    def __init__(self, n_holes: int = 1, length: int = 16):
        self.n_holes = n_holes
        self.length = length

    def __call__(self, img: Tensor) -> Tensor:
        _, h, w = img.shape
        img = img.clone()
        for _ in range(self.n_holes):
            top = np.random.randint(h) - self.length // 2
            left = np.random.randint(w) - self.length // 2
            img[:, max(top, 0) : max(top + self.length, 0), max(left, 0) : max(left + self.length, 0)] = 0
        return img


class GaussianNoise:
    """With probability `p`, add normal noise."""

    def __init__(self, mean: float = 0.0, std: float = 0.15, p: float = 0.5):
        self.mean = mean
        self.std = std
        self.p = p

    def __call__(self, img: Tensor) -> Tensor:
        if random.random() >= self.p:
            return img
        return img + torch.randn_like(img) * self.std + self.mean


def build_transform(cfg: CfgNode, is_train: bool = True, choices: Sequence[str] | None = None) -> T.Compose | None:
    """Build the training or the test pipeline.

    Args:
        cfg: reads INPUT.
        is_train: which of the two.
        choices: names that replace `cfg.INPUT.TRANSFORMS`.

    Returns:
        PIL image → float tensor [3, H, W]; None if INPUT.NO_TRANSFORM.

    Raises:
        ValueError: an unknown name, interpolation, or a size that is not (height, width).
    """
    if cfg.INPUT.NO_TRANSFORM:
        if cfg.VERBOSE:
            print("Note: INPUT.NO_TRANSFORM is set, images stay as they are")
        return None
    if choices is None:
        choices = cfg.INPUT.TRANSFORMS
    for choice in choices:
        check_availability(choice, AVAI_CHOICES)
    check_availability(cfg.INPUT.INTERPOLATION, list(INTERPOLATION_MODES))
    if len(cfg.INPUT.SIZE) != 2:
        raise ValueError(f"INPUT.SIZE must be (height, width), got {tuple(cfg.INPUT.SIZE)}")
    normalize = T.Normalize(mean=cfg.INPUT.PIXEL_MEAN, std=cfg.INPUT.PIXEL_STD)
    build = _build_transform_train if is_train else _build_transform_test
    return build(cfg, choices, f"{cfg.INPUT.SIZE[0]}x{cfg.INPUT.SIZE[1]}", normalize)


def _build_transform_train(cfg: CfgNode, choices: Sequence[str], target_size: str, normalize: Callable) -> T.Compose:
    given = cfg.INPUT
    size = tuple(given.SIZE)
    mode = INTERPOLATION_MODES[given.INTERPOLATION]
    steps = [
        ("random_translation", lambda: Random2DTranslation(*size)),
        ("random_crop", lambda: T.RandomCrop(size, padding=given.CROP_PADDING)),
        ("random_resized_crop", lambda: T.RandomResizedCrop(size, scale=given.RRCROP_SCALE, interpolation=mode)),
        ("random_flip", T.RandomHorizontalFlip),
        ("imagenet_policy", ImageNetPolicy),
        ("cifar10_policy", CIFAR10Policy),
        ("svhn_policy", SVHNPolicy),
        ("randaugment", lambda: RandAugment(given.RANDAUGMENT_N, given.RANDAUGMENT_M)),
        ("randaugment_fixmatch", lambda: RandAugmentFixMatch(given.RANDAUGMENT_N)),
        ("randaugment2", lambda: RandAugment2(given.RANDAUGMENT_N)),
        (
            "colorjitter",
            lambda: T.ColorJitter(given.COLORJITTER_B, given.COLORJITTER_C, given.COLORJITTER_S, given.COLORJITTER_H),
        ),
        ("randomgrayscale", lambda: T.RandomGrayscale(p=given.RGS_P)),
        ("gaussian_blur", lambda: T.RandomApply([T.GaussianBlur(given.GB_K)], p=given.GB_P)),
        ("to tensor", ToTensor),
        ("cutout", lambda: Cutout(given.CUTOUT_N, given.CUTOUT_LEN)),
        ("normalize", lambda: normalize),
        ("gaussian_noise", lambda: GaussianNoise(given.GN_MEAN, given.GN_STD)),
        ("instance_norm", InstanceNormalization),
    ]
    chosen: list[tuple[str, Callable]] = []
    if "random_crop" not in choices and "random_resized_crop" not in choices:
        chosen.append((f"resize to {target_size}", T.Resize(size, interpolation=mode)))
    chosen += [(name, make()) for name, make in steps if name == "to tensor" or name in choices]
    return _compose(cfg, "training", chosen)


def _build_transform_test(cfg: CfgNode, choices: Sequence[str], target_size: str, normalize: Callable) -> T.Compose:
    given = cfg.INPUT
    edge = max(given.SIZE)
    chosen: list[tuple[str, Callable]] = [
        (f"resize the smaller edge to {edge}", T.Resize(edge, interpolation=INTERPOLATION_MODES[given.INTERPOLATION])),
        (f"{target_size} center crop", T.CenterCrop(tuple(given.SIZE))),
        ("to tensor", ToTensor()),
    ]
    if "normalize" in choices:
        chosen.append(("normalize", normalize))
    if "instance_norm" in choices:
        chosen.append(("instance_norm", InstanceNormalization()))
    return _compose(cfg, "test", chosen)


def _compose(cfg: CfgNode, what: str, chosen: list[tuple[str, Callable]]) -> T.Compose:
    if cfg.VERBOSE:
        print(f"Building the {what} transform")
        for name, _ in chosen:
            print(f"+ {name}")
    return T.Compose([step for _, step in chosen])
