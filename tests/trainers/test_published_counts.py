"""Trained tensors and scalars on ViT-B/16, as the papers count them; no weights are needed."""

import pytest

from clip.backbone import LabelSpace
from tools.count_parameters import empty_backbone

COUNTS = [  # trainer, its options, trained tensors, trained scalars
    ("ZeroshotCLIP", (), 0, 0),
    ("CoOp", ("CTX_INIT", "a photo of a"), 1, 2_048),
    ("CoOp", ("N_CTX", 16), 1, 8_192),
    ("CoCoOp", (), 5, 35_360),
    ("VPT", ("N_CTX_VISION", 2), 1, 1_536),
    ("VPT", ("N_CTX_VISION", 8, "PROMPT_DEPTH_VISION", 12), 12, 73_728),
    ("IVLP", ("PROMPT_DEPTH_TEXT", 12, "PROMPT_DEPTH_VISION", 12), 24, 30_720),
    ("IVLP", ("N_CTX_TEXT", 4, "N_CTX_VISION", 4), 18, 46_080),
    (
        "IVLP",
        ("N_CTX_TEXT", 4, "PROMPT_DEPTH_TEXT", 12, "N_CTX_VISION", 0, "PROMPT_DEPTH_VISION", 0),
        12,
        24_576,
    ),
    ("MaPLe", (), 27, 3_555_072),
    ("MaPLe", ("PROMPT_DEPTH", 3), 9, 1_185_024),
]


@pytest.fixture(scope="module")
def vit_b16():
    return empty_backbone("ViT-B/16")


@pytest.mark.parametrize(("trainer", "options", "tensors", "scalars"), COUNTS)
def test_trained_tensors_and_scalars(method_of, vit_b16, trainer, options, tensors, scalars):
    method = method_of(trainer, vit_b16, LabelSpace(("cat", "dog"), "Toy"), *options)
    sizes = [p.numel() for p in method.trainables().values()]
    assert (len(sizes), sum(sizes)) == (tensors, scalars)


def test_baked_maple_keeps_rows_only(method_of, vit_b16):
    baked = method_of("MaPLe", vit_b16, LabelSpace(("cat", "dog"), "Toy")).bake()
    sizes = [p.numel() for p in baked.trainables().values()]
    assert (len(sizes), sum(sizes)) == (18, 23_040)
