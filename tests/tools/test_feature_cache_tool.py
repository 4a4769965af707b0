"""Listing and removing caches of features."""

import os
import signal
import time

import numpy as np
import pytest

from tools import feature_cache
from trainers.feature_store import GIB, FeatureWriter, store_lock

FACTS = {"views": 2, "precision": "bf16", "dtype": "fp16"}
ABOUT = {"images": 5, "backbone": "Mini-ViT/8"}


def fill(place, between=lambda: None):
    data = {"pooled": np.zeros((10, 4), np.float16)}
    with store_lock(place, lambda: None), FeatureWriter(place, FACTS, ABOUT, 10, GIB) as writer:
        writer.begin(data, {"pooled": "float16"}, {})
        writer.add(data)
        between()


def killed(place):
    """A writer that was killed."""
    pid = os.fork()
    if pid == 0:
        fill(place, between=lambda: os.kill(os.getpid(), signal.SIGKILL))
        os._exit(0)
    os.waitpid(pid, 0)


@pytest.fixture
def folder(tmp_path, capsys):
    """A whole store, a damaged one, one whose writer was killed, and what is none of the cache's business."""
    folder = tmp_path / "cache"
    for name in ("Toy-plain-a", "Toy-plain-b"):
        fill(folder / name)
    os.truncate(folder / "Toy-plain-b" / "pooled.bin", 3)
    killed(folder / "Toy-plain-c")
    (folder / "results").mkdir()
    (folder / "results" / "metrics.json").write_text("{}")
    capsys.readouterr()
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def test_list(folder, capsys):
    assert feature_cache.main(["list", str(folder)]) == 0
    header, _, unfinished, whole, damaged, total = capsys.readouterr().out.splitlines()
    assert header.split() == ["Cache", "State", "Images", "Views", "Precision", "Stored", "Backbone", "Features", "GiB"]
    assert unfinished.split()[1:8] == ["unfinished", *"––––––"]
    assert whole.split() == ["Toy-plain-a", "whole", "5", "2", "bf16", "fp16", "Mini-ViT/8", "pooled", "0.000"]
    assert damaged.split()[:3] == ["Toy-plain-b", "damaged", "–"]
    assert total == "3 caches, 0.000 GiB"


def test_clear_removes_caches_and_nothing_else(folder, capsys):
    assert feature_cache.main(["clear", str(folder)]) == 0
    assert names(folder) == ["results"]
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["removed"] * 3


def test_clear_one(folder):
    assert feature_cache.main(["clear", str(folder / "Toy-plain-b")]) == 0
    assert "Toy-plain-a" in names(folder)
    assert "Toy-plain-b" not in names(folder)


def test_clear_touches_no_other_folder(folder, capsys):
    assert feature_cache.main(["clear", str(folder / "results")]) == 0
    assert (folder / "results" / "metrics.json").is_file()
    assert capsys.readouterr().out == ""


def test_a_cache_that_is_being_written_is_left_alone(tmp_path, capsys):
    place = tmp_path / "Toy-plain-d"
    pid = os.fork()
    if pid == 0:
        fill(place, between=lambda: time.sleep(60))
        os._exit(0)
    while not any((path / "pooled.bin").exists() for path in tmp_path.glob(".Toy-plain-d.tmp-*")):
        time.sleep(0.01)
    feature_cache.main(["clear", str(tmp_path)])
    assert capsys.readouterr().out.startswith(f"in use, left alone: {tmp_path}/.Toy-plain-d.tmp-")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    feature_cache.main(["clear", str(tmp_path)])
    assert not list(tmp_path.glob(".Toy-plain-d.tmp-*"))


def test_a_folder_that_is_not_there_is_a_sentence(tmp_path, capsys):
    assert feature_cache.main(["list", str(tmp_path / "gone")]) == 1
    assert capsys.readouterr().err == f"Error: There is no folder {tmp_path}/gone; name that of DATALOADER.CACHE.\n"
