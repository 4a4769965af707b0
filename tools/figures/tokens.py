"""Pictures with their activated tokens: activation maps, outlines of both levels, matched prototypes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tools.figures.classes import shortened
from tools.figures.picture import WIDTH, Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

MAPS = {"sample": "sample-wise", "semantic": "semantic-wise", "summed": "sum, decides"}
COLOUR_MAP = "cividis"  # made to look alike to colour-blind and other eyes, and grows lighter with the score
LEVELS = {"level1": "solid", "level2": (0, (2.2, 1.4))}  # lines that outline them
OVERLAY = 0.8  # share of the map over the grey picture
PANEL = 2.4  # inches of a panel in a grid
ROW_HEIGHT = 1.0  # inches of a row of prototypes
TOKENS_SHOWN = 3  # of a prototype
BEYOND = 127  # grey outside of a picture
READING = (
    "Level-1 tokens are outlined with solid lines, level-2 tokens with broken ones; numbers are ranks. Scores have "
    "mean 0 and deviation 1 over the patches of a picture, their sum decides. Maps lie over the picture in grey."
)


@dataclass(frozen=True)
class Neighbour:
    """A training patch near a prototype."""

    pixels: np.ndarray  # [h, w, 3] uint8, the patch with what is around it
    name: str  # class of its picture
    cosine: float  # to the prototype, in the joint space


@dataclass(frozen=True)
class Prototype:
    """One that activated tokens were matched with."""

    number: int  # within its class, from 0
    ranks: tuple[int, ...]  # of the tokens matched with it, from 1
    patches: tuple[np.ndarray, ...]  # of these tokens, [h, w, 3] uint8
    neighbours: tuple[Neighbour, ...]  # nearest first; () if nobody looked


@dataclass(frozen=True)
class TokenView:
    """What is drawn of one picture; g patches a side, patch p in row p // g and column p % g."""

    pixels: np.ndarray  # [H, W, 3] uint8, as the model sees it
    grid: int  # g
    maps: dict[str, np.ndarray]  # of MAPS, [g, g]; NaN where the tower dropped the patch
    levels: dict[str, Sequence[int]]  # of LEVELS: patches, best first
    title: str
    matched: str = ""  # the class of the bank that the prototypes belong to
    prototypes: tuple[Prototype, ...] = ()

    def ranks(self) -> list[tuple[int, str, int]]:
        """Rank from 1, level and patch of each activated token."""
        chosen = [(level, int(patch)) for level in LEVELS for patch in self.levels.get(level, ())]
        return [(rank, level, patch) for rank, (level, patch) in enumerate(chosen, 1)]

    def describe(self) -> str:
        """Alt text: what was chosen, in words."""
        parts = []
        for level, title in (("level1", "level 1"), ("level2", "level 2")):
            cells = [divmod(int(patch), self.grid) for patch in self.levels.get(level, ())]
            if cells:
                parts.append(f"{title}: " + "; ".join(f"row {r + 1}, column {c + 1}" for r, c in cells))
        near = f" Matched class of the memory bank: {self.matched}." if self.matched else ""
        listed = ", ".join(MAPS[name].split(",")[0] for name in self.maps)
        return (
            f"{self.title}. The picture in {self.grid} by {self.grid} patches with activation maps ({listed}). "
            f"Activated tokens, best first, {'; '.join(parts)}.{near}"
        )


def crop(pixels: np.ndarray, patch: int, grid: int) -> np.ndarray:
    """A patch in the middle of its surroundings, one patch wide on each side; grey beyond the edge of the picture.

    Args:
        pixels: [H, W, 3] uint8.
    """
    H, W = pixels.shape[:2]
    h, w = -(-H // grid), -(-W // grid)  # a patch's size
    padded = np.pad(pixels, ((h, h), (w, w), (0, 0)), constant_values=BEYOND)
    row, column = divmod(int(patch), grid)
    top, left = row * H // grid, column * W // grid
    return padded[top : top + 3 * h, left : left + 3 * w]


def draw_maps(view: TokenView, theme: Theme) -> Figure:
    """The picture and its maps, two in a row: for a page."""
    from matplotlib.figure import Figure

    n_rows = 2 if len(view.maps) > 1 else 1
    figure = Figure((WIDTH, 2.2 * n_rows))
    edges = {"left": 0.01, "right": 0.91, "bottom": 0.02 / n_rows, "top": 1 - 0.1 / n_rows, "wspace": 0.24}
    _fill(figure.subplots(n_rows, 2, gridspec_kw={**edges, "hspace": 0.14}).ravel(), view, theme)
    return figure


def draw_prototypes(view: TokenView, theme: Theme) -> Figure:
    """The matched prototypes, a row each: for a page."""
    from matplotlib.figure import Figure

    figure = Figure((WIDTH, 0.35 + ROW_HEIGHT * max(len(view.prototypes), 1)))
    _prototypes(figure, view)
    return figure


def draw_grid(views: Sequence[TokenView], theme: Theme) -> Figure:
    """A row a picture: it, its maps, and on the right its prototypes."""
    from matplotlib.figure import Figure

    n_panels = 1 + max(len(view.maps) for view in views)
    beside = WIDTH if any(view.prototypes for view in views) else 0
    heights = [max(2.9, 0.35 + ROW_HEIGHT * len(view.prototypes) if beside else 0) for view in views]
    figure = Figure((PANEL * n_panels + beside, sum(heights)))
    rows = np.atleast_1d(figure.subfigures(len(views), 1, height_ratios=heights))
    for row, view, height in zip(rows, views, heights, strict=True):
        parts = row.subfigures(1, 2, width_ratios=[PANEL * n_panels, beside]) if beside else [row]
        parts[0].suptitle(view.title.replace("$", r"\$"), fontsize=10, y=1 - 0.1 / height, va="top")
        edges = {"left": 0.01, "right": 0.96, "bottom": 0.02, "top": 1 - 0.5 / height, "wspace": 0.24}
        _fill(np.atleast_1d(parts[0].subplots(1, n_panels, gridspec_kw=edges)), view, theme)
        if view.prototypes:
            _prototypes(parts[1], view, height)
    return figure


def _fill(panels: Any, view: TokenView, theme: Theme) -> None:
    """The picture in the first panel, maps in the others; panels that are left over stay empty."""
    picture(panels[0], view)
    for axes, name in zip(panels[1:], view.maps, strict=False):
        activation(axes, view, name, theme)
    for axes in panels[1 + len(view.maps) :]:
        axes.set_axis_off()


def picture(axes: Axes, view: TokenView) -> None:
    """The picture with outlined and numbered tokens."""
    axes.imshow(view.pixels, extent=(0, view.grid, view.grid, 0), interpolation="nearest")
    axes.set_title("as the model sees it", fontsize=8)
    _outline(axes, view, numbers=True)


def activation(axes: Axes, view: TokenView, name: str, theme: Theme) -> None:
    """A map over the picture in grey, with its colour bar."""
    from matplotlib.ticker import MaxNLocator

    extent = (0, view.grid, view.grid, 0)
    grey = view.pixels.astype(float) @ (0.299, 0.587, 0.114)
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=extent, interpolation="nearest")
    values = np.ma.masked_invalid(view.maps[name])
    image = axes.imshow(values, cmap=COLOUR_MAP, extent=extent, interpolation="nearest", alpha=OVERLAY)
    axes.set_title(MAPS[name], fontsize=8)
    _outline(axes, view)
    bar = axes.figure.colorbar(image, cax=axes.inset_axes((1.03, 0, 0.05, 1)))
    bar.ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_edgecolor(theme.muted)


