"""CLIP's byte-pair tokeniser under OpenAI's module name; vocabulary and merges come from open_clip."""

from __future__ import annotations

from open_clip.tokenizer import SimpleTokenizer as _OpenCLIPTokenizer


class SimpleTokenizer(_OpenCLIPTokenizer):
    """`encode(text)` -> ids, `decode(ids)` -> text, and the tables `encoder` (token -> id) and `decoder` (id -> token).

    Two names of the start and end token are known: open_clip's `<start_of_text>` and OpenAI's `<|startoftext|>`.
    """

    def __init__(self) -> None:
        super().__init__(clean="lower")  # text is repaired, unescaped, stripped and lower-cased, as for OpenAI's models
        self.encoder |= {"<|startoftext|>": self.sot_token_id, "<|endoftext|>": self.eot_token_id}
