"""Layers between backbone and classifier."""

from . import mlp  # registers
from .build import HEAD_REGISTRY, build_head

__all__ = ["HEAD_REGISTRY", "build_head", "mlp"]
