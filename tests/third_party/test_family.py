"""Trainer and data-set files of the CoOp family run without an edit: train, save, test on new classes, resume."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from yacs.config import CfgNode as CN

import clip.clip as openai_clip
from dassl.config import get_cfg_default
from dassl.engine import build_trainer
from dassl.utils import set_random_seed, setup_logger

HERE = Path(__file__).parent


@pytest.fixture(scope="module", autouse=True)
def _third_party_files():
    for name in ("family_trainer", "family_dataset"):
        spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


@pytest.fixture
def root(tmp_path):
    """Four classes of 40×40 pictures: 5 for training, 2 for validation, 3 for testing."""
    folder = tmp_path / "data" / "family" / "images"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    split = {"train": [], "val": [], "test": []}
    for label, name in enumerate(("red_car", "blue bus", "green bike", "tram")):
        for part, count in (("train", 5), ("val", 2), ("test", 3)):
            for i in range(count):
                file = f"{label}_{part}_{i}.jpg"
                pixels = generator.integers(0, 80, (40, 40, 3), dtype=np.uint8) + np.uint8(40 * label)
                Image.fromarray(pixels).save(folder / file)
                split[part].append([file, label, name])
    (folder.parent / "split.json").write_text(json.dumps(split))
    return tmp_path / "data"


@pytest.fixture
def configure(root, tmp_path, tiny_weights, monkeypatch):
    monkeypatch.setitem(openai_clip._MODELS, "tiny", "somewhere/tiny.pt")
    monkeypatch.setattr(openai_clip, "_download", lambda url: str(tiny_weights))

    def build(output, **changes):
        cfg = get_cfg_default()
        cfg.TRAINER.FAMILY = CN({"N_CTX": 4, "PREC": "fp32"})
        cfg.DATASET.SUBSAMPLE_CLASSES = "all"
        cfg.DATASET.ROOT, cfg.DATASET.NAME, cfg.DATASET.NUM_SHOTS = str(root), "FamilyDataset", 4
        cfg.TRAINER.NAME, cfg.MODEL.BACKBONE.NAME = "FamilyTrainer", "tiny"
        cfg.OUTPUT_DIR, cfg.SEED, cfg.USE_CUDA = str(tmp_path / output), 1, False
        cfg.INPUT.SIZE, cfg.INPUT.TRANSFORMS = (32, 32), ["random_resized_crop", "random_flip", "normalize"]
        cfg.DATALOADER.NUM_WORKERS, cfg.DATALOADER.TRAIN_X.BATCH_SIZE = 0, 4
        cfg.OPTIM.NAME, cfg.OPTIM.LR, cfg.OPTIM.MAX_EPOCH = "sgd", 0.1, 2
        cfg.OPTIM.LR_SCHEDULER, cfg.OPTIM.WARMUP_EPOCH, cfg.OPTIM.WARMUP_TYPE = "cosine", 1, "constant"
        cfg.TRAIN.PRINT_FREQ = 1
        for key, value in changes.items():
            cfg.merge_from_list([key.replace("__", "."), value])
        cfg.freeze()
        set_random_seed(cfg.SEED)
        return cfg

    return build


def test_train_save_and_test_on_new_classes(configure, capsys):
    trainer = build_trainer(configure("base", DATASET__SUBSAMPLE_CLASSES="base"))
    before = trainer.model.prompt_learner.ctx.detach().clone()
    trainer.train()
    assert not torch.equal(before, trainer.model.prompt_learner.ctx)
    saved = torch.load(Path(trainer.output_dir, "prompt_learner", "model.pth.tar-2"), weights_only=True)
    assert {"state_dict", "epoch", "optimizer", "scheduler", "val_result"} <= set(saved)
    assert set(saved["state_dict"]) == {"ctx", "token_prefix", "token_suffix"}

    new = build_trainer(configure("new", DATASET__SUBSAMPLE_CLASSES="new"))
    new.load_model(trainer.output_dir, epoch=2)
    torch.testing.assert_close(new.model.prompt_learner.ctx, trainer.model.prompt_learner.ctx)
    accuracy = new.test()
    printed = capsys.readouterr().out
    assert re.search(r"epoch \[1/2\] batch \[1/2\] time \d\.\d{3} \(\d\.\d{3}\) data .* loss .* lr .* eta ", printed)
    assert "* total: 6" in printed
    assert f"* accuracy: {accuracy:.2f}%" in printed


def test_best_validation_epoch_is_loaded_for_the_test(configure):
    trainer = build_trainer(configure("best", TEST__FINAL_MODEL="best_val"))
    trainer.train()
    record = json.loads(Path(trainer.output_dir, "metrics.json").read_text())
    results = [row["val"]["accuracy"] for row in record["epochs"]]
    epoch = results.index(max(results)) + 1  # the first of equals
    best = torch.load(Path(trainer.output_dir, "prompt_learner", "model-best.pth.tar"), weights_only=True)
    assert (best["epoch"], best["val_result"], record["final"]["epoch"]) == (epoch, max(results), epoch)
    torch.testing.assert_close(trainer.model.prompt_learner.ctx.data, best["state_dict"]["ctx"])


def test_half_precision_weights_are_the_default_of_build_model(tiny_weights):
    model = openai_clip.build_model(torch.load(tiny_weights, weights_only=True))
    assert model.dtype == torch.float16
    assert model.ln_final.weight.dtype == torch.float32
    assert model.token_embedding.weight.dtype == torch.float32


def test_few_shot_picks_are_those_of_the_seeded_global_generator(configure, root):
    import random

    trainer = build_trainer(configure("picks"))
    split = json.loads((root / "family" / "split.json").read_text())
    generator = random.Random(1)
    expected = [
        Path(path).name
        for label in range(4)
        for path, *_ in generator.sample([item for item in split["train"] if item[1] == label], 4)
    ]
    assert [Path(item.impath).name for item in trainer.dm.dataset.train_x] == expected


def test_log_is_read_by_the_familys_result_parser(configure, tmp_path, monkeypatch):
    """Both end signals stand before the final result, so that every copy of the parser finds it."""
    import sys

    monkeypatch.setattr(sys, "stdout", sys.stdout)
    cfg = configure("logged")
    setup_logger(cfg.OUTPUT_DIR)
    build_trainer(cfg).train()
    lines = [line.strip() for line in Path(cfg.OUTPUT_DIR, "log.txt").read_text().splitlines()]
    for signal in ("Finish training", "Finished training", "=> result"):
        assert signal in lines
        tail = lines[lines.index(signal) :]
        assert [line for line in tail if re.fullmatch(r"\* accuracy: [\.\deE+-]+%", line)]
