"""Token merging: the most similar pairs of patch rows become one row each, after Bolya et al., "Token merging" (ToMe).

Patch rows are dealt alternately into two sets; each of the first set looks for the most similar one in the second, and
the best of these pairs are merged. So nothing has to be searched again, and any number up to half of the rows can go.

Axes: B images, n patch rows that arrive, m patch rows that travel on, P prompt rows, w width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def merge_rows(rows: Tensor, keys: Tensor, sizes: Tensor, n_kept: int) -> tuple[Tensor, Tensor, Tensor]:
    """Merge the n-m most similar pairs; class token and prompts are left alone.

    Args:
        rows: [B, 1+n+P, w], outputs of a block.
        keys: [B, heads, 1+n+P, w / heads], that block's keys; their mean over heads is compared, by its cosine.
        sizes: fp32 [B, n], patches that each row stands for: its weight in the mean.
        n_kept: m, n/2..n-1.

    Returns:
        rows [B, 1+m+P, w], each merged row in the place of its partner in the second set; index int64 [B, m],
        ascending, of these places among the n; and place int64 [B, n], the new row of each old one.
    """
    B, n = sizes.shape
    unit = F.normalize(keys[:, :, 1 : 1 + n].detach().float().mean(dim=1), dim=2)  # the choice has no gradient
    with torch.autocast(rows.device.type, enabled=False):  # neither similarities nor means in half precision
        best, partner = (unit[:, ::2] @ unit[:, 1::2].mT).max(dim=2)  # [B, n/2] each, rows 0, 2, … of the image
        order = best.argsort(dim=1, descending=True, stable=True)
        gone, stay = order[:, : n - n_kept], order[:, n - n_kept :]
        odd = torch.arange(1, n, 2, device=rows.device).expand(B, -1)
        index = torch.cat([2 * stay, odd], dim=1).sort(dim=1).values  # [B, m]
        new = torch.arange(n_kept, device=rows.device).expand(B, -1)
        place = torch.zeros_like(partner.new_empty(B, n)).scatter(1, index, new)
        place = place.scatter(1, 2 * gone, place.gather(1, 1 + 2 * partner.gather(1, gone)))
        # weighted means as one product with an [m, n] matrix, which adds up in the same order every time
        weights = (place[:, None] == new[..., None]) * sizes[:, None]  # [B, m, n]
        weights = weights / weights.sum(dim=2, keepdim=True)
        merged = weights.to(rows.dtype) @ rows[:, 1 : 1 + n]
    return torch.cat([rows[:, :1], merged, rows[:, 1 + n :]], dim=1), index, place
