"""The head of the `paper` preset a second time: plain NumPy in float64, one loop per axis, nothing from the code.

Every function names the equation or step that it writes down. Arrays stand for the tensors of `HeadInput`:
B images, C classes, N patches, K prototypes of a class, k activated tokens, w tower width, d joint width.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

DEFAULTS = {
    "top_k": 5,
    "level1_share": 0.6,
    "n_prototypes": 5,
    "sample_score": "mean",
    "semantic": True,
    "recalculate": True,
    "bank_update": "mean",
    "momentum": 0.8,
    "irm": "transformer",
    "trm": "linear",
    "alpha": 0.2,
    "gate": "learned",
    "rho": 0.01,
    "levels": "both",
    "losses": ("ce_level1", "ce_level2", "text", "kl", "local"),
    "kl_over": "classes",
    "local_scaled": False,
    "lambda1": 0.02,
    "lambda2": 20.0,
    "lambda3": 0.1,
}


def unit(x):
    return x / np.sqrt((x * x).sum(-1, keepdims=True))


def cosine(a, b):
    return float(unit(a) @ unit(b))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def log_softmax(x):
    return x - x.max(-1, keepdims=True) - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True))


def kl(p_logits, q_logits):
    """KL(softmax p ‖ softmax q) of two vectors."""
    return float((softmax(p_logits) * (log_softmax(p_logits) - log_softmax(q_logits))).sum())


# Step 1, sample-wise activation


def t_bar(v, text, s):
    """t̄_b = normalise(Σ_c softmax_c(s·cos(v_b, T_c)) T_c)."""
    rows = []
    for b in range(len(v)):
        share = softmax(np.array([s * cosine(v[b], t) for t in text]))
        rows.append(unit(sum(p * t for p, t in zip(share, text, strict=True))))
    return np.array(rows)


def sample_mean(patches, v, text, s):
    """Σ_c π_bc cos(P_bn, T_c), divided by |Σ_c π_bc T_c| of its image, which makes it P·t̄."""
    out = np.zeros(patches.shape[:2])
    for b in range(len(v)):
        share = softmax(np.array([s * cosine(v[b], t) for t in text]))
        length = np.linalg.norm(sum(p * t for p, t in zip(share, text, strict=True)))
        for n in range(patches.shape[1]):
            out[b, n] = sum(share[c] * cosine(patches[b, n], text[c]) for c in range(len(text))) / length
    return out


def sample_max(patches, text):
    """The alternative of step 1: max_c cos(P_bn, T_c)."""
    return np.array([[max(cosine(p, t) for t in text) for p in image] for image in patches])


# Step 2, semantic match and semantic-wise activation


def match(v, prototypes):
    """Eq. 3: c*_b = argmax_c max_j cos(v_b, view(U)_cj)."""
    return np.array([int(np.argmax([max(cosine(x, u) for u in rows) for rows in prototypes])) for x in v])


def semantic(patches, prototypes, tbar, s):
    """R2: Σ_j softmax_j(s·cos(view(U)_{c*,j}, t̄_b)) · cos(P_bn, view(U)_{c*,j}); prototypes [B, K, d]: those of c*."""
    out = np.zeros(patches.shape[:2])
    for b in range(len(patches)):
        share = softmax(np.array([s * cosine(u, tbar[b]) for u in prototypes[b]]))
        for n in range(patches.shape[1]):
            out[b, n] = sum(share[j] * cosine(patches[b, n], u) for j, u in enumerate(prototypes[b]))
    return out


# Step 3, activation


def standardise(scores):
    """R3: zero mean and unit (population) deviation over the patches of each image."""
    return np.array([(row - row.mean()) / max(math.sqrt(((row - row.mean()) ** 2).mean()), 1e-6) for row in scores])


def select(scores, k):
    """The k highest patches of each image, highest first."""
    return np.array([sorted(range(len(row)), key=lambda n: -row[n])[:k] for row in scores])


def level_slices(k, share=0.6):
    """k1 = ceil(0.6 k) in exact arithmetic, k2 = k - k1; an empty level drops out."""
    k1 = math.ceil(Fraction(str(share)) * k)
    parts = {"level1": slice(0, k1), "level2": slice(k1, k)}
    return {name: part for name, part in parts.items() if part.stop > part.start}


# Step 4, bank update


def update_bank(bank, tokens, label, view, s, momentum, rule="mean"):
    """Eq. 4-6 with R4: softmax over the K prototypes of the true class; `mean` divides by Σ D, `sum` does not."""
    hits = {}
    for b in range(len(tokens)):
        y = int(label[b])
        for token in tokens[b]:
            share = softmax(np.array([s * cosine(view(token), view(u)) for u in bank[y]]))  # Eq. 4
            hits.setdefault((y, int(np.argmax(share))), []).append((share.max(), token))  # Eq. 5
    after = bank.copy()
    for (y, j), members in hits.items():  # Eq. 6
        total = sum(weight * token for weight, token in members)
        if rule == "mean":
            total = total / sum(weight for weight, _ in members)
        after[y, j] = momentum * bank[y, j] + (1 - momentum) * total
    return after


# Step 6, IRM


def layer_norm(x, weight, bias):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weight + bias


def attention(query, key, block, heads, sizes=None):
    """nn.MultiheadAttention of query [n, w] and key = value [m, w], one head and one row at a time.

    A key of size s counts as s equal keys.
    """
    sizes = np.ones(len(key)) if sizes is None else sizes
    w = query.shape[-1]
    step = w // heads
    weight, bias = block["attn.in_proj_weight"], block["attn.in_proj_bias"]
    q, k, v = (x @ weight[i * w : i * w + w].T + bias[i * w : i * w + w] for i, x in enumerate((query, key, key)))
    rows = np.zeros_like(query)
    for h in range(heads):
        part = slice(h * step, h * step + step)
        for n in range(len(query)):
            share = softmax(np.array([q[n, part] @ row[part] / math.sqrt(step) for row in k])) * sizes
            share = share / share.sum()
            rows[n, part] = sum(share[m] * v[m, part] for m in range(len(key)))
    return rows @ block["attn.out_proj.weight"].T + block["attn.out_proj.bias"]


def transformer_block(x, block, heads, sizes=None):
    """θ: x += MHA(ln_1 x); x += MLP(ln_2 x) with QuickGELU; x [n, w]."""
    h = layer_norm(x, block["ln_1.weight"], block["ln_1.bias"])
    x = x + attention(h, h, block, heads, sizes)
    h = layer_norm(x, block["ln_2.weight"], block["ln_2.bias"])
    h = h @ block["mlp.c_fc.weight"].T + block["mlp.c_fc.bias"]
    h = h / (1 + np.exp(-1.702 * h))
    return x + h @ block["mlp.c_proj.weight"].T + block["mlp.c_proj.bias"]


def gelu(x):
    return np.vectorize(lambda a: a * 0.5 * (1 + math.erf(a / math.sqrt(2))))(x)


def matched(prototypes, seen, tokens, view):
    """U_match: for each token the most similar of the prototypes [K, w] of c*, compared in the joint space."""
    return np.array([prototypes[int(np.argmax([cosine(view(t), u) for u in seen]))] for t in tokens])


def irm_transformer(u_match, tokens, cls, block, heads, ffn, sizes=None):
    """Eq. 8-10 with R6, one image: Û' [kℓ, w]. ffn holds (weight, bias) of its two layers; sizes of the tokens [kℓ]."""
    sizes = np.ones(len(tokens)) if sizes is None else sizes
    norm = block["ln_1.weight"], block["ln_1.bias"]
    z = attention(layer_norm(u_match, *norm), layer_norm(tokens, *norm), block, heads, sizes) + u_match  # Eq. 8
    (w1, b1), (w2, b2) = ffn
    h = layer_norm(z, block["ln_2.weight"], block["ln_2.bias"])
    u_hat = z + gelu(h @ w1.T + b1) @ w2.T + b2  # Eq. 9
    sizes = np.concatenate([np.ones(1 + len(u_hat)), sizes])
    rows = transformer_block(np.concatenate([cls[None], u_hat, tokens]), block, heads, sizes)  # Eq. 10
    return rows[1 : 1 + len(u_hat)]


