"""What a backbone offers."""

from torch import nn

__all__ = ["Backbone"]


class Backbone(nn.Module):
    """A module [B, 3, H, W] → [B, out_features]; subclasses set `_out_features`."""

    _out_features: int

    @property
    def out_features(self) -> int:
        """Width of the feature."""
        return self._out_features
