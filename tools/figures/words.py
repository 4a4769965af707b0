"""The words whose token embeddings lie nearest to learned context rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

END = "</w>"  # of a token that ends a word
SPECIAL = ("<start_of_text>", "<end_of_text>", "<|startoftext|>", "<|endoftext|>")
LIMITS = (
    "A nearest word says where a context row lies among the token embeddings, and whether it has left the word it "
    "began as. It does not say what the row means: a row is rarely close to any word, its position and all other rows "
    "act with it in the text tower, and rows with readable neighbours are no better than others."
)


@dataclass(frozen=True)
class Neighbours:
    """Of one context row."""

    row: str  # which one: "1", or "red star, 1" with a context a class
    words: tuple[str, ...]  # nearest first
    distances: tuple[float, ...]  # Euclidean


def nearest(rows: np.ndarray, vocabulary: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest words of each row, by Euclidean distance.

    Args:
        rows: [M, w].
        vocabulary: [V, w].
        k: 1..V.

    Returns:
        index into the vocabulary [M, k], nearest first, and distances [M, k].

    Raises:
        ValueError: widths differ, or k is out of range.
    """
    if rows.ndim != 2 or vocabulary.ndim != 2 or rows.shape[1] != vocabulary.shape[1]:
        raise ValueError(f"rows and vocabulary must be [M, w] and [V, w], got {rows.shape} and {vocabulary.shape}.")
    if not 1 <= k <= len(vocabulary):
        raise ValueError(f"k must be in 1..{len(vocabulary)}, the number of words, got {k}.")
    rows, vocabulary = rows.astype(np.float64), vocabulary.astype(np.float64)
    squared = (rows**2).sum(1)[:, None] + (vocabulary**2).sum(1) - 2 * rows @ vocabulary.T  # [M, V]
    index = np.argsort(squared, axis=1, kind="stable")[:, :k]
    return index, np.sqrt(np.take_along_axis(squared, index, axis=1).clip(min=0))


def yardstick(vocabulary: np.ndarray, n: int = 200) -> float:
    """How far a word lies from its nearest other word: the median of n words, evenly spaced over the vocabulary."""
    chosen = np.unique(np.linspace(0, len(vocabulary) - 1, n).astype(int))
    _, distances = nearest(vocabulary[chosen], vocabulary, 2)
    return float(np.median(distances[:, 1]))


def readable(token: str) -> str:
    """A token of the tokenizer as people write it: "cat</w>" is a word, "cat" the piece "cat-" of one."""
    return token.removesuffix(END) if token.endswith(END) else f"{token}-"


def neighbours(
    contexts: Mapping[str, np.ndarray], vocabulary: np.ndarray, tokens: Sequence[str], k: int = 5
) -> list[Neighbours]:
    """The nearest words of learned contexts; start and end tokens are no words.

    Args:
        contexts: rows [M, w] by the name of their context, "" where there is one.
        vocabulary: token embeddings [V, w].
        tokens: the tokenizer's V tokens.
    """
    is_word = np.array([token not in SPECIAL for token in tokens])
    words, listed = vocabulary[is_word], [token for token in tokens if token not in SPECIAL]
    found = []
    for name, rows in contexts.items():
        index, distances = nearest(rows, words, k)
        for i in range(len(rows)):
            row = f"{name}, {i + 1}" if name else str(i + 1)
            near = tuple(readable(listed[j]) for j in index[i])
            found.append(Neighbours(row, near, tuple(float(d) for d in distances[i])))
    return found
