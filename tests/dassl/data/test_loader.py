"""Order and augmentation depend on (seed, epoch, position) alone; loading leaves no trace; failures are sentences."""

import multiprocessing
import os
import random
import signal
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, RandomSampler, SequentialSampler

from dassl.data import DatasetWrapper, loader_state, restore_loader, start_epoch
from dassl.data.data_manager import build_data_loader
from dassl.data.datasets import Datum
from dassl.data.loader import EpochLoader, seeded_batches
from dassl.data.transforms import build_transform
from dassl.utils import ImageReadError

AUGMENT = ("random_resized_crop", "random_flip", "randaugment", "cutout", "normalize", "gaussian_noise")


@pytest.fixture
def items(make_data):
    return make_data([i % 3 for i in range(11)])


@pytest.fixture
def make_loader(cfg, items):
    def make(workers=0, batch_size=4, stream="train_x", sampler="RandomSampler", **kwargs):
        cfg.DATALOADER.NUM_WORKERS = workers
        return build_data_loader(
            cfg,
            sampler,
            items,
            batch_size,
            n_ins=2,
            tfm=build_transform(cfg, choices=AUGMENT),
            stream=stream,
            **kwargs,
        )

    return make


def _run(loader):
    batches = list(loader)
    return [i for b in batches for i in b["index"].tolist()], [b["img"] for b in batches]


def _equal(a, b):
    return a[0] == b[0] and len(a[1]) == len(b[1]) and all(torch.equal(x, y) for x, y in zip(a[1], b[1], strict=True))


def _global_state():
    return (
        random.getstate(),
        np.random.get_state()[1].tolist(),
        np.random.get_state()[2],
        torch.get_rng_state().tolist(),
    )


@pytest.mark.parametrize("sampler", ["RandomSampler", "RandomClassSampler"])
def test_workers_change_nothing(make_loader, sampler):
    passes = []
    for workers in (0, 1, 2):
        loader = make_loader(workers, sampler=sampler)
        passes.append([_run(loader), _run(loader)])
    for other in passes[1:]:
        assert all(_equal(a, b) for a, b in zip(passes[0], other, strict=True))
    assert not _equal(*passes[0])  # the second pass differs from the first


@pytest.mark.parametrize("workers", [0, 2])
def test_global_generators_are_left_alone(make_loader, workers):
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    before = _global_state()
    first = _run(make_loader(workers))
    assert _global_state() == before
    random.seed(11)
    np.random.seed(12)
    torch.manual_seed(13)
    assert _equal(_run(make_loader(workers)), first)


