"""Template tables against the counts and rules that the papers and their code publish."""

from __future__ import annotations

from datasets.templates import (
    CLIPFIT_TEMPLATES,
    DATASET_TEMPLATES,
    IMAGENET_TEMPLATES,
    IMAGENET_TEMPLATES_SELECT,
    PROMPTSRC_TEMPLATES,
)


def test_imagenet_has_eighty_different_templates() -> None:
    assert len(IMAGENET_TEMPLATES) == len(set(IMAGENET_TEMPLATES)) == 80
    assert all(template.count("{}") == 1 and template.endswith(("}.", "game.")) for template in IMAGENET_TEMPLATES)
    assert not any("ART" in template or " an " in template for template in IMAGENET_TEMPLATES)


def test_imagenet_pairs() -> None:
    """All but four templates come with "a" and with "the"."""
    seen = set(IMAGENET_TEMPLATES)
    singles = {"a photo of many {}.", "a photo of my {}.", "a photo of one {}.", "itap of my {}."}
    assert singles <= seen
    for spot_check in ("a bad photo of {} {{}}.", "a tattoo of {} {{}}.", "a photo of {} hard to see {{}}."):
        assert {spot_check.format("a"), spot_check.format("the")} <= seen
    for spot_check in ("{} plastic {{}}.", "{} {{}} in a video game.", "itap of {} {{}}.", "graffiti of {} {{}}."):
        assert {spot_check.format("a"), spot_check.format("the")} <= seen


def test_selections() -> None:
    assert len(PROMPTSRC_TEMPLATES) == len(set(PROMPTSRC_TEMPLATES)) == 60
    assert set(PROMPTSRC_TEMPLATES) < set(IMAGENET_TEMPLATES)
    assert {"a photo of a cool {}.", "the cartoon {}.", "itap of my {}."}.isdisjoint(PROMPTSRC_TEMPLATES)
    assert {"a photo of the cool {}.", "a cartoon {}.", "itap of the {}."} <= set(PROMPTSRC_TEMPLATES)
    assert len(IMAGENET_TEMPLATES_SELECT) == 7
    assert set(IMAGENET_TEMPLATES_SELECT) < set(IMAGENET_TEMPLATES)


def test_data_set_sentences() -> None:
    assert DATASET_TEMPLATES["Food101"] == "a photo of {}, a type of food."
    assert DATASET_TEMPLATES["OxfordFlowers"] == "a photo of a {}, a type of flower."
    assert DATASET_TEMPLATES["StanfordCars"] == DATASET_TEMPLATES["Shapes"] == "a photo of a {}."
    assert all(template.count("{}") == 1 for template in DATASET_TEMPLATES.values())
    differing = {name for name in DATASET_TEMPLATES if CLIPFIT_TEMPLATES[name] != DATASET_TEMPLATES[name]}
    assert differing == {"DescribableTextures"}
    assert CLIPFIT_TEMPLATES["DescribableTextures"] == "a photo of a {}, a type of texture."