def irm_linear(u_match, tokens, weight, bias=0.0):
    """Table XI: Û = U_match + Lin([U_match; tok])."""
    return np.array([u + weight @ np.concatenate([u, t]) + bias for u, t in zip(u_match, tokens, strict=True)])


def representative_image(v, seen, rho):
    """R7: v_rep = normalise((1-ρ)·v + ρ·normalise(mean view(Û'))); seen = view(Û') [kℓ, d]."""
    return unit((1 - rho) * v + rho * unit(seen.mean(0)))


# Step 7, TRM


def text_read(text_row, tokens, s):
    """Σ_j softmax_j(s·cos(T_c, view(tok_j))) view(tok_j)."""
    share = softmax(np.array([s * cosine(text_row, t) for t in tokens]))
    return sum(p * t for p, t in zip(share, tokens, strict=True))


def trm_linear(text, tokens, s, alpha, weight):
    """Eq. 11 with R8, one image: t_rep [C, d]; tokens are view(tok) [kℓ, d], weight [d, 2d]."""
    return np.array([unit(t + alpha * weight @ np.concatenate([t, text_read(t, tokens, s)])) for t in text])


# Step 9, losses


def classification(logits, label, teacher=None):
    """CE of the labels, or KL(teacher ‖ student) with a teacher; mean over images."""
    if teacher is not None:
        return float(np.mean([kl(teacher[b], logits[b]) for b in range(len(logits))]))
    return float(np.mean([-log_softmax(logits[b])[label[b]] for b in range(len(logits))]))


