"""Draws the pictures of the embedded benchmark: one coloured shape, 64 x 64 pixels, in NumPy only.

A picture is a pure function of its key and its label. The key is a 64-bit hash of (seed, domain, split, class, index),
and every number that a picture needs is hashed from that key, so a picture is the same alone, in a batch, in another
process and in another order. Batches are vectorised: 0.2 ms a picture on one core.

What photographs a picture, and in which light (night, sunset, sketch, ...), lives in `conditions.py`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from datasets.shapes.conditions import CONDITIONS, apply_condition

SIZE = 64  # pixels a side

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.12, 0.12),
    "orange": (0.96, 0.52, 0.10),
    "yellow": (0.95, 0.88, 0.15),
    "green": (0.13, 0.62, 0.20),
    "cyan": (0.20, 0.84, 0.88),
    "blue": (0.14, 0.25, 0.85),
    "purple": (0.52, 0.15, 0.70),
    "pink": (0.97, 0.55, 0.74),
    "brown": (0.47, 0.28, 0.12),
    "white": (0.96, 0.96, 0.96),
    "gray": (0.50, 0.50, 0.50),
    "black": (0.06, 0.06, 0.06),
}
SHAPES = (
    "circle",
    "square",
    "triangle",
    "pentagon",
    "hexagon",
    "star",
    "heart",
    "cross",
    "ring",
    "crescent",
    "arrow",
    "diamond",
)
# Label = 12 * colour + shape; the data set puts the classes into another, shuffled order.
PAIRS = tuple((colour, shape) for colour in range(len(COLOURS)) for shape in range(len(SHAPES)))
NAMES = tuple(f"{list(COLOURS)[colour]} {SHAPES[shape]}" for colour, shape in PAIRS)

_CHUNK = 32  # pictures drawn together: the working set stays in the cache
_EXTENT = 1.3  # a shape table covers [-1.3, 1.3] in units of the shape's radius
_CELLS = 192  # cells a side of a shape table
_WINDOW = 28  # pixels a side of a distractor's window


@dataclass(frozen=True)
class Style:
    """How a domain draws; ranges are drawn from uniformly.

    Attributes:
        radius: of the object, in pixels.
        tilt: largest rotation to either side, in radians.
        distractors: fewest and most small shapes behind the object.
        occluded: share of pictures with a small shape in front of the object.
        textured: share of objects with stripes, dots or checks.
        jitter: standard deviation of the object's colour per channel, colours being 0..1.
        clutter: amplitude of the background's clouds, 0..1.
        light: largest brightness change from one side of the picture to the other.
        noise: standard deviation of the pixel noise.
    """

    radius: tuple[float, float] = (11.0, 22.0)
    tilt: float = 0.6
    distractors: tuple[int, int] = (0, 3)
    occluded: float = 0.15
    textured: float = 0.15
    jitter: float = 0.06
    clutter: float = 0.25
    light: float = 0.35
    noise: float = 0.04


class Draws:
    """Uniform numbers hashed from picture keys: call k of picture i depends on key i and k only."""

    def __init__(self, keys: np.ndarray) -> None:
        self.keys, self.count = keys.astype(np.uint64), 0

    def __call__(self, low: float = 0.0, high: float = 1.0, columns: int = 1) -> np.ndarray:
        """[B, columns] float32 in [low, high)."""
        steps = np.arange(self.count + 1, self.count + columns + 1, dtype=np.uint64)
        self.count += columns
        bits = _mix(self.keys[:, None] + steps * np.uint64(0x9E3779B97F4A7C15))
        unit = (bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
        return low + np.float32(high - low) * unit

    def integers(self, low: int, high: int) -> np.ndarray:
        """[B] int64 in low..high, both included."""
        return low + np.floor(self(0.0, 1.0)[:, 0] * (high - low + 1)).astype(np.int64)


def _mix(bits: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def picture_keys(seed: int | str, domain: str, split: str, labels: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Keys [B] uint64 of pictures number `index` [B] of classes `labels` [B]."""
    head = int.from_bytes(hashlib.sha256(f"{seed}/{domain}/{split}".encode()).digest()[:8], "little")
    labels, index = np.asarray(labels, np.uint64), np.asarray(index, np.uint64)
    return _mix(_mix(np.uint64(head) + (labels << np.uint64(40)) + index) + np.uint64(head))


