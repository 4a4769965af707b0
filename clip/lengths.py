"""How long texts made of class names are, for whoever wants to know before a run: `watch_texts`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from .simple_tokenizer import get_tokenizer

STAND_IN = "X"  # one token


@dataclass
class TextLengths:
    """Texts of one kind, the same but for the class name; start and end token are counted.

    Attributes:
        sentence: the kind, with {} for the name.
        limit: tokens of the context.
        overhead: tokens of a text beside its name's.
        tokens: of the whole text, by class name.
    """

    sentence: str
    limit: int
    overhead: int
    tokens: dict[str, int] = field(default_factory=dict)

    @property
    def budget(self) -> int:
        """Tokens that are left for a name; below 0 where the sentence alone does not fit."""
        return self.limit - self.overhead

    @property
    def too_long(self) -> list[str]:
        """Names whose text does not fit, in their order."""
        return [name for name, n in self.tokens.items() if n > self.limit]

    def longest(self, n: int) -> list[tuple[str, int]]:
        """The n longest names and their tokens."""
        ranked = sorted(self.tokens.items(), key=lambda item: -item[1])
        return [(name, tokens - self.overhead) for name, tokens in ranked[:n]]


_watched: ContextVar[dict[str, TextLengths] | None] = ContextVar("watched", default=None)


@contextmanager
def watch_texts() -> Iterator[dict[str, TextLengths]]:
    """Inside, the texts that towers are asked for are noted by their sentence.

    A name that does not fit is then no error: the word X takes its place, so that what follows is not cut short.
    """
    found: dict[str, TextLengths] = {}
    token = _watched.set(found)
    try:
        yield found
    finally:
        _watched.reset(token)


def noted(names: Sequence[str], sentence: str, text: Callable[[str], str], limit: int) -> Sequence[str]:
    """The names; while `watch_texts` looks, noted, and with X for each that does not fit.

    Args:
        names: of the classes.
        sentence: what to call the texts.
        text: what is encoded of a name.
        limit: tokens of the context.
    """
    found = _watched.get()
    if found is None:
        return names

    def count(name: str) -> int:
        return len(get_tokenizer().encode(text(name))) + 2  # start and end

    kind = found.setdefault(sentence, TextLengths(sentence, limit, count(STAND_IN) - 1))
    kind.tokens.update((name, count(name)) for name in names if name not in kind.tokens)
    return [name if kind.tokens[name] <= limit else STAND_IN for name in names]
