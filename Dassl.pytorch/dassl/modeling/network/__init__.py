"""Whole networks that are neither backbone nor head; the project's own methods register theirs."""

from .build import NETWORK_REGISTRY, build_network

__all__ = ["NETWORK_REGISTRY", "build_network"]
