"""RandAugment (Cubuk et al., 2020) in the three flavours of the interface, over torchvision's operations."""

import torch
from torch import nn
from torchvision.transforms import v2 as T

__all__ = ["RandAugment", "RandAugment2", "RandAugmentFixMatch"]

_BINS = 31  # magnitudes 0..30


class RandAugment(T.RandAugment):
    """`n` random operations, all at magnitude `m`.

    Args:
        n: operations an image.
        m: magnitude, 0..30.

    Raises:
        ValueError: m is out of range.
    """

    def __init__(self, n: int = 2, m: int = 10):
        if not 0 <= m < _BINS:
            raise ValueError(f"the magnitude of RandAugment must be in 0..{_BINS - 1}, got {m}")
        super().__init__(num_ops=n, magnitude=m, num_magnitude_bins=_BINS)


class RandAugmentFixMatch(nn.Module):
    """`n` random operations, each at a random magnitude (Sohn et al., FixMatch, 2020).

    Args:
        n: operations an image.
    """

    keep = 1.0  # probability that an operation is applied

    def __init__(self, n: int = 2):
        super().__init__()
        self.n = n
        self._at = [T.RandAugment(1, magnitude=m, num_magnitude_bins=_BINS) for m in range(_BINS)]

    def forward(self, img):
        """PIL image or uint8 tensor [3, H, W] → the same kind and size."""
        for _ in range(self.n):
            magnitude = int(torch.randint(_BINS, ()))
            if torch.rand(()) < self.keep:
                img = self._at[magnitude](img)
        return img


class RandAugment2(RandAugmentFixMatch):
    """As `RandAugmentFixMatch`, but each operation is kept with probability `p` only.

    Args:
        n: operations an image.
        p: probability of each.
    """

    def __init__(self, n: int = 2, p: float = 0.6):
        super().__init__(n)
        self.keep = p
