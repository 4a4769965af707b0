"""A picture with the visual tokens that were activated on it, and the map that they were chosen by."""

from __future__ import annotations

import base64
import io

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from trainers.chosen_tokens import TokenChoice

SIDE = 560  # pixels of a drawn picture, about; the page shows it at half of that, sharp on fine screens
REST = 0.5  # brightness of what was not activated, which is shown in grey
OVERLAY = 0.75  # share of a map over the grey picture
MAP = "cividis"  # grows lighter with the score, for colour-blind eyes, too
QUALITY = 88


def side_of(grid: int) -> int:
    """Pixels of a drawn picture: a multiple of the patches a side."""
    return grid * max(1, round(SIDE / grid))


def enlarged(picture: Image.Image, side: int = SIDE) -> Image.Image:
    """A picture as the model sees it, large enough to look at; small ones keep their pixels."""
    height = max(1, round(side * picture.height / picture.width))
    how = Image.Resampling.NEAREST if picture.width * 4 <= side else Image.Resampling.BICUBIC
    return picture.resize((side, height), how)


def tokens_picture(picture: Image.Image, choice: TokenChoice) -> Image.Image:
    """Activated tokens in colour with ranks from 1; level 1 in solid lines, level 2 in broken ones; the rest grey."""
    g, side = choice.grid, side_of(choice.grid)
    cell = side // g
    colour = picture.resize((side, side), Image.Resampling.BICUBIC)
    drawn = _grey(colour, REST)
    boxes = []
    for patch in choice.tokens:
        row, column = choice.cell(patch)
        box = (column * cell, row * cell, (column + 1) * cell, (row + 1) * cell)
        drawn.paste(colour.crop(box), box[:2])
        boxes.append(box)
    draw = ImageDraw.Draw(drawn)
    font = ImageFont.load_default(size=max(12, min(30, cell * 0.5)))
    for rank, (left, top, right, bottom) in enumerate(boxes, 1):
        _frame(draw, (left, top, right - 1, bottom - 1), broken=rank > len(choice.level1))
        middle = ((left + right) / 2, (top + bottom) / 2)
        draw.text(middle, str(rank), "white", font, "mm", stroke_width=2, stroke_fill="black")
    return drawn


def map_picture(picture: Image.Image, choice: TokenChoice) -> Image.Image:
    """The summed activation over the picture in grey; patches that the tower dropped stay grey."""
    g, side = choice.grid, side_of(choice.grid)
    grey = np.asarray(_grey(picture.resize((side, side), Image.Resampling.BICUBIC), 1.0), dtype=np.float32)
    low, high = np.nanmin(choice.summed_map), np.nanmax(choice.summed_map)
    share = (choice.summed_map - low) / (high - low if high > low else 1)
    tint = matplotlib.colormaps[MAP](np.nan_to_num(share))[..., :3] * 255  # [g, g, 3]
    weight = np.where(np.isnan(share), 0, OVERLAY)[..., None]  # [g, g, 1]
    tint, weight = (np.kron(part, np.ones((side // g, side // g, 1))) for part in (tint, weight))
    return Image.fromarray((weight * tint + (1 - weight) * grey).round().astype(np.uint8))


def data_url(picture: Image.Image) -> str:
    """The picture inside an address, so that no file of it is left anywhere."""
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def tokens_in_words(choice: TokenChoice) -> str:
    """Which tokens were activated, for those who cannot see it."""
    levels = []
    for title, patches in (("level 1", choice.level1), ("level 2", choice.level2)):
        cells = [choice.cell(patch) for patch in patches]
        if cells:
            levels.append(f"{title}: " + "; ".join(f"row {row + 1}, column {column + 1}" for row, column in cells))
    return f"{choice.grid} by {choice.grid} patches; activated, best first, {'. '.join(levels)}."


def _grey(picture: Image.Image, brightness: float) -> Image.Image:
    return picture.convert("L").point(lambda value: value * brightness).convert("RGB")


def _frame(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], broken: bool) -> None:
    """White on black, so that it shows on any picture."""
    left, top, right, bottom = box
    draw.rectangle(box, outline="black", width=5)
    if not broken:
        draw.rectangle((left + 1, top + 1, right - 1, bottom - 1), outline="white", width=3)
        return
    dash = max(4, (right - left) // 7)
    for start in range(0, right - left, 2 * dash):
        for edge in (top + 1, bottom - 3):
            draw.rectangle((left + start, edge, min(left + start + dash, right - 1), edge + 2), fill="white")
    for start in range(0, bottom - top, 2 * dash):
        for edge in (left + 1, right - 3):
            draw.rectangle((edge, top + start, edge + 2, min(top + start + dash, bottom - 1)), fill="white")
