"""The cache of visual concepts in NumPy, float64 and loops over tokens and slots."""

import numpy as np


def array(x):
    return x.detach().double().numpy()


def unit(x):
    return x / np.sqrt((x * x).sum())


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def read_by_hand(slots, query, temperature=1.0):
    share = softmax(np.array([query @ slot / temperature for slot in slots]))
    return sum(s * slot for s, slot in zip(share, slots, strict=True))


def write_by_hand(slots, tokens, momentum, rule="sum"):
    """One slot after the other, with the softmax over all tokens written out."""
    tokens, result = [unit(z) for z in tokens], []
    nearest = [max(range(len(slots)), key=lambda k: z @ slots[k]) for z in tokens]
    for k, slot in enumerate(slots):
        share = softmax(np.array([z @ slot for z in tokens]))
        own = [n for n in range(len(tokens)) if nearest[n] == k]
        if own:
            target = sum(share[n] / share.max() * tokens[n] for n in own)
            if rule == "mean":
                target = target / sum(share[n] / share.max() for n in own)
            slot = momentum * slot + (1 - momentum) * target
        result.append(unit(slot))
    return np.array(result)