def test_global_generators_are_left_alone_by_a_failing_sample():
    class Fails(Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            random.random()
            torch.rand(())
            raise ZeroDivisionError("mine")

    before = _global_state()
    with pytest.raises(ZeroDivisionError, match="mine"):
        next(iter(EpochLoader(Fails(), SequentialSampler(range(2)), 1)))
    assert _global_state() == before


def test_seed_and_stream_decide(cfg, make_loader):
    base = _run(make_loader())
    assert _equal(_run(make_loader()), base)
    assert not _equal(_run(make_loader(stream="train_u")), base)
    cfg.SEED = 4
    assert not _equal(_run(make_loader()), base)


def test_without_seed_torchs_counts(cfg, make_loader):
    cfg.SEED = -1
    torch.manual_seed(5)
    one, same = _run(make_loader()), _run(make_loader())
    torch.manual_seed(6)
    other = _run(make_loader())
    assert _equal(one, same)
    assert not _equal(one, other)
    cfg.SEED = 5
    assert _equal(_run(make_loader()), one)


def test_each_image_once_and_each_view_new(make_loader):
    loader = make_loader()
    indices, first = _run(loader)
    assert len(indices) == len(set(indices)) == 8  # 11 images, the last 3 dropped
    again = _run(loader)
    by_index = {
        i: view for batch, images in ((indices, first),) for i, view in zip(batch, torch.cat(images), strict=True)
    }
    repeated = [(i, view) for i, view in zip(again[0], torch.cat(again[1]), strict=True) if i in by_index]
    assert repeated
    assert not any(torch.equal(by_index[i], view) for i, view in repeated)


def test_epochs_and_restarts(make_loader):
    loader = make_loader()
    free = [_run(loader) for _ in range(3)]  # nobody names epochs: restarts 0, 1, 2 of epoch 0
    loader = make_loader()
    start_epoch(loader, 0)
    assert _equal(_run(loader), free[0])
    assert _equal(_run(loader), free[1])
    start_epoch(loader, 1)
    second = _run(loader)
    assert not any(_equal(second, run) for run in free)
    start_epoch(loader, 0)
    assert _equal(_run(loader), free[0])
    start_epoch(make_loader(), 1)
    fresh = make_loader()
    start_epoch(fresh, 1)  # straight to epoch 1, without epoch 0
    assert _equal(_run(fresh), second)


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_continues_exactly(make_loader, items, workers, tmp_path):
    loader = make_loader(workers, batch_size=2)
    start_epoch(loader, 3)
    whole = list(loader)
    assert len(whole) == len(loader) == 5

    loader = make_loader(workers, batch_size=2)
    start_epoch(loader, 3)
    for n, _ in enumerate(loader, start=1):
        if n == 2:
            torch.save(loader_state(loader), tmp_path / "state.pt")
            break
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state == {"seed": 3, "epoch": 3, "restart": 0, "batches": 2, "length": 5, "replaced": 0, "damaged": {}}

    for skip, expected in ((None, 2), (0, 0), (4, 4), (5, 5)) if workers == 0 else ((None, 2),):
        resumed = make_loader(workers, batch_size=2)
        restore_loader(resumed, state, skip)
        start_epoch(resumed, 3)  # keeps the position
        rest = list(resumed)
        assert len(rest) == 5 - expected
        assert len(resumed) == 5
        assert all(
            torch.equal(a["img"], b["img"]) and a["impath"] == b["impath"]
            for a, b in zip(rest, whole[expected:], strict=True)
        )
        start_epoch(resumed, 4)
        fresh = make_loader(workers, batch_size=2)
        start_epoch(fresh, 4)
        assert _equal(_run(resumed), _run(fresh))


def test_resume_within_a_restart(make_loader):
    loader = make_loader(batch_size=2)
    start_epoch(loader, 1)
    list(loader)
    second = iter(loader)
    next(second)
    state = loader_state(loader)
    assert (state["epoch"], state["restart"], state["batches"]) == (1, 1, 1)
    resumed = make_loader(batch_size=2)
    restore_loader(resumed, state)
    assert all(torch.equal(a["img"], b["img"]) for a, b in zip(list(second), list(resumed), strict=True))
    assert loader_state(resumed) == loader_state(loader)


def test_state_before_the_first_batch(make_loader):
    loader = make_loader()
    start_epoch(loader, 2)
    expected = {"seed": 3, "epoch": 2, "restart": 0, "batches": 0, "length": 2, "replaced": 0, "damaged": {}}
    assert loader_state(loader) == expected


def test_restored_seed_counts(cfg, make_loader):
    first = make_loader()
    state = loader_state(first)
    cfg.SEED = 99
    other = make_loader()
    restore_loader(other, state)
    assert _equal(_run(other), _run(first))


def test_another_length_is_refused(make_loader):
    state = loader_state(make_loader(batch_size=2))
    with pytest.raises(ValueError, match="The saved run had 5 batches an epoch, this one has 2; resume with the same"):
        restore_loader(make_loader(batch_size=4), state)


def test_other_loaders_are_left_alone():
    plain = DataLoader(range(4))
    for loader in (plain, None):
        start_epoch(loader, 3)
        assert loader_state(loader) == {}
        restore_loader(loader, {"length": 9})
    assert len(list(plain)) == 4


def test_skipped_samples_are_not_loaded():
    reads = []

    class Counts(Dataset):
        def __len__(self):
            return 10

        def __getitem__(self, index):
            reads.append(index)
            return index

    loader = EpochLoader(Counts(), SequentialSampler(range(10)), 2)
    restore_loader(loader, loader_state(loader), skip_batches=3)
    assert [batch.tolist() for batch in loader] == [[6, 7], [8, 9]]
    assert reads == [6, 7, 8, 9]


@pytest.mark.parametrize("workers", [0, 2])
def test_foreign_dataset_sees_plain_indices_and_its_random_calls_are_seeded(workers):
    class Foreign(Dataset):
        def __len__(self):
            return 6

        def __getitem__(self, index):
            assert type(index) is int
            return {"index": index, "r": random.random(), "n": np.random.rand(), "t": torch.rand(())}

    def run():
        generator = torch.Generator()
        sampler = RandomSampler(range(6), generator=generator)
        loader = EpochLoader(Foreign(), sampler, 3, seed=1, generator=generator, num_workers=workers)
        return [{k: v.tolist() for k, v in batch.items()} for batch in loader]

    one = run()
    assert one == run()
    for key in ("r", "n", "t"):
        assert len({value for batch in one for value in batch[key]}) == 6


def test_it_is_a_dataloader(make_loader, items):
    loader = make_loader(2)
    assert isinstance(loader, DataLoader)
    assert isinstance(loader.dataset, DatasetWrapper)
    assert loader.dataset.data_source is items
    assert isinstance(loader.sampler, RandomSampler)
    assert (loader.batch_size, loader.drop_last, loader.num_workers, len(loader)) == (4, True, 2, 2)
    assert loader.persistent_workers
    assert not make_loader(0).persistent_workers


def test_no_more_workers_than_batches(make_loader):
    assert make_loader(16, batch_size=4).num_workers == 2


def test_workers_live_on_between_passes(make_loader):
    before = set(multiprocessing.active_children())
    loader = make_loader(2)
    list(loader)
    workers = {child.pid for child in set(multiprocessing.active_children()) - before}
    assert len(workers) == 2
    list(loader)
    assert {child.pid for child in set(multiprocessing.active_children()) - before} == workers


@pytest.mark.parametrize(
    ("n", "is_train", "sizes"), [(11, True, [4, 4]), (3, True, [3]), (4, True, [4]), (11, False, [4, 4, 3])]
)
def test_last_batch(cfg, make_data, n, is_train, sizes):
    tfm = build_transform(cfg)
    loader = build_data_loader(cfg, "RandomSampler", make_data([0] * n), 4, tfm=tfm, is_train=is_train)
    assert [len(batch["label"]) for batch in loader] == sizes
    assert len(loader) == len(sizes)


def test_evaluation_passes_are_equal(cfg, make_loader):
    loader = make_loader(is_train=False, sampler="SequentialSampler")
    first = _run(loader)
    start_epoch(loader, 5)
    assert _equal(_run(loader), first)
    assert first[0] == list(range(11))


def test_pictures_without_transform_stay_a_list(cfg, items):
    loader = build_data_loader(cfg, "SequentialSampler", items, 4, tfm=None, is_train=False)
    batch = next(iter(loader))
    assert all(isinstance(image, Image.Image) for image in batch["img"])
    assert batch["label"].tolist() == [0, 1, 2, 0]


def _message(loader, kind):
    try:  # pytest.raises would keep the traceback, and with it the workers
        list(loader)
    except kind as error:
        return str(error)
    pytest.fail("nothing was raised")


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_and_vanished_images_are_one_sentence(cfg, tmp_path, workers):
    from dassl.data.datasets import Datum

    paths = [str(tmp_path / f"{i}.png") for i in range(3)]
    for path in paths:
        Image.new("RGB", (8, 8)).save(path)
    items = [Datum(path) for path in paths]
    cfg.DATALOADER.NUM_WORKERS = workers
    loader = build_data_loader(cfg, "SequentialSampler", items, 1, tfm=build_transform(cfg), is_train=False)
    assert len(list(loader)) == 3
    (tmp_path / "1.png").write_bytes(b"damaged")
    damaged = _message(loader, RuntimeError)
    (tmp_path / "1.png").unlink()
    vanished = _message(loader, FileNotFoundError)
    for message, start in ((damaged, "Cannot read the image "), (vanished, "No image at ")):
        assert message.startswith(start + paths[1])
        assert "\n" not in message
    Image.new("RGB", (8, 8)).save(paths[1])
    assert len(list(loader)) == 3  # and the loader still works


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="needs sigwaitinfo")
def test_workers_outlive_a_signal_to_the_whole_group(make_loader):
    expected = _run(make_loader(0, batch_size=1))
    before = set(multiprocessing.active_children())
    loader = make_loader(2, batch_size=1)
    batches = []
    for batch in loader:
        batches.append(batch["img"])
        if len(batches) == 2:
            for child in set(multiprocessing.active_children()) - before:
                os.kill(child.pid, signal.SIGINT)
                subprocess.run(["kill", "-TERM", str(child.pid)], check=True)  # not from the parent itself
    assert len(batches) == 11
    assert all(torch.equal(a, b) for a, b in zip(batches, expected[1], strict=True))