def text_l1(t_reps, text0):
    """Eq. 13: mean |t_rep - T0| over elements and levels; t_reps: one [B, C, d] per level."""
    return float(np.mean([np.abs(image - text0).mean() for level in t_reps for image in level]))


def visual_kl(v_reps, image0, text0, s, over="classes"):
    """Eq. 14 with R9, mean over levels and images; v_reps: one [B, d] per level."""
    terms = []
    for level in v_reps:
        for b in range(len(level)):
            old, new = image0[b], level[b]
            if over == "classes":
                old, new = (np.array([s * cosine(x, t) for t in text0]) for x in (old, new))
            terms.append(kl(old, new))
    return float(np.mean(terms))


def local_ce(tokens, text, prototypes, s, label):
    """Eq. 7 with R10: CE over classes of (s·)cos(view(tok), normalise(T_c + mean_j view(U)_cj)), mean over tokens."""
    centres = [unit(text[c] + prototypes[c].mean(0)) for c in range(len(text))]
    terms = []
    for b in range(len(tokens)):
        for token in tokens[b]:
            terms.append(-log_softmax(np.array([s * cosine(token, centre) for centre in centres]))[label[b]])
    return float(np.mean(terms))


# The whole head


def head(given, params, training, **options):
    """Steps 1-9.

    Args:
        given: text, image, scale, hidden, view (NumPy function), block (arrays by name), heads; optional n_fused,
            sizes, attention, text0, image0, label, teacher, text_trains (False: T carries no gradient).
        params: bank [C, K, w], rho; ffn, irm, trm as the functions above take them.
        training: write the bank and choose again.
        options: differences from DEFAULTS.

    Returns:
        logits, level_logits, terms, weights, total, bank (after the step), index, first_index (of step 3), matched.
    """
    o = {**DEFAULTS, **options}
    text, v, s, view = given["text"], given["image"], given["scale"], given["view"]
    teacher = given.get("teacher")
    label = given.get("label") if teacher is None else teacher.argmax(1)
    hidden = given["hidden"]
    rows = hidden[:, 1 : hidden.shape[1] - given.get("n_fused", 0)]
    patches, bank = view(rows), params["bank"]
    seen = view(bank)
    B, k = len(v), o["top_k"]

    # 1-3
    tbar = t_bar(v, text, s)
    if o["sample_score"] == "mean":
        sample = sample_mean(patches, v, text, s)
    elif o["sample_score"] == "max":
        sample = sample_max(patches, text)
    else:
        sample = given["attention"]
    star = match(v, seen)

    def activate(prototypes):
        scores = standardise(sample)
        if o["semantic"]:
            scores = scores + standardise(semantic(patches, prototypes[star], tbar, s))
        return scores, select(scores, k)

    scores, index = activate(seen)
    first_index, after = index, bank

    # 4, 5
    if training and label is not None:
        activated = np.array([rows[b][index[b]] for b in range(B)])
        after = update_bank(bank, activated, label, view, s, o["momentum"], o["bank_update"])
        if o["recalculate"]:
            scores, index = activate(view(after))

    # 6-8, with the bank as it was before the write
    v_reps, t_reps, cosines = [], [], {}
    for name, part in level_slices(k, o["level1_share"]).items():
        v_level, t_level = [], []
        for b in range(B):
            tokens = rows[b][index[b, part]]
            u_match = matched(bank[star[b]], seen[star[b]], tokens, view)
            if o["irm"] == "transformer":
                sizes = given["sizes"][b][index[b, part]] if "sizes" in given else None
                theta = given["block"], given["heads"]
                u_out = irm_transformer(u_match, tokens, hidden[b, 0], *theta, params["ffn"], sizes)
                v_level.append(representative_image(v[b], view(u_out), params["rho"]))
            elif o["irm"] == "linear":
                u_out = irm_linear(u_match, tokens, *params["irm"])
                v_level.append(representative_image(v[b], view(u_out), params["rho"]))
            else:
                v_level.append(v[b])
            if o["trm"] == "linear":
                t_level.append(trm_linear(text, view(tokens), s, o["alpha"], params["trm"]))
            elif o["trm"] == "transformer":
                t_level.append(params["trm"](text, view(tokens), o["alpha"]))
            else:
                t_level.append(text)
        v_reps.append(np.array(v_level))
        t_reps.append(np.array(t_level))
        cosines[name] = np.array([[cosine(v_level[b], t) for t in t_level[b]] for b in range(B)])
    full = s * sum(cosines.values()) / len(cosines)
    level_logits = {name: s * c for name, c in cosines.items()}
    picked = full if training or o["levels"] == "both" else level_logits[o["levels"]]

    # 9
    terms, weights = {}, {"ce": 1.0}
    if label is not None:
        terms["ce"] = classification(full, label, teacher)
        for name, logits in level_logits.items():
            terms[f"ce_{name}"] = classification(logits, label, teacher)
            weights[f"ce_{name}"] = o["lambda1"]
        terms["text"], weights["text"] = text_l1(t_reps, given["text0"]), o["lambda2"]
        terms["kl"] = visual_kl(v_reps, given["image0"], given["text0"], s, o["kl_over"])
        weights["kl"] = weights["local"] = o["lambda3"]
        if given.get("text_trains", True):
            tokens = np.array([patches[b][index[b]] for b in range(B)])
            terms["local"] = local_ce(tokens, text, seen, s if o["local_scaled"] else 1.0, label)
        terms = {name: term for name, term in terms.items() if name == "ce" or name in o["losses"]}
    total = sum(weights[name] * term for name, term in terms.items())
    return {
        "logits": picked,
        "level_logits": level_logits,
        "terms": terms,
        "weights": {name: weights[name] for name in terms},
        "total": total,
        "bank": after,
        "scores": scores,
        "index": index,
        "first_index": first_index,
        "matched": star,
    }
