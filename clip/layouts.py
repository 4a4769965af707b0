"""Checkpoint layouts of CLIP and their way into OpenAI's: Transformers', open_clip's, and the compact one.

Everything here is state dict to state dict; nothing is computed but the transposed projections, the joined query, key
and value projections, and the rows of the token table that a compact file leaves out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

COMPACT_FORMAT = "compact-clip"
COMPACT_VERSION = "1"
ROWS, TABLE = "token_embedding.rows", "token_embedding.weight"

_TRANSFORMERS = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "logit_scale": "logit_scale",
}
_TRANSFORMERS_TRANSPOSED = {"text_projection.weight": "text_projection", "visual_projection.weight": "visual.proj"}
_TRANSFORMERS_PARTS = {
    "text_model.final_layer_norm": "ln_final",
    "vision_model.pre_layrnorm": "visual.ln_pre",  # spelt so in the files
    "vision_model.post_layernorm": "visual.ln_post",
    "text_model.encoder.layers": "transformer.resblocks",
    "vision_model.encoder.layers": "visual.transformer.resblocks",
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_BUFFERS = ("attn_mask", "position_ids", "input_resolution", "context_length", "vocab_size")  # no weights


def to_openai(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Any known layout to OpenAI's; keys that no layout knows stay as they are."""
    state = {
        key.removeprefix("module."): tensor for key, tensor in state_dict.items() if key.split(".")[-1] not in _BUFFERS
    }
    if any(key.startswith("text_model.") for key in state):
        return _from_transformers(state)
    if "text.token_embedding.weight" in state:  # open_clip with the text tower as a module of its own
        return {key.removeprefix("text."): tensor for key, tensor in state.items()}
    return state


def _from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    result = {}
    for key, tensor in state.items():
        if match := re.fullmatch(r"(.+)\.self_attn\.([qkv])_proj\.(weight|bias)", key):
            block, part, kind = match.groups()
            if part == "q":
                parts = [state[f"{block}.self_attn.{name}_proj.{kind}"] for name in "qkv"]
                result[f"{_rename(block)}.attn.in_proj_{kind}"] = torch.cat(parts)
        elif key in _TRANSFORMERS_TRANSPOSED:
            result[_TRANSFORMERS_TRANSPOSED[key]] = tensor.t().contiguous()
        else:
            result[_TRANSFORMERS.get(key) or _rename(key)] = tensor
    return result


def _rename(key: str) -> str:
    for theirs, ours in _TRANSFORMERS_PARTS.items():
        key = key.replace(theirs, ours)
    return key


def unused_rows(n: int, width: int) -> np.ndarray:
    """What a compact file stands for where it stores no row of the token table, float32 [n, width]."""
    return (np.random.default_rng(0).standard_normal((n, width)) * 0.02).astype(np.float32)


def expand_token_table(state: Mapping[str, Tensor], vocab_size: int) -> dict[str, Tensor]:
    """A compact state dict to a full one: rows that are not stored get their default."""
    rows, stored = state[ROWS], state[TABLE]
    table = torch.from_numpy(unused_rows(vocab_size, stored.shape[1]))
    table[rows.long()] = stored.float()
    return {key: tensor for key, tensor in state.items() if key != ROWS} | {TABLE: table}


def save_compact(state_dict: Mapping[str, Tensor], used_ids: Iterable[int], path: str | os.PathLike[str]) -> None:
    """Write a CLIP in fp16 with only the used rows of its token table, atomically.

    Args:
        state_dict: OpenAI's layout.
        used_ids: token ids whose embeddings were trained; the others read back as `unused_rows`.

    Raises:
        ValueError: an id is outside the table.
    """
    table = state_dict[TABLE]
    ids = sorted(set(used_ids))
    if not ids or ids[0] < 0 or ids[-1] >= len(table):
        raise ValueError(f"Token ids to store must be in 0..{len(table) - 1}, got {ids[:1]} to {ids[-1:]}.")
    rows = torch.tensor(ids, dtype=torch.int32)
    small = {key: value for key, value in state_dict.items() if key != TABLE}
    small |= {TABLE: table.detach().cpu()[rows.long()]}
    tensors = {key: value.detach().cpu().half().contiguous() for key, value in small.items()}
    target = Path(path)
    part = target.with_name(f"{target.name}.part")
    metadata = {"format": COMPACT_FORMAT, "version": COMPACT_VERSION, "vocab_size": str(len(table))}
    save_file(tensors | {ROWS: rows}, part, metadata)
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(part, target)
