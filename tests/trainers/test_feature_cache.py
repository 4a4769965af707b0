"""Runs with cached features give what runs without give, and notice whatever would make a cache another's."""

import hashlib
import os
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dassl.data import data_manager
from tests.trainers.cached_runs import logits, run, stores
from tests.trainers.every import copied, final_of, moved, record_of
from trainers.cached_images import CachedImages

FROZEN = ("ZeroshotCLIP", "TextPriors", "CoOp", "CoCoOp", "LinearProbe", "TextRefiner", "Spotlighter")
NODE = "TRAINER.SPOTLIGHTER."
PRUNED = (NODE + "PRUNE", "[[1, 0.5]]", NODE + "TOP_K", 3)


# --- the same results


@pytest.mark.parametrize("name", FROZEN)
def test_a_run_with_a_cache_is_that_without_to_the_last_bit(make_cached, make_any, cache_folder, name):
    plain, first, second = (
        run(make_any(name)),
        run(make_cached(name, output="first")),
        run(make_cached(name, output="second")),
    )
    for cached in (first, second):
        assert not moved(plain.method.state_dict(), cached.method.state_dict())
        assert final_of(cached) | {"x": 0} == final_of(plain) | {"x": 0}
        assert torch.equal(logits(cached), logits(plain))
    assert stores(cache_folder)


@pytest.mark.parametrize("prec", ["amp", "bf16"])
@pytest.mark.parametrize("name", ["ZeroshotCLIP", "TextRefiner"])
def test_other_precisions_are_kept_exactly_too(make_cached, make_any, name, prec):
    opts = (f"TRAINER.{name.upper()}.PREC", prec)
    plain, cached = make_any(name, *opts), make_cached(name, *opts)
    for _ in range(2):
        assert torch.equal(logits(cached), logits(plain))


@pytest.mark.parametrize("prune", [(), PRUNED, (*PRUNED, NODE + "PRUNE_TRAIN", True)])
def test_pruned_passes_have_caches_of_their_own(make_cached, make_any, cache_folder, prune):
    plain, cached = run(make_any("Spotlighter", *prune)), run(make_cached("Spotlighter", *prune, output="cached"))
    assert not moved(plain.method.state_dict(), cached.method.state_dict())
    assert torch.equal(logits(cached), logits(plain))
    assert len(stores(cache_folder)) == 2  # of training images, for the bank, and of test images
    logits(make_cached("Spotlighter", NODE + "PRUNE", "[[1, 0.75]]", NODE + "TOP_K", 3))
    assert len(stores(cache_folder)) == 3


def test_half_precision_is_near_and_half_the_size(make_cached, make_any, cache_folder):
    plain = logits(make_any("ZeroshotCLIP"))
    half = logits(make_cached("ZeroshotCLIP", "DATALOADER.CACHE_DTYPE", "fp16"))
    logits(make_cached("ZeroshotCLIP"))
    assert not torch.equal(half, plain)
    torch.testing.assert_close(half, plain, atol=0.02, rtol=0)
    sizes = sorted((cache_folder / store / "pooled.bin").stat().st_size for store in stores(cache_folder))
    assert sizes == [8 * 32 * 2, 8 * 32 * 4]  # 8 test images, d = 32


def test_what_does_not_fit_half_precision_is_refused(make_cached):
    trainer = make_cached("ZeroshotCLIP", "DATALOADER.CACHE_DTYPE", "fp16")
    tower = trainer.feature_cache.tower
    trainer.feature_cache.tower = lambda *args, **kwargs: scaled(tower(*args, **kwargs))

    def scaled(out):
        out.pooled *= 1e6
        return out

    with pytest.raises(ValueError, match=r"^'pooled' holds values that are too large for DATALOADER.CACHE_DTYPE fp16"):
        logits(trainer)


# --- shared


def test_the_second_run_opens_no_image_and_runs_no_encoder(make_cached, encoded, monkeypatch):
    first = logits(make_cached("CoOp", "DATALOADER.TEST.BATCH_SIZE", 3))
    assert encoded == [3, 3, 2]
    encoded.clear()
    monkeypatch.setattr(data_manager, "read_image", lambda path: pytest.fail(f"{path} was opened"))
    again = make_cached("CoOp", "DATALOADER.TEST.BATCH_SIZE", 3)
    assert torch.equal(logits(again), first)
    assert encoded == []


def test_seeds_methods_and_shuffled_labels_share(make_cached, encoded, cache_folder):
    logits(make_cached("CoOp", "SEED", 1))
    encoded.clear()
    for name, *opts in (("CoOp", "SEED", 2), ("ZeroshotCLIP",), ("CoCoOp", "OPTIM.LR", 0.5), ("TextRefiner",)):
        logits(make_cached(name, *opts))
    logits(make_cached("CoOp", "INPUT.TRANSFORMS", "['normalize']"))  # another augmentation of training images only
    assert encoded == []
    assert len(stores(cache_folder)) == 1


