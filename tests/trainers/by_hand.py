"""Prompted CLIP, assembled by hand from the model's own blocks: all 77 text positions, every row of every block."""

import numpy as np
import torch
import torch.nn.functional as F

import clip


def text_by_hand(model, sentences, rows, deep=None):
    """Raw text features [C, d].

    Args:
        rows: [M, w] or [C, M, w], in the places 1..M of the sentences' embeddings.
        deep: block → [M, w], what these places are set to before it.
    """
    ids = clip.tokenize(sentences)
    x, M = model.token_embedding.weight[ids], rows.shape[-2]  # [C, 77, w]
    x = torch.cat([x[:, :1], rows.expand(len(ids), -1, -1), x[:, 1 + M :]], dim=1) + model.positional_embedding
    for number, block in enumerate(model.transformer.resblocks):
        if number in (deep or {}):
            x = torch.cat([x[:, :1], deep[number].expand(len(ids), -1, -1), x[:, 1 + M :]], dim=1)
        x = block(x.transpose(0, 1)).transpose(0, 1)
    return model.ln_final(x)[torch.arange(len(ids)), ids.argmax(dim=1)] @ model.text_projection


def image_by_hand(model, images, rows, inject="pre_ln"):
    """Raw image features [B, d].

    Args:
        rows: [P, w] each, the first at the input behind the patches, the others before the blocks 1, 2, ….
        inject: whether the rows of the input pass ln_pre.
    """
    v, B, P = model.visual, len(images), len(rows[0])
    patches = F.conv2d(images, v.conv1.weight, stride=v.conv1.stride).flatten(2).transpose(1, 2)  # [B, N, w]
    x = torch.cat([v.class_embedding.expand(B, 1, -1), patches], dim=1) + v.positional_embedding
    first = rows[0].expand(B, -1, -1)
    x = v.ln_pre(torch.cat([x, first], dim=1)) if inject == "pre_ln" else torch.cat([v.ln_pre(x), first], dim=1)
    for number, block in enumerate(v.transformer.resblocks):
        if 0 < number < len(rows):
            x = torch.cat([x[:, :-P], rows[number].expand(B, -1, -1)], dim=1)
        x = block(x.transpose(0, 1)).transpose(0, 1)
    return v.ln_post(x[:, 0]) @ v.proj


def logits_by_hand(model, image, text):
    """exp(logit scale) · cosines, [B, C], from raw features; NumPy in float64."""
    image, text = (np.asarray(x.detach(), dtype=np.float64) for x in (image, text))
    image, text = (x / np.sqrt((x**2).sum(axis=1, keepdims=True)) for x in (image, text))
    return torch.from_numpy(np.exp(float(model.logit_scale)) * image @ text.T).float()
