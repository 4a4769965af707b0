"""torchvision's ResNets without their classifier."""

from collections.abc import Callable

from torch import Tensor, nn
from torchvision import models

from .backbone import Backbone
from .build import BACKBONE_REGISTRY

__all__ = ["resnet18", "resnet50"]


class _ResNet(Backbone):
    def __init__(self, build: Callable[..., models.ResNet], pretrained: bool):
        super().__init__()
        self.net = build(weights="IMAGENET1K_V1" if pretrained else None)
        self._out_features = self.net.fc.in_features
        self.net.fc = nn.Identity()  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] → [B, out_features]."""
        return self.net(x)


@BACKBONE_REGISTRY.register()
def resnet18(pretrained: bool = True, **kwargs: object) -> Backbone:
    """ResNet-18 (He et al., 2016), width 512; `pretrained`: ImageNet weights, which torchvision downloads."""
    return _ResNet(models.resnet18, pretrained)


@BACKBONE_REGISTRY.register()
def resnet50(pretrained: bool = True, **kwargs: object) -> Backbone:
    """ResNet-50 (He et al., 2016), width 2048; `pretrained`: ImageNet weights, which torchvision downloads."""
    return _ResNet(models.resnet50, pretrained)
