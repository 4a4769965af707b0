"""Pruning by each of its ways against a naive NumPy ViT that loops over images, heads and rows, and its properties."""

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from clip.backbone import Backbone, Pruning, VisionTower, VisualPrompts
from clip.layers import MultiheadAttention, ResidualAttentionBlock
from clip.model import CLIP, CLIPSpec, convert_weights
from clip.pruning import WAYS, distinctness, drop_rows
from tests.clip.naive_vit import N, NaiveViT

P = 2
SPEC = CLIPSpec(48, 32, 4, 128, 8, vocab_size=50, transformer_width=64, transformer_heads=1, transformer_layers=1)
LENGTHS = {"distinct": [17, 14, 14, 8], "attention": [17, 14, 14, 8], "merge": [17, 13, 13, 7]}  # entering each block
WANT = frozenset({"tokens", "cls_attn", "patch_embed", "hidden:1", "hidden:2", "hidden:3", "hidden:4"})
SOME = {"tokens", "cls_attn", "hidden:3"}

every_way = pytest.mark.parametrize("by", WAYS)


def two_points(by) -> Pruning:
    """Of 16 patches 12 and 6 travel on."""
    return Pruning(((1, 0.7), (3, 0.5)), by)


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


def copy_of(backbone) -> CLIP:
    model = CLIP(SPEC).eval().requires_grad_(False)
    model.load_state_dict(backbone.clip.state_dict())
    return model


def compare(backbone, images, prompts, prune, by):
    depth = backbone.vision.n_blocks
    hidden = [f"hidden:{b}" for b in range(depth)]
    given = Pruning(tuple((block, kept / of) for block, (kept, of) in prune.items()), by)
    out = backbone.vision(images, prompts, {"tokens", "cls_attn", *hidden}, given)
    naive = NaiveViT(backbone.clip)
    want = [naive(image, prompts, prune, by) for image in images.double().numpy()]
    got = {name: getattr(out, name) for name in ("pooled", "tokens", "cls_attn", "kept", "group", "sizes")}
    for name, tensor in {**got, **{f"hidden:{b}": rows for b, rows in out.hidden.items()}}.items():
        np.testing.assert_allclose(tensor, np.stack([w[name] for w in want]), atol=5e-5, err_msg=name)
    assert out.n_fused == (by != "merge")
    assert out.kept.dtype == out.group.dtype == torch.int64
    assert out.sizes.dtype == torch.float32
    short = backbone.vision(images, prompts, prune=given)  # the last block for the class token only
    np.testing.assert_allclose(short.pooled, out.pooled, atol=5e-6)
    for name in ("kept", "group", "sizes", "n_fused"):
        np.testing.assert_array_equal(getattr(short, name), getattr(out, name))


@pytest.mark.parametrize(
    ("share", "by"),
    [(share, by) for by in WAYS for share in ((1, 2), (15, 16), (1, 4), (1, 100))[: 2 if by == "merge" else 4]],
)
def test_two_blocks_equal_the_naive_model(tiny_clip, images, share, by):
    compare(Backbone(tiny_clip), images, None, {1: share}, by)


@pytest.mark.parametrize("prompted", ["none", "shallow", "deep"])
@pytest.mark.parametrize(
    "prune", [{2: (1, 2)}, {3: (2, 3)}, {1: (7, 10), 3: (1, 2)}, {2: (3, 4), 1: (3, 4), 3: (3, 4)}], ids=str
)
@every_way
def test_four_blocks_equal_the_naive_model(deep, images, prompts, prompted, prune, by):
    given = {"none": None, "shallow": VisualPrompts(prompts.shallow), "deep": prompts}[prompted]
    compare(deep, images, given, dict(sorted(prune.items())), by)


def equal(got, want):
    for name in ("pooled", "tokens", "cls_attn", "patch_embed", "kept", "group", "sizes"):
        a, b = getattr(got, name), getattr(want, name)
        assert (a is None and b is None) or torch.equal(a, b), name
    assert got.n_fused == want.n_fused
    assert got.hidden.keys() == want.hidden.keys()
    assert all(torch.equal(rows, want.hidden[block]) for block, rows in got.hidden.items())


@pytest.mark.parametrize("shares", [(), ((1, 1.0),), ((1, 1), (2, 1), (3, 1)), ((2, 0.95),)], ids=str)
@every_way
def test_nothing_pruned_is_the_plain_pass_with_no_extra_work(deep, images, prompts, shares, by, monkeypatch):
    want = deep.vision(images, prompts, WANT)
    monkeypatch.setattr("clip.vision.run_pruned", None)
    monkeypatch.setattr("clip.vision.size_bias", None)
    equal(deep.vision(images, prompts, WANT, Pruning(shares, by)), want)
    assert want.kept is want.group is want.sizes is None
    monkeypatch.setattr(MultiheadAttention, "weights", None)  # no attention weights either
    assert torch.equal(
        deep.vision(images, prompts, prune=Pruning(shares, by)).pooled, deep.vision(images, prompts).pooled
    )


