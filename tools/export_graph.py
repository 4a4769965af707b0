"""A trained run as one graph, pictures to probabilities: made, written as ONNX or by torch.export, read back, compared.

Axes: B images, C classes, k chosen tokens.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainers.base import MethodTrainer

METADATA = "metadata.json"  # name of the extra file in what torch.export writes
TEXT_PARTS = ("transformer", "token_embedding", "positional_embedding", "ln_final", "text_projection")
TOLERANCE = 1e-4  # of the largest logit
BATCHES = (1, 3)  # numbers of images that a file is tried with

Run = Callable[[Tensor], dict[str, np.ndarray]]  # images [B, 3, H, W] to outputs by name


class PictureClassifier(nn.Module):
    """A method on settled classes: images [B, 3, H, W], normalised, to logits and probabilities [B, C].

    A method that chooses visual tokens in inference gives their numbers, too, int64 [B, k].

    Args:
        trainer: of a run, on the CPU; it can't be used otherwise afterwards, for its text tower is taken away.

    Raises:
        ValueError: the text depends on the image.
    """

    def __init__(self, trainer: MethodTrainer):
        super().__init__()
        method, backbone = trainer.method, trainer.backbone
        if method.text_depends_on_image:
            raise ValueError(
                f"{trainer.cfg.TRAINER.NAME} makes other text features for each image here, so its text side is no "
                "matrix that could be put into a file; it can't be exported, only run with tools/predict.py."
            )
        method.fold(trainer.test_space)
        if hasattr(backbone, "clip"):  # not that of a plain ViT
            for name in TEXT_PARTS:
                delattr(backbone.clip, name)
        self.method, self.backbone = method, backbone
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        seen = self.method.inspect(images)
        outputs = {"logits": seen.logits, "probabilities": seen.logits.softmax(dim=1)}
        return outputs if seen.tokens is None else outputs | {"tokens": seen.tokens.index}


@torch.no_grad()
def traced(model: PictureClassifier, size: Sequence[int]) -> torch.export.ExportedProgram:
    """The graph, for any number of images of (height, width).

    Raises:
        RuntimeError: torch can't make it.
    """
    example = torch.zeros(max(BATCHES), 3, *size)
    with _exporter("torch.export"):
        return torch.export.export(model, (example,), dynamic_shapes={"images": {0: torch.export.Dim("batch")}})


def write_torch_export(program: torch.export.ExportedProgram, path: Path, metadata: Mapping[str, Any]) -> Run:
    """Write what `torch.export.load` reads, and read it; the metadata are the extra file metadata.json.

    Raises:
        RuntimeError: torch can't.
    """
    with _exporter("torch.export"):
        torch.export.save(program, path, extra_files={METADATA: json.dumps(metadata, indent=2)})
        again = torch.export.load(path).module()
    return lambda images: {name: value.numpy() for name, value in again(images).items()}


def write_onnx(program: torch.export.ExportedProgram, path: Path, metadata: Mapping[str, Any]) -> Run:
    """Write an ONNX file and open it with onnxruntime; what of the metadata is no string becomes JSON.

    Raises:
        RuntimeError: a package is missing, or torch can't.
    """
    try:
        import onnxruntime
        from onnx_ir import Shape
        from onnxscript import opset18 as op
    except ImportError as error:
        raise RuntimeError(
            f"ONNX needs packages that are not installed ({error.name}); install them with: "
            "pip install -r requirements-export.txt"
        ) from error

    def sort(rows: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
        """ONNX's TopK puts the earlier of two equal entries first, as a stable sort does; torch.onnx has none."""
        size = op.Gather(op.Shape(rows), op.Constant(value_ints=[dim]))
        return op.TopK(rows, size, axis=dim, largest=int(descending), sorted=1)

    outputs = ["logits", "probabilities", "tokens"][: len(program.graph_signature.user_outputs)]
    with _exporter("torch.onnx"):
        onnx = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=outputs,
            custom_translation_table={torch.ops.aten.sort.stable: sort},
        )
    assert onnx is not None
    for value in (*onnx.model.graph.inputs, *onnx.model.graph.outputs):
        value.shape = Shape(["batch", *value.shape[1:]])  # torch's name for it is a number
    for key, item in metadata.items():
        onnx.model.metadata_props[key] = item if isinstance(item, str) else json.dumps(item)
    onnx.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: dict(zip(outputs, session.run(outputs, {"images": images.numpy()}), strict=True))