def render(
    keys: np.ndarray,
    labels: np.ndarray,
    style: Style,
    conditions: np.ndarray | None = None,
    strengths: np.ndarray | None = None,
) -> np.ndarray:
    """Draw pictures.

    Args:
        keys: [B] uint64, from `picture_keys`.
        labels: [B] indices into NAMES.
        style: how to draw.
        conditions: [B] indices into CONDITIONS; None: plain pictures.
        strengths: [B] of the condition, 0 (plain) to 1; None: 1.

    Returns:
        [B, 64, 64, 3] uint8, RGB.
    """
    keys, labels = np.asarray(keys, np.uint64), np.asarray(labels, np.int64)
    conditions = np.zeros(len(keys), np.int64) if conditions is None else np.asarray(conditions, np.int64)
    strengths = np.ones(len(keys), np.float32) if strengths is None else np.asarray(strengths, np.float32)
    out = np.empty((len(keys), SIZE, SIZE, 3), np.uint8)
    for start in range(0, len(keys), _CHUNK):
        part = slice(start, start + _CHUNK)
        out[part] = _render_chunk(keys[part], labels[part], style, conditions[part], strengths[part])
    return out


def _render_chunk(
    keys: np.ndarray, labels: np.ndarray, style: Style, conditions: np.ndarray, strengths: np.ndarray
) -> np.ndarray:
    draw = Draws(keys)
    colour = np.array(list(COLOURS.values()), np.float32)[labels // len(SHAPES)]  # [B, 3]
    shape = labels % len(SHAPES)
    fill = np.clip(colour + style.jitter * _normal(draw, 3), 0, 1)
    radius = draw(*style.radius)[:, 0]
    angle = draw(-style.tilt, style.tilt)[:, 0]
    margin = 0.85 * radius
    centre = margin[:, None] + draw(columns=2) * (SIZE - 1 - 2 * margin)[:, None]  # [B, 2], whole object in view
    sketch = conditions == CONDITIONS.index("sketch")

    canvas = _background(draw, fill, style)
    paper = draw(0.86, 0.99, columns=3)
    canvas[sketch] = paper[sketch, None, None, :] + 0.1 * (canvas[sketch] - 0.5)
    n_small = draw.integers(*style.distractors)
    for k in range(style.distractors[1]):
        _small_shape(canvas, draw, n_small > k, sketch, None, radius)

    distance, dx, dy = _distance(shape, centre, radius, angle, np.arange(SIZE), np.arange(SIZE))  # [B, 64, 64]
    cover = np.clip(0.5 - distance, 0, 1)
    if sketch.any():
        pencil = draw.count  # the same numbers whether or not a neighbour in the batch is a sketch
        cover[sketch] = _strokes(distance[sketch], Draws(keys[sketch] + np.uint64(pencil)))
    shade = 1 + draw(-0.2, 0.2)[:, :, None] * dx + draw(-0.2, 0.2)[:, :, None] * dy
    shade *= _texture(draw, style.textured, dx * radius[:, None, None], dy * radius[:, None, None])
    for channel in range(3):
        plane = canvas[..., channel]
        plane += cover * (fill[:, channel, None, None] * shade - plane)
    front = draw()[:, 0] < style.occluded
    _small_shape(canvas, draw, front, sketch, centre, radius)

    canvas *= _ramp(draw, style.light)[..., None]
    np.clip(canvas, 0, 1, out=canvas)
    apply_condition(canvas, conditions, strengths, draw)
    canvas += style.noise * _grain(draw)
    np.clip(canvas, 0, 1, out=canvas)
    canvas *= 255
    canvas += 0.5
    return canvas.astype(np.uint8)


def _normal(draw: Draws, columns: int) -> np.ndarray:
    """[B, columns], about standard normal: the scaled sum of four uniform numbers."""
    return (draw(columns=4 * columns).reshape(-1, columns, 4).sum(2) - 2) * np.float32(3**0.5)


def _ramp(draw: Draws, amplitude: float) -> np.ndarray:
    """[B, 64, 64] factors around 1 that change linearly in a drawn direction."""
    angle, slope = draw(0, 2 * np.pi)[:, :, None], draw(0, amplitude)[:, :, None]
    line = np.linspace(-0.5, 0.5, SIZE, dtype=np.float32)
    return 1 + slope * (np.cos(angle) * line[None, None, :] + np.sin(angle) * line[None, :, None])


def _background(draw: Draws, fill: np.ndarray, style: Style) -> np.ndarray:
    """[B, 64, 64, 3]: a colour far from the object's, clouds and a ramp."""
    base = draw(0.03, 0.97, columns=3)
    close = np.linalg.norm(base - fill, axis=1) < 0.42
    base[close] = (base[close] + 0.5) % 1  # half a turn in each channel is at least 0.45 away from the object
    cloud = _clouds()[draw.integers(0, len(_clouds()) - 1)]  # [B, 64, 64]
    cloud = cloud * draw(0, style.clutter)[:, :, None]
    tint = 1 + draw(-0.5, 0.5, columns=3)
    canvas = np.empty((len(fill), SIZE, SIZE, 3), np.float32)
    for channel in range(3):
        canvas[..., channel] = base[:, channel, None, None] + cloud * tint[:, channel, None, None]
    return canvas


def _small_shape(
    canvas: np.ndarray,
    draw: Draws,
    wanted: np.ndarray,
    sketch: np.ndarray,
    near: np.ndarray | None,
    limit: np.ndarray,
) -> None:
    """Draw one small shape where `wanted`, in front of the rim of the object at `near` [B, 2] if that is given."""
    colour = np.array(list(COLOURS.values()), np.float32)[draw.integers(0, len(COLOURS) - 1)]
    shape = draw.integers(0, len(SHAPES) - 1)
    radius = np.minimum(draw(4.0, 8.5)[:, 0], 0.6 * limit)
    angle = draw(-np.pi, np.pi)[:, 0]
    centre = draw(_WINDOW / 2, SIZE - _WINDOW / 2, columns=2)
    turn = draw(0, 2 * np.pi)[:, 0]
    if near is not None:
        rim = near + 0.8 * limit[:, None] * np.stack([np.cos(turn), np.sin(turn)], 1)
        centre = np.clip(rim, _WINDOW / 2, SIZE - _WINDOW / 2)
    rows = np.flatnonzero(wanted)
    if len(rows) == 0:
        return
    corner = np.floor(centre[rows] - _WINDOW / 2).astype(np.int64)  # [R, 2] as x, y
    xs = corner[:, :1] + np.arange(_WINDOW)
    ys = corner[:, 1:] + np.arange(_WINDOW)
    distance, _, _ = _distance(shape[rows], centre[rows], radius[rows], angle[rows], xs, ys)
    solid = np.clip(0.5 - distance, 0, 1)
    line = np.clip(1.1 - np.abs(distance), 0, 1)
    cover = np.where(sketch[rows, None, None], line, solid)[..., None]
    where = (rows[:, None, None], ys[:, :, None], xs[:, None, :])
    patch = canvas[where]
    canvas[where] = patch + cover * (colour[rows, None, None, :] - patch)


def _strokes(distance: np.ndarray, draw: Draws) -> np.ndarray:
    """Cover of a pencil drawing: an outline and a light hatching inside."""
    width = draw(1.0, 2.0)[:, :, None]
    outline = np.clip(width + 0.5 - np.abs(distance), 0, 1)
    period, turn = draw(4.0, 7.0)[:, :, None], draw(0, np.pi)[:, :, None]
    line = np.arange(SIZE, dtype=np.float32)
    phase = (np.cos(turn) * line[None, None, :] + np.sin(turn) * line[None, :, None]) / period
    hatch = np.clip(0.9 - 2.5 * np.abs(phase - np.floor(phase) - 0.5) * 2, 0, 1) * np.clip(0.5 - distance, 0, 1)
    return np.maximum(outline, draw(0.0, 0.7)[:, :, None] * hatch)


def _texture(draw: Draws, share: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Brightness factors [B, 64, 64] of a striped, dotted or checked surface; 1 where the surface is plain."""
    kind = draw.integers(0, 2)[:, None, None]
    on = draw()[:, :, None] < share
    factor = np.ones_like(x)
    depth, period = draw(0.25, 0.5)[:, :, None], draw(5.0, 9.0)[:, :, None]
    rows = np.flatnonzero(on[:, 0, 0])
    if len(rows) == 0:
        return factor
    turn = 2 * np.pi / period[rows]
    sx, sy = np.sin(turn * x[rows]), np.sin(turn * y[rows])
    pattern = np.where(kind[rows] == 0, sx, np.where(kind[rows] == 1, sx + sy - 0.6, 2 * sx * sy))
    factor[rows] = 1 - depth[rows] * np.clip(2 * pattern + 0.5, 0, 1)
    return factor


def _grain(draw: Draws) -> np.ndarray:
    """[B, 64, 64, 3] noise of unit deviation: a window of a fixed field at a drawn offset."""
    field = _noise_field()
    at = np.stack([draw.integers(0, len(field) - SIZE), draw.integers(0, len(field) - SIZE)], 1)
    return np.stack([field[y : y + SIZE, x : x + SIZE] for x, y in at])


@lru_cache(maxsize=1)
def _noise_field() -> np.ndarray:
    return _normal(Draws(np.arange(192 * 192, dtype=np.uint64)), 3).reshape(192, 192, 3)


@lru_cache(maxsize=1)
def _clouds() -> np.ndarray:
    """[256, 64, 64] smooth random fields in about -1..1: three octaves of value noise."""
    fields = np.zeros((256, SIZE, SIZE), np.float32)
    draw = Draws(np.arange(256, dtype=np.uint64))
    for knots, weight in ((3, 0.6), (6, 0.3), (14, 0.2)):
        grid = draw(-1, 1, columns=(knots + 1) ** 2).reshape(256, knots + 1, knots + 1)
        at = np.linspace(0, knots, SIZE, endpoint=False, dtype=np.float32)
        low = at.astype(np.int64)
        step = at - low
        step = step * step * (3 - 2 * step)
        rows = grid[:, low] * (1 - step)[:, None] + grid[:, low + 1] * step[:, None]
        fields += weight * (rows[:, :, low] * (1 - step) + rows[:, :, low + 1] * step)
    return fields


def _distance(
    shape: np.ndarray, centre: np.ndarray, radius: np.ndarray, angle: np.ndarray, xs: np.ndarray, ys: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signed distance in pixels (negative inside) and the object's own coordinates in radii, each [B, Y, X].

    xs [X] or [B, X], ys [Y] or [B, Y] are the pixels looked at; centre is [B, 2] as x, y.
    """
    dx = (np.broadcast_to(xs, (len(shape), np.shape(xs)[-1])) - centre[:, :1]) / radius[:, None]
    dy = (np.broadcast_to(ys, (len(shape), np.shape(ys)[-1])) - centre[:, 1:]) / radius[:, None]
    dx, dy = dx.astype(np.float32), dy.astype(np.float32)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    u = (cos * dx)[:, None, :] + (sin * dy)[:, :, None]
    v = (cos * dy)[:, :, None] - (sin * dx)[:, None, :]
    scale, last = np.float32(_CELLS / (2 * _EXTENT)), _CELLS - 1
    column = np.clip((u + _EXTENT) * scale, 0, last).astype(np.int32)
    row = np.clip((v + _EXTENT) * scale, 0, last).astype(np.int32)
    row *= _CELLS
    row += column
    row += (shape * _CELLS * _CELLS).astype(np.int32)[:, None, None]
    distance = _shape_tables().take(row)
    distance *= radius[:, None, None]
    return distance, u, v


@lru_cache(maxsize=1)
def _shape_tables() -> np.ndarray:
    """[12 * cells * cells] signed distances in radii, of each shape on [-1.3, 1.3] squared; y points down."""
    at = (np.arange(_CELLS) + 0.5) / _CELLS * 2 * _EXTENT - _EXTENT
    x, y = np.meshgrid(at, at)
    tables = [_signed_distance(name, x, y) for name in SHAPES]
    return np.stack(tables).astype(np.float32).ravel()


def _signed_distance(name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if name == "circle":
        return np.hypot(x, y) - 0.9
    if name == "ring":
        return np.abs(np.hypot(x, y) - 0.7) - 0.24
    if name == "crescent":
        return np.maximum(np.hypot(x, y) - 0.95, 0.78 - np.hypot(x - 0.42, y))
    return _polygon_distance(_outline(name), x, y)


def _outline(name: str) -> np.ndarray:
    """Corners [V, 2] of a polygon of about unit radius."""
    if name == "square":
        return np.array([(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)])
    if name == "diamond":
        return np.array([(0, -1.1), (0.62, 0), (0, 1.1), (-0.62, 0)])
    if name == "triangle":
        return np.array([(0, -1.0), (0.98, 0.75), (-0.98, 0.75)])
    if name == "cross":
        a, b = 0.32, 0.98
        return np.array(
            [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)]
        )
    if name == "arrow":
        return np.array([(-1, -0.3), (0.1, -0.3), (0.1, -0.8), (1.1, 0), (0.1, 0.8), (0.1, 0.3), (-1, 0.3)])
    if name == "star":
        turn = np.arange(10) * np.pi / 5 - np.pi / 2
        reach = np.where(np.arange(10) % 2 == 0, 1.08, 0.45)
        return np.stack([reach * np.cos(turn), reach * np.sin(turn)], 1)
    if name == "heart":
        t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        height = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
        return np.stack([16 * np.sin(t) ** 3 / 16.5, -(height + 2.5) / 15.5], 1)
    corners = {"pentagon": 5, "hexagon": 6}[name]
    turn = np.arange(corners) * 2 * np.pi / corners - np.pi / 2
    return np.stack([np.cos(turn), np.sin(turn)], 1)


def _polygon_distance(corners: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance to a polygon: nearest edge, negative inside (even-odd rule)."""
    nearest = np.full(x.shape, np.inf)
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        ex, ey, px, py = bx - ax, by - ay, x - ax, y - ay
        along = np.clip((px * ex + py * ey) / (ex * ex + ey * ey), 0, 1)
        nearest = np.minimum(nearest, (px - along * ex) ** 2 + (py - along * ey) ** 2)
        if ay != by:
            inside ^= ((ay > y) != (by > y)) & (x < ax + (y - ay) * ex / ey)
    return np.where(inside, -1.0, 1.0) * np.sqrt(nearest)