@every_way
def test_a_second_point_that_prunes_nothing_changes_nothing(deep, images, prompts, by):
    want = deep.vision(images, prompts, WANT, Pruning(((1, 0.5),), by))
    equal(deep.vision(images, prompts, WANT, Pruning(((1, 0.5), (2, 0.99), (3, 1.0)), by)), want)
    assert want.kept.shape == (3, 8)


def test_kept_patches_are_those_the_class_token_looks_at(deep, images, prompts):
    out = deep.vision(images, prompts, WANT, Pruning(((2, 0.4),), "attention"))
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


@every_way
def test_rows_that_take_nothing_in_are_untouched(deep, images, prompts, by):
    out = deep.vision(images, prompts, WANT, Pruning(((2, 0.75),), by))
    unpruned = deep.vision.blocks(deep.vision.hidden(images, 1, prompts), 1, 2, prompts)
    assert out.hidden[2].shape == (3, 1 + 12 + out.n_fused + P, 128)
    for i, kept in enumerate(out.kept):
        alone = out.sizes[i, :12] == 1
        assert alone.sum() >= 8
        torch.testing.assert_close(out.hidden[2][i, 1:13][alone], unpruned[i, 1 + kept[alone]], atol=1e-6, rtol=0)
    torch.testing.assert_close(out.hidden[2][:, 0], unpruned[:, 0], atol=1e-6, rtol=0)
    assert torch.equal(out.hidden[2][:, -P:], prompts.deep[2].expand(3, -1, -1))


@every_way
def test_each_patch_belongs_to_one_row_and_sizes_count_them(deep, images, prompts, by):
    out = deep.vision(images, prompts, prune=two_points(by))
    assert out.group.shape == (3, N)
    for i in range(3):
        members = out.group[i].bincount(minlength=out.sizes.shape[1])
        assert torch.equal(members.float(), out.sizes[i])
        assert torch.equal(out.group[i, out.kept[i]], torch.arange(6))  # a row stands in the place of one of its own
    assert (out.sizes.sum(dim=1) == N).all()


def test_what_is_common_stays_common_while_it_is_pruned():
    """Ten like rows of which only one is left still outweigh three of another kind."""
    rows = torch.eye(3)[[0, 1, 1, 1]][None]  # one background row, fused rows behind it in `sizes`
    scores = distinctness(torch.cat([rows, torch.eye(3)[None, :1]], dim=1), torch.tensor([[1.0, 1, 1, 1, 9]]), 4)
    assert scores.shape == (1, 4)
    assert (scores[0, 1:] > scores[0, 0]).all()


