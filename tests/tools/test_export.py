"""Exported files: what they compute, what they say of themselves, and that a wrong one is not left behind."""

import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from PIL import Image

from clip.model import CLIP, CLIPSpec
from dassl.utils.files import TEMPORARY
from tests.conftest import square
from tests.trainers.every import NAMES, UNTRAINED
from tests.trainers.test_predictor import finish
from tools import export
from tools.export_graph import Difference, Expected, compare
from trainers.predictor import Predictor

CPU = ("DEVICE", "cpu")
PER_IMAGE = {"CoCoOp"}  # text of which depends on the image
VARIANTS = {  # options of Spotlighter that change the graph
    "pruned": ("PRUNE", "[[1, 0.5]]", "TRM", "transformer", "SAMPLE_SCORE", "attention"),
    "linear": ("IRM", "linear", "TRM", "none", "SEMANTIC", "False", "SAMPLE_SCORE", "max", "LEVELS", "level1"),
    "release": ("PRESET", "release"),
    "CLIPFit": ("HOST", "CLIPFit"),
}


def variant(name):
    pairs = zip(VARIANTS[name][::2], VARIANTS[name][1::2], strict=True)
    top_k = () if name == "release" else ("TRAINER.SPOTLIGHTER.TOP_K", "3")
    return (*(item for key, value in pairs for item in (f"TRAINER.SPOTLIGHTER.{key}", value)), *top_k)


@pytest.fixture
def write(run_folder, tmp_path, capsys):
    """Export the run: write(kind, flags); gives the file and what was printed."""

    def go(kind, *flags):
        out = tmp_path / ("model.onnx" if kind == "onnx" else "model.pt2")
        capsys.readouterr()
        code = export.main([run_folder, "--to", kind, "-o", str(out), *map(str, flags)])
        printed, err = capsys.readouterr()
        assert code == 0, err
        return out, printed

    return go


@pytest.fixture
def zero_shot(trainer_of, run_folder):
    trainer_of("DATASET.SUBSAMPLE_CLASSES", "base", trainer="ZeroshotCLIP").evaluate()
    return run_folder


def by_torch(path, images):
    outputs = torch.export.load(path).module()(images)
    return {name: value.numpy() for name, value in outputs.items()}


def by_onnx(path, images):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"images": images.numpy()}), strict=True))


def check(read, path, run_folder, images):
    """Any number of images gives the logits of the run, their softmax, and the tokens that it chooses."""
    trainer = Predictor.load(run_folder, opts=CPU).trainer
    for n in (1, 2, 5):
        outputs = read(path, images[:n])
        expected = trainer.model_inference(images[:n]).numpy()
        np.testing.assert_allclose(outputs["logits"], expected, atol=1e-4 * np.abs(expected).max(), rtol=0)
        odds = np.exp(expected.astype(np.float64) - expected.max(axis=1, keepdims=True))
        np.testing.assert_allclose(outputs["probabilities"], odds / odds.sum(axis=1, keepdims=True), atol=1e-4)
        with torch.no_grad():
            tokens = trainer.method.inspect(images[:n], trainer.test_space).tokens
        assert ("tokens" in outputs) == (tokens is not None)
        if tokens is not None:
            assert outputs["tokens"].tolist() == tokens.index.tolist()


# --- what a file computes


@pytest.mark.parametrize("name", [name for name in NAMES if name not in PER_IMAGE])
def test_every_method_by_torch_export(make_any, run_folder, write, images, name):
    finish(make_any(name))
    path, printed = write("torch_export")
    check(by_torch, path, run_folder, images)
    assert f"Wrote {path} (" in printed


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "pruned"])
def test_variants_of_spotlighter_by_torch_export(make_any, run_folder, write, images, name):
    make_any("Spotlighter", *variant(name)).train()
    check(by_torch, write("torch_export")[0], run_folder, images)


def test_a_plain_vit_under_a_linear_head(make_any, run_folder, write, images, monkeypatch):
    def small(name, pretrained=False, **options):
        torch.manual_seed(0)
        return timm.models.VisionTransformer(
            img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0
        )

    monkeypatch.setattr(timm, "create_model", small)
    options = ("TRAINER.SPT.HEAD", "linear", "TRAINER.SPT.N_CTX_VISION", "2")
    make_any("SPT", *options, "MODEL.BACKBONE.NAME", "timm:vit_base_patch16_224").train()
    check(by_torch, write("torch_export")[0], run_folder, images)


