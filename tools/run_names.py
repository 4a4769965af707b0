"""Names of data sets and methods in tables, and their order. Standard library only."""

import re
from collections.abc import Sequence
from typing import Any

# Rows come in the order of the papers' tables; names that are not listed follow alphabetically.
TRAINERS = (
    *("ZeroshotCLIP", "ZeroshotCLIP2", "LinearProbe", "CoOp", "CoCoOp", "VPT", "IVLP", "MaPLe", "PromptSRC", "CLIPFit"),
    *("SPT", "TextRefiner", "PromptKD", "Spotlighter"),
)
REAL = {  # stem of configs/datasets/*.yaml -> title
    "imagenet": "ImageNet",
    "caltech101": "Caltech101",
    "oxford_pets": "OxfordPets",
    "stanford_cars": "StanfordCars",
    "oxford_flowers": "Flowers102",
    "food101": "Food101",
    "fgvc_aircraft": "FGVCAircraft",
    "sun397": "SUN397",
    "dtd": "DTD",
    "eurosat": "EuroSAT",
    "ucf101": "UCF101",
}
IMAGENET_DOMAINS = {
    "imagenetv2": "ImageNetV2",
    "imagenet_sketch": "ImageNet-Sketch",
    "imagenet_a": "ImageNet-A",
    "imagenet_r": "ImageNet-R",
}
EMBEDDED = {name: name for name in ("shapes", "shapes_v2", "shapes_sketch", "shapes_a", "shapes_r")}
TITLES = REAL | IMAGENET_DOMAINS | EMBEDDED
DATASETS = tuple(TITLES)
DOMAINS = {"imagenet": tuple(IMAGENET_DOMAINS), "shapes": tuple(EMBEDDED)[1:]}  # source -> its other domains
# Registered names that are not the stem of their config when case and punctuation are left out.
_REGISTERED = {"describabletextures": "dtd"}


def dataset_name(name: object) -> str | None:
    """The stem of a data set's config for its registered name: `DescribableTextures` -> `dtd`; others stay."""
    if not isinstance(name, str):
        return None
    if name in TITLES:
        return name
    plain = re.sub(r"[\W_]", "", name).lower()
    return _REGISTERED.get(plain) or next((s for s in TITLES if s.replace("_", "") == plain), name)


def dataset_title(name: str) -> str:
    """How tables write a data set."""
    return TITLES.get(name, name)


def shots_title(shots: int) -> str:
    """How tables write images a class; 0 or less stands for all of them."""
    return "all images" if shots <= 0 else "1 shot" if shots == 1 else f"{shots} shots"


def method_name(trainer: str, config: dict[str, Any]) -> str:
    """How tables name a run's method: its trainer, and `HOST w/ Spotlighter` for one that wraps a host.

    Args:
        trainer: registered name.
        config: merged configuration of the run, from its metrics.json; may be empty.
    """
    nodes = config.get("TRAINER")
    node = nodes.get(trainer.upper()) if isinstance(nodes, dict) else None
    host = node.get("HOST") if isinstance(node, dict) else None
    return f"{host} w/ {trainer}" if isinstance(host, str) and host else trainer


def host_of(method: str) -> str | None:
    """The host of `HOST w/ TRAINER`, None for a method that wraps none."""
    host, separator, _ = method.partition(" w/ ")
    return host if separator else None


def rank_dataset(name: str) -> tuple:
    """Sort key of data sets."""
    return _rank(DATASETS, name)


def rank_method(name: str) -> tuple:
    """Sort key of methods: trainers in their order, then those around hosts, by wrapper and host."""
    host = host_of(name)
    if host is None:
        return 0, _rank(TRAINERS, name.split(" (")[0]), natural(name)
    return 1, _rank(TRAINERS, name.partition(" w/ ")[2].split(" (")[0]), _rank(TRAINERS, host), natural(name)


def natural(text: object) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which seed2 comes before seed10."""
    parts = re.findall(r"\d+|\D+", str(text))
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part.casefold()) for part in parts)


def _rank(order: Sequence[str], name: str) -> tuple:
    return (order.index(name), ()) if name in order else (len(order), natural(name))
