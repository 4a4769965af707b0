"""Prompt templates: one sentence per data set, OpenAI's 80 sentences for ImageNet, and two published selections.

`{}` stands for the class name, in which "_" has become a space. Learned prompts never use the data-set specific
sentences; they start from "a photo of a".
"""

from __future__ import annotations

from yacs.config import CfgNode as CN

PLAIN_TEMPLATE = "a photo of a {}."

# Zero-shot sentence of each registered data set, as CoOp and its descendants use it.
DATASET_TEMPLATES: dict[str, str] = {
    "OxfordPets": "a photo of a {}, a type of pet.",
    "OxfordFlowers": "a photo of a {}, a type of flower.",
    "FGVCAircraft": "a photo of a {}, a type of aircraft.",
    "DescribableTextures": "{} texture.",
    "EuroSAT": "a centered satellite photo of {}.",
    "StanfordCars": PLAIN_TEMPLATE,
    "Food101": "a photo of {}, a type of food.",  # no article
    "SUN397": PLAIN_TEMPLATE,
    "Caltech101": PLAIN_TEMPLATE,
    "UCF101": "a photo of a person doing {}.",
    "ImageNet": PLAIN_TEMPLATE,
    "ImageNetV2": PLAIN_TEMPLATE,
    "ImageNetSketch": PLAIN_TEMPLATE,
    "ImageNetA": PLAIN_TEMPLATE,
    "ImageNetR": PLAIN_TEMPLATE,
    "Shapes": PLAIN_TEMPLATE,
    "ShapesV2": PLAIN_TEMPLATE,
    "ShapesSketch": PLAIN_TEMPLATE,
    "ShapesA": PLAIN_TEMPLATE,
    "ShapesR": PLAIN_TEMPLATE,
}


def dataset_template(dataset: str) -> str:
    """The hand-crafted template of a data set; "a photo of a {}." for data sets without one of their own."""
    return DATASET_TEMPLATES.get(dataset, PLAIN_TEMPLATE)


def template_of(cfg: CN) -> str:
    """The hand-crafted template of a run: DATASET.TEMPLATE, or the data set's own.

    Raises:
        ValueError: DATASET.TEMPLATE has not exactly one {}.
    """
    template = cfg.DATASET.get("TEMPLATE", "") or dataset_template(cfg.DATASET.NAME)
    if template.count("{}") != 1:
        raise ValueError(f"DATASET.TEMPLATE needs exactly one {{}} for the class name, got {template!r}.")
    return template


# CLIPFit's sentences differ in one place.
CLIPFIT_TEMPLATES: dict[str, str] = DATASET_TEMPLATES | {"DescribableTextures": "a photo of a {}, a type of texture."}


def _imagenet_templates() -> tuple[str, ...]:
    qualities = ["bad", "low resolution", "cropped", "bright", "dark", "close-up", "black and white", "pixelated"]
    qualities += ["jpeg corrupted", "blurry", "good"]
    works = ["rendering", "tattoo", "drawing", "painting", "sculpture", "doodle", "sketch", "rendition"]
    looks = ["hard to see", "clean", "dirty", "cool", "large", "nice", "weird", "small"]
    makes = ["embroidered", "plastic", "origami", "toy", "cartoon", "plushie"]
    patterns = (
        [f"a {quality} photo of ART {{}}." for quality in qualities]
        + [f"a {work} of ART {{}}." for work in works]
        + [f"a photo of ART {look} {{}}." for look in looks]
        + [f"ART {make} {{}}." for make in makes]
        + ["a photo of ART {}.", "graffiti of ART {}.", "art of ART {}.", "itap of ART {}.", "ART {} in a video game."]
    )
    pairs = [pattern.replace("ART", article) for pattern in patterns for article in ("a", "the")]
    return (*pairs, "a photo of many {}.", "a photo of my {}.", "a photo of one {}.", "itap of my {}.")


IMAGENET_TEMPLATES: tuple[str, ...] = _imagenet_templates()  # 80

# The seven sentences of ZeroshotCLIP2.
IMAGENET_TEMPLATES_SELECT: tuple[str, ...] = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)

_NOT_IN_PROMPTSRC = {
    "a jpeg corrupted photo of the {}.",
    "a good photo of a {}.",
    "a plushie {}.",
    "a photo of the nice {}.",
    "a photo of the small {}.",
    "a photo of the weird {}.",
    "the cartoon {}.",
    "art of the {}.",
    "a drawing of the {}.",
    "a photo of the large {}.",
    "a black and white photo of a {}.",
    "the plushie {}.",
    "a dark photo of a {}.",
    "itap of a {}.",
    "graffiti of the {}.",
    "a toy {}.",
    "itap of my {}.",
    "a photo of a cool {}.",
    "a photo of a small {}.",
    "a tattoo of the {}.",
}
# The sixty sentences of PromptSRC's text regularisation.
PROMPTSRC_TEMPLATES: tuple[str, ...] = tuple(t for t in IMAGENET_TEMPLATES if t not in _NOT_IN_PROMPTSRC)
