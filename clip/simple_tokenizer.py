"""CLIP's byte-pair tokeniser under OpenAI's module name; vocabulary and merges come from open_clip."""

from __future__ import annotations

from functools import cache

from open_clip.tokenizer import SimpleTokenizer as _OpenCLIPTokenizer


class SimpleTokenizer(_OpenCLIPTokenizer):
    """`encode(text)` -> ids, `decode(ids)` -> text, and the tables `encoder` (token -> id) and `decoder` (id -> token).

    Text is repaired, unescaped, stripped and lower-cased. `encoder` knows the start and end token by open_clip's names,
    `<start_of_text>` and `<end_of_text>`, and by OpenAI's, `<|startoftext|>` and `<|endoftext|>`.
    """

    def __init__(self) -> None:
        super().__init__(clean="lower")
        self.encoder |= {"<|startoftext|>": self.sot_token_id, "<|endoftext|>": self.eot_token_id}


@cache
def get_tokenizer() -> SimpleTokenizer:
    """The one tokenizer of the process; its tables take a moment to build."""
    return SimpleTokenizer()
