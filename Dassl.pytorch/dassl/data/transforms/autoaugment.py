"""The learned AutoAugment policies (Cubuk et al., 2019), as torchvision has them, under the names of the interface."""

from collections.abc import Sequence

from torchvision.transforms import v2 as T

__all__ = ["CIFAR10Policy", "ImageNetPolicy", "SVHNPolicy"]

_GREY = (128, 128, 128)  # fills what a shift or rotation uncovers


class ImageNetPolicy(T.AutoAugment):
    """One of the 25 pairs of operations that were found on ImageNet, drawn for each image."""

    def __init__(self, fillcolor: Sequence[int] = _GREY):
        super().__init__(T.AutoAugmentPolicy.IMAGENET, fill=list(fillcolor))


class CIFAR10Policy(T.AutoAugment):
    """The same, found on CIFAR-10."""

    def __init__(self, fillcolor: Sequence[int] = _GREY):
        super().__init__(T.AutoAugmentPolicy.CIFAR10, fill=list(fillcolor))


class SVHNPolicy(T.AutoAugment):
    """The same, found on SVHN."""

    def __init__(self, fillcolor: Sequence[int] = _GREY):
        super().__init__(T.AutoAugmentPolicy.SVHN, fill=list(fillcolor))
