"""Draw docs/figures/spotlighter.svg, the picture of the method: python -m tools.draw_method

Plain SVG, written shape by shape: no picture of anybody else in it. The two score maps below are invented for one
drawn scene, but what is lit and in which order follows from them as in the method: standardise, add, take the top k.
Colours are CSS classes, once for light and once for dark readers.
"""

import argparse
import math
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

WIDTH, HEIGHT = 1040, 924
OUT = Path(__file__).resolve().parents[1] / "docs" / "figures" / "spotlighter.svg"
TITLE = "Spotlighter: few patch tokens, lit by two scores, refine both sides of CLIP"
DESCRIPTION = (
    "Five steps from top to bottom. 1 Encode: frozen CLIP turns a picture into patch tokens that enter its last block, "
    "and class prompts into text features T. 2 Activate: each patch gets a semantic-wise score from a memory bank of "
    "prototypes of the nearest known class, and a sample-wise score from the text features; the sum lights the top k "
    "tokens. 3 Rank: the lit tokens form level 1 and level 2 by score; in training they also move the prototypes of "
    "the true class by momentum, and the scores are taken again. 4 Map: the image module (IRM) lets matched prototypes "
    "attend to the tokens and runs the last block on the result; the text module (TRM) fuses each class feature with "
    "its weighted tokens by one linear layer. 5 Compare: scaled cosines of both sides for level 1, level 2 and both; "
    "both together are the prediction."
)

# name: (light, dark)
COLOURS = {
    "bg": ("#ffffff", "#11151c"),
    "band": ("#f3f5f8", "#1a202a"),
    "ink": ("#1d2430", "#e8ecf2"),
    "muted": ("#566070", "#a9b3c1"),
    "line": ("#7b8696", "#7f8a99"),
    "cell": ("#ffffff", "#11151c"),
    "frozen": ("#dfe6ef", "#2b3544"),
    "trained": ("#bfe6cd", "#1f5236"),
    "image": ("#8fb8e3", "#3f70a6"),
    "text": ("#efc27d", "#8a6423"),
    "bank": ("#c3a5e6", "#6d4fa0"),
    "lit": ("#f5b400", "#ffcf40"),
    "star": ("#d4373c", "#e2555a"),
    "ground": ("#b9d3c0", "#3c5a4b"),
    "ring": ("#3b6fb5", "#74a3e0"),
}
ON_LIT = "#1d2430"  # letters on "lit", which is bright in both themes
FILLS = [name for name in COLOURS if name not in ("line",)]

# A 4 x 4 scene: a red star in the middle, a blue ring in a corner.
SAMPLE = [[0.1, 0.2, 0.2, 0.5], [0.2, 0.9, 0.8, 0.3], [0.2, 0.8, 0.7, 0.2], [0.1, 0.4, 0.3, 0.1]]
SEMANTIC = [[0.1, 0.4, 0.3, 0.1], [0.5, 0.8, 0.9, 0.4], [0.3, 0.7, 0.6, 0.3], [0.1, 0.5, 0.4, 0.1]]
K, K1 = 5, 3  # lit tokens; those of level 1


def standardise(scores: list[list[float]]) -> list[float]:
    """Scores of one image with mean 0 and standard deviation 1, row by row in one list."""
    flat = [value for row in scores for value in row]
    mean = sum(flat) / len(flat)
    std = math.sqrt(sum((value - mean) ** 2 for value in flat) / len(flat))
    return [(value - mean) / std for value in flat]


def lit_tokens() -> list[int]:
    """The k patches with the highest sum of both scores, best first."""
    total = [a + b for a, b in zip(standardise(SAMPLE), standardise(SEMANTIC), strict=True)]
    return sorted(range(len(total)), key=lambda i: -total[i])[:K]


