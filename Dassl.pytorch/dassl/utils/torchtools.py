"""Checkpoints and parameter helpers."""

__all__: list[str] = []
