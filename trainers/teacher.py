"""The teacher of a distilling method: a finished run of any registered trainer, or a released checkpoint of prompts.

A run says itself, in metrics.json, which trainer, options and backbone it has; of a released checkpoint the prompts'
sizes are read from its tensors, and the backbone must be named.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from yacs.config import CfgNode as CN

from clip.backbone import Backbone, LabelSpace, load_backbone
from dassl.engine import TRAINER_REGISTRY
from dassl.engine.record import FILE, read_record
from dassl.utils.torchtools import (
    BEST_MODEL,
    load_checkpoint,
    load_exactly,
    model_file,
    saved_epochs,
    saved_state_dict,
)
from trainers.base import MethodTrainer
from trainers.method import Method
from trainers.prompting import WORDS, ImagePrompts, PromptedMethod, TextPrompts
from trainers.released import own_layout, prompt_sizes
from trainers.saved_run import final_epoch

RELEASED_FOLDER = "VLPromptLearner"  # of the checkpoints in a run folder of the released codes


def load_teacher(cfg: CN, where: str, released_backbone: str, student: Backbone, space: LabelSpace) -> Method:
    """A trained method, frozen and in evaluation mode, on the device and in the precision of the student.

    Args:
        cfg: the student's configuration; of it a teacher takes what its run does not say.
        where: run folder, or a checkpoint of prompts: a file, or a run folder of the released codes.
        released_backbone: of a released checkpoint; runs name theirs.

    Raises:
        FileNotFoundError: there is nothing at `where`.
        ValueError: the run is not finished, or can't teach.
        RuntimeError: the checkpoint does not fit the backbone.
    """
    path = Path(where)
    if (path / FILE).is_file():
        teacher = _of_run(cfg, path, student, space)
    else:
        teacher = _of_checkpoint(_released_file(path), released_backbone, student, space)
    pixels, own = teacher.backbone.spec.image_resolution, student.spec.image_resolution
    if pixels != own:
        raise ValueError(
            f"The teacher in {where} sees images of {pixels} pixels and the student of {own}; take a backbone of the "
            "student's image size."
        )
    return teacher.to(student.device).requires_grad_(False).eval()


def _of_run(cfg: CN, folder: Path, student: Backbone, space: LabelSpace) -> Method:
    record = read_record(folder)
    if record is None or record.get("mode") != "train" or not record.get("finished"):
        raise ValueError(f"{folder} holds no finished training run; train the teacher to its end first.")
    name = record["trainer"]
    trainer = TRAINER_REGISTRY.get(name) if name in TRAINER_REGISTRY.registered_names() else None
    if trainer is None or not issubclass(trainer, MethodTrainer):
        raise ValueError(f"The teacher in {folder} is a run of {name}, which is no method of this project.")
    backbone = _backbone(record["backbone"], student)
    method = trainer.make_method(_config(cfg, record, folder), backbone, space)
    if method.text_depends_on_image:
        raise ValueError(
            f"The teacher in {folder} is {name}, which makes other text features for each image and so has no class "
            "vectors to teach with."
        )
    path = model_file(folder, trainer.model_name, final_epoch(record))
    checkpoint = load_checkpoint(path)
    made_with = checkpoint.get("made_with") or {}
    if made_with.get("fingerprint", backbone.fingerprint) != backbone.fingerprint:
        raise RuntimeError(
            f"{path} was made with another backbone: weights called {record['backbone']} with fingerprint "
            f"{made_with['fingerprint']}, now they have {backbone.fingerprint}; restore the former weights."
        )
    weights = saved_state_dict(checkpoint, path)
    load_exactly(method, {k: v for k, v in weights.items() if k not in trainer.rebuilt_on_load}, path)
    print(f"Teacher: {name} on {record['backbone']}, trained on the {record['classes']} classes of {record['dataset']}")
    subset = cfg.DATASET.SUBSAMPLE_CLASSES
    if record["dataset"] == cfg.DATASET.NAME and subset != "all" and record["classes"] != "base":
        print(
            f"Warning: the teacher has seen labels of the {record['classes']} classes, so this is no transfer from "
            "base classes to new ones"
        )
    return method


def _config(cfg: CN, record: Mapping[str, Any], folder: Path) -> CN:
    """The student's configuration with the teacher's options, as its run recorded them."""
    recorded = record["config"]
    config = cfg.clone()
    config.defrost()
    config.MODEL.BACKBONE.NAME = record["backbone"]
    config.OPTIM.MAX_EPOCH = recorded["OPTIM"]["MAX_EPOCH"]
    try:
        config.TRAINER.merge_from_other_cfg(CN(recorded["TRAINER"]))
    except (KeyError, ValueError) as error:
        raise ValueError(f"The teacher in {folder} has options that this version does not know: {error}.") from None
    config.freeze()
    return config


def _released_file(path: Path) -> Path:
    """The checkpoint at a path; in a run folder of the released codes the best model, else the last one.

    Raises:
        FileNotFoundError: there is none.
    """
    if path.is_file():
        return path
    folder = path / RELEASED_FOLDER
    if (folder / BEST_MODEL).is_file():
        return folder / BEST_MODEL
    for epoch in reversed(saved_epochs(folder)):
        return model_file(path, RELEASED_FOLDER, epoch)
    raise FileNotFoundError(
        f"No teacher at {path}: neither a run folder with {FILE}, nor a checkpoint, nor a folder with "
        f"{RELEASED_FOLDER}/{BEST_MODEL}; train one with scripts/promptkd/train_teacher.sh, or correct "
        "TRAINER.PROMPTKD.TEACHER_DIR."
    )


def _of_checkpoint(path: Path, backbone_name: str, student: Backbone, space: LabelSpace) -> Method:
    checkpoint = load_checkpoint(path)
    state = own_layout(saved_state_dict(checkpoint, path))
    state = {name: tensor for name, tensor in state.items() if not name.startswith("average.")}  # training's, not ours
    backbone = _backbone((checkpoint.get("made_with") or {}).get("backbone") or backbone_name, student)
    method = PromptedMethod(backbone, space, *_prompts(state, backbone, path))
    load_exactly(method, state, path)
    print(f"Teacher: prompts of {path} on {backbone.name}")
    return method


def _prompts(state: Mapping[str, Tensor], backbone: Backbone, path: Path) -> tuple[TextPrompts, ImagePrompts]:
    """Prompts of the sizes that the state dict has.

    Raises:
        RuntimeError: it has none, or they don't fit the towers.
    """
    try:
        text, image = prompt_sizes(state)
    except ValueError as error:
        raise RuntimeError(f"{path} is no checkpoint of prompts in both towers: {error}.") from None
    towers = (
        ("text", text, backbone.text.width, backbone.text.n_blocks),
        ("image", image, backbone.vision.vit.transformer.width, backbone.vision.n_blocks),
    )
    for tower, (_, depth, width), own_width, n_blocks in towers:
        if width != own_width or depth > n_blocks:
            raise RuntimeError(
                f"{path} has {tower} prompts that are {width} wide and {depth} blocks deep, but the {tower} tower of "
                f"{backbone.name} is {own_width} wide and has {n_blocks} blocks; set TRAINER.PROMPTKD.TEACHER_BACKBONE "
                "to the backbone that they were trained on."
            )
    prompts = TextPrompts(backbone, text[0], WORDS, text[1])
    return prompts, ImagePrompts.random(backbone, image[0], image[1])


def _backbone(name: str, student: Backbone) -> Backbone:
    backbone = load_backbone(name, dtype=student.dtype, device=student.device)
    backbone.text.chunk = student.text.chunk
    return backbone
