"""Pruning against a naive NumPy ViT that loops over images, heads and rows, and its properties."""

import math

import numpy as np
import pytest
import torch

from clip.backbone import Backbone, VisionTower, VisualPrompts
from clip.layers import MultiheadAttention, ResidualAttentionBlock
from clip.model import CLIP, CLIPSpec, convert_weights
from clip.pruning import kept_counts, prune_rows

N, P = 16, 2
SPEC = CLIPSpec(48, 32, 4, 128, 8, vocab_size=50, transformer_width=64, transformer_heads=1, transformer_layers=1)
TWO_POINTS = {1: 0.7, 3: 0.5}  # of 16 patches 12 and 6 travel on
LENGTHS = [17, 14, 14, 8]  # class token, patches and fused token entering each block under TWO_POINTS


@pytest.fixture(scope="module")
def deep() -> Backbone:
    """Four blocks of two heads with sharp attention, in which no norm or bias is neutral; tests must not change it."""
    model, generator = CLIP(SPEC).eval().requires_grad_(False), torch.Generator().manual_seed(0)
    for name, tensor in model.visual.named_parameters():
        noise = torch.randn(tensor.shape, generator=generator)
        noise *= 0.3 if tensor.dim() == 1 else tensor[0].numel() ** -0.5
        tensor.copy_(1 + noise if "ln_" in name and name.endswith("weight") else noise)
    return Backbone(model)


@pytest.fixture
def prompts(randn):
    return VisualPrompts(randn(P, 128), {1: randn(P, 128), 2: randn(P, 128), 3: randn(P, 128)})


