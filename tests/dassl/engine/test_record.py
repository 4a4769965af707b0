import json
import math
import platform

import numpy as np
import pytest
import torch
import torchvision
from yacs.config import CfgNode

from dassl.engine import record

KEYS = [  # all that metrics.json holds, in order
    *("schema", "finished", "mode", "trainer", "dataset", "classes", "num_shots", "seed", "backbone", "config"),
    *("versions", "device", "processes", "parameters", "class_names", "data", "epochs", "final", "started"),
    *("wall_seconds", "resumed"),
]


def test_a_run_records_all_keys(make, record_of, killed):
    killed(make(), 4)
    tree = record_of()
    assert list(tree) == KEYS
    assert (tree["schema"], tree["finished"], tree["mode"], tree["final"]) == (1, False, "train", None)
    assert (tree["trainer"], tree["dataset"], tree["seed"], tree["backbone"]) == ("LinearX", "NoisePictures", 3, None)
    assert (tree["device"], tree["processes"]) == ("cpu", 1)
    assert tree["parameters"] == {"trainable_tensors": 2, "trainable_scalars": 579, "total_scalars": 579}
    assert tree["class_names"] == ["class 0", "class 1", "class 2"]
    sizes = {"train_x": 15, "train_u": 12, "val": 6, "test": 9}
    facts = dict.fromkeys(("split_digest", "split_published", "sample_digest", "unlabelled_from"))
    assert tree["data"] == {**sizes, **facts}
    assert tree["config"]["OPTIM"]["LR"] == 0.1
    assert tree["versions"]["python"] == platform.python_version()
    assert tree["versions"]["torchvision"] == torchvision.__version__
    assert set(tree["versions"]) == {"python", "torch", "torchvision", "numpy", "dassl"}
    assert [list(row) for row in tree["epochs"]] == [
        ["epoch", "lr", "train", "val", "seconds", "images_per_second", "replaced_images"],
    ]
    row = tree["epochs"][0]
    assert (row["epoch"], row["lr"], row["val"]) == (1, 1e-5, None)
    assert row["images_per_second"] == pytest.approx(15 / row["seconds"])
    assert tree["resumed"] == 0
    trainer = make()
    trainer.train()
    again = record_of()
    assert again["finished"]
    assert (again["resumed"], again["started"]) == (1, tree["started"])
    assert again["wall_seconds"] > tree["wall_seconds"]
    lrs = [row["lr"] for row in again["epochs"]]
    assert lrs == pytest.approx([1e-5, 0.1, 0.05 * (1 + math.cos(math.pi / 4)), 0.05])


def test_frozen_parameters_count_in_the_total_and_shared_ones_once(make, tmp_path):
    trainer = make()
    trainer.frozen = torch.nn.Linear(10, 10).requires_grad_(False)
    trainer.again = trainer.model
    assert record.count_parameters(trainer) == {
        "trainable_tensors": 2,
        "trainable_scalars": 579,
        "total_scalars": 579 + 110,
    }


def test_plain_makes_json_of_what_configs_and_metrics_hold():
    tree = CfgNode({"A": {"SIZE": (1, 2), "NAME": "x", "ON": True, "NONE": None}})
    tree.A.LR = 1e-5
    plain = record.plain({"cfg": tree, "acc": np.float64(50.5), "loss": torch.tensor(0.5), "bad": float("nan"), 1: {2}})
    assert plain == {
        "cfg": {"A": {"SIZE": [1, 2], "NAME": "x", "ON": True, "NONE": None, "LR": 1e-5}},
        "acc": 50.5,
        "loss": 0.5,
        "bad": None,
        "1": "{2}",
    }
    json.dumps(plain, allow_nan=False)


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_damaged_record_counts_as_none(tmp_path, text):
    assert record.read_record(tmp_path) is None
    (tmp_path / "metrics.json").write_text(text)
    assert record.read_record(tmp_path) is None
