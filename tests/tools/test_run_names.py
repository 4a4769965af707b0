"""tools/run_names.py: how tables name and order data sets and methods."""

import pytest

from tools.run_names import (
    DATASETS,
    dataset_name,
    dataset_title,
    host_of,
    method_name,
    natural,
    rank_dataset,
    rank_method,
)


@pytest.mark.parametrize(
    ("registered", "stem"),
    [
        ("Shapes", "shapes"),
        ("ShapesV2", "shapes_v2"),
        ("DescribableTextures", "dtd"),
        ("OxfordFlowers", "oxford_flowers"),
        ("FGVCAircraft", "fgvc_aircraft"),
        ("ImageNetV2", "imagenetv2"),
        ("ImageNetSketch", "imagenet_sketch"),
        ("ImageNetA", "imagenet_a"),
        ("dtd", "dtd"),
        ("MyFlowers", "MyFlowers"),
        (7, None),  # of a damaged record
        (None, None),
    ],
)
def test_registered_names_and_stems(registered, stem):
    assert dataset_name(registered) == stem


def test_titles_and_order_are_the_papers():
    assert [dataset_title(name) for name in ("oxford_flowers", "imagenet_r", "mine")] == [
        "Flowers102",
        "ImageNet-R",
        "mine",
    ]
    assert len(DATASETS) == 11 + 4 + 5
    assert sorted(["zebras", "shapes", "dtd", "imagenet"], key=rank_dataset) == ["imagenet", "dtd", "shapes", "zebras"]


def test_a_wrapper_is_named_with_its_host():
    config = {"TRAINER": {"NAME": "Spotlighter", "SPOTLIGHTER": {"HOST": "MaPLe"}}}
    assert method_name("Spotlighter", config) == "MaPLe w/ Spotlighter"
    assert method_name("CoOp", config) == "CoOp"  # every config holds the nodes of all trainers
    assert method_name("Spotlighter", {}) == "Spotlighter"
    assert method_name("Spotlighter", {"TRAINER": {"SPOTLIGHTER": None}}) == "Spotlighter"
    assert (host_of("MaPLe w/ Spotlighter"), host_of("MaPLe")) == ("MaPLe", None)


def test_wrappers_come_after_hosts():
    names = ["Abc", "MaPLe w/ Spotlighter", "CoOp w/ Spotlighter", "CoOp w/ TextRefiner", "CoOp (b)", "ZeroshotCLIP"]
    assert sorted(names, key=rank_method) == [
        "ZeroshotCLIP",
        "CoOp (b)",
        "Abc",
        "CoOp w/ TextRefiner",
        "CoOp w/ Spotlighter",
        "MaPLe w/ Spotlighter",
    ]


def test_natural_order():
    assert sorted(["seed10", "Seed2", "seed1", "a"], key=natural) == ["a", "seed1", "Seed2", "seed10"]
