"""SPT, self-prompt tuning: image prompts that start as token prototypes of the training images (arXiv 2402.02382).

`windows` pools an image's tokens, `reservoir` draws rows from a stream, `start` makes prompts of them; `towers` and
`timm_vit` say what a plain ViT is, `methods` puts prompts into CLIP or in front of a linear head, `trainer` has the
options, `nearness` measures how near prompts are to tokens.
"""

from trainers.spt.trainer import SPT

__all__ = ["SPT"]
