"""The start of the prompts, against tokens that the tower's taps give and statistics computed in NumPy."""

import numpy as np
import pytest
import torch

from trainers.spt.start import LayerStart, StartOptions, start_prompts
from trainers.spt.towers import ClipTower
from trainers.spt.windows import window_bounds


def prompts(n=3, depth=2, width=64):
    return [torch.full((n, width), 7.0) for _ in range(depth)]


@pytest.fixture
def pools(backbone, images):
    """The patch tokens beside which prompts will stand, taken from one full run of the tower, [B, N, w] by layer."""
    with torch.no_grad():
        out = backbone.vision(images, want={"patch_embed", "hidden:1"})
    return [out.patch_embed, out.hidden[1][:, 1:]]


def start(backbone, images, options, batch=2, **size):
    rows = prompts(**size)
    start_prompts(rows, ClipTower(backbone.vision), lambda: images.split(batch), options)
    return rows


def position(row, pool):
    """Where a row is among rows [n, w]."""
    distance = (pool - row).abs().amax(dim=1)
    assert distance.min() < 1e-5
    return int(distance.argmin())


def test_the_tower_gives_the_layers_that_its_taps_give(backbone, images, pools):
    with torch.no_grad():
        layers = list(ClipTower(backbone.vision).layers(images, 2))
    assert len(layers) == 2
    for layer, pool in zip(layers, pools, strict=True):
        torch.testing.assert_close(layer, pool, rtol=1e-5, atol=1e-5)


def test_random_prototypes_are_distinct_tokens_of_their_own_layer(backbone, images, pools):
    for rows, pool in zip(start(backbone, images, StartOptions("random", seed=1)), pools, strict=True):
        flat = pool.flatten(0, 1)
        assert len({position(row, flat) for row in rows}) == 3
    other = start(backbone, images, StartOptions("random", seed=2))
    assert not torch.equal(other[0], start(backbone, images, StartOptions("random", seed=1))[0])


def test_layers_draw_independently(backbone, images, pools):
    first, second = start(backbone, images, StartOptions("random", seed=1))
    flat = [pool.flatten(0, 1) for pool in pools]
    assert [position(row, flat[0]) for row in first] != [position(row, flat[1]) for row in second]


@pytest.mark.parametrize(("strategy", "pooling"), [("mean", np.mean), ("max", np.max)])
def test_pooled_prototypes_are_windows(backbone, images, pools, strategy, pooling):
    for rows, pool in zip(start(backbone, images, StartOptions(strategy), n=4), pools, strict=True):
        bounds = window_bounds(16, 4)  # 5, 5, 5 tokens and the last one
        windows = [pooling(image[a:b], axis=0) for image in pool.numpy() for a, b in bounds]
        flat = torch.from_numpy(np.array(windows))
        assert len({position(row, flat) for row in rows}) == 4


@pytest.mark.parametrize("strategy", ["random", "mean", "max", "kmeans"])
def test_the_start_does_not_depend_on_the_batches(backbone, images, strategy):
    options = StartOptions(strategy)
    for a, b in zip(start(backbone, images, options, 1), start(backbone, images, options, 5), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_kmeans_finds_the_centres_of_clusters_far_apart():
    generator = torch.Generator().manual_seed(0)
    centres = 10 * torch.eye(3, 8)
    tokens = centres[torch.arange(300) % 3] + 0.01 * torch.randn(300, 8, generator=generator)
    layer = LayerStart("kmeans", 3, 1000, (0, 0))
    for batch in tokens.view(6, 50, 8).split(2):
        layer.add(batch)
    found = layer.prototypes()
    order = (found[:, None] - centres).norm(dim=2).argmin(dim=1)
    assert sorted(order.tolist()) == [0, 1, 2]
    torch.testing.assert_close(found, centres[order], atol=0.05, rtol=0)


def test_kmeans_sees_a_capped_number_of_rows(backbone, images):
    few, many = (start(backbone, images, StartOptions("kmeans", rows)) for rows in (8, 10_000))
    assert not torch.equal(few[0], many[0])
    layer = LayerStart("kmeans", 3, 8, (0, 0))
    layer.add(torch.randn(4, 10, 5))
    assert len(layer._drawn.rows()) == 8
    assert layer._drawn.seen == 40


def test_normal_leaves_the_prompts_and_asks_for_no_image(backbone):
    rows = prompts()
    start_prompts(rows, ClipTower(backbone.vision), lambda: pytest.fail("asked for images"), StartOptions("normal"))
    assert all(torch.equal(row, torch.full_like(row, 7.0)) for row in rows)


def test_a_shallow_start_runs_no_block(backbone, images, monkeypatch):
    monkeypatch.setattr(backbone.vision, "blocks", lambda *args: pytest.fail("ran a block"))
    (rows,) = start(backbone, images, StartOptions("mean"), depth=1)
    assert not torch.equal(rows, torch.full_like(rows, 7.0))


def test_unknown_strategy():
    with pytest.raises(ValueError, match="STRATEGY must be one of random, mean, max, kmeans, normal, got 'median'"):
        StartOptions("median")


def test_no_rows_for_kmeans():
    with pytest.raises(ValueError, match="KMEANS_ROWS must be at least 1, got 0"):
        StartOptions("kmeans", 0)


@pytest.mark.parametrize(
    ("strategy", "what"), [("random", "16 tokens"), ("kmeans", "16 tokens"), ("mean", "16 windows")]
)
def test_too_few_tokens(backbone, images, strategy, what):
    with pytest.raises(ValueError, match=f"N_CTX_VISION is 17, but the training images give only {what}"):
        start(backbone, images[:1], StartOptions(strategy), n=17)
