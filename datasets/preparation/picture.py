"""A sheet of sample pictures of a data set: a row a class, with its name, so that people can see that labels fit.

Classes and pictures are spread evenly over the lists, so that the same data give the same sheet everywhere.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import matplotlib
from PIL import Image, ImageDraw, ImageFont, ImageOps

from dassl.utils.tools import ImageReadError, read_image
from datasets.base import Found
from datasets.preparation.states import printable
from datasets.splits import PARTS, Item, by_label

T = TypeVar("T")

WIDTH = 1200  # pixels
CLASSES, SAMPLES = 8, 6  # at most
TILE, GAP, MARGIN = 144, 8, 24
HEADER = 92
CAPTION = WIDTH - 2 * MARGIN - SAMPLES * (TILE + GAP)  # what is left for the names
INK, FAINT, PAPER, HOLE = "#1a1a1a", "#6b6b6b", "#ffffff", "#e8e8e8"
FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"  # Pillow's own font lacks accents


def save_sheet(path: Path, found: Found, title: str) -> None:
    """Draw the sheet into a PNG file.

    Raises:
        RuntimeError: the file cannot be written.
    """
    sheet = draw_sheet(found, title)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path, format="PNG")
    except OSError as error:
        raise RuntimeError(f"Cannot write {path} ({error.strerror or error}); choose another --picture.") from error


def draw_sheet(found: Found, title: str) -> Image.Image:
    """Test pictures of some classes, [classes x (TILE + GAP) + ..., WIDTH] pixels; what cannot be read is a grey tile.

    Args:
        title: name of the data set.
    """
    groups = sorted(by_label(found.split.test), key=lambda items: items[0].label)
    rows = spread(groups, CLASSES)
    sheet = Image.new("RGB", (WIDTH, sheet_height(len(rows))), PAPER)
    draw = ImageDraw.Draw(sheet)
    sizes = "   ".join(f"{part} {len(items):,}" for part, items in zip(PARTS, found.split, strict=True) if items)
    draw.text((MARGIN, MARGIN), title, INK, _font(26, bold=True))
    shown = f"{len(rows)} of {len(groups)} classes, test images      {sizes}"
    draw.text((MARGIN, MARGIN + 36), shown, FAINT, _font(15))
    for number, items in enumerate(rows):
        top = HEADER + number * (TILE + GAP)
        _caption(draw, items, top)
        for column, item in enumerate(spread(items, SAMPLES)):
            left = WIDTH - MARGIN - (SAMPLES - column) * (TILE + GAP) + GAP
            sheet.paste(_tile(found.images, item), (left, top))
    return sheet


def sheet_height(n_rows: int) -> int:
    """Height in pixels of a sheet of so many classes."""
    return HEADER + n_rows * (TILE + GAP) - GAP + MARGIN


def spread(things: Sequence[T], n: int) -> list[T]:
    """At most `n` of the things, evenly spaced, with the first and the last."""
    if len(things) <= n:
        return list(things)
    return [things[round(i * (len(things) - 1) / (n - 1))] for i in range(n)]


def _caption(draw: ImageDraw.ImageDraw, items: Sequence[Item], top: int) -> None:
    """The class name, at most four lines of it, above its label and number of pictures, centred beside the tiles."""
    name, font = printable(items[0].name).replace("_", " "), _font(17)
    letters = int((CAPTION - GAP) / font.getlength("n"))
    lines = textwrap.wrap(name, letters, max_lines=4, placeholder=" …") or [name]
    y = top + (TILE - 22 * len(lines) - 22) // 2
    for line in lines:
        draw.text((MARGIN, y), line, INK, font)
        y += 22
    draw.text((MARGIN, y + 3), f"label {items[0].label},  {len(items):,} images", FAINT, _font(13))


def _tile(images: Path, item: Item) -> Image.Image:
    """A square of the picture: its middle, as most models see it."""
    try:
        return ImageOps.fit(read_image(os.path.join(images, item.path)), (TILE, TILE), Image.Resampling.LANCZOS)
    except (FileNotFoundError, ImageReadError) as error:
        tile = Image.new("RGB", (TILE, TILE), HOLE)
        word = "missing" if isinstance(error, FileNotFoundError) else "unreadable"
        ImageDraw.Draw(tile).text((TILE / 2, TILE / 2), word, FAINT, _font(15), anchor="mm")
        return tile


def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(FONTS / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")), size)