WRITERS = {"onnx": write_onnx, "torch_export": write_torch_export}
ENDINGS = {"onnx": ".onnx", "torch_export": ".pt2"}
VERSIONS_OF = {"onnx": ("torch", "onnx", "onnxscript", "onnxruntime"), "torch_export": ("torch",)}


@dataclass(frozen=True)
class Expected:
    """What PyTorch gives for a batch."""

    what: str  # the images, in a word
    images: Tensor  # [B, 3, H, W]
    logits: np.ndarray  # [B, C]


def expectations(trainer: MethodTrainer, batches: Mapping[str, Tensor]) -> list[Expected]:
    """Logits of the run itself for the first 1 and 3 images of each batch; ask before a graph is made of it."""
    return [
        Expected(what, images[:n], trainer.model_inference(images[:n]).numpy())
        for what, images in batches.items()
        for n in BATCHES
    ]


@dataclass(frozen=True)
class Difference:
    """Of a file from PyTorch."""

    largest: float  # of all logits
    scale: float  # the largest logit
    by_batch: dict[str, float]  # what was tried -> largest difference of the logits
    probabilities: float  # largest difference of the probabilities

    @property
    def relative(self) -> float:
        return self.largest / self.scale


def compare(run: Run, expected: Sequence[Expected]) -> Difference:
    """Run a file on batches and compare it with PyTorch."""
    by_batch, probabilities = {}, 0.0
    for item in expected:
        outputs = run(item.images)
        difference = np.abs(outputs["logits"].astype(np.float64) - item.logits).max()
        by_batch[f"{item.what}, {len(item.images)} at once"] = float(difference)
        odds = np.exp(item.logits - item.logits.max(axis=1, keepdims=True).astype(np.float64))
        own = np.abs(outputs["probabilities"] - odds / odds.sum(axis=1, keepdims=True)).max()
        probabilities = float(np.maximum(probabilities, own))  # a NaN stays one
    scale = max(float(np.abs(item.logits).max()) for item in expected)
    return Difference(float(np.max(list(by_batch.values()))), scale, by_batch, probabilities)


def metadata_of(trainer: MethodTrainer, epoch: int | None, kind: str) -> dict[str, Any]:
    """What a file says of itself."""
    given, space = trainer.cfg.INPUT, trainer.test_space
    normalised = "normalize" in given.TRANSFORMS
    return {
        "trainer": trainer.cfg.TRAINER.NAME,
        "dataset": space.dataset,
        "backbone": trainer.backbone.name,
        "fingerprint": trainer.backbone.fingerprint,
        "epoch": epoch,
        "class_names": list(space.names),
        "input": f"images: float32 [batch, 3, {given.SIZE[0]}, {given.SIZE[1]}], RGB, preprocessed as said here",
        "preprocessing": {
            "resize_smaller_edge": max(given.SIZE),
            "interpolation": given.INTERPOLATION,
            "antialias": True,
            "center_crop": list(given.SIZE),
            "scale": 1 / 255,
            "mean": list(given.PIXEL_MEAN) if normalised else [0.0, 0.0, 0.0],
            "std": list(given.PIXEL_STD) if normalised else [1.0, 1.0, 1.0],
            "instance_norm": "instance_norm" in given.TRANSFORMS,
        },
        "outputs": "logits and probabilities: float32 [batch, classes]; tokens, where there are any: int64 [batch, k], "
        "numbers of the chosen patches, row by row, best first",
        "precision": "fp32",
        "versions": {package: version(package) for package in VERSIONS_OF[kind]},
    }


@contextmanager
def _exporter(name: str) -> Iterator[None]:
    """Around an exporter of torch, which warns of affairs of its own, and fails with whatever it likes.

    Raises:
        RuntimeError: it failed.
    """
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise RuntimeError(
            f"{name} of torch {torch.__version__} can't make a graph of this run ({reason[:200]}); try another version "
            "of torch, or the other value of --to."
        ) from error
    finally:
        logging.disable(level)
