"""From PIL images to tensors."""

from .transforms import INTERPOLATION_MODES, ToTensor, build_transform

__all__ = ["INTERPOLATION_MODES", "ToTensor", "build_transform"]
