"""A drawn figure as PNG, once for light and once for dark pages, with words for those who cannot see it."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind eyes, too; the light ones darker, so that all have a contrast
# of at least 3 to either paper. Each also has a marker of its own.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#C46E9E", "#B87F00", "#3A97CF", "#8C6D31")
MARKERS = "osD^vPX<"
CSS_DPI = 96  # pixels an inch of a page
SCALE = 1.5  # pixels of the file per pixel of a page, for sharp screens
WIDTH = 4.5  # inches of a figure that a phone can show


@dataclass(frozen=True)
class Theme:
    """Colours of a page."""

    ink: str
    paper: str
    muted: str

    def style(self) -> Any:
        """Entries of matplotlib's rcParams."""
        ink = ("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "xtick.color", "ytick.color")
        paper = ("figure.facecolor", "axes.facecolor", "savefig.facecolor")
        return {
            **dict.fromkeys(ink, self.ink),
            **dict.fromkeys(paper, self.paper),
            "grid.color": self.muted,
            "font.size": 9,
            "axes.titlesize": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "legend.frameon": False,
        }


LIGHT = Theme("#1d2430", "#ffffff", "#566070")
DARK = Theme("#e8ecf2", "#171c24", "#a9b3c1")


@dataclass(frozen=True)
class Picture:
    """A figure for a page."""

    name: str  # stem of a file name
    light: bytes  # PNG
    dark: bytes
    width: int  # pixels of a page
    height: int
    alt: str
    caption: str


def paint(name: str, alt: str, caption: str, draw: Callable[[Theme], Figure]) -> Picture:
    """Draw a figure in both themes.

    Args:
        name: stem of a file name.
        alt: what the figure shows, in words; it also stands in the files as their description.
        caption: what to know of it.
        draw: makes the figure under a theme's rcParams.
    """
    light, dark = draw_png(draw, LIGHT, alt), draw_png(draw, DARK, alt)
    width, height = size_of(light)
    return Picture(name, light, dark, round(width / SCALE), round(height / SCALE), alt, caption)


def draw_png(draw: Callable[[Theme], Figure], theme: Theme, alt: str) -> bytes:
    """The PNG file of a figure that is drawn in a theme."""
    with matplotlib.rc_context(theme.style()):
        return png_of(draw(theme), alt)


def png_of(figure: Figure, alt: str) -> bytes:
    """A figure as PNG file, with `alt` as its description; the same figure gives the same bytes."""
    out = io.BytesIO()
    metadata = {"Description": alt, "Software": None}  # without the version of matplotlib
    figure.savefig(out, format="png", dpi=CSS_DPI * SCALE, metadata=metadata)
    return out.getvalue()


def size_of(png: bytes) -> tuple[int, int]:
    """Width and height of a PNG file, in its pixels."""
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")
