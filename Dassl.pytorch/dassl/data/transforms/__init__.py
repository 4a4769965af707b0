"""From PIL images to tensors."""

from .describe import describe
from .transforms import INTERPOLATION_MODES, ToTensor, build_transform

__all__ = ["INTERPOLATION_MODES", "ToTensor", "build_transform", "describe"]
