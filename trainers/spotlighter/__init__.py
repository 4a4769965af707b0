"""Spotlighter (arXiv 2509.00905): a head around any host method. Importing this package registers its trainer."""

from trainers.spotlighter.trainer import Spotlighter

__all__ = ["Spotlighter"]
