import numpy as np
import pytest
from PIL import Image

from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY, Datum


@pytest.fixture
def cfg(tmp_path):
    """Small pictures, no workers, silent."""
    cfg = get_cfg_default()
    cfg.SEED = 3
    cfg.VERBOSE = False
    cfg.OUTPUT_DIR = str(tmp_path / "output")
    cfg.INPUT.SIZE = (16, 16)
    cfg.DATALOADER.NUM_WORKERS = 0
    return cfg


@pytest.fixture(scope="session")
def image_paths(tmp_path_factory):
    """40 different pictures of 20 × 24 pixels (width × height)."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    paths = []
    for i in range(40):
        pixels = rng.integers(0, 256, (24, 20, 3), dtype=np.uint8)
        paths.append(str(folder / f"{i:02}.png"))
        Image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.fixture
def make_data(image_paths):
    """make_data(labels, domains=None): one Datum a label, over the 40 pictures in turn."""

    def make(labels, domains=None):
        domains = domains or [0] * len(labels)
        return [
            Datum(image_paths[i % len(image_paths)], label, domain, f"class {label}")
            for i, (label, domain) in enumerate(zip(labels, domains, strict=True))
        ]

    return make


@pytest.fixture
def register(monkeypatch):
    """Register a data set for the time of a test."""

    def add(reader):
        monkeypatch.setitem(DATASET_REGISTRY._entries, reader.__name__, reader)

    return add
