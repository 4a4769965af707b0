"""INPUT.ON_ERROR: a training image that cannot be read stops the run, or another image of its class takes its place."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, SequentialSampler

from dassl.data import DataManager, damaged_images, loader_state, restore_loader, start_epoch
from dassl.data.data_manager import build_data_loader
from dassl.data.datasets import DatasetBase, Datum
from dassl.data.loader import EpochLoader
from dassl.data.transforms import build_transform
from dassl.utils.tools import read_image

AUGMENT = ("random_resized_crop", "random_flip", "cutout", "normalize", "gaussian_noise")


@pytest.fixture
def items(tmp_path):
    """Classes cat (0, 2, 4, 6), dog (1, 3, 5) and eel (7), each picture of its own file."""
    rng = np.random.default_rng(1)
    items = []
    for i, label in enumerate([0, 1, 0, 1, 0, 1, 0, 2]):
        path = str(tmp_path / f"{i}.png")
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
        items.append(Datum(path, label, classname=("cat", "dog", "eel")[label]))
    return items


@pytest.fixture
def damage(items):
    def make(*indices):
        for i in indices:
            with open(items[i].impath, "w") as file:
                file.write("<html>")

    return make


@pytest.fixture
def make_loader(cfg, items):
    def make(workers=0, on_error="replace", choices=AUGMENT, is_train=True, sampler="RandomSampler", **kwargs):
        cfg.INPUT.ON_ERROR = on_error
        cfg.DATALOADER.NUM_WORKERS = workers
        tfm = build_transform(cfg, choices=choices)
        return build_data_loader(cfg, sampler, items, 2, tfm=tfm, is_train=is_train, stream="train_x", **kwargs)

    return make


@pytest.mark.parametrize("workers", [0, 2])
def test_another_image_of_the_class_takes_the_place(make_loader, items, damage, workers, capfd):
    damage(2, 3)
    loader = make_loader(workers, sampler="SequentialSampler", choices=())
    seen = set()
    for epoch in range(6):
        start_epoch(loader, epoch)
        batches = list(loader)
        assert [label for batch in batches for label in batch["label"].tolist()] == [0, 1, 0, 1, 0, 1, 0, 2]
        assert damaged_images(loader)[0] == 2
        for position, wanted in ((0, {0, 4, 6}), (1, {1, 5})):
            index = int(batches[1]["index"][position])
            assert index in wanted
            assert batches[1]["impath"][position] == items[index].impath  # it says which image it is
            pixels = np.asarray(Image.open(items[index].impath)).transpose(2, 0, 1) / np.float32(255)
            assert (batches[1]["img"][position].numpy() == pixels).all()
            seen.add(index)
    assert len(seen) > 2  # not always the same one
    assert sorted(damaged_images(loader)[1]) == [items[2].impath, items[3].impath]
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 2  # once each, however often
    for line, path in zip(sorted(lines), (items[2].impath, items[3].impath), strict=True):
        assert line == (
            f"Cannot read the image {path} (not an image of a known format, it starts with '<html>'); "
            "another image of its class takes its place"
        )


def test_the_number_of_workers_changes_nothing(make_loader, damage):
    damage(0, 2, 5)
    runs = []
    for workers in (0, 1, 2):
        loader = make_loader(workers)
        runs.append([batch for _ in range(2) for batch in loader])
        assert loader.replaced == 6
    for other in runs[1:]:
        for a, b in zip(runs[0], other, strict=True):
            assert torch.equal(a["img"], b["img"])
            assert a["index"].tolist() == b["index"].tolist()


def test_only_the_damaged_image_is_another(make_loader, damage):
    """The rest of the pass, its augmentation included, is as if nothing had happened."""
    whole = list(make_loader())
    damage(4)
    mended = list(make_loader())
    pairs = [
        (int(a["index"][i]), torch.equal(a["img"][i], b["img"][i]))
        for a, b in zip(whole, mended, strict=True)
        for i in range(2)
    ]
    assert dict(pairs) == {i: i != 4 for i in range(8)}


def test_a_damaged_replacement_is_tried_named_and_not_counted(make_loader, items, damage):
    damage(0, 2, 4)
    loader = make_loader(sampler="SequentialSampler")
    indices = [i for batch in loader for i in batch["index"].tolist()]
    assert indices == [6, 1, 6, 3, 6, 5, 6, 7]
    assert loader.replaced == 3
    assert set(loader.damaged) == {items[i].impath for i in (0, 2, 4)}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_class_without_a_readable_image_stops_the_run(make_loader, items, damage, workers, capfd):
    damage(1, 3, 5)
    message = re.escape(
        f"No image of class 'dog' can be read (3 tried, first {items[1].impath}: not an image of a known format, it "
        "starts with '<html>'); restore or remove them."
    )
    with pytest.raises(RuntimeError, match=f"^{message}$"):
        list(make_loader(workers, sampler="SequentialSampler"))
    assert capfd.readouterr().out == ""


def test_a_class_of_one_image_has_no_other(cfg, items, damage):
    damage(7)
    cfg.INPUT.ON_ERROR = "replace"
    loader = build_data_loader(cfg, "SequentialSampler", items[7:], 1, tfm=build_transform(cfg))
    with pytest.raises(RuntimeError, match=r"No image of class 'eel' can be read \(1 tried, first .*7.png: "):
        list(loader)


@pytest.mark.parametrize("workers", [0, 2])
def test_stop_is_the_default_and_names_the_path(cfg, make_loader, items, damage, workers, capfd):
    assert cfg.INPUT.ON_ERROR == "stop"
    damage(2)
    with pytest.raises(RuntimeError, match=f"^Cannot read the image {items[2].impath} .*; restore or remove it.$"):
        list(make_loader(workers, on_error="stop"))
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("workers", [0, 2])
def test_a_missing_image_stops_the_run_whatever_the_key(make_loader, items, damage, workers, tmp_path):
    (tmp_path / "2.png").unlink()
    with pytest.raises(FileNotFoundError, match=f"No image at {items[2].impath}"):
        list(make_loader(workers))
    damage(0, 4)
    (tmp_path / "6.png").unlink()
    with pytest.raises(FileNotFoundError, match="No image at "):  # a replacement that is missing stops it, too
        list(make_loader(workers, sampler="SequentialSampler"))


def test_validation_and_test_never_replace(cfg, register, items, damage):
    class Pets(DatasetBase):
        def __init__(self, cfg):
            super().__init__(train_x=items, val=items[:4], test=items)

    register(Pets)
    cfg.DATASET.NAME, cfg.INPUT.ON_ERROR = "Pets", "replace"
    cfg.DATALOADER.TRAIN_X.BATCH_SIZE = 2
    manager = DataManager(cfg)
    damage(2)
    assert len(list(manager.train_loader_x)) == 4
    for loader in (manager.val_loader, manager.test_loader):
        with pytest.raises(RuntimeError, match=f"Cannot read the image {items[2].impath}"):
            list(loader)


def test_a_pass_over_training_images_without_augmentation_may_replace(make_loader, damage):
    damage(2)
    loader = make_loader(is_train=False, replace=True, sampler="SequentialSampler")
    first, again = list(loader), list(loader)
    assert all(torch.equal(a["img"], b["img"]) for a, b in zip(first, again, strict=True))
    with pytest.raises(RuntimeError, match="Cannot read the image"):
        list(make_loader(on_error="stop", is_train=False, replace=True))


def test_a_file_of_both_training_lists_is_named_once(cfg, register, items, damage, capsys):
    class PetsTwice(DatasetBase):
        def __init__(self, cfg):
            super().__init__(train_x=items, train_u=items, test=items)

    register(PetsTwice)
    cfg.DATASET.NAME, cfg.INPUT.ON_ERROR = "PetsTwice", "replace"
    cfg.DATALOADER.TRAIN_X.BATCH_SIZE = 2
    manager = DataManager(cfg)
    damage(2)
    list(manager.train_loader_x), list(manager.train_loader_u)
    assert capsys.readouterr().out.count(items[2].impath) == 1
    assert [damaged_images(x) for x in (manager.train_loader_x, manager.train_loader_u)] == [(1, [items[2].impath])] * 2


def test_a_data_set_that_offers_no_other_image_stops(items, damage):
    class Foreign(Dataset):
        def __len__(self):
            return len(items)

        def __getitem__(self, index):
            return np.array(read_image(items[index].impath))

    damage(2)
    with pytest.raises(RuntimeError, match=f"Cannot read the image {items[2].impath}"):
        list(EpochLoader(Foreign(), SequentialSampler(items), 2, replace=True))


def test_count_and_names_survive_an_interruption(make_loader, items, damage, capsys):
    damage(2, 3)
    loader = make_loader(sampler="SequentialSampler")
    start_epoch(loader, 4)
    for n, _ in enumerate(loader, start=1):
        if n == 2:
            state = loader_state(loader)
            break
    assert (state["replaced"], set(state["damaged"])) == (2, {items[2].impath, items[3].impath})
    damage(6)
    capsys.readouterr()
    resumed = make_loader(sampler="SequentialSampler")
    restore_loader(resumed, state)
    start_epoch(resumed, 4)
    list(resumed)
    assert resumed.replaced == 3
    (line,) = capsys.readouterr().out.splitlines()
    assert items[6].impath in line
    start_epoch(resumed, 5)
    assert resumed.replaced == 0
    list(resumed)
    assert resumed.replaced == 3
    assert capsys.readouterr().out == ""
    del state["replaced"], state["damaged"]  # as saved before there was such a count
    fresh = make_loader(sampler="SequentialSampler")
    restore_loader(fresh, state)
    assert damaged_images(fresh) == (0, [])


def test_loaders_of_another_make_have_no_damage():
    assert damaged_images(None) == damaged_images(torch.utils.data.DataLoader(range(3))) == (0, [])


def test_other_values_are_refused(make_loader):
    with pytest.raises(ValueError, match=r"INPUT\.ON_ERROR must be stop or replace, got 'skip'\."):
        make_loader(on_error="skip")
