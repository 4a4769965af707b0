"""The released head once more, in NumPy, float64 and naive loops over images, classes, tokens and prototypes.

Weights come as a dict with the names of `ReleaseHead.state_dict()`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Result:
    logits: np.ndarray  # [B, C]
    terms: dict[str, float]
    total: float
    bank: np.ndarray  # [M, d], after the write
    index: list[list[int]]
    hit: set[int]  # prototypes that the write moved


def unit(x):
    return x / np.sqrt((x * x).sum())


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def cross_entropy(logits, label):
    return -np.log(softmax(logits)[label])


def linear(p, name, x):
    return p[f"{name}.weight"] @ x + p.get(f"{name}.bias", 0.0)


def adapter(p, rows):
    """Linear, batch norm with the batch's own biased variance, ReLU, Linear; one list of rows to another."""
    hidden = np.array([linear(p, "adapter.0", row) for row in rows])
    for column in range(hidden.shape[1]):
        x = hidden[:, column]
        x = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
        hidden[:, column] = x * p["adapter.1.weight"][column] + p["adapter.1.bias"][column]
    return [linear(p, "adapter.3", np.maximum(row, 0.0)) for row in hidden]


def read(query, bank):
    share = softmax(np.array([query @ row for row in bank]))
    return sum(s * row for s, row in zip(share, bank, strict=True))


def image_read(p, query, key_value, heads):
    """Multi-head attention of one query to one key, with the softmax that the head leaves out."""
    q, k, v = (
        linear(p, f"image_read.{name}", x) for name, x in (("query", query), ("key", key_value), ("value", key_value))
    )
    width = len(q) // heads
    parts = []
    for h in range(heads):
        part = slice(h * width, (h + 1) * width)
        weight = softmax(np.array([q[part] @ k[part] / np.sqrt(width)]))
        parts.append(weight[0] * v[part])
    return linear(p, "image_read.out", np.concatenate(parts))


def write(bank, rows, momentum):
    """The bank after the write, and which prototypes were hit."""
    rows = [unit(row) for row in rows]
    over_rows = [softmax(np.array([row @ prototype for row in rows])) for prototype in bank]  # M lists of R
    over_bank = [softmax(np.array([row @ prototype for prototype in bank])) for row in rows]  # R lists of M
    moved, hit = bank.copy(), set()
    for i in range(len(bank)):
        total = np.zeros(bank.shape[1])
        for n, row in enumerate(rows):
            if over_bank[n].argmax() == i:
                hit.add(i)
                total += over_rows[i][n] / over_rows[i].max() * row
        if i in hit:
            moved[i] = momentum * bank[i] + (1 - momentum) * total
        moved[i] = unit(moved[i])
    return moved, hit


def release(
    p,
    text,
    image,
    tokens,
    attention,
    label,
    scale,
    *,
    alpha=0.2,
    momentum=0.8,
    balance=50.0,
    distill=20.0,
    mix=0.05,
    top_k=5,
    level1=2,
    heads=1,
    teacher=None,
    kd_weight=1000.0,
):
    """One training step on text [C, d], image [B, d], tokens [B, 1+N, d], attention [B, N] and label [B]."""
    bank = p["prototypes"]
    (B, rows), C = tokens.shape[:2], len(text)
    text_rep = [t + alpha * linear(p, "text_fuse", np.concatenate([t, read(t, bank)])) for t in text]
    image_rep = [image_read(p, v, read(v, bank), heads) for v in image]
    logits = np.zeros((B, C))
    for b in range(B):
        for c in range(C):
            logits[b, c] = scale * ((1 - mix) * image[b] + mix * image_rep[b]) @ text_rep[c]

    adapted = adapter(p, [tokens[b, n] for b in range(B) for n in range(rows)])
    index, levels = [], {"local": [], "level1": [], "level2": []}

    def classify(row, b):
        if teacher is None:
            return cross_entropy(row, label[b])
        q, p_row = softmax(teacher[b]), softmax(row)
        return sum(a * np.log(a / o) for a, o in zip(q, p_row, strict=True))

    total, kind = [], "ce" if teacher is None else "kl"
    for b in range(B):
        G = adapted[b * rows : (b + 1) * rows]
        best = sorted(range(rows - 1), key=lambda n: -attention[b, n])[:top_k]
        index.append(best)
        ends = [G[0], sum(G) / rows]
        total.append(classify(logits[b], b))
        for name, chosen in (("local", best), ("level1", best[:level1]), ("level2", best[level1:])):
            for token in [*ends, *(G[i] for i in chosen)]:  # i counts patches, G starts with the class token
                levels[name].append(classify(np.array([scale * token @ t for t in text]), b))
    terms = {f"global_{kind}": np.mean(total), **{f"{name}_{kind}": np.mean(v) for name, v in levels.items()}}
    terms["text_l1"] = np.mean([np.abs(unit(r) - t).mean() for r, t in zip(text_rep, text, strict=True)])
    terms["image_l1"] = np.mean([np.abs(unit(r) - v).mean() for r, v in zip(image_rep, image, strict=True)])
    if teacher is None:
        local = terms["local_ce"] + terms["level1_ce"] + terms["level2_ce"]
        weighted = terms["global_ce"] + local / balance + distill * (terms["text_l1"] + terms["image_l1"])
    else:  # each KL is a mean over rows, divided by classes; K is then the factor
        K = kd_weight
        weighted = K / C * (terms["global_kl"] + terms["local_kl"] / 100)
        weighted += K / C * (terms["level1_kl"] + terms["level2_kl"]) / 1000
        weighted += K / 50 * terms["text_l1"] + K / 100 * terms["image_l1"]
    bank, hit = write(bank, adapted, momentum)
    return Result(logits, terms, weighted, bank, index, hit)


def difference_quotient(compute, array, where, step=1e-6):
    """d compute() / d array[where], by a central difference; the array is changed and restored."""
    kept = array[where]
    array[where] = kept + step
    above = compute()
    array[where] = kept - step
    below = compute()
    array[where] = kept
    return (above - below) / (2 * step)
