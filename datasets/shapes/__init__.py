"""The embedded benchmark: 144 classes, 12 colours times 12 shapes, in five domains rendered on first use.

`Shapes` plays ImageNet, `ShapesV2` its second test set (same recipe, new seed), `ShapesSketch` pencil drawings,
`ShapesA` small, occluded objects in clutter, `ShapesR` other palettes and textures. Nothing is downloaded.
"""

from __future__ import annotations

from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY
from datasets.base import SplitDataset
from datasets.shapes.domains import DOMAINS
from datasets.shapes.files import IMAGES, drawn_by, ensure_rendered, fingerprint


class RenderedDataset(SplitDataset):
    """A reader that draws its pictures when they are not there yet; the domain has the name of the class."""

    image_dir = IMAGES

    def __init_subclass__(cls) -> None:
        domain = DOMAINS[cls.__name__]
        cls.dataset_dir, cls.split_file = domain.folder, domain.split_file
        cls.test_only = domain.counts[0] == 0

    @classmethod
    def find_folder(cls, root: Path) -> Path:
        return ensure_rendered(DOMAINS[cls.__name__], root)

    @classmethod
    def is_drawn(cls, root: Path) -> bool:
        """Whether the pictures are below the data root, so that a run need not draw them."""
        domain = DOMAINS[cls.__name__]
        return drawn_by(root / domain.folder) == fingerprint(domain)

    @classmethod
    def draw_command(cls, root: Path) -> str:
        """The command that draws the data set, for messages."""
        return f"python -m datasets.shapes --root {root} --only {cls.dataset_dir}"

    @classmethod
    def advice(cls, folder: Path) -> str:
        return f"delete {folder}, then have it drawn anew with: {cls.draw_command(folder.parent)}"


@DATASET_REGISTRY.register()
class Shapes(RenderedDataset):
    """The source domain: 20 training, 4 validation and 25 test pictures a class."""


@DATASET_REGISTRY.register()
class ShapesV2(RenderedDataset):
    """The source domain's recipe with another seed; test only."""


@DATASET_REGISTRY.register()
class ShapesSketch(RenderedDataset):
    """Coloured outlines on paper; test only."""


@DATASET_REGISTRY.register()
class ShapesA(RenderedDataset):
    """Small objects among and behind others; test only."""


@DATASET_REGISTRY.register()
class ShapesR(RenderedDataset):
    """Negatives, neon, sepia and coarse pixels, with textures; test only."""
