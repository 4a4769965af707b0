"""A ViT with prompts and pruning a second time: plain NumPy in float64, one image at a time, loops over heads and rows.

A row is (kind, number, vector, patches): kind c (class token), p (patch), f (fused) or a (prompt); the patch in whose
place it stands; and the numbers of the patches that it stands for, none for class token and prompts.
"""

import math

import numpy as np

N = 16  # patches of the tests' towers, a grid of 4 by 4
GAP = 1e-6  # what must lie between a row that stays and one that does not, for a comparison in fp32


def unit(x):
    return x / np.sqrt((x * x).sum())


def size(row):
    return max(1, len(row[3]))


def mean_row(rows, weights):
    return sum(w * row[2] for w, row in zip(weights, rows, strict=True)) / sum(weights)


class NaiveViT:
    def __init__(self, model):
        self.state = {name: t.double().numpy() for name, t in model.visual.state_dict().items()}
        self.depth = len({name.split(".")[2] for name in self.state if "resblocks" in name})

    def norm(self, name, row):
        row = (row - row.mean()) / math.sqrt(row.var() + 1e-5)
        return row * self.state[name + ".weight"] + self.state[name + ".bias"]

    def block(self, name, rows, sizes):
        """The output rows; the class token's attention [heads, rows]; the keys [heads, rows, w / heads]."""
        s, w = self.state, len(rows[0])
        h = np.stack([self.norm(name + ".ln_1", row) for row in rows])
        q, k, v = np.split(h @ s[name + ".attn.in_proj_weight"].T + s[name + ".attn.in_proj_bias"], 3, axis=1)
        heads, maps, keys = [], [], []
        for first in range(0, w, 64):
            part = slice(first, first + 64)
            weights = np.exp(q[:, part] @ k[:, part].T / 8) * sizes  # a row of size s counts as s equal rows
            weights /= weights.sum(axis=1, keepdims=True)
            heads.append(weights @ v[:, part])
            maps.append(weights[0])
            keys.append(k[:, part])
        mixed = np.concatenate(heads, axis=1) @ s[name + ".attn.out_proj.weight"].T + s[name + ".attn.out_proj.bias"]
        out = []
        for row in rows + mixed:
            inner = s[name + ".mlp.c_fc.weight"] @ self.norm(name + ".ln_2", row) + s[name + ".mlp.c_fc.bias"]
            inner = inner / (1 + np.exp(-1.702 * inner))
            out.append(row + s[name + ".mlp.c_proj.weight"] @ inner + s[name + ".mlp.c_proj.bias"])
        return np.stack(out), np.stack(maps), np.stack(keys)

    def project(self, row):
        return self.norm("ln_post", row) @ self.state["proj"]

    def __call__(self, image, prompts, prune, by):
        """One image [3, H, H] as a dict of arrays.

        Args:
            prune: block, counted from 1 -> a pair (kept, of), so that rounding up needs no floating point.
        """
        kernel = self.state["conv1.weight"]
        p, positions = kernel.shape[-1], self.state["positional_embedding"]
        rows = [("c", 0, self.norm("ln_pre", self.state["class_embedding"] + positions[0]), [])]
        for number in range(N):
            y, x = number // 4 * p, number % 4 * p
            patch = np.tensordot(kernel, image[:, y : y + p, x : x + p], 3)
            rows.append(("p", number, self.norm("ln_pre", patch + positions[1 + number]), [number]))
        if prompts is not None:
            rows += [("a", j, self.norm("ln_pre", row), []) for j, row in enumerate(prompts.shallow.double().numpy())]
        hidden = []
        for b in range(self.depth):
            if prompts is not None and b in prompts.deep:
                rows = [row for row in rows if row[0] != "a"]
                rows += [("a", j, row, []) for j, row in enumerate(prompts.deep[b].double().numpy())]
            hidden.append(np.stack([row[2] for row in rows]))
            sizes = np.array([size(row) for row in rows])
            vectors, maps, keys = self.block(f"transformer.resblocks.{b}", hidden[-1], sizes)
            rows = [(kind, number, x, own) for (kind, number, _, own), x in zip(rows, vectors, strict=True)]
            if b + 1 in prune:
                n = sum(row[0] == "p" for row in rows)
                m = -(-n * prune[b + 1][0] // prune[b + 1][1])
                attention = maps.mean(axis=0) if by == "attention" else None
                rows = merge(rows, keys.mean(axis=0), n, m) if by == "merge" else drop(rows, attention, n, m)
        patches = [i for i, row in enumerate(rows) if row[0] == "p"]
        stands = [row for row in rows if row[0] in "pf"]
        return {
            "pooled": self.project(rows[0][2]),
            "tokens": np.stack([self.project(rows[i][2]) for i in patches]),
            "cls_attn": maps[:, patches],
            "kept": np.array([rows[i][1] for i in patches]),
            "group": np.array([[patch in row[3] for row in stands].index(True) for patch in range(N)]),
            "sizes": np.array([size(row) for row in stands]),
            **{f"hidden:{b}": x for b, x in enumerate(hidden)},
        }


def drop(rows, attention, n, m):
    """Keep m of n patches, those with the most attention or, without it, those least like the mean patch."""
    patches, stands = rows[1 : 1 + n], [row for row in rows if row[0] in "pf"]
    if attention is None:
        mean = sum(size(row) * unit(row[2]) for row in stands)
        scores = [-unit(row[2]) @ unit(mean) for row in patches]
        weights = [size(row) for row in stands]
    else:
        scores, weights = attention[1 : 1 + n], attention[1 : 1 + len(stands)]
    best = sorted(range(n), key=lambda i: -scores[i])
    assert scores[best[m - 1]] - scores[best[m]] > GAP, "too close for a comparison in fp32"
    rest = [i for i in range(len(stands)) if i not in best[:m]]
    vector = mean_row([stands[i] for i in rest], [weights[i] for i in rest])
    fused = ("f", -1, vector, [patch for i in rest for patch in stands[i][3]])
    return [rows[0], *(patches[i] for i in sorted(best[:m])), fused, *(row for row in rows if row[0] == "a")]


def merge(rows, keys, n, m):
    """Merge the n - m most similar pairs of an even-numbered and an odd-numbered row."""
    patches, keys = rows[1 : 1 + n], keys[1 : 1 + n]
    partner, best = {}, {}
    for i in range(0, n, 2):
        cosines = {j: unit(keys[i]) @ unit(keys[j]) for j in range(1, n, 2)}
        first, *others = sorted(cosines, key=lambda j: -cosines[j])
        assert not others or cosines[first] - cosines[others[0]] > GAP, "too close for a comparison in fp32"
        partner[i], best[i] = first, cosines[first]
    order = sorted(best, key=lambda i: -best[i])
    gone = order[: n - m]
    assert len(gone) == len(order) or best[order[n - m - 1]] - best[order[n - m]] > GAP, "too close, as above"
    new = []
    for j, row in enumerate(patches):
        if j not in gone:
            together = [row, *(patches[i] for i in gone if partner[i] == j)]
            vector = mean_row(together, [size(part) for part in together])
            new.append(("p", row[1], vector, [patch for part in together for patch in part[3]]))
    return [rows[0], *new, *rows[1 + n :]]
