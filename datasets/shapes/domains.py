"""The five domains of the embedded benchmark: what each shows, and the order of the classes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from datasets.shapes.conditions import CONDITIONS
from datasets.shapes.render import NAMES, Draws, Style, picture_keys, render

CLASS_SEED = 1  # of the shuffle below; base and new classes then share all colours and all shapes
_ORDER = np.argsort(picture_keys(CLASS_SEED, "class", "order", np.arange(len(NAMES)), np.zeros(len(NAMES))))
ORDER = tuple(int(pair) for pair in _ORDER)  # label of the data set -> index into NAMES
CLASS_NAMES = tuple(NAMES[pair] for pair in ORDER)


@dataclass(frozen=True)
class Domain:
    """One rendered data set.

    Attributes:
        folder: below the data root.
        title: what it plays, for messages.
        style: how objects are drawn.
        conditions: (condition, share of the pictures, weakest and strongest effect); shares add up to 1.
        counts: pictures a class in train, val and test.
        seed: of all its pictures.
    """

    folder: str
    title: str
    style: Style
    conditions: tuple[tuple[str, float, float, float], ...]
    counts: tuple[int, int, int]
    seed: int

    @property
    def split_file(self) -> str:
        return f"split_{self.folder}.json"

    def pictures(self, part: str, labels: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Draw pictures number `index` [B] of classes `labels` [B] of train, val or test: [B, 64, 64, 3] uint8."""
        pairs = np.array(ORDER)[labels]
        keys = picture_keys(self.seed, self.folder, part, pairs, index)
        draw = Draws(keys)
        at = np.searchsorted(np.cumsum([share for _, share, _, _ in self.conditions])[:-1], draw()[:, 0], side="right")
        weak = np.array([low for _, _, low, _ in self.conditions], np.float32)[at]
        strong = np.array([high for _, _, _, high in self.conditions], np.float32)[at]
        strengths = weak + (strong - weak) * draw()[:, 0]
        numbers = np.array([CONDITIONS.index(name) for name, *_ in self.conditions])[at]
        return render(keys, pairs, self.style, numbers, strengths)


# Captions of the pretraining name every light ("a neon photo of a ..."), but "a photo of a ..." leaves it open: of all
# lights, neon is the one that the plain sentence misses most, so a prompt has something to learn.
_OBJECTS = Style(radius=(9.0, 20.0), tilt=0.7, distractors=(1, 4), occluded=0.25, textured=0.25)
_LIGHT = (("neon", 1.0, 0.8, 1.0),)

DOMAINS: dict[str, Domain] = {
    "Shapes": Domain("shapes", "ImageNet", _OBJECTS, _LIGHT, (20, 4, 25), seed=1),
    "ShapesV2": Domain("shapes_v2", "ImageNetV2", _OBJECTS, _LIGHT, (0, 0, 20), seed=2),
    "ShapesSketch": Domain(
        "shapes_sketch",
        "ImageNet-Sketch",
        Style(radius=(8.0, 18.0), tilt=0.8, distractors=(1, 5), occluded=0.3),
        (("sketch", 1.0, 1.0, 1.0),),
        (0, 0, 20),
        seed=3,
    ),
    "ShapesA": Domain(
        "shapes_a",
        "ImageNet-A",
        Style(
            radius=(8.0, 15.0),
            tilt=0.9,
            distractors=(3, 5),
            occluded=0.5,
            textured=0.25,
            clutter=0.4,
            light=0.6,
            noise=0.06,
        ),
        (("neon", 1.0, 0.6, 1.0),),
        (0, 0, 20),
        seed=4,
    ),
    "ShapesR": Domain(
        "shapes_r",
        "ImageNet-R",
        replace(_OBJECTS, radius=(8.0, 20.0), textured=1.0, jitter=0.12),
        (
            ("negative", 0.25, 0.8, 1.0),
            ("neon", 0.25, 0.6, 1.0),
            ("sepia", 0.25, 0.6, 0.9),
            ("pixelated", 0.25, 1.0, 1.0),
        ),
        (0, 0, 20),
        seed=5,
    ),
}
