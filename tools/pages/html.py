"""HTML from nested calls. Text is escaped where it enters, so that no name can become markup."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from tools.figures.picture import Picture

HERE = Path(__file__).parent
WIDE = 560  # pixels beyond which a figure gets a line of its own
LONG = 40  # rows beyond which a table also scrolls downwards, below its titles
VOID = ("meta", "img", "source", "br", "link", "hr")


class Html(str):
    """Markup that is safe to be put into a page as it is."""

    __slots__ = ()


Content = "Html | str | int | float | None | Iterable[Content]"


def tag(name: str, /, *content: object, **attributes: object) -> Html:
    """An element; text and values of attributes are escaped.

    Args:
        content: text, `Html`, numbers, or lists of them; None is nothing.
        attributes: `class_` and `for_` without the line, `data_key` as `data-key`; True is an attribute without a
            value, None and False leave it out.
    """
    named = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in VOID:
        return Html(f"<{name}{named}>")
    return Html(f"<{name}{named}>{join(*content)}</{name}>")


def join(*content: object) -> Html:
    """Several pieces, one behind the other."""
    return Html("".join(_piece(piece) for piece in content))


def _piece(piece: object) -> str:
    if piece is None:
        return ""
    if isinstance(piece, Html):
        return piece
    if isinstance(piece, (str, int, float)):
        return escape(str(piece), quote=False)
    if isinstance(piece, Iterable):
        return join(*piece)
    raise TypeError(f"a page takes text, numbers and lists of them, got a {type(piece).__name__}")


def _attribute(key: str, value: object) -> str:
    if value is None or value is False:
        return ""
    key = key.rstrip("_").replace("_", "-")
    return f" {key}" if value is True else f' {key}="{escape(str(value))}"'


def table(
    caption: str,
    titles: Sequence[str],
    rows: Sequence[Sequence[object]],
    n_names: int = 1,
    sortable: bool = False,
    marked: Sequence[int] = (),
    is_titled: bool = False,
) -> Html:
    """A table that scrolls by itself where the page is narrow.

    Args:
        titles: of the columns.
        rows: cells; a pair (text, key) is sorted by its key.
        n_names: columns of names, to the left; the first one heads its row.
        sortable: columns get a button that sorts by them.
        marked: numbers of rows that begin a group.
        is_titled: a heading above it says the same as the caption, which is for screen readers then.
    """
    head = [tag("th", title, scope="col", class_=None if i < n_names else "number") for i, title in enumerate(titles)]
    body = []
    for i, row in enumerate(rows):
        cells = [_cell(cell, j, n_names) for j, cell in enumerate(row)]
        body.append(tag("tr", cells, class_="group" if i in marked else None))
    whole = tag(
        "table",
        tag("caption", caption, class_="unseen" if is_titled else None),
        tag("thead", tag("tr", head)),
        tag("tbody", body),
        class_="sortable" if sortable else None,
    )
    kind = "scroll long" if len(rows) > LONG else "scroll"
    return tag("div", whole, class_=kind, role="region", aria_label=f"Table: {caption}", tabindex=0)


def _cell(cell: object, column: int, n_names: int) -> Html:
    text, key = cell if isinstance(cell, tuple) else (cell, None)
    kind = None if column < n_names else "number"
    if column == 0:
        return tag("th", text, scope="row", data_key=key)
    return tag("td", text, class_=kind, data_key=key)


def figure(picture: Picture) -> Html:
    """A figure in the colours that the reader's system prefers; print is light. A wide one scrolls by itself."""
    light, dark = data_uri(picture.light), data_uri(picture.dark)
    image = tag("img", src=light, alt=picture.alt, width=picture.width, height=picture.height)
    shown = tag("picture", tag("source", media="screen and (prefers-color-scheme: dark)", srcset=dark), image)
    is_wide = picture.width > WIDE
    if is_wide:
        shown = tag("div", shown, class_="scroll", role="region", aria_label=f"Figure: {picture.caption}", tabindex=0)
    return tag("figure", shown, tag("figcaption", picture.caption), class_="wide" if is_wide else None)


def figures(pictures: Iterable[Picture]) -> Html:
    """Figures side by side where there is room."""
    return tag("div", [figure(picture) for picture in pictures], class_="figures")


def data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def folded(summary: str, *content: object, is_open: bool = False) -> Html:
    """Something to be opened; in print it stands open."""
    return tag("details", tag("summary", summary), *content, open=is_open)


def code(text: str) -> Html:
    """Lines for a terminal."""
    return tag("pre", tag("code", text), tabindex=0)


def paragraphs(texts: Iterable[str]) -> Html:
    return join([tag("p", text) for text in texts])


def items(texts: Iterable[object]) -> Html:
    return tag("ul", [tag("li", text) for text in texts])


def page(title: str, lead: Sequence[str], sections: Sequence[tuple[str, str, Html]]) -> str:
    """A whole page that asks nothing of a network.

    Args:
        lead: sentences below the title.
        sections: identifier, title and content.
    """
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    policy = f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Html(style)),
    )
    links = items(tag("a", name, href=f"#{key}") for key, name, _ in sections)
    body = tag(
        "body",
        tag("a", "Skip to the content", href="#content", class_="skip"),
        tag("header", tag("h1", title), paragraphs(lead)),
        tag("nav", links, aria_label="Contents"),
        tag("main", [_section(*section) for section in sections], id="content", tabindex=-1),
        tag("script", Html(script)),
    )
    return "<!DOCTYPE html>\n" + tag("html", head, body, lang="en") + "\n"


def _section(key: str, title: str, content: Html) -> Html:
    heading = f"{key}-title"
    return tag("section", tag("h2", title, id=heading), content, id=key, aria_labelledby=heading)


def _digest(text: str) -> str:
    """How a policy names an inline style or script: nothing else of that kind can run in the page."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