def test_bad_batch_sizes(cfg, items, make_data):
    with pytest.raises(ValueError, match="the batch size must be at least 1, got 0"):
        build_data_loader(cfg, "RandomSampler", items, 0)
    with pytest.raises(ValueError, match="RandomSampler got no image to draw from"):
        build_data_loader(cfg, "RandomSampler", [], 4)
    with pytest.raises(ValueError, match="RandomClassSampler makes no batch of 7 from 11 images; choose"):
        build_data_loader(cfg, "RandomClassSampler", items, 7, n_ins=3)


# ---- a pass of chosen samples


@pytest.mark.parametrize("workers", [0, 2])
def test_chosen_samples_come_in_their_order_under_their_seeds(cfg, items, workers):
    transform = build_transform(cfg, choices=AUGMENT)
    samples = [(3, 11), (0, 12), (3, 11), (3, 13), (10, 14)]
    before = _global_state()
    batches = list(seeded_batches(DatasetWrapper(cfg, items, transform), samples, 2, workers))
    assert _global_state() == before
    assert [batch["index"].tolist() for batch in batches] == [[3, 0], [3, 3], [10]]
    images = torch.cat([batch["img"] for batch in batches])
    assert torch.equal(images[0], images[2])
    assert not torch.equal(images[0], images[3])
    for (index, seed), image in zip(samples, images, strict=True):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        assert torch.equal(image, transform(Image.open(items[index].impath).convert("RGB")))


def test_an_unreadable_image_among_chosen_samples_is_a_sentence(cfg, items, tmp_path):
    (tmp_path / "torn.png").write_bytes(b"no image")
    items[1] = Datum(str(tmp_path / "torn.png"), 0)
    with pytest.raises(ImageReadError, match=r"torn\.png"):
        list(seeded_batches(DatasetWrapper(cfg, items, build_transform(cfg)), [(0, 1), (1, 1)], 2))