def test_a_resnet(trainer_of, run_folder, write, tmp_path, images):
    torch.manual_seed(0)
    model = CLIP(CLIPSpec(32, 32, (1, 1, 1, 1), 8, None, 77, 49408, 64, 1, 1)).state_dict()
    torch.save(model, tmp_path / "resnet.pt")
    trainer_of("MODEL.BACKBONE.NAME", str(tmp_path / "resnet.pt"), trainer="ZeroshotCLIP").evaluate()
    check(by_onnx, write("onnx")[0], run_folder, images)


@pytest.mark.parametrize("name", ["MaPLe", "LinearProbe"])
def test_onnx(make_any, run_folder, write, images, name):
    finish(make_any(name))
    path, printed = write("onnx")
    check(by_onnx, path, run_folder, images)
    onnx.checker.check_model(onnx.load(path))
    assert len([line for line in printed.splitlines() if "at once: largest difference of the logits" in line]) == 4


def test_onnx_of_a_pruned_tower(make_any, run_folder, write, images):
    make_any("Spotlighter", *variant("pruned")).train()
    check(by_onnx, write("onnx")[0], run_folder, images)


def test_the_text_tower_is_not_in_the_file(zero_shot, write, tiny_clip):
    sizes = [sum(tensor.nelement() for tensor in torch.export.load(write("torch_export")[0]).state_dict.values())]
    model = onnx.load(write("onnx")[0])
    sizes.append(sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer))
    visual = sum(p.numel() for p in tiny_clip.visual.parameters())
    assert all(size < visual + 1000 for size in sizes)  # tokens alone are 49408 · 64


def test_a_run_in_half_precision_is_exported_in_fp32(trainer_of, run_folder, write, images):
    trainer_of("TRAINER.ZEROSHOTCLIP.PREC", "bf16", trainer="ZeroshotCLIP").evaluate()
    path, _ = write("torch_export")
    exact = Predictor.load(run_folder, opts=(*CPU, "TRAINER.ZEROSHOTCLIP.PREC", "fp32")).trainer
    expected = exact.model_inference(images)
    torch.testing.assert_close(torch.from_numpy(by_torch(path, images)["logits"]), expected, atol=1e-4, rtol=0)


# --- what a file says of itself


def prepared(path, told):
    """Preprocessing as the metadata say it, in Pillow and NumPy."""
    image = Image.open(path).convert("RGB")
    edge, (height, width) = told["resize_smaller_edge"], told["center_crop"]
    ratio = edge / min(image.size)
    kind = Image.Resampling[told["interpolation"].upper()]
    image = image.resize([int(side * ratio) for side in image.size], kind)
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    pixels = np.asarray(image.crop((left, top, left + width, top + height)), np.float32) * told["scale"]
    pixels = (pixels - np.float32(told["mean"])) / np.float32(told["std"])
    return torch.from_numpy(pixels.transpose(2, 0, 1)[None].astype(np.float32))


@pytest.mark.parametrize("kind", ["torch_export", "onnx"])
def test_the_metadata_suffice(make_any, run_folder, write, tmp_path, tiny_weights, kind):
    make_any("CoOp").train()
    names = tmp_path / "names.txt"
    names.write_text("blue square\nrød\nyellow square\n", encoding="utf-8")
    path, _ = write(kind, "--classnames", names)
    if kind == "onnx":
        told = {item.key: item.value for item in onnx.load(path).metadata_props}
        read = {key: json.loads(told[key]) for key in ("class_names", "preprocessing", "versions", "epoch")}
        assert (read["versions"]["onnx"], told["precision"]) == (onnx.__version__, "fp32")
        told |= read
    else:
        extra = {"metadata.json": ""}
        torch.export.load(path, extra_files=extra)
        told = json.loads(extra["metadata.json"])
    trainer = Predictor.load(run_folder, opts=CPU).trainer
    assert told["class_names"] == ["blue square", "rød", "yellow square"]
    assert (told["trainer"], told["dataset"], told["epoch"]) == ("CoOp", "Toy", 2)
    assert (told["backbone"], told["fingerprint"]) == (str(tiny_weights), trainer.backbone.fingerprint)
    assert told["input"] == "images: float32 [batch, 3, 32, 32], RGB, preprocessed as said here"
    assert told["versions"]["torch"] == torch.__version__.split("+")[0]
    picture = square(tmp_path, "picture", 2, 0)
    (prediction,) = Predictor.load(run_folder, told["class_names"], opts=CPU).predict(picture)
    outputs = (by_onnx if kind == "onnx" else by_torch)(path, prepared(picture, told["preprocessing"]))
    np.testing.assert_allclose(outputs["probabilities"][0], prediction.probabilities, atol=1e-5)