def _outline(axes: Axes, view: TokenView, numbers: bool = False) -> None:
    """Frames around the activated tokens, white on black so that they show on any picture."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    for rank, level, patch in view.ranks():
        row, column = divmod(patch, view.grid)
        frame = Rectangle((column, row), 1, 1, fill=False, ec="white", lw=1.6, ls=LEVELS[level], zorder=3)
        frame.set_path_effects([withStroke(linewidth=3.2, foreground="black")])
        axes.add_patch(frame)
        if numbers:
            text = axes.text(column + 0.5, row + 0.5, str(rank), color="white", ha="center", va="center", fontsize=8)
            text.set_path_effects([withStroke(linewidth=2, foreground="black")])
    axes.set(xticks=[], yticks=[], xlim=(-0.05, view.grid + 0.05), ylim=(view.grid + 0.05, -0.05), anchor="N")
    axes.spines[:].set_visible(False)


def _prototypes(figure: Figure | SubFigure, view: TokenView, height: float = 0.0) -> None:
    """A row a prototype: the tokens matched with it, then the training patches nearest to it."""
    n_tokens = min(max(len(prototype.patches) for prototype in view.prototypes), TOKENS_SHOWN)
    n_near = max(len(prototype.neighbours) for prototype in view.prototypes)
    height = height or 0.35 + ROW_HEIGHT * len(view.prototypes)  # inches
    used = 0.35 + ROW_HEIGHT * len(view.prototypes)  # a row is no higher where there is more room
    edges = {"left": 0.06, "right": 0.99, "top": 1 - 0.5 / height, "bottom": 1 - (used - 0.03) / height}
    spaces = {"wspace": 0.12, "hspace": 0.42}
    shape = (len(view.prototypes), n_tokens + n_near)
    panels = figure.subplots(*shape, squeeze=False, gridspec_kw={**edges, **spaces})
    about = f"Prototypes of “{shortened(view.matched, 30)}”: matched tokens" if view.matched else "Matched tokens"
    about += " | nearest training patches, cosine" if n_near else ""
    figure.suptitle(about, fontsize=8, y=1 - 0.08 / height, va="top")
    for row, prototype in zip(panels, view.prototypes, strict=True):
        for axes in row:
            axes.set_axis_off()
        for axes, rank, patch in zip(row[:n_tokens], prototype.ranks, prototype.patches, strict=False):
            _patch(axes, patch, f"token {rank}")
        for axes, near in zip(row[n_tokens:], prototype.neighbours, strict=False):
            _patch(axes, near.pixels, f"{shortened(near.name, 14)}\n{near.cosine:.2f}")
        where = {"transform": row[0].transAxes, "ha": "right", "va": "center", "rotation": 90}
        row[0].text(-0.12, 0.5, f"no. {prototype.number + 1}", fontsize=7, **where)


def _patch(axes: Axes, pixels: np.ndarray, title: str) -> None:
    """A patch in its surroundings, with a thin frame around the patch itself."""
    from matplotlib.patches import Rectangle

    axes.imshow(pixels, extent=(0, 3, 3, 0), interpolation="nearest")
    axes.add_patch(Rectangle((1, 1), 1, 1, fill=False, ec="white", lw=0.9))
    axes.add_patch(Rectangle((1, 1), 1, 1, fill=False, ec="black", lw=0.9, ls=(0, (2, 2))))
    axes.set_title(title, fontsize=6.5, pad=2)
