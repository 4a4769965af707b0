"""Which published recipe a run is compared with, and in which keys."""

import argparse

import pytest

import train
from tools.dry_run.recipe import Recipe, differences, published_recipe, recipe_lines
from tools.protocols import ROOT, choose, method_files, method_folders
from tools.run_layout import PROTOCOLS


def configuration(trainer, *opts, config="", classes="base", shots="16", dataset="OxfordPets"):
    path = f"configs/trainers/{trainer}/{config}.yaml" if config else ""
    flags = ["--config-file", str(ROOT / path)] if path else []
    facts = ("DATASET.NAME", dataset, "DATASET.SUBSAMPLE_CLASSES", classes, "DATASET.NUM_SHOTS", shots)
    return train.setup_cfg(train.parse_args([*flags, "--trainer", trainer, *facts, *opts]))


def found(trainer, *opts, typed="", **facts):
    recipe = published_recipe(configuration(trainer, *opts, **facts), typed)
    return recipe and (recipe.path.parent.name, recipe.path.stem, recipe.protocol)


@pytest.mark.parametrize(
    ("trainer", "facts", "expected"),
    [
        ("CoOp", {}, ("CoOp", "vit_b16_ep200_ctxv1", "base2new")),
        ("CoOp", {"classes": "new"}, ("CoOp", "vit_b16_ep200_ctxv1", "base2new")),
        ("CoOp", {"dataset": "ImageNet"}, ("CoOp", "vit_b16_ep50_ctxv1", "base2new")),
        ("CoOp", {"dataset": "Shapes"}, ("CoOp", "vit_b16_ep200_ctxv1", "base2new")),
        ("CoOp", {"classes": "all"}, ("CoOp", "vit_b16", "fewshot")),
        ("CoOp", {"classes": "all", "shots": "1"}, ("CoOp", "vit_b16_ep50", "fewshot")),
        ("CoOp", {"classes": "all", "shots": "4", "dataset": "ShapesA"}, ("CoOp", "vit_b16_ep100", "fewshot")),
        ("CoOp", {"classes": "all", "typed": "vit_b16_ep50_ctxv1"}, ("CoOp", "vit_b16_ep50_ctxv1", "xd")),
        ("MaPLe", {"classes": "all"}, ("MaPLe", "vit_b16_c2_ep2_batch4_2ctx_cross_datasets", "xd")),
        ("PromptKD", {"dataset": "DescribableTextures"}, ("PromptKD", "vit_b16_ep20_kd200", "base2new")),
        ("LinearProbe", {"classes": "all"}, ("LinearProbe", "rn50", "fewshot")),
        ("LinearProbe", {}, None),
        ("ZeroshotCLIP2", {}, ("ZeroshotCLIP", "vit_b16", "base2new")),
        ("Spotlighter", {}, ("Spotlighter", "vit_b16_ep15_paper", "base2new")),
        ("SPT", {}, None),
        ("TextPriors", {}, None),
        ("IVLP", {"classes": "all"}, None),
    ],
)
def test_which_recipe(trainer, facts, expected):
    assert found(trainer, **facts) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("MaPLe", ("Spotlighter", "vit_b16_ep5_batch4_maple_paper", "base2new")),
        ("PromptSRC", None),  # the paper has no such row
        ("IVLP", None),  # nor scripts of ours
    ],
)
def test_which_recipe_around_a_host(host, expected):
    assert found("Spotlighter", "TRAINER.SPOTLIGHTER.HOST", host) == expected


def test_a_trainer_without_scripts_has_none():
    cfg = configuration("CoOp").clone()
    cfg.defrost()
    cfg.TRAINER.NAME = "Mine"
    assert published_recipe(cfg) is None
    assert recipe_lines(cfg, "", None) == (
        "Published recipe",
        [("none", "nothing is published for Mine trained on base classes")],
    )


def test_what_has_no_recipe_is_named_with_its_host():
    cfg = configuration("Spotlighter", "TRAINER.SPOTLIGHTER.HOST", "IVLP")
    (line,) = recipe_lines(cfg, "", None)[1]
    assert line == ("none", "nothing is published for Spotlighter around IVLP trained on base classes")


@pytest.mark.parametrize("folder", method_folders())
def test_published_protocols_and_configs_exist(folder):
    files = method_files(folder)
    keys = {protocol.configs for protocol in PROTOCOLS.values()}
    for name, config in files.published.items():
        *host, protocol = name.split(" ")
        assert protocol in keys
        configs = files.hosts[host[0]] if host else files.configs
        stem = config or choose(configs, protocol, "oxford_pets", 16)
        assert (ROOT / "configs/trainers" / files.trainer / f"{stem}.yaml").is_file()
        assert not stem.startswith("mini")


def test_differences_are_those_of_the_recipe():
    published = configuration("Spotlighter", config="vit_b16_ep15_paper")
    changes = ("OPTIM.LR", "0.1", "TRAINER.COOP.N_CTX", "3", "TRAINER.MAPLE.N_CTX", "7", "SEED", "5")
    ours = configuration("Spotlighter", *changes, config="vit_b16_ep15_paper", shots="4")
    expected = {"OPTIM.LR": (0.1, 0.002), "TRAINER.COOP.N_CTX": (3, 16), "DATASET.NUM_SHOTS": (4, 16)}
    assert differences(ours, published, "base2new") == expected
    del expected["DATASET.NUM_SHOTS"]
    assert differences(ours, published, "fewshot") == expected  # shots are what is varied


def test_a_student_of_unlabelled_images_has_no_shots():
    published = configuration("PromptKD", config="vit_b16_ep20")
    ours = configuration("PromptKD", "DATASET.NUM_UNLABELLED", "16", config="vit_b16_ep20", shots="4")
    assert differences(ours, published, "base2new") == {"DATASET.NUM_UNLABELLED": (16, -1)}


def test_the_same_recipe():
    data = str(ROOT / "configs/datasets/oxford_pets.yaml")
    flags = [
        "--dataset-config-file",
        data,
        "--config-file",
        str(ROOT / "configs/trainers/CoOp/vit_b16_ep200_ctxv1.yaml"),
    ]
    args = train.parse_args(
        [*flags, "--trainer", "CoOp", "DATASET.NUM_SHOTS", "16", "DATASET.SUBSAMPLE_CLASSES", "base"]
    )
    title, lines = recipe_lines(
        train.setup_cfg(args), "vit_b16_ep200_ctxv1", lambda path: train.setup_other(args, path)
    )
    assert title == "Published recipe configs/trainers/CoOp/vit_b16_ep200_ctxv1.yaml (base2new)"
    assert lines == [("the same", "no key that matters is otherwise")]


def test_another_config_takes_nothing_that_was_typed():
    args = argparse.Namespace(**vars(train.parse_args(["--seed", "4", "--backbone", "RN50", "OPTIM.LR", "9.0"])))
    cfg = train.setup_other(args, str(ROOT / "configs/trainers/CoOp/vit_b16.yaml"))
    assert (cfg.OPTIM.LR, cfg.MODEL.BACKBONE.NAME, cfg.SEED) == (0.002, "ViT-B/16", -1)


def test_a_recipe_is_shown_by_its_path():
    recipe = Recipe(ROOT / "configs/trainers/CoOp/vit_b16.yaml", "fewshot")
    assert recipe.shown == "configs/trainers/CoOp/vit_b16.yaml (fewshot)"