def test_compared_on_the_pictures_that_are_named(zero_shot, write, tmp_path):
    square(tmp_path / "mine", "a", 0, 0)
    _, printed = write("torch_export", "--images", tmp_path / "mine")
    assert "pictures, 3 at once: largest difference of the logits 0\n" in printed


# --- what is refused


def refused(capsys, *argv):
    capsys.readouterr()
    assert export.main([str(arg) for arg in argv]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = [line for line in err.splitlines() if line.startswith("Error: ")]
    return line


def test_text_that_depends_on_the_image(make_any, run_folder, capsys):
    make_any("CoCoOp").train()
    line = refused(capsys, run_folder, "--to", "torch_export")
    assert "CoCoOp makes other text features for each image here, so its text side is no matrix" in line


@pytest.mark.parametrize("wrong", [0.01, float("nan")])
def test_a_file_that_computes_something_else_is_not_left_behind(zero_shot, capsys, monkeypatch, tmp_path, wrong):
    out = tmp_path / "out" / "model.pt2"
    out.parent.mkdir()
    out.write_text("an earlier file")
    write = export.WRITERS["torch_export"]

    def bend(program, path, metadata):
        run = write(program, path, metadata)
        return lambda images: {name: value + wrong for name, value in run(images).items()}

    monkeypatch.setitem(export.WRITERS, "torch_export", bend)
    line = refused(capsys, zero_shot, "--to", "torch_export", "-o", out)
    assert "The exported logits differ from PyTorch's by up to " in line
    assert f"{out} was not written" in line
    assert out.read_text() == "an earlier file"
    assert not list(out.parent.glob(f"*{TEMPORARY}*"))


def test_onnx_without_its_packages(zero_shot, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    line = refused(capsys, zero_shot, "--to", "onnx")
    assert "ONNX needs packages that are not installed (onnxruntime); install them with: pip install -r" in line


def test_a_graph_that_torch_can_not_make(zero_shot, capsys, monkeypatch):
    def fail(*args, **kwargs):
        raise KeyError("no\nsuch thing")

    monkeypatch.setattr(torch.export, "export", fail)
    line = refused(capsys, zero_shot, "--to", "torch_export")
    assert "torch.export of torch " in line
    assert r"can't make a graph of this run (KeyError: 'no\nsuch thing'); try another version of torch, or the" in line


def test_endings(zero_shot, capsys, tmp_path):
    line = refused(capsys, zero_shot, "--to", "onnx", "-o", tmp_path / "model.pt2")
    assert f"A file for onnx must end in .onnx, got {tmp_path / 'model.pt2'}." in line


def test_the_default_place_is_the_run_folder(zero_shot, capsys):
    assert export.main([zero_shot, "--to", "torch_export"]) == 0
    assert f"Wrote {zero_shot}/model.pt2 (" in capsys.readouterr().out


# --- comparing, by hand


def test_compare():
    logits = np.array([[1.0, -4.0], [0.0, 2.0]], np.float32)
    expected = [Expected("made up", torch.zeros(2, 1), logits), Expected("same", torch.ones(2, 1), logits)]

    def run(images):
        shift = 0.5 if images.sum() == 0 else 0.0
        odds = np.exp(logits)
        return {"logits": logits + shift, "probabilities": odds / odds.sum(axis=1, keepdims=True)}

    difference = compare(run, expected)
    assert difference.by_batch == {"made up, 2 at once": 0.5, "same, 2 at once": 0.0}
    assert (difference.largest, difference.scale, difference.relative) == (0.5, 4.0, 0.125)
    assert difference.probabilities < 1e-6
    export.accept(Difference(0.0004, 4.0, {}, 0.0), None)
    with pytest.raises(RuntimeError, match="differ from PyTorch's"):
        export.accept(Difference(0.0005, 4.0, {}, 0.0), None)


def test_rendered_pictures():
    first, second = export.rendered(2)
    assert first.size == (64, 64)
    assert np.asarray(first).std() > 10
    assert not np.array_equal(first, second)


def test_the_tables_name_what_there_is():
    assert set(NAMES) - {*UNTRAINED} >= PER_IMAGE
