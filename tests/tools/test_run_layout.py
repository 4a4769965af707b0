"""tools/run_layout.py: what folder names say, and the names of data sets and methods."""

from pathlib import Path

import pytest

from tools.run_layout import (
    DATASETS,
    Place,
    dataset_name,
    dataset_title,
    host_of,
    is_seed_folder,
    method_name,
    natural,
    place_of,
    rank_dataset,
    rank_method,
)

TAIL = "shots_4/CoOp/ep20/seed3"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"out/base2new/train_base/dtd/{TAIL}", ("base2new", "train_base", None, "dtd")),
        (f"out/base2new/test_new/dtd/{TAIL}", ("base2new", "test_new", None, "dtd")),
        (f"out/fewshot/dtd/{TAIL}", ("fewshot", None, None, "dtd")),
        (f"out/xd/train/imagenet/{TAIL}", ("xd", "train", "imagenet", "imagenet")),
        (f"out/xd/test/imagenet/dtd/{TAIL}", ("xd", "test", "imagenet", "dtd")),
        (f"out/base2new/other/dtd/{TAIL}", (None, None, None, "dtd")),
        (f"out/ablation/train/dtd/{TAIL}", (None, None, None, "dtd")),
    ],
)
def test_places(path, expected):
    protocol, part, source, dataset = expected
    assert place_of(Path(path)) == Place(3, protocol, part, source, dataset, "CoOp", "ep20", 4)


def test_zero_shot_has_no_shots():
    place = place_of(Path("out/zeroshot/dtd/ZeroshotCLIP/vit_b16/seed1"))
    assert place == Place(1, "zeroshot", None, None, "dtd", "ZeroshotCLIP", "vit_b16", None)


def test_other_folders_say_less():
    assert place_of(Path("/a/notes")) == Place("notes")
    assert place_of(Path("/a/b/cfg/seed_7")) == Place(7, config="cfg")
    assert place_of(Path("/a/b/dtd/shots_-1/CoOp/cfg/seed1")).shots == -1
    assert [is_seed_folder(Path(name)) for name in ("seed1", "seed_12", "seeds", "x/seed")] == [
        True,
        True,
        False,
        False,
    ]


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