def test_views_are_shared_by_seeds(make_cached, encoded):
    run(make_cached("CoOp", "DATALOADER.CACHE_VIEWS", 2, "SEED", 1))
    encoded.clear()
    other = run(make_cached("CoOp", "DATALOADER.CACHE_VIEWS", 2, "SEED", 2, output="other"))
    assert encoded == []
    assert record_of(other)["finished"]


# --- views


def seed_of(path, view):
    """As docs/cache.md says."""
    content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return int.from_bytes(hashlib.blake2b(f"view/{content}/{view}".encode(), digest_size=8).digest(), "big") >> 1


def test_epoch_e_takes_view_e_modulo_the_number_of_views(make_cached):
    trainer = make_cached("CoOp", "DATALOADER.CACHE_VIEWS", 2)
    loader, transform, tower = (
        trainer.train_loader_x,
        trainer.dm.train_loader_x.dataset.transform,
        trainer.backbone.vision,
    )
    for epoch in range(5):
        loader.start_epoch(epoch)
        seen = 0
        for batch in loader:
            found = trainer.method.image(batch["img"]).pooled
            for path, feature in zip(batch["impath"], found, strict=True):
                seed = seed_of(path, epoch % 2)
                random.seed(seed)
                np.random.seed(seed % 2**32)
                torch.manual_seed(seed)
                image = transform(Image.open(path).convert("RGB"))
                torch.testing.assert_close(feature, tower(image[None]).pooled[0])
                seen += 1
        assert seen == 12


def test_images_come_in_the_order_that_they_have_without_a_cache(make_cached, make_any):
    cached, plain = make_cached("CoOp", "DATALOADER.CACHE_VIEWS", 1), make_any("CoOp")
    for epoch in range(2):
        paths = []
        for trainer in (cached, plain):
            trainer.train_loader_x.start_epoch(epoch)
            paths.append([path for batch in trainer.train_loader_x for path in batch["impath"]])
        assert paths[0] == paths[1]


@pytest.mark.parametrize("name", ["CoOp", "Spotlighter", "TextRefiner"])
def test_training_on_views_learns_and_goes_on_bit_for_bit(make_cached, name, monkeypatch):
    opts = ("DATALOADER.CACHE_VIEWS", 2, "OPTIM.MAX_EPOCH", 3)
    whole = make_cached(name, *opts, output="whole")
    before = copied(whole.method.state_dict())
    whole.train()
    assert moved(before, whole.method.state_dict())
    broken = make_cached(name, *opts, output="broken")
    finish = broken.finish_step

    def stop(losses):
        if (broken.epoch, broken.batch_idx) == (1, 1):
            os.kill(os.getpid(), signal.SIGTERM)
        finish(losses)

    monkeypatch.setattr(broken, "finish_step", stop)
    with pytest.raises(SystemExit):
        broken.train()
    again = make_cached(name, *opts, output="broken")
    again.train()
    assert not moved(whole.method.state_dict(), again.method.state_dict())
    assert final_of(again) == final_of(whole)


def test_a_signal_while_features_are_computed_stops_the_run(make_cached, cache_folder, monkeypatch):
    trainer = make_cached("CoOp", "DATALOADER.CACHE_VIEWS", 2, "DATALOADER.TEST.BATCH_SIZE", 4)
    tower = trainer.feature_cache.tower

    def stop(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        return tower(*args, **kwargs)

    trainer.feature_cache.tower = stop
    with pytest.raises(SystemExit):
        trainer.train()
    assert stores(cache_folder) == set()
    assert not list(cache_folder.glob(".*tmp*"))
    run(make_cached("CoOp", "DATALOADER.CACHE_VIEWS", 2))


def test_a_run_goes_on_with_its_cache_in_another_place(make_any, tmp_path):
    run(make_any("CoOp", "DATALOADER.CACHE", tmp_path / "here", "DATALOADER.CACHE_LIMIT", 1.0))
    run(make_any("CoOp", "DATALOADER.CACHE", tmp_path / "there"))  # finished: would refuse another config
    with pytest.raises(ValueError, match=r"DATALOADER.CACHE_VIEWS was 0, is 1"):
        run(make_any("CoOp", "DATALOADER.CACHE", tmp_path / "there", "DATALOADER.CACHE_VIEWS", 1))


def test_images_on_a_device(backbone):
    rows = np.arange(3)
    images = CachedImages(None, rows).to(torch.device("meta"), non_blocking=True)
    assert len(images) == 3
    assert images.device.type == "meta"
