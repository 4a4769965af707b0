"""What must not be served from a cache is not: other images or weights; what can't be cached is refused."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import train
from dassl.engine import build_trainer
from tests.trainers.cached_runs import logits, run, stores
from trainers.cached_images import CachedImages

TEST_IMAGES = 8
ROOT = Path(__file__).parents[2]


def only(cache_folder):
    (name,) = stores(cache_folder)
    return cache_folder / name


# --- other features


def test_a_changed_image_has_other_features(make_cached, make_any, cache_folder, tmp_path):
    before = logits(make_cached("ZeroshotCLIP"))
    path = tmp_path / "data" / "toy" / "test_1_2.png"
    times = os.stat(path).st_atime_ns, os.stat(path).st_mtime_ns
    Image.open(path).rotate(90).point(lambda v: 255 - v).save(path)
    os.utime(path, ns=times)
    after = logits(make_cached("ZeroshotCLIP"))
    assert torch.equal(after, logits(make_any("ZeroshotCLIP")))
    assert [i for i in range(TEST_IMAGES) if not torch.equal(before[i], after[i])] == [6]
    assert len(stores(cache_folder)) == 2


def test_an_image_that_changes_while_features_are_computed_is_noticed(make_cached, cache_folder, tmp_path):
    trainer = make_cached("ZeroshotCLIP")
    path, tower = tmp_path / "data" / "toy" / "test_0_0.png", trainer.feature_cache.tower

    def changing(*args, **kwargs):
        Image.open(path).rotate(90).save(path)
        return tower(*args, **kwargs)

    trainer.feature_cache.tower = changing
    with pytest.raises(
        RuntimeError, match=r"^Images of Toy changed while their features were computed, so these are not"
    ):
        logits(trainer)
    assert stores(cache_folder) == set()


def test_a_touched_image_has_the_same_features(make_cached, encoded, tmp_path):
    logits(make_cached("ZeroshotCLIP"))
    encoded.clear()
    os.utime(tmp_path / "data" / "toy" / "test_1_2.png")
    logits(make_cached("ZeroshotCLIP"))
    assert encoded == []


@pytest.mark.parametrize(
    "opts",
    [
        ("INPUT.INTERPOLATION", "nearest"),
        ("INPUT.PIXEL_MEAN", "[0.1, 0.2, 0.3]"),
        ("INPUT.TRANSFORMS", "[]"),
        ("TRAINER.ZEROSHOTCLIP.PREC", "bf16"),
        ("DATALOADER.TEST.BATCH_SIZE", 3),
    ],
    ids=lambda opts: str(opts[0]),
)
def test_another_way_to_the_features_has_a_cache_of_its_own(make_cached, make_any, encoded, cache_folder, opts):
    logits(make_cached("ZeroshotCLIP"))
    plain = logits(make_any("ZeroshotCLIP", *opts))
    encoded.clear()
    assert torch.equal(logits(make_cached("ZeroshotCLIP", *opts)), plain)
    assert sum(encoded) == TEST_IMAGES
    assert len(stores(cache_folder)) == 2


def test_other_images_or_another_order_have_a_cache_of_their_own(make_cached, encoded):
    logits(make_cached("ZeroshotCLIP"))
    encoded.clear()
    logits(make_cached("ZeroshotCLIP", classes="new"))
    assert sum(encoded) == TEST_IMAGES


def test_other_libraries_have_a_cache_of_their_own(make_cached, encoded, monkeypatch):
    logits(make_cached("ZeroshotCLIP"))
    encoded.clear()
    monkeypatch.setattr("trainers.feature_cache.LIBRARIES", "torch 1.0")
    logits(make_cached("ZeroshotCLIP"))
    assert sum(encoded) == TEST_IMAGES


def test_weights_that_differ_in_large_tensors_only_are_others(make_cached, make_any, encoded, tiny_weights, tmp_path):
    logits(make_cached("ZeroshotCLIP"))
    weights = torch.load(tiny_weights, weights_only=True)
    weights["visual.proj"] *= 1 + torch.linspace(0, 1, weights["visual.proj"].shape[1])
    torch.save(weights, tmp_path / "tuned.pt")
    opts = ("MODEL.BACKBONE.NAME", tmp_path / "tuned.pt")
    first, other = make_cached("ZeroshotCLIP"), make_cached("ZeroshotCLIP", *opts)
    assert first.backbone.fingerprint == other.backbone.fingerprint  # which looks at small tensors
    encoded.clear()
    assert torch.equal(logits(other), logits(make_any("ZeroshotCLIP", *opts)))
    assert sum(encoded) == 2 * TEST_IMAGES
    assert not torch.equal(logits(other), logits(first))


# --- damage


def test_a_truncated_cache_is_made_anew(make_cached, cache_folder, capsys):
    expected = logits(make_cached("ZeroshotCLIP"))
    os.truncate(only(cache_folder) / "pooled.bin", 100)
    capsys.readouterr()
    assert torch.equal(logits(make_cached("ZeroshotCLIP")), expected)
    assert f"Note: the feature cache {only(cache_folder)} is damaged" in capsys.readouterr().out
    assert torch.equal(logits(make_cached("ZeroshotCLIP")), expected)


def test_damage_inside_a_file_ends_the_run_with_a_sentence(make_cached, command, cache_folder, capsys):
    run(make_cached("ZeroshotCLIP"))
    content = bytearray((only(cache_folder) / "pooled.bin").read_bytes())
    content[300] ^= 16
    (only(cache_folder) / "pooled.bin").write_bytes(content)
    opts = ("DATASET.SUBSAMPLE_CLASSES", "base", "DATALOADER.CACHE", str(cache_folder))
    capsys.readouterr()
    assert train.run(command(*opts, trainer="ZeroshotCLIP", output="again", flags=("--eval-only",))) == 1
    assert capsys.readouterr().err == (
        f"Error: The feature cache {only(cache_folder)} is damaged ('pooled', row 2 is not what was written); remove "
        f"it with `python tools/feature_cache.py clear {only(cache_folder)}` and run again.\n"
    )


def test_the_limit_ends_the_run_before_anything_is_written(make_cached, cache_folder):
    trainer = make_cached("ZeroshotCLIP", "DATALOADER.CACHE_LIMIT", 1e-7)
    with pytest.raises(
        RuntimeError, match=r"^The feature cache needs .* GiB for 8 rows, but .* and DATALOADER.CACHE_LIM"
    ):
        logits(trainer)
    assert stores(cache_folder) == set()


def test_an_unreadable_image_ends_the_run_with_its_name(make_cached, cache_folder, tmp_path):
    make_cached("ZeroshotCLIP")
    (tmp_path / "data" / "toy" / "test_0_1.png").write_bytes(b"torn")
    with pytest.raises(RuntimeError, match=r"test_0_1\.png"):
        logits(make_cached("ZeroshotCLIP"))
    assert stores(cache_folder) == set()


# --- refused


@pytest.mark.parametrize(
    ("name", "opts"),
    [
        ("VPT", ()),
        ("IVLP", ()),
        ("MaPLe", ()),
        ("CLIPFit", ()),
        ("PromptSRC", ()),
        ("Spotlighter", ("TRAINER.SPOTLIGHTER.HOST", "VPT")),
        ("TextRefiner", ("TRAINER.TEXTREFINER.HOST", "MaPLe")),
        (
            "PromptSRC",
            (
                *("TRAINER.PROMPTSRC.N_CTX_VISION", 0, "TRAINER.PROMPTSRC.PROMPT_DEPTH_VISION", 0),
                *("TRAINER.PROMPTSRC.GPA", "released"),
            ),
        ),
    ],
)
def test_methods_that_change_the_encoder_are_refused(make_cached, name, opts):
    with pytest.raises(
        ValueError, match=f"^{name} changes the image encoder here, so its features can't be cached; leave"
    ):
        make_cached(name, *opts)


def test_prompts_in_the_text_tower_alone_are_not_refused(make_cached, make_any):
    opts = ("TRAINER.IVLP.N_CTX_VISION", 0, "TRAINER.IVLP.PROMPT_DEPTH_VISION", 0)
    assert torch.equal(logits(run(make_cached("IVLP", *opts))), logits(run(make_any("IVLP", *opts, output="plain"))))


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (("DATALOADER.CACHE_DTYPE", "bf16"), "DATALOADER.CACHE_DTYPE must be fp32 or fp16, got 'bf16'."),
        (("DATALOADER.CACHE_VIEWS", -1), "DATALOADER.CACHE_VIEWS must be a number of views, or 0, got -1."),
        (("DATALOADER.CACHE_LIMIT", 0.0), "DATALOADER.CACHE_LIMIT must be above 0 GiB, got 0.0."),
        (
            ("DATALOADER.CACHE", "", "DATALOADER.CACHE_VIEWS", 4),
            "DATALOADER.CACHE_VIEWS is 4 and CACHE_DTYPE fp32, but DATALOADER.CACHE names no folder; name one, or "
            "leave both out.",
        ),
        (
            ("INPUT.ON_ERROR", "replace"),
            "DATALOADER.CACHE keeps the features of every image, so INPUT.ON_ERROR replace can't be used with it; "
            "restore the damaged images, or leave one of the two out.",
        ),
        (
            ("DATALOADER.RETURN_IMG0", True),
            "DATALOADER.CACHE takes one transformed picture an image; leave INPUT.NO_TRANSFORM, K_TRANSFORMS, "
            "RETURN_IMG0 and the data set's wrapper as they are, or CACHE empty.",
        ),
        (
            ("DATALOADER.K_TRANSFORMS", 2, "DATALOADER.CACHE_VIEWS", 1),
            "DATALOADER.CACHE takes one transformed picture an image; leave INPUT.NO_TRANSFORM, K_TRANSFORMS, "
            "RETURN_IMG0 and the data set's wrapper as they are, or CACHE empty.",
        ),
    ],
)
def test_keys_that_are_not_possible(make_cached, opts, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make_cached("CoOp", *opts)


def test_a_transform_that_does_not_describe_itself_is_refused(make_cached):
    trainer = make_cached("CoOp")
    trainer.dm.test_loader.dataset.transform = lambda image: image
    with pytest.raises(
        ValueError, match=r"^DATALOADER.CACHE can't tell the transform from others: <function .* does not "
    ):
        trainer.cached(trainer.dm.test_loader)


def test_weights_that_move_are_noticed(make_cached):
    trainer = make_cached("CoOp")
    logits(trainer)
    with torch.no_grad():
        trainer.backbone.clip.visual.proj.mul_(1.0)
    with pytest.raises(
        RuntimeError, match=r"^The weights of the image encoder changed during the run, so cached features"
    ):
        logits(trainer)


def test_prompts_on_cached_images_are_noticed(make_cached):
    trainer = make_cached("CoOp")
    batch = next(iter(trainer.test_loader))
    assert isinstance(batch["img"], CachedImages)
    with pytest.raises(
        ValueError, match=r"^Prompts change what the image encoder gives, so its features can't be cached\.$"
    ):
        trainer.backbone.vision(batch["img"], prompts=object())


def test_two_runs_at_once_fill_one_cache(command, cache_folder, tmp_path):
    opts = (
        "DATASET.SUBSAMPLE_CLASSES",
        "base",
        "DATALOADER.CACHE",
        str(cache_folder),
        "DATALOADER.TEST.BATCH_SIZE",
        "1",
    )
    start = [sys.executable, "-c", "import sys, tests.conftest, train; sys.exit(train.run(sys.argv[1:]))"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "Dassl.pytorch")])}
    runs = []
    for number in range(2):
        argv = command(*opts, trainer="ZeroshotCLIP", output=f"run{number}", flags=("--eval-only",))
        runs.append(subprocess.Popen([*start, *argv], env=env, stdout=subprocess.DEVNULL))
    assert [run.wait(120) for run in runs] == [0, 0]
    logs = [(tmp_path / f"run{number}" / "log.txt").read_text() for number in range(2)]
    assert sum("will be written to" in log for log in logs) == 1
    assert all(f"Feature cache: reading {only(cache_folder)}" in log for log in logs)
    cfg = train.setup_cfg(train.parse_args(command(*opts, trainer="ZeroshotCLIP", output="again")))
    assert logits(build_trainer(cfg)).isfinite().all()
