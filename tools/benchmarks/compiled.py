"""torch.compile for the frozen image blocks."""

from __future__ import annotations

import torch

from clip.backbone import Backbone


def compile_image_blocks(backbone: Backbone) -> None:
    """Compile the pass of each image block over all its rows; the last block's single row and pruning blocks stay.

    Compilation itself happens in the first call for each shape and takes up to a minute. Its parameters, and the text
    tower, are left alone.

    Raises:
        ValueError: the image tower is a ResNet.
    """
    for block in backbone.vision.vit.transformer.blocks():
        block.run = torch.compile(block.run, dynamic=False)  # on the instance: text blocks are of the same class
