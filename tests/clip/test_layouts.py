"""Every layout of a checkpoint becomes the same state dict."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from clip.layouts import save_compact
from clip.model import build_model
from clip.weights import read_file, read_weights


def equal(got, want):
    assert set(got) == set(want)
    for name, tensor in want.items():
        assert torch.equal(got[name], tensor), name


def to_transformers(state):
    """OpenAI's layout to that of Transformers, written from its documentation: the other way round than our code."""
    result = {
        "logit_scale": state["logit_scale"],
        "text_projection.weight": state["text_projection"].t().contiguous(),
        "visual_projection.weight": state["visual.proj"].t().contiguous(),
        "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": state["positional_embedding"],
        "text_model.embeddings.position_ids": torch.arange(77)[None],
        "vision_model.embeddings.class_embedding": state["visual.class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": state["visual.conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": state["visual.positional_embedding"],
        "vision_model.embeddings.position_ids": torch.arange(17)[None],
    }
    for kind in ("weight", "bias"):
        result[f"text_model.final_layer_norm.{kind}"] = state[f"ln_final.{kind}"]
        result[f"vision_model.pre_layrnorm.{kind}"] = state[f"visual.ln_pre.{kind}"]
        result[f"vision_model.post_layernorm.{kind}"] = state[f"visual.ln_post.{kind}"]
        for theirs, ours in (("text_model", ""), ("vision_model", "visual.")):
            for i in range(3):
                new, old = f"{theirs}.encoder.layers.{i}", f"{ours}transformer.resblocks.{i}"
                for j, part in enumerate("qkv"):
                    rows = slice(128 * j, 128 * (j + 1))
                    result[f"{new}.self_attn.{part}_proj.{kind}"] = state[f"{old}.attn.in_proj_{kind}"][rows].clone()
                result[f"{new}.self_attn.out_proj.{kind}"] = state[f"{old}.attn.out_proj.{kind}"]
                result[f"{new}.layer_norm1.{kind}"] = state[f"{old}.ln_1.{kind}"]
                result[f"{new}.layer_norm2.{kind}"] = state[f"{old}.ln_2.{kind}"]
                result[f"{new}.mlp.fc1.{kind}"] = state[f"{old}.mlp.c_fc.{kind}"]
                result[f"{new}.mlp.fc2.{kind}"] = state[f"{old}.mlp.c_proj.{kind}"]
    return result


def test_transformers_layout(state, tmp_path):
    save_file(to_transformers(state), tmp_path / "model.safetensors")
    equal(read_weights(tmp_path), state)


def test_open_clip_layout_with_a_text_module(state, tmp_path):
    text = ("transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection")
    renamed = {f"text.{name}" if name.startswith(text) else name: tensor for name, tensor in state.items()}
    save_file(renamed | {"text.attn_mask": torch.zeros(77, 77)}, tmp_path / "custom.safetensors")
    equal(read_file(tmp_path / "custom.safetensors"), state)


def test_compact_layout(state, tmp_path):
    path = tmp_path / "mini.safetensors"
    used = [49407, 49406, 320, 1125, 320]
    save_compact(state, used, path)
    table = (np.random.default_rng(0).standard_normal((49408, 128)) * 0.02).astype(np.float32)
    table[sorted(set(used))] = state["token_embedding.weight"][sorted(set(used))].half().float().numpy()
    want = {name: tensor.half() for name, tensor in state.items()}
    equal(read_file(path), want | {"token_embedding.weight": torch.from_numpy(table)})
    assert path.stat().st_size < 4_000_000  # of 28 MB in full
    assert list(tmp_path.iterdir()) == [path]
    build_model(read_file(path), torch.float32)


@pytest.mark.parametrize("ids", [[-1, 3], [49408], []])
def test_compact_rows_must_exist(state, tmp_path, ids):
    with pytest.raises(ValueError, match=r"Token ids to store must be in 0..49407, got "):
        save_compact(state, ids, tmp_path / "mini.safetensors")
