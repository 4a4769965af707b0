"""tools/count_parameters.py: sizes against open_clip's, counts against arithmetic by hand, and no weights needed."""

import json
from pathlib import Path

import open_clip
import pytest
import torch

from clip.model import CLIP
from tools import count_parameters

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs" / "trainers"


@pytest.fixture(autouse=True)
def no_downloads(monkeypatch):
    def download(*_args, **_kwargs):
        raise AssertionError("nothing may be downloaded")

    monkeypatch.setattr("clip.weights._find_source", download)


@pytest.fixture
def tiny(monkeypatch, tiny_weights):
    """The tiny CLIP (w 64, d 32, text width 64) under the name of the real one, so that nothing large is built."""

    def count(capsys, config, *argv):
        spec = count_parameters.infer_spec(count_parameters.read_weights(tiny_weights))
        monkeypatch.setitem(count_parameters.SPECS, "ViT-B/16", spec)
        code = count_parameters.main(["--config-file", str(CONFIGS / config), "--json", *argv])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return json.loads(captured.out)

    return count


@pytest.mark.parametrize("name", sorted(count_parameters.SPECS))
def test_sizes_are_those_that_open_clip_has(name):
    theirs = open_clip.get_model_config(name.replace("/", "-").replace("@336px", "-336"))
    vision, text = theirs["vision_cfg"], theirs["text_cfg"]
    spec = count_parameters.SPECS[name]
    layers = vision["layers"]
    assert spec.vision_layers == (tuple(layers) if isinstance(layers, list) else layers)
    ours = (spec.embed_dim, spec.image_resolution, spec.vision_width, spec.vision_patch_size)
    assert ours == (theirs["embed_dim"], vision["image_size"], vision["width"], vision["patch_size"])
    ours = (spec.context_length, spec.vocab_size, spec.transformer_width, spec.transformer_heads)
    assert ours == (text["context_length"], text["vocab_size"], text["width"], text["heads"])
    assert spec.transformer_layers == text["layers"]


@pytest.mark.parametrize(
    ("name", "published"), [("RN50", 102_007_137), ("ViT-B/32", 151_277_313), ("ViT-L/14", 427_616_513)]
)
def test_totals_of_published_models(name, published):
    with torch.device("meta"):
        model = CLIP(count_parameters.SPECS[name])
    assert sum(parameter.numel() for parameter in model.parameters()) == published


def modules(record):
    return {line["module"]: line for line in record["modules"]}


def test_coop_trains_its_context(tiny, capsys):
    record = tiny(capsys, "CoOp/vit_b16.yaml")
    ctx = modules(record)["ctx"]
    assert (ctx["trainable_tensors"], ctx["trainable_scalars"]) == (1, 16 * 64)
    assert (record["total"]["trainable_tensors"], record["total"]["trainable_scalars"]) == (1, 16 * 64)
    assert (record["trainer"], record["backbone"], record["classes"]) == ("CoOp", "ViT-B/16", 100)


def test_frozen_towers_and_scale_make_up_the_clip(tiny, capsys, tiny_clip):
    record = tiny(capsys, "ZeroshotCLIP/vit_b16.yaml")
    lines = modules(record)
    image = sum(p.numel() for p in tiny_clip.visual.parameters())
    every = sum(p.numel() for p in tiny_clip.parameters())
    assert lines["frozen CLIP: image tower"]["total_scalars"] == image
    assert lines["frozen CLIP: logit scale"]["total_scalars"] == 1
    assert lines["frozen CLIP: text tower"]["total_scalars"] == every - image - 1
    assert (record["total"]["total_scalars"], record["total"]["trainable_scalars"]) == (every, 0)


def test_spotlighter_module_by_module(tiny, capsys):
    record = tiny(capsys, "Spotlighter/vit_b16_ep15_paper.yaml", "--classes", "7")
    trained = {
        name: (line["trainable_tensors"], line["trainable_scalars"])
        for name, line in modules(record).items()
        if line["trainable_tensors"]
    }
    w, d, words = 64, 32, 4
    feed_forward = (w * w // 4 + w // 4) + (w // 4 * w + w)
    assert trained == {
        "host": (1, words * w),  # the text tower is as wide as the image tower here
        "head.irm": (4, feed_forward),
        "head.trm": (1, 2 * d * d),
        "head.gate": (1, 1),
    }
    bank = modules(record)["head.memory"]
    assert bank["is_buffer"]
    assert bank["trainable_tensors"] == 0
    assert 7 * 5 * w <= bank["total_scalars"] <= 7 * 5 * w + 1  # and perhaps a flag
    total = record["total"]
    assert total["trainable_tensors"] == 7
    assert total["trainable_scalars"] == sum(scalars for _, scalars in trained.values())
    no_buffers = [line for line in record["modules"] if not line["is_buffer"]]
    assert total["total_scalars"] == sum(line["total_scalars"] for line in no_buffers)


def test_options_change_the_count(tiny, capsys):
    config, option = "Spotlighter/vit_b16_ep15_paper.yaml", ("TRAINER.SPOTLIGHTER.GATE", "fixed")
    assert tiny(capsys, config, *option)["total"]["trainable_tensors"] == 6
    assert tiny(capsys, config, "--trainer", "CoOp")["total"]["trainable_tensors"] == 1


def test_text_marks_buffers(capsys):
    """The builtin CLIP is a local file and is read for its sizes."""
    config = str(CONFIGS / "Spotlighter" / "mini_vit8_ep15_paper.yaml")
    assert count_parameters.main(["--config-file", config, "--classes", "2"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Spotlighter, Mini-ViT/8, 2 classes\n")
    (memory,) = [line for line in out.splitlines() if line.startswith("head.memory")]
    assert memory.startswith("head.memory (buffer, not trained)")
    assert out.endswith("Buffers are not part of the total.\n")


def test_mistakes_end_in_one_sentence(capsys):
    config = str(CONFIGS / "CoOp" / "mini_vit8_ep20.yaml")
    for argv, sentence in (
        (["--classes", "0"], "--classes must be at least 1, got 0"),
        (["--trainer", "CoOpp"], "CoOp"),
        (["MODEL.BACKBONE.NAME", "nowhere.pt"], "nowhere.pt"),
        (["OPTIM.MAX_EPOCHS", "3"], "MAX_EPOCH"),
    ):
        assert count_parameters.main(["--config-file", config, *argv]) == 1
        error = capsys.readouterr().err
        assert error.startswith("Error: ")
        assert sentence in error


def test_help_says_what_the_papers_21_counts(capsys):
    with pytest.raises(SystemExit):
        count_parameters.main(["--help"])
    assert '"21 extra parameters" most likely counts tensors' in " ".join(capsys.readouterr().out.split())