@dataclass
class Canvas:
    """Collects SVG elements."""

    parts: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        self.parts.append(text)

    def rect(self, x: float, y: float, w: float, h: float, fill: str, *, r: float = 6, more: str = "") -> None:
        self.add(f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="{r}" class="{fill}" {more}/>')

    def text(self, x: float, y: float, words: str, kind: str = "small", anchor: str = "middle") -> None:
        self.add(f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>')

    def box(self, x: float, y: float, w: float, h: float, fill: str, *lines: str) -> None:
        """A part of the model with its name; the second line is smaller."""
        self.rect(x, y, w, h, f"{fill} edge")
        top = y + h / 2 + 4.5 - 8 * (len(lines) - 1)
        for i, line in enumerate(lines):
            kind = "label" if i == 0 else "small"
            self.text(x + w / 2, top + 16 * i, line, f"{kind} onlit" if fill == "lit" else kind)

    def arrow(self, *points: tuple[float, float], dashed: bool = False) -> None:
        """A line through the points that ends in a head."""
        (x0, y0), (x1, y1) = points[-2:]
        length = math.hypot(x1 - x0, y1 - y0)
        dx, dy = (x1 - x0) / length, (y1 - y0) / length
        self.line(*points[:-1], (x1 - 6 * dx, y1 - 6 * dy), dashed=dashed)
        corners = [(x1, y1), *((x1 - 9 * dx + s * 4.5 * dy, y1 - 9 * dy - s * 4.5 * dx) for s in (1, -1))]
        self.add(f'<polygon points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in corners)}" class="head"/>')

    def line(self, *points: tuple[float, float], dashed: bool = False) -> None:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.add(f'<polyline points="{path}" class="wire{" dashed" if dashed else ""}"/>')

    def sign(self, x: float, y: float, sign: str) -> None:
        self.add(f'<circle cx="{x}" cy="{y}" r="11" class="cell edge"/>')
        self.text(x, y + 5, sign, "label")

    def picture(self, x: float, y: float, size: float, cell: int | None = None) -> None:
        """The drawn scene, or one of its 16 patches."""
        row, column = divmod(cell, 4) if cell is not None else (0, 0)
        view = f"{column * 24} {row * 24} 24 24" if cell is not None else "0 0 96 96"
        self.add(f'<svg x="{x}" y="{y}" width="{size}" height="{size}" viewBox="{view}"><use href="#scene"/></svg>')

    def grid(self, x: float, y: float, size: float, fill: str, strength: list[float] | None = None) -> None:
        """16 cells, each as strong as its value in 0..1."""
        step = size / 4
        for i in range(16):
            place = (x + step * (i % 4) + 1, y + step * (i // 4) + 1, step - 2, step - 2)
            self.rect(*place, "cell edge", r=3)
            opacity = 0.75 if strength is None else strength[i]
            self.rect(*place, fill, r=3, more=f'fill-opacity="{opacity:.2f}"')

    def step(self, number: int, y: float, height: float, title: str, *caption: str) -> None:
        """The band of a step, with its number, title and caption on the left."""
        self.rect(16, y, WIDTH - 32, height, "band", r=10)
        self.add(f'<circle cx="38" cy="{y + 26}" r="12" class="lit"/>')
        self.add(f'<text x="38" y="{y + 31}" class="number onlit" text-anchor="middle">{number}</text>')
        self.text(58, y + 31, title, "title", "start")
        for i, line in enumerate(caption):
            self.text(28, y + 56 + 16 * i, line, "small", "start")


def scene() -> str:
    """The scene as a 96 x 96 symbol: a star, a ring, the ground."""
    points = []
    for i in range(10):
        radius, angle = (45, 19)[i % 2], math.pi * (i / 5 - 0.5)
        points.append(f"{48 + radius * math.cos(angle):.1f},{52 + radius * math.sin(angle):.1f}")
    return (
        '<g id="scene"><rect width="96" height="96" class="ground"/>'
        '<circle cx="83" cy="13" r="7" class="ringline"/>'
        f'<polygon points="{" ".join(points)}" class="star"/></g>'
    )


def style(theme: str) -> str:
    """The style sheet; theme "auto" follows the reader's choice, "light" and "dark" are fixed."""

    def rules(index: int) -> str:
        colour = {name: pair[index] for name, pair in COLOURS.items()}
        fills = "".join(f".{name}{{fill:{colour[name]}}}" for name in FILLS)
        return (
            f"{fills}text{{fill:{colour['ink']}}}text.small{{fill:{colour['muted']}}}"
            f".edge{{stroke:{colour['line']}}}.wire{{stroke:{colour['line']}}}.head{{fill:{colour['line']}}}"
            f".ringline{{stroke:{colour['ring']}}}.spot{{stroke:{colour['lit']}}}text.onlit{{fill:{ON_LIT}}}"
        )

    fixed = (
        "text{font-family:system-ui,'Segoe UI','Helvetica Neue',Arial,'DejaVu Sans',sans-serif}"
        ".head1{font-size:19px;font-weight:700}.title{font-size:15px;font-weight:700}.number{font-size:14px;font-weight:700}"
        ".label{font-size:12.5px;font-weight:600}.small{font-size:11.5px}.edge{stroke-width:1}"
        ".wire{fill:none;stroke-width:1.6}.dashed{stroke-dasharray:5 4}.ringline{fill:none;stroke-width:5}"
        ".spot{fill:none;stroke-width:2.5}.none{fill:none}"
    )
    if theme == "auto":
        return f"{fixed}{rules(0)}@media (prefers-color-scheme:dark){{{rules(1)}}}"
    return fixed + rules(("light", "dark").index(theme))


def encode(c: Canvas) -> None:
    c.step(
        1,
        64,
        164,
        "Encode",
        "Frozen CLIP. The tokens",
        "are those that enter the",
        "last block L; v is its",
        "finished image feature.",
    )
    c.picture(232, 112, 96)
    c.text(280, 100, "picture")
    c.arrow((332, 160), (354, 160))
    c.box(356, 130, 116, 60, "frozen", "image tower", "blocks 1 … L−1")
    c.arrow((474, 160), (500, 160))
    c.grid(504, 112, 96, "image")
    c.text(552, 100, "patch tokens")
    c.rect(612, 114, 16, 92, "image edge", r=3)
    c.text(620, 100, "v")
    for i, name in enumerate(("red star.", "blue ring.", "…")):
        y = 118 + 30 * i
        c.rect(660, y, 118, 24, "cell edge", r=4)
        c.rect(663, y + 3, 36, 18, "trained", r=3)
        c.text(681, y + 16, "[ctx]")
        c.text(705, y + 16, name, anchor="start")
    c.text(720, 100, "class prompts")
    c.arrow((780, 160), (804, 160))
    c.box(806, 130, 92, 60, "frozen", "text tower")
    c.arrow((900, 160), (924, 160))
    for i in range(4):
        c.rect(928, 114 + 24 * i, 80, 18, "text edge", r=3)
    c.text(968, 100, "T, one a class")


def activate(c: Canvas) -> None:
    c.step(2, 238, 200, "Activate", "Two scores for each patch,", "standardised and added.", "The k highest are lit.")
    c.arrow((552, 212), (552, 250), (502, 250), (502, 268))  # tokens to both scores
    c.arrow((552, 250), (640, 250), (640, 268))
    c.arrow((968, 212), (968, 254), (680, 254), (680, 268))  # T to the sample-wise score
    c.rect(232, 262, 190, 116, "cell edge", r=8)
    for row, name in enumerate(("red star", "blue ring", "gold cup", "…")):
        y = 272 + 25 * row
        if row == 0:
            c.rect(237, y - 4, 180, 26, "spot", r=5)
        c.text(244, y + 13, name, "small", "start")
        for j in range(5 if name != "…" else 0):
            c.rect(308 + 21 * j, y, 17, 17, "bank edge", r=3, more=f'fill-opacity="{1 - 0.15 * j:.2f}"')
    c.text(327, 398, "memory bank", "label")
    c.text(327, 414, "prototypes per training class;")
    c.text(327, 430, "lit: the class nearest to v")
    c.arrow((424, 284), (446, 284))
    flat = [[v for row in scores for v in row] for scores in (SEMANTIC, SAMPLE)]
    for x, scores, name, what in (
        (450, flat[0], "semantic-wise", "near its prototypes"),
        (606, flat[1], "sample-wise", "near this image's classes"),
    ):
        c.grid(x, 272, 104, "lit", scores)
        c.text(x + 52, 398, name, "label")
        c.text(x + 52, 414, what)
    c.sign(580, 324, "+")
    c.arrow((716, 324), (796, 324))
    c.text(755, 314, "sum, top k")
    spotlight(c, 802, 272, 104)
    c.text(854, 398, "activated tokens", "label")


def spotlight(c: Canvas, x: float, y: float, size: float) -> None:
    """The scene in the dark but for the lit patches."""
    c.picture(x, y, size)
    lit, step = lit_tokens(), size / 4
    for i in range(16):
        place = (x + step * (i % 4), y + step * (i // 4), step, step)
        if i not in lit:
            c.rect(*place, "bg", r=0, more='fill-opacity="0.82"')
    for i in lit:
        c.rect(x + step * (i % 4) + 1, y + step * (i // 4) + 1, step - 2, step - 2, "spot", r=3)


def rank(c: Canvas) -> None:
    c.step(3, 448, 118, "Rank", "By score: level 1, then", "level 2. In training the", "bank is written first.")
    c.arrow((854, 406), (854, 462), (690, 462), (690, 476))
    c.arrow((854, 462), (888, 462), (888, 476))
    lit = lit_tokens()
    for x, tokens, name in ((606, lit[:K1], "level 1"), (830, lit[K1:], "level 2")):
        width = 52 * len(tokens) + 12
        c.rect(x, 478, width, 74, "cell edge", r=8)
        for i, token in enumerate(tokens):
            c.picture(x + 10 + 52 * i, 484, 40, token)
            c.rect(x + 10 + 52 * i, 484, 40, 40, "spot", r=3)
        c.text(x + width / 2, 543, name, "label")
    c.rect(232, 478, 312, 74, "none edge", r=8, more='stroke-dasharray="5 4"')
    c.text(388, 497, "bank write, training only", "label")
    c.text(388, 515, "U ← β U + (1−β) · weighted mean of its tokens,")
    c.text(388, 531, "among the prototypes of the true class;")
    c.text(388, 546, "then step 2 is scored again (recalculation)")
    c.arrow((602, 515), (548, 515), dashed=True)
    c.arrow((232, 515), (222, 515), (222, 320), (230, 320), dashed=True)


def map_levels(c: Canvas) -> None:
    c.step(
        4,
        576,
        184,
        "Map",
        "Each side gets its view",
        "of the lit tokens, level",
        "by level. Only the green",
        "parts are trained, and",
        "the mixing weight ρ.",
    )
    c.line((690, 552), (690, 566), (888, 566), (888, 552))
    c.arrow((690, 566), (420, 566), (420, 588))
    c.arrow((820, 566), (820, 588))
    c.rect(232, 590, 376, 158, "cell edge", r=8)
    c.text(420, 610, "IRM, image side", "label")
    c.box(244, 624, 92, 28, "bank", "prototypes")
    c.box(244, 660, 92, 28, "lit", "tokens")
    c.arrow((338, 638), (360, 638))
    c.text(348, 632, "Q")
    c.arrow((338, 674), (360, 674))
    c.text(349, 690, "K V")
    c.box(362, 624, 78, 64, "frozen", "cross-", "attention")
    c.arrow((442, 656), (460, 656))
    c.box(462, 624, 48, 64, "trained", "FFN")
    c.arrow((512, 656), (530, 656))
    c.box(532, 624, 64, 64, "frozen", "block L", "run again")
    c.text(420, 716, "v_rep = (1−ρ) · v + ρ · mean of block L's outputs", "label")
    c.text(420, 735, "prototypes: the nearest one of each token")
    c.rect(632, 590, 376, 158, "cell edge", r=8)
    c.text(820, 610, "TRM, text side", "label")
    c.box(644, 624, 92, 28, "text", "feature T")
    c.box(644, 660, 92, 28, "lit", "tokens")
    c.arrow((738, 644), (772, 644))
    c.arrow((738, 674), (772, 674))
    c.box(774, 634, 84, 54, "trained", "linear", "2d → d")
    c.arrow((860, 661), (887, 661))
    c.text(873, 653, "· α")
    c.line((738, 630), (900, 630))
    c.arrow((900, 630), (900, 648))
    c.sign(900, 661, "+")
    c.arrow((913, 661), (932, 661))
    c.box(934, 647, 62, 28, "text", "t_rep")
    c.text(820, 716, "t_rep = T + α · linear [ T ; weighted tokens ]", "label")
    c.text(820, 735, "weights: similarity of each token to T")


def compare(c: Canvas) -> None:
    c.step(5, 770, 104, "Compare", "Levels 1 and 2 have a loss", "each; both together are", "the prediction.")
    c.arrow((420, 748), (420, 818), (454, 818))
    c.arrow((820, 748), (820, 765), (540, 765), (540, 788))
    c.box(456, 790, 168, 56, "cell", "s · cos(v_rep, t_rep)", "for every class")
    c.arrow((626, 818), (650, 818))
    charts = (
        ("level 1", (0.6, 0.35, 0.25, 0.1)),
        ("level 2", (0.5, 0.3, 0.4, 0.2)),
        ("both: prediction", (0.95, 0.4, 0.3, 0.15)),
    )
    for i, (name, heights) in enumerate(charts):
        x = 664 + 122 * i
        for j, value in enumerate(heights):
            c.rect(x + 20 * j, 842 - 52 * value, 15, 52 * value, "lit edge" if i == 2 and j == 0 else "cell edge", r=2)
        c.text(x + 37, 860, name, "label" if i == 2 else "small")


def legend(c: Canvas) -> None:
    y = 886
    for x, fill, name in (
        (232, "frozen", "frozen CLIP"),
        (360, "trained", "trained"),
        (462, "bank", "prototypes"),
        (580, "lit", "lit tokens"),
    ):
        c.rect(x, y, 22, 16, f"{fill} edge", r=4)
        c.text(x + 30, y + 12.5, name, "small", "start")
    c.line((696, y + 8), (726, y + 8), dashed=True)
    c.text(734, y + 12.5, "only in training", "small", "start")


def draw(theme: str = "auto") -> str:
    """The whole picture as SVG text."""
    c = Canvas()
    c.rect(0, 0, WIDTH, HEIGHT, "bg", r=12)
    c.text(24, 40, "Spotlighter: a few lit tokens refine both sides of a frozen CLIP", "head1", "start")
    for part in (encode, activate, rank, map_levels, compare, legend):
        part(c)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'role="img" aria-labelledby="title desc">\n'
        f'<title id="title">{escape(TITLE)}</title>\n<desc id="desc">{escape(DESCRIPTION)}</desc>\n'
        f"<style>{style(theme)}</style>\n<defs>{scene()}</defs>\n" + "\n".join(c.parts) + "\n</svg>\n"
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draw the picture of the method as SVG.")
    parser.add_argument("--out", type=Path, default=OUT, help=f"file to write (default: {OUT})")
    parser.add_argument(
        "--theme", choices=("auto", "light", "dark"), default="auto", help="auto: as the reader's screen"
    )
    args = parser.parse_args(argv)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(draw(args.theme), encoding="utf-8")


if __name__ == "__main__":
    main()
