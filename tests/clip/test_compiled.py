import copy

import torch

from clip import compiled
from clip.backbone import Backbone, LabelSpace
from tests.conftest import make_clip


def features(backbone):
    batch = backbone.text.prepare(LabelSpace(("one", "two longer words"), "Test"), "a photo of a", 4)
    with torch.no_grad():
        return backbone.vision(torch.ones(2, 3, 32, 32)).pooled, backbone.text(batch)


def test_compiled_blocks_of_both_towers_give_the_same_features(traced):
    plain, fast = Backbone(make_clip()), Backbone(make_clip())
    compiled.compile_blocks(fast)
    torch.testing.assert_close(features(fast), features(plain), atol=1e-5, rtol=1e-5)
    assert len(traced) >= 2  # images and texts


def test_the_blocks_of_a_tower_share_one_compilation(traced):
    backbone = Backbone(make_clip())
    compiled.compile_blocks(backbone)
    with torch.no_grad():
        rows = torch.ones(2, 5, 64)
        for block in backbone.vision.vit.transformer.blocks():
            block.run(rows)
    n = len(traced)
    with torch.no_grad():
        copy.deepcopy(backbone.vision.vit.transformer.resblocks[0]).run(rows)
    assert len(traced) == n


def test_weights_keep_their_names(traced):
    backbone = Backbone(make_clip())
    names = list(backbone.state_dict())
    compiled.compile_blocks(backbone)
    assert list(backbone.state_dict()) == names