class NaiveViT:
    """One image at a time, float64."""

    def __init__(self, model: CLIP):
        self.state = {name: t.double().numpy() for name, t in model.visual.state_dict().items()}
        self.depth = len({name.split(".")[2] for name in self.state if "resblocks" in name})

    def norm(self, name, row):
        row = (row - row.mean()) / math.sqrt(row.var() + 1e-5)
        return row * self.state[name + ".weight"] + self.state[name + ".bias"]

    def block(self, name, rows):
        """The output rows, and the class token's attention, [heads, rows]."""
        s, w = self.state, len(rows[0])
        h = np.stack([self.norm(name + ".ln_1", row) for row in rows])
        q, k, v = np.split(h @ s[name + ".attn.in_proj_weight"].T + s[name + ".attn.in_proj_bias"], 3, axis=1)
        heads, maps = [], []
        for first in range(0, w, 64):
            part = slice(first, first + 64)
            weights = np.exp(q[:, part] @ k[:, part].T / 8)
            weights /= weights.sum(axis=1, keepdims=True)
            heads.append(weights @ v[:, part])
            maps.append(weights[0])
        mixed = np.concatenate(heads, axis=1) @ s[name + ".attn.out_proj.weight"].T + s[name + ".attn.out_proj.bias"]
        out = []
        for row in rows + mixed:
            inner = s[name + ".mlp.c_fc.weight"] @ self.norm(name + ".ln_2", row) + s[name + ".mlp.c_fc.bias"]
            inner = inner / (1 + np.exp(-1.702 * inner))
            out.append(row + s[name + ".mlp.c_proj.weight"] @ inner + s[name + ".mlp.c_proj.bias"])
        return np.stack(out), np.stack(maps)

    def project(self, row):
        return self.norm("ln_post", row) @ self.state["proj"]

    def __call__(self, image, prompts, prune):
        """One image [3, H, H] as a dict of arrays; rows are (kind, number, vector), kind c, p, f or a (prompt)."""
        kernel = self.state["conv1.weight"]
        p, positions = kernel.shape[-1], self.state["positional_embedding"]
        rows = [("c", 0, self.norm("ln_pre", self.state["class_embedding"] + positions[0]))]
        for number in range(N):
            y, x = number // 4 * p, number % 4 * p
            patch = np.tensordot(kernel, image[:, y : y + p, x : x + p], 3)
            rows.append(("p", number, self.norm("ln_pre", patch + positions[1 + number])))
        if prompts is not None:
            rows += [("a", j, self.norm("ln_pre", row)) for j, row in enumerate(prompts.shallow.double().numpy())]
        hidden = []
        for b in range(self.depth):
            if prompts is not None and b in prompts.deep:
                rows = [row for row in rows if row[0] != "a"]
                rows += [("a", j, row) for j, row in enumerate(prompts.deep[b].double().numpy())]
            hidden.append(np.stack([row for _, _, row in rows]))
            vectors, maps = self.block(f"transformer.resblocks.{b}", hidden[-1])
            rows = [(kind, number, vector) for (kind, number, _), vector in zip(rows, vectors, strict=True)]
            if b + 1 in prune:
                rows = self.prune(rows, maps.mean(axis=0), prune[b + 1])
        patches = [i for i, row in enumerate(rows) if row[0] == "p"]
        return {
            "pooled": self.project(rows[0][2]),
            "tokens": np.stack([self.project(rows[i][2]) for i in patches]),
            "cls_attn": maps[:, patches],
            "kept": np.array([rows[i][1] for i in patches]),
            **{f"hidden:{b}": x for b, x in enumerate(hidden)},
        }

    @staticmethod
    def prune(rows, attention, share):
        """`share` is a pair (kept, of), so that rounding up needs no floating point."""
        patches = [i for i, row in enumerate(rows) if row[0] == "p"]
        m = -(-len(patches) * share[0] // share[1])
        best = sorted(patches, key=lambda i: -attention[i])
        assert attention[best[m - 1]] - attention[best[m]] > 1e-6, "too close for a comparison in fp32"
        kept = sorted(best[:m])
        rest = [i for i, row in enumerate(rows) if row[0] in "pf" and i not in kept]
        fused = sum(attention[i] * rows[i][2] for i in rest) / sum(attention[i] for i in rest)
        last = [row for row in rows if row[0] == "a"]
        return [rows[0], *(rows[i] for i in kept), ("f", -1, fused), *last]


def compare(backbone, images, prompts, prune):
    depth = backbone.vision.n_blocks
    hidden = [f"hidden:{b}" for b in range(depth)]
    given = {block: kept / of for block, (kept, of) in prune.items()}
    out = backbone.vision(images, prompts, {"tokens", "cls_attn", *hidden}, given)
    naive = NaiveViT(backbone.clip)
    want = [naive(image, prompts, prune) for image in images.double().numpy()]
    got = {"pooled": out.pooled, "tokens": out.tokens, "cls_attn": out.cls_attn, "kept": out.kept}
    for name, tensor in {**got, **{f"hidden:{b}": rows for b, rows in out.hidden.items()}}.items():
        np.testing.assert_allclose(tensor, np.stack([w[name] for w in want]), atol=5e-5, err_msg=name)
    assert out.n_fused == 1
    assert out.kept.dtype == torch.int64
    short = backbone.vision(images, prompts, prune=given)  # the last block for the class token only
    np.testing.assert_allclose(short.pooled, out.pooled, atol=5e-6)
    assert torch.equal(short.kept, out.kept)
    assert short.n_fused == 1


@pytest.mark.parametrize("share", [(1, 4), (1, 2), (15, 16), (1, 100)])
def test_two_blocks_equal_the_naive_model(tiny_clip, images, share):
    compare(Backbone(tiny_clip), images, None, {1: share})


@pytest.mark.parametrize("prompted", ["none", "shallow", "deep"])
@pytest.mark.parametrize(
    "prune", [{2: (1, 2)}, {3: (1, 3)}, {1: (7, 10), 3: (1, 2)}, {2: (3, 4), 1: (3, 4), 3: (3, 4)}], ids=str
)
def test_four_blocks_equal_the_naive_model(deep, images, prompts, prompted, prune):
    given = {"none": None, "shallow": VisualPrompts(prompts.shallow), "deep": prompts}[prompted]
    compare(deep, images, given, prune)


def equal(got, want):
    for name in ("pooled", "tokens", "cls_attn", "patch_embed", "kept"):
        a, b = getattr(got, name), getattr(want, name)
        assert (a is None and b is None) or torch.equal(a, b), name
    assert got.n_fused == want.n_fused
    assert got.hidden.keys() == want.hidden.keys()
    assert all(torch.equal(rows, want.hidden[block]) for block, rows in got.hidden.items())


WANT = frozenset({"tokens", "cls_attn", "patch_embed", "hidden:1", "hidden:2", "hidden:3", "hidden:4"})


@pytest.mark.parametrize("prune", [{}, {1: 1.0}, {1: 1, 2: 1, 3: 1}, {2: 0.95}], ids=str)
def test_nothing_dropped_is_the_plain_pass_with_no_extra_work(deep, images, prompts, prune, monkeypatch):
    want = deep.vision(images, prompts, WANT)
    monkeypatch.setattr("clip.vision.prune_rows", None)
    equal(deep.vision(images, prompts, WANT, prune), want)
    assert want.kept is None
    monkeypatch.setattr(MultiheadAttention, "weights", None)  # no attention weights either
    assert torch.equal(deep.vision(images, prompts, prune=prune).pooled, deep.vision(images, prompts).pooled)


def test_a_second_point_that_drops_nothing_leaves_the_fused_token_alone(deep, images, prompts):
    want = deep.vision(images, prompts, WANT, {1: 0.5})
    equal(deep.vision(images, prompts, WANT, {1: 0.5, 2: 0.99, 3: 1.0}), want)
    assert want.kept.shape == (3, 8)


def test_kept_patches_are_those_the_class_token_looks_at(deep, images, prompts):
    out = deep.vision(images, prompts, WANT, {2: 0.4})
    assert out.kept.shape == (3, 7)
    assert (out.kept.diff(dim=1) > 0).all()
    assert 0 <= out.kept.min() <= out.kept.max() < N
    block = deep.clip.visual.transformer.resblocks[1]
    x = deep.vision.hidden(images, 1, prompts)
    q, k, _ = block.qkv(x)
    full = (q @ k.mT / 8).softmax(-1).mean(1)[:, 0, 1 : 1 + N]  # [B, N] of the whole map
    is_kept = torch.zeros(3, N, dtype=torch.bool).scatter(1, out.kept, True)
    for attention, mask in zip(full, is_kept, strict=True):
        assert attention[mask].min() >= attention[~mask].max()
    unpruned = deep.vision.blocks(x, 1, 2, prompts)
    for i, kept in enumerate(out.kept):  # kept rows, class token and prompts are untouched
        torch.testing.assert_close(out.hidden[2][i, 1:8], unpruned[i, 1 + kept], atol=1e-6, rtol=0)
    torch.testing.assert_close(out.hidden[2][:, 0], unpruned[:, 0], atol=1e-6, rtol=0)
    assert torch.equal(out.hidden[2][:, -P:], prompts.deep[2].expand(3, -1, -1))
    assert out.hidden[2].shape == (3, 1 + 7 + 1 + P, 128)


def test_permuted_patches_permute_what_is_kept(deep, images, prompts):
    model = CLIP(SPEC).eval().requires_grad_(False)
    model.load_state_dict(deep.clip.state_dict())
    model.visual.positional_embedding[1:] = model.visual.positional_embedding[1]
    vision, order = Backbone(model).vision, torch.randperm(N, generator=torch.Generator().manual_seed(5))
    cells = images.unflatten(3, (4, 8)).unflatten(2, (4, 8)).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # [B, N, 3, 8, 8]
    cells = cells[:, order].unflatten(1, (4, 4)).permute(0, 3, 1, 4, 2, 5)
    moved = cells.flatten(4).flatten(2, 3)
    one, two = (vision(x, prompts, {"tokens"}, TWO_POINTS) for x in (images, moved))
    torch.testing.assert_close(two.pooled, one.pooled, atol=1e-5, rtol=0)
    assert not torch.equal(two.kept, one.kept)
    for i in range(3):
        tokens = dict(zip(one.kept[i].tolist(), one.tokens[i], strict=True))
        for number, token in zip(order[two.kept[i]].tolist(), two.tokens[i], strict=True):
            torch.testing.assert_close(token, tokens[number], atol=1e-5, rtol=0)


def test_images_of_a_batch_do_not_touch_each_other(deep, images, prompts):
    want = {"tokens", "cls_attn", "hidden:3"}
    batch, turned = (deep.vision(x, prompts, want, TWO_POINTS) for x in (images, images.flip(0)))
    assert len({tuple(kept) for kept in batch.kept.tolist()}) == 3
    for i in range(3):
        alone = deep.vision(images[i : i + 1], prompts, want, TWO_POINTS)
        for other, j in ((turned, 2 - i), (alone, 0)):
            assert torch.equal(other.kept[j], batch.kept[i])
            for name in ("pooled", "tokens", "cls_attn"):
                torch.testing.assert_close(getattr(other, name)[j], getattr(batch, name)[i], atol=1e-5, rtol=0)
            torch.testing.assert_close(other.hidden[3][j], batch.hidden[3][i], atol=1e-5, rtol=0)


@pytest.mark.parametrize("prompted", [False, True])
def test_later_blocks_really_run_on_fewer_rows(deep, images, prompts, prompted, monkeypatch):
    ran, looked = [], []
    finish, weights = ResidualAttentionBlock.finish, MultiheadAttention.weights

    def count(self, x, q, k, v, *args, **kwargs):
        ran.append((x.shape[1], q.shape[2], k.shape[2], v.shape[2]))
        return finish(self, x, q, k, v, *args, **kwargs)

    monkeypatch.setattr(ResidualAttentionBlock, "finish", count)
    monkeypatch.setattr(MultiheadAttention, "weights", lambda s, q, k: looked.append(q.shape[2]) or weights(s, q, k))
    p = P if prompted else 0
    deep.vision(images, prompts if prompted else None, prune=TWO_POINTS)
    *rows, last = [n + p for n in LENGTHS]
    assert ran == [*((n, n, n, n) for n in rows), (1, 1, last, last)]  # the last block: class token only
    assert looked == [1, 1]  # one row of attention a pruning point


def test_shapes_are_known_without_data(prompts):
    """On the meta device anything that waits for values (a mask, a count, an item) fails."""
    with torch.device("meta"):
        vision = VisionTower(CLIP(SPEC).visual)
    given = VisualPrompts(prompts.shallow.to("meta"), {2: prompts.deep[2].to("meta")})
    out = vision(torch.empty(3, 3, 32, 32, device="meta"), given, {"tokens", "cls_attn"}, TWO_POINTS)
    assert (out.pooled.shape, out.tokens.shape, out.cls_attn.shape) == ((3, 48), (3, 6, 48), (3, 2, 6))
    assert out.kept.shape == (3, 6)


def test_gradients_reach_all_prompts(deep, images, prompts):
    leaves = [prompts.shallow, *prompts.deep.values()]
    for leaf in leaves:
        leaf.requires_grad_()
    out = deep.vision(images, prompts, {"tokens", "cls_attn"}, TWO_POINTS)
    (out.pooled.square().sum() + out.tokens.square().sum()).backward()
    assert all(leaf.grad.isfinite().all() and leaf.grad.abs().max() > 0 for leaf in leaves)


def test_the_gradient_is_that_of_the_function(randn):
    rows, scores = randn(2, 1 + 5 + 1 + P, 3).double(), randn(2, 1 + 5 + 1 + P).double()
    leaves = (rows.requires_grad_(), scores.requires_grad_())
    assert torch.autograd.gradcheck(lambda r, s: prune_rows(r, s.softmax(1), 5, 2, 1)[0], leaves)
    fused = prune_rows(rows, scores.softmax(1), 5, 2, 1)[0][:, 3]
    assert torch.autograd.grad(fused.sum(), scores)[0].abs().max() > 0


def test_ties_keep_earlier_patches_and_rows_without_attention_count_alike(randn):
    rows = randn(1, 1 + 6, 3)
    for attention in (torch.full((1, 7), 1 / 7), torch.eye(7)[:1]):  # uniform; all of it on the class token
        got, index = prune_rows(rows, attention, 6, 4, 0)
        assert index.tolist() == [[0, 1, 2, 3]]
        torch.testing.assert_close(got[:, 5], rows[:, 5:].mean(dim=1))
        assert torch.equal(got[:, :5], rows[:, :5])


@pytest.mark.parametrize("how", ["weights", "autocast"])
def test_bfloat16(deep, images, prompts, how):
    model = CLIP(SPEC).eval().requires_grad_(False)
    model.load_state_dict(deep.clip.state_dict())
    if how == "weights":
        convert_weights(model, torch.bfloat16)
    want = deep.vision(images, prompts, {"tokens", "cls_attn"}, TWO_POINTS)
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        out = Backbone(model).vision(images, prompts, {"tokens", "cls_attn", "hidden:3"}, TWO_POINTS)
        plain = Backbone(model).vision(images, prompts, {"hidden:3"})
    assert out.pooled.dtype == out.tokens.dtype == torch.bfloat16
    assert out.hidden[3].dtype == plain.hidden[3].dtype
    assert out.cls_attn.dtype == torch.float32
    assert out.tokens.shape == (3, 6, 48)
    assert out.hidden[3].shape == (3, LENGTHS[3] + P, 128)
    assert torch.cosine_similarity(out.pooled.float(), want.pooled).min() > 0.95
    same = sum(len(set(a) & set(b)) for a, b in zip(out.kept.tolist(), want.kept.tolist(), strict=True))
    assert same >= 15  # of 18


def test_counts():
    assert kept_counts(None, 12, 196) == kept_counts({}, 12, 196) == {}
    assert kept_counts({10: 0.7, 4: 0.7, 7: 0.7}, 12, 196) == {4: 138, 7: 97, 10: 68}  # in the order of the blocks
    assert kept_counts({1: 0.07}, 2, 100) == {1: 7}  # 0.07 * 100 = 7.000000000000001
    assert kept_counts({1: 0.5, 2: 1.0, 3: 0.95}, 4, 16) == {1: 8}  # ceil(7.6) drops nothing
    assert kept_counts({np.int64(1): np.float32(0.5)}, 2, 16) == {1: 8}


def test_errors(deep, resnet, images, randn):
    for block in (0, 4, -1, 1.0, "2", None):
        message = rf"follows blocks 1..3 \(counted from 1\) of this tower of 4 blocks, got block {block!r}\."
        with pytest.raises(ValueError, match=message):
            deep.vision(images, prune={block: 0.5})
    for share in (0, -0.5, 1.01, 70, math.nan, math.inf, "0.7", None):
        with pytest.raises(ValueError, match=rf"kept after block 2 must be in \(0, 1\], got {share!r}\."):
            deep.vision(images, prune={2: share})
    for prune in ([(1, 0.5)], 0.5, {1}):
        with pytest.raises(
            ValueError, match=r"prune must map block numbers to kept shares, .*\{4: 0\.7\}, got "
        ) as error:
            deep.vision(images, prune=prune)
        assert repr(prune) in str(error.value)
    with pytest.raises(ValueError, match=r"A share of 1e-12 keeps none of the 8 patches after block 3\."):
        deep.vision(images, prune={3: 1e-12, 1: 0.5})
    message = (
        r"^Prompts, pruning, .* need a ViT image tower, and this backbone is a ResNet, which gives pooled features"
    )
    with pytest.raises(ValueError, match=message):
        resnet.vision(randn(2, 3, 64, 64), prune={1: 0.5})
    assert resnet.vision(randn(2, 3, 64, 64), prune={}).pooled.shape == (2, 24)
