"""Answers as HTML: a table a picture with the presets side by side, and the pictures themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

import numpy as np
from PIL import Image

from tools.explorer.explore import Answer, Looked, Seen
from tools.explorer.overlay import data_url, enlarged, map_picture, tokens_in_words, tokens_picture

SHOWN = 280  # pixels of a page that a picture is wide

STYLE = """
.explorer { display: grid; gap: 1rem; color: var(--body-text-color); }
.explorer .message { margin: 0; padding: .6rem .8rem; border: 1px solid var(--border-color-primary);
  border-left-width: 4px; border-radius: 4px; overflow-wrap: anywhere; }
.explorer .problem { border-left-color: #d55e00; }
.explorer .note { border-left-color: #0072b2; }
.explorer section { border: 1px solid var(--border-color-primary); border-radius: 8px; padding: .8rem;
  background: var(--block-background-fill); min-width: 0; }
.explorer h2 { font-size: 1.05rem; font-weight: 600; margin: 0 0 .6rem; overflow-wrap: anywhere; }
.explorer .figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(200px, 100%), 1fr));
  gap: .8rem; margin-top: .9rem; }
.explorer figure { margin: 0; max-width: 280px; }
.explorer img { display: block; width: 100%; height: auto; border-radius: 4px; margin: 0; }
.explorer figcaption { font-size: .82rem; line-height: 1.35; margin-top: .3rem; overflow-wrap: anywhere; }
.explorer .scroll { overflow-x: auto; }
.explorer table { border-collapse: collapse; width: 100%; font-size: .92rem; margin: 0; border: 0; }
.explorer tr { border: 0; background: none; }
.explorer caption { text-align: left; font-size: .82rem; padding-bottom: .3rem; }
.explorer th, .explorer td { text-align: left; padding: .3rem .5rem; vertical-align: middle; border: 0;
  border-bottom: 1px solid var(--border-color-primary); font-weight: 400; }
.explorer thead th { font-weight: 600; vertical-align: bottom; }
.explorer td { min-width: 4rem; font-variant-numeric: tabular-nums; }
.explorer thead th + th { width: calc(70% / var(--presets)); overflow-wrap: anywhere; }
.explorer .best { font-weight: 700; }
.explorer .bar { display: block; height: .45rem; border-radius: 2px; margin-top: .15rem;
  background: linear-gradient(#3a97cf, #3a97cf) left / var(--share) 100% no-repeat, var(--border-color-primary); }
.explorer .best .bar { background: linear-gradient(#d55e00, #d55e00) left / var(--share) 100% no-repeat,
  var(--border-color-primary); }
@media (max-width: 30rem) {
  .explorer section { padding: .5rem; }
  .explorer th, .explorer td { padding: .3rem .2rem; font-size: .82rem; line-height: 1.25; }
  .explorer td { min-width: 3.2rem; }
}
"""


def to_html(answer: Answer, top: int) -> str:
    """What a page shows of an answer.

    Args:
        top: best classes of each preset.
    """
    parts = [message("problem", text) for text in answer.problems]
    parts += [message("note", text) for text in answer.notes]
    several = len(answer.pictures) > 1
    parts += [_picture(looked, top, f"{i}. " if several else "") for i, looked in enumerate(answer.pictures, 1)]
    return f'<div class="explorer">{"".join(parts)}</div>'


def refusal(text: str) -> str:
    """What a page shows instead of an answer."""
    return f'<div class="explorer">{message("problem", text)}</div>'


def message(kind: str, text: str) -> str:
    """A sentence in a frame; a problem is also read aloud."""
    role = ' role="alert"' if kind == "problem" else ""
    return f'<p class="message {kind}"{role}>{escape(text)}</p>'


def _picture(looked: Looked, top: int, number: str) -> str:
    name = escape(number + looked.name)
    if not looked.seen:
        return f"<section><h2>{name}</h2>{message('problem', looked.problem) if looked.problem else ''}</section>"
    figures = "".join(_figures(looked))
    return f'<section><h2>{name}</h2>{_table(looked, top)}<div class="figures">{figures}</div></section>'


def best_classes(seen: Sequence[Seen], top: int) -> list[int]:
    """Numbers of the classes that are among the best of some preset, the most probable on average first."""
    shown = {int(c) for one in seen for c in np.argsort(-one.prediction.logits, kind="stable")[:top]}
    mean = np.mean([one.prediction.probabilities for one in seen], axis=0)
    return sorted(shown, key=lambda c: (-mean[c], c))


def _table(looked: Looked, top: int) -> str:
    names = looked.seen[0].prediction.names
    head = "".join(f'<th scope="col">{escape(one.title)}</th>' for one in looked.seen)
    rows = []
    for c in best_classes(looked.seen, top):
        cells = "".join(_cell(one.prediction.probabilities[c], c == one.prediction.label) for one in looked.seen)
        rows.append(f'<tr><th scope="row">{escape(names[c])}</th>{cells}</tr>')
    n = len(names)
    told = f"Probabilities of {n} classes; the {min(top, n)} best of each column, its best one bold."
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Probabilities, {escape(looked.name)}">'
        f'<table style="--presets: {len(looked.seen)}">'
        f'<caption>{told}</caption><thead><tr><th scope="col">Class</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(probability: float, best: bool) -> str:
    share = f"{100 * float(probability):.1f}%"
    return f'<td class="{"best" if best else ""}">{share}<span class="bar" style="--share: {share}"></span></td>'


def _figures(looked: Looked) -> Iterator[str]:
    """The picture as the models see it, once if they see the same, and what was activated on it."""
    pixels: dict[bytes, list[Seen]] = {}
    for one in looked.seen:
        pixels.setdefault(one.picture.tobytes(), []).append(one)
    for same in pixels.values():
        picture, titles = same[0].picture, ", ".join(one.title for one in same)
        whose = "the model sees it" if len(pixels) == 1 else f"{titles} sees it"
        size = f"{picture.width} by {picture.height} pixels"
        yield _figure(enlarged(picture), f"{looked.name}, as {whose}", f"As {whose}: {size}.")
    for one in looked.seen:
        choice = one.prediction.tokens
        if choice is None:
            continue
        near = f" Matched class of the memory bank: {choice.matched_name}." if choice.matched_name else ""
        yield _figure(
            tokens_picture(one.picture, choice),
            f"{looked.name}, tokens activated by {one.title}: {tokens_in_words(choice)}{near}",
            f"{one.title}: activated tokens with their ranks, level 1 in solid lines, level 2 in broken ones.{near}",
        )
        yield _figure(
            map_picture(one.picture, choice),
            f"{looked.name}, activation map of {one.title}: lightest in row {_peak(choice.summed_map, 0)}, column "
            f"{_peak(choice.summed_map, 1)}, the token of rank 1",
            f"{one.title}: the activation that decides, dark is low and light is high.",
        )


def _peak(summed: np.ndarray, axis: int) -> int:
    """Row or column, from 1, of the highest score."""
    return int(np.unravel_index(np.nanargmax(summed), summed.shape)[axis]) + 1


def _figure(picture: Image.Image, alt: str, caption: str) -> str:
    height = round(SHOWN * picture.height / picture.width)
    return (
        f'<figure><img src="{data_url(picture)}" width="{SHOWN}" height="{height}" alt="{escape(alt)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
