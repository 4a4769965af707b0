"""Label spaces and their tokenised texts: which rows are frozen words, which rows a learnable context fills."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .clip import tokenize
from .lengths import noted
from .simple_tokenizer import get_tokenizer

POSITIONS = ("end", "middle", "front")


@dataclass(frozen=True)
class LabelSpace:
    """The classes that compete, in order, named as the data set names them."""

    names: tuple[str, ...]
    dataset: str = ""  # registry name of the data set, "" if there is none
    template: str = ""  # hand-crafted sentence with a {} for the name; "": the data set's usual one

    def __post_init__(self) -> None:
        if isinstance(self.names, str):
            raise ValueError(f"A label space takes a sequence of class names, got the single string {self.names!r}.")
        object.__setattr__(self, "names", tuple(self.names))
        if not self.names:
            raise ValueError(f"A label space needs at least one class name, got none (data set {self.dataset!r}).")

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def cleaned(self) -> tuple[str, ...]:
        """Names as they stand in a text, with spaces for underscores."""
        return tuple(name.replace("_", " ") for name in self.names)

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits that depend on the names and their order, on nothing else."""
        text = "".join(f"{len(name.encode())}:{name}" for name in self.names)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass
class TextBatch:
    """Texts of a label space. C classes, n rows of the longest text, M slots, W text width."""

    ids: Tensor  # [C, n] int64, cut behind the longest end token; a slot holds the id of the word it replaces
    embeds: Tensor  # [C, n, W] token embeddings, without positions
    eot: Tensor  # [C] row of the end token
    slots: Tensor  # [C, M] rows that a context replaces, ascending; M may be 0
    n_prefix: int  # rows 0..n_prefix-1 are the same for all classes, provided their context is
    prefix_slots: tuple[int, ...]  # the slots among them
    lengths: tuple[int, ...]  # eot + 1 of each class, on the host

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def n_slots(self) -> int:
        return self.slots.shape[1]

    @property
    def n_plain(self) -> int:
        """Like n_prefix for class-specific contexts: rows in front of the first slot."""
        return min(self.n_prefix, *self.prefix_slots[:1]) if self.prefix_slots else self.n_prefix


@dataclass
class TokenRows:
    """Token ids of a label space before they meet a model."""

    ids: Tensor  # [C, n] int64
    slots: Tensor  # [C, M] int64


def split_words(words: str) -> list[str]:
    """Context words as the family counts them: underscores are spaces, and spaces separate."""
    return words.replace("_", " ").split(" ")


def prompt_rows(space: LabelSpace, words: str | None, n_slots: int, position: str, context_length: int) -> TokenRows:
    """Rows of "{words} {name}." with the first `n_slots` word tokens as slots, which may move with `position`.

    Args:
        words: initial context, or None for as many placeholders "X" as slots.
        position: of the class name: "end" [start, slots, rest], "middle" [start, first half of the slots, name, other
            slots, rest], "front" [start, name, slots, rest]. The name is as many tokens as it has when encoded alone,
            so a full stop that merges with the last of them moves along, as in the released CoOp.

    Raises:
        ValueError: unknown position, or more slots than word tokens.
        RuntimeError: a text is longer than the context.
    """
    if position not in POSITIONS:
        raise ValueError(f"The class position must be one of {', '.join(POSITIONS)}, got {position!r}.")
    encode = get_tokenizer().encode
    text = " ".join(["X"] * n_slots) if words is None else " ".join(split_words(words))
    n_words = len(encode(text))
    if not 0 <= n_slots <= n_words:
        raise ValueError(
            f"The context {text!r} has {n_words} tokens, so 0..{n_words} of them can be learnable slots, "
            f"got {n_slots}; give more words, or none for slots without initial words."
        )
    shown = f"[{n_slots} rows] {{}}." if words is None else f"{text} {{}}.".lstrip()
    names = noted(space.cleaned, shown, lambda name: f"{text} {name}.", context_length)
    ids = tokenize([f"{text} {name}.".lstrip() for name in names], context_length)
    slots = torch.arange(1, 1 + n_slots).expand(len(space), -1)
    if position != "end":
        front = n_slots // 2 if position == "middle" else 0  # slots in front of the name
        rows = torch.arange(context_length).repeat(len(space), 1)
        moved = torch.empty_like(slots, memory_format=torch.contiguous_format)
        for c, name in enumerate(names):
            n_name = len(encode(name))
            after = list(range(1 + n_slots, 1 + n_slots + n_name))  # the name, in the order of the words-first text
            order = [0, *range(1, 1 + front), *after, *range(1 + front, 1 + n_slots)]
            rows[c, : len(order)] = torch.tensor(order)
            moved[c] = torch.tensor([order.index(row) for row in range(1, 1 + n_slots)])
        ids, slots = ids.gather(1, rows), moved
    return TokenRows(ids, slots)


def template_rows(space: LabelSpace, template: str, context_length: int) -> TokenRows:
    """Rows of a template such as "a photo of a {}." filled with each class name, without slots.

    Raises:
        ValueError: the template has no "{}".
        RuntimeError: a text is longer than the context.
    """
    if "{}" not in template:
        raise ValueError(f'A template needs "{{}}" where the class name goes, got {template!r}.')
    names = noted(space.cleaned, template, lambda name: template.replace("{}", name), context_length)
    ids = tokenize([template.replace("{}", name) for name in names], context_length)
    return TokenRows(ids, torch.empty(len(space), 0, dtype=torch.int64))


def make_batch(rows: TokenRows, embedding: torch.nn.Embedding) -> TextBatch:
    """Cut the rows behind the longest end token, embed them, and find what all classes share."""
    eot = rows.ids.argmax(dim=1)  # the end token has the largest id
    ids = rows.ids[:, : int(eot.max()) + 1]
    marked = ids.scatter(1, rows.slots, -1 - torch.arange(rows.slots.shape[1]).expand_as(rows.slots))
    differ = (marked != marked[:1]).any(dim=0).tolist()
    shared = differ.index(True) if True in differ else len(differ)
    n_prefix = min(shared, int(eot.min()))  # the end token itself always stays with its class
    device = embedding.weight.device
    with torch.no_grad():
        embeds = embedding(ids.to(device))
    return TextBatch(
        ids=ids.to(device),
        embeds=embeds,
        eot=eot.to(device),
        slots=rows.slots.contiguous().to(device),
        n_prefix=n_prefix,
        prefix_slots=tuple(row for row in rows.slots[0].tolist() if row < n_prefix),
        lengths=tuple((eot + 1).tolist()),
    )


def word_ids(words: str, context_length: int) -> Sequence[int]:
    """Ids behind the start token, as many as there are words."""
    n = len(split_words(words))
    return tokenize(" ".join(split_words(words)), context_length)[0, 1 : 1 + n].tolist()
