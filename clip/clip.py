"""OpenAI's public names: `load`, `tokenize`, `available_models`, `build_model`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .model import build_model
from .simple_tokenizer import SimpleTokenizer

__all__ = ["build_model", "tokenize"]

_tokenizer = SimpleTokenizer()


def tokenize(texts: str | Sequence[str], context_length: int = 77, truncate: bool = False) -> Tensor:
    """Token ids of texts, int64 [len(texts), context_length]: start token, text, end token, zeros.

    Args:
        truncate: cut a text that is too long, so that its last id is the end token.

    Raises:
        RuntimeError: a text is too long and `truncate` is off.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    result = torch.zeros(len(texts), context_length, dtype=torch.int64)
    for row, text in zip(result, texts, strict=True):
        ids = [_tokenizer.sot_token_id, *_tokenizer.encode(text), _tokenizer.eot_token_id]
        if len(ids) > context_length:
            if not truncate:
                raise RuntimeError(
                    f"A text of {len(ids)} tokens does not fit the context of {context_length}: {text!r}; "
                    f"shorten it or pass truncate=True."
                )
            ids = [*ids[: context_length - 1], _tokenizer.eot_token_id]
        row[: len(ids)] = torch.tensor(ids)
    return result