@every_way
def test_permuted_patches_give_the_same_feature(deep, images, prompts, by):
    """In merging only within each of the two sets, since an even patch looks for an odd one."""
    model = copy_of(deep)
    model.visual.positional_embedding[1:] = model.visual.positional_embedding[1]
    vision, generator = Backbone(model).vision, torch.Generator().manual_seed(5)
    order = torch.randperm(N, generator=generator)
    if by == "merge":
        halves = torch.randperm(N // 2, generator=generator), torch.randperm(N // 2, generator=generator)
        order = torch.stack([2 * halves[0], 2 * halves[1] + 1], dim=1).flatten()
    cells = images.unflatten(3, (4, 8)).unflatten(2, (4, 8)).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # [B, N, 3, 8, 8]
    cells = cells[:, order].unflatten(1, (4, 4)).permute(0, 3, 1, 4, 2, 5)
    moved = cells.flatten(4).flatten(2, 3)
    points = two_points(by) if by != "merge" else Pruning(((1, 0.7),), by)  # later rows are not dealt as before
    one, two = (vision(x, prompts, {"tokens"}, points) for x in (images, moved))
    torch.testing.assert_close(two.pooled, one.pooled, atol=1e-5, rtol=0)
    assert not torch.equal(two.kept, one.kept)
    for i in range(3):
        tokens = dict(zip(one.kept[i].tolist(), one.tokens[i], strict=True))
        for number, token in zip(order[two.kept[i]].tolist(), two.tokens[i], strict=True):
            torch.testing.assert_close(token, tokens[number], atol=1e-5, rtol=0)


@every_way
def test_images_of_a_batch_do_not_touch_each_other(deep, images, prompts, by):
    batch, turned = (deep.vision(x, prompts, SOME, two_points(by)) for x in (images, images.flip(0)))
    assert len({tuple(kept) for kept in batch.kept.tolist()}) == 3
    for i in range(3):
        alone = deep.vision(images[i : i + 1], prompts, SOME, two_points(by))
        for other, j in ((turned, 2 - i), (alone, 0)):
            assert torch.equal(other.kept[j], batch.kept[i])
            for name in ("pooled", "tokens", "cls_attn"):
                torch.testing.assert_close(getattr(other, name)[j], getattr(batch, name)[i], atol=1e-5, rtol=0)
            torch.testing.assert_close(other.hidden[3][j], batch.hidden[3][i], atol=1e-5, rtol=0)


@pytest.mark.parametrize("prompted", [False, True])
@every_way
def test_later_blocks_really_run_on_fewer_rows(deep, images, prompts, prompted, by, monkeypatch):
    ran, looked = [], []
    finish, weights = ResidualAttentionBlock.finish, MultiheadAttention.weights

    def count(self, x, q, k, v, *args, **kwargs):
        ran.append((x.shape[1], q.shape[2], k.shape[2], v.shape[2]))
        return finish(self, x, q, k, v, *args, **kwargs)

    def look(self, q, *args):
        looked.append(q.shape[2])
        return weights(self, q, *args)

    monkeypatch.setattr(ResidualAttentionBlock, "finish", count)
    monkeypatch.setattr(MultiheadAttention, "weights", look)
    p = P if prompted else 0
    deep.vision(images, prompts if prompted else None, prune=two_points(by))
    *rows, last = [n + p for n in LENGTHS[by]]
    assert ran == [*((n, n, n, n) for n in rows), (1, 1, last, last)]  # the last block: class token only
    assert looked == ([1, 1] if by == "attention" else [])  # one row of attention a pruning point


@every_way
def test_shapes_are_known_without_data(prompts, by, monkeypatch):
    """On the meta device anything that waits for values (a mask, a count, an item) fails."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())  # it knows no such device
    with torch.device("meta"):
        vision = VisionTower(CLIP(SPEC).visual)
    given = VisualPrompts(prompts.shallow.to("meta"), {2: prompts.deep[2].to("meta")})
    out = vision(torch.empty(3, 3, 32, 32, device="meta"), given, {"tokens", "cls_attn"}, two_points(by))
    assert (out.pooled.shape, out.tokens.shape, out.cls_attn.shape) == ((3, 48), (3, 6, 48), (3, 2, 6))
    assert (out.kept.shape, out.group.shape, out.sizes.shape) == ((3, 6), (3, N), (3, 6 + out.n_fused))


@every_way
def test_a_resumed_pass_equals_the_whole_one(deep, images, prompts, by):
    want = deep.vision(images, prompts, SOME, two_points(by))
    rows = want.hidden[3]
    rest = deep.vision.resume(rows, 3, {"tokens", "cls_attn"}, VisualPrompts(prompts.shallow), want.sizes)
    torch.testing.assert_close(rest.pooled, want.pooled)
    torch.testing.assert_close(rest.tokens[:, :6], want.tokens)
    torch.testing.assert_close(rest.cls_attn[:, :, :6], want.cls_attn)
    blind = deep.vision.resume(rows, 3, prompts=VisualPrompts(prompts.shallow))
    assert (blind.pooled - want.pooled).abs().max() > 1e-3  # every row counted as one patch
    with pytest.raises(ValueError, match=rf"^sizes must be \[B, m\] = \[3, {6 + want.n_fused}\], got \[3, 2\]\.$"):
        deep.vision.resume(rows, 3, prompts=VisualPrompts(prompts.shallow), sizes=want.sizes[:, :2])


@every_way
def test_gradients_reach_all_prompts(deep, images, prompts, by):
    leaves = [prompts.shallow, *prompts.deep.values()]
    for leaf in leaves:
        leaf.requires_grad_()
    out = deep.vision(images, prompts, {"tokens", "cls_attn"}, two_points(by))
    (out.pooled.square().sum() + out.tokens.square().sum()).backward()
    assert all(leaf.grad.isfinite().all() and leaf.grad.abs().max() > 0 for leaf in leaves)


def test_the_gradient_is_that_of_the_function(randn):
    rows, scores = randn(2, 1 + 5 + 1 + P, 3).double(), randn(2, 6).double()
    leaves = (rows.requires_grad_(), scores.requires_grad_())

    def fused(rows, scores):
        weights = scores.softmax(dim=1)
        return drop_rows(rows, weights[:, :5], weights, 2, 1)[0]

    assert torch.autograd.gradcheck(fused, leaves)
    assert torch.autograd.grad(fused(*leaves)[:, 3].sum(), scores)[0].abs().max() > 0


def test_ties_keep_earlier_patches_and_rows_without_weight_count_alike(randn):
    rows = randn(1, 1 + 6, 3)
    for weights in (torch.full((1, 6), 1 / 7), torch.zeros(1, 6)):
        got, index, place = drop_rows(rows, weights, weights, 4, 0)
        assert index.tolist() == [[0, 1, 2, 3]]
        assert place.tolist() == [[0, 1, 2, 3, 4, 4]]
        torch.testing.assert_close(got[:, 5], rows[:, 5:].mean(dim=1))
        assert torch.equal(got[:, :5], rows[:, :5])


@pytest.mark.parametrize("how", ["weights", "autocast"])
@every_way
def test_bfloat16(deep, images, prompts, how, by):
    model = copy_of(deep)
    if how == "weights":
        convert_weights(model, torch.bfloat16)
    want = deep.vision(images, prompts, {"tokens", "cls_attn"}, two_points(by))
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        out = Backbone(model).vision(images, prompts, SOME, two_points(by))
        plain = Backbone(model).vision(images, prompts, {"hidden:3"})
    assert out.pooled.dtype == out.tokens.dtype == torch.bfloat16
    assert out.hidden[3].dtype == plain.hidden[3].dtype
    assert out.cls_attn.dtype == out.sizes.dtype == torch.float32
    assert out.tokens.shape == (3, 6, 48)
    assert out.hidden[3].shape == (3, LENGTHS[by][3] + P, 128)
    assert torch.cosine_similarity(out.pooled.float(), want.pooled).min() > 0.95
    same = sum(len(set(a) & set(b)) for a, b in zip(out.kept.tolist(), want.kept.tolist(), strict=True))
    assert same >= 15  # of 18


def test_counts():
    assert Pruning(()).counts(12, 196) == {}
    points = ((10, 0.7), (4, 0.7), (7, 0.7))
    assert Pruning(points).counts(12, 196) == {4: 138, 7: 97, 10: 68}  # in the order of the blocks
    assert Pruning(((1, 0.07),)).counts(2, 100) == {1: 7}  # 0.07 * 100 = 7.000000000000001
    assert Pruning([[1, 0.5], [2, 1.0], [3, 0.95]]).counts(4, 16) == {1: 8}  # ceil(7.6) drops nothing
    assert Pruning(((np.int64(1), np.float32(0.5)),)).counts(2, 16) == {1: 8}
    assert Pruning(((1, 0.5),), "merge").counts(2, 17) == {1: 9}
    assert {Pruning([[3, 0.5], [1, 0.5]]), Pruning(points[:1])} == {Pruning(((1, 0.5), (3, 0.5))), Pruning(points[:1])}


def test_errors(deep, resnet, images, randn):
    for block in (0, 4, -1):
        message = rf"follows blocks 1..3 \(counted from 1\) of this tower of 4 blocks, got block {block!r}\."
        with pytest.raises(ValueError, match=message):
            deep.vision(images, prune=Pruning(((block, 0.5),)))
    for share in (0, -0.5, 1.01, 70, math.nan, math.inf):
        with pytest.raises(ValueError, match=rf"kept after block 2 must be in \(0, 1\], got {share!r}\."):
            Pruning(((2, share),))
    for pairs in (0.5, {1: 0.5}, "12", [0.5], [(1,)], [(1, 0.5, 2)], [(1.0, 0.5)], [("2", 0.5)], [(2, "0.7")], ["12"]):
        with pytest.raises(ValueError, match=r"^Pruning takes pairs of a block and a share, .*, got ") as error:
            Pruning(pairs)
        assert repr(pairs) in str(error.value)
    with pytest.raises(ValueError, match=r"^Pruning names a block twice: \(\(1, 0\.5\), \(1, 0\.7\)\)\.$"):
        Pruning(((1, 0.5), (1, 0.7)))
    with pytest.raises(ValueError, match=r"^Patches are pruned by distinct, attention, merge, got 'random'\.$"):
        Pruning(((1, 0.5),), "random")
    message = r"keeps at least half of the patches, so the share after block 2 must be in \[0\.5, 1\], got 0\.4; merge"
    with pytest.raises(ValueError, match=message):
        Pruning(((2, 0.4),), "merge")
    with pytest.raises(ValueError, match=r"A share of 1e-12 keeps none of the 8 patches after block 3\."):
        deep.vision(images, prune=Pruning(((3, 1e-12), (1, 0.5))))
    message = (
        r"^Prompts, pruning, .* need a ViT image tower, and this backbone is a ResNet, which gives pooled features"
    )
    with pytest.raises(ValueError, match=message):
        resnet.vision(randn(2, 3, 64, 64), prune=Pruning(((1, 0.5),)))
