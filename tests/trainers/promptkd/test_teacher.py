"""Where a teacher comes from: runs of this project, checkpoints of the released codes, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch

from trainers.released import own_layout


def as_released(prompts, clip_state, half=False):
    """A state dict under the released names: prompts, the whole CLIP, and tables made from class names."""
    state = {
        "prompt_learner.ctx": prompts["text_prompts.ctx"],
        **{
            f"prompt_learner.token_{part}": torch.zeros(2, 3, 128)
            for part in ("prefix", "suffix", "prefix2", "suffix2")
        },
        "image_encoder.VPT": prompts["image_prompts.rows.0"],
        "text_encoder.transformer.resblocks.1.VPT_shallow": prompts["text_prompts.deep.1"],
        "image_encoder.transformer.resblocks.1.VPT_shallow": prompts["image_prompts.rows.1"],
        "image_encoder.transformer.resblocks.2.VPT_shallow": prompts["image_prompts.rows.2"],
        "logit_scale": clip_state["logit_scale"],
        "prompt_learner.ZS_image_encoder.conv1.weight": clip_state["visual.conv1.weight"],
    }
    for name, tensor in clip_state.items():
        where = (
            f"image_encoder.{name.removeprefix('visual.')}" if name.startswith("visual.") else f"text_encoder.{name}"
        )
        state[where] = tensor
    return {name: tensor.half() for name, tensor in state.items()} if half else state


@pytest.fixture
def released(teacher, large_clip, tmp_path):
    """Writes a checkpoint; changes replace tensors, None removes one."""

    def write(path="file.pth.tar", half=False, **changes):
        state = as_released(teacher.state_dict(), large_clip.state_dict(), half)
        for name, tensor in changes.items():
            state[name] = tensor
            if tensor is None:
                del state[name]
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"state_dict": state, "epoch": 20, "optimizer": None, "scheduler": None, "val_result": 80.0}, target)
        return target

    return write


def test_a_run_teaches_with_its_own_options_and_backbone(make, taught, large_weights, capsys):
    trainer = make("TRAINER.PROMPTKD.TEACHER_DIR", taught)
    said = capsys.readouterr().out
    assert f"Teacher: PromptSRC on {large_weights}, trained on the base classes of ImageFolder\n" in said
    method = trainer.method.taught_by
    saved = torch.load(taught / "prompt_learner" / "model.pth.tar-2", weights_only=True)["state_dict"]
    assert all(torch.equal(saved[name], tensor) for name, tensor in method.state_dict().items())
    assert not any(p.requires_grad for p in method.parameters())
    assert method.backbone.spec.embed_dim == 48
    assert trainer.method.joint_width == 48


def test_the_best_epoch_of_a_run_that_kept_it(make, large_weights, pictures):
    teacher = {"trainer": "IVLP", "output": "best", "backbone": large_weights}
    trainer = make("TEST.FINAL_MODEL", "best_val", "OPTIM.MAX_EPOCH", "3", **teacher)
    accuracies, real = iter([30.0, 60.0, 20.0]), trainer.test
    trainer.test = lambda split=None: next(accuracies) if split == "val" else real()
    trainer.train()
    method = make("TRAINER.PROMPTKD.TEACHER_DIR", pictures / "best").method.taught_by
    best = torch.load(pictures / "best/prompt_learner/model-best.pth.tar", weights_only=True)
    assert best["epoch"] == 2
    assert torch.equal(method.text_prompts.ctx, best["state_dict"]["text_prompts.ctx"])


@pytest.mark.parametrize("path", ["file.pth.tar", "run/VLPromptLearner/model-best.pth.tar"])
@pytest.mark.parametrize("half", [False, True])
def test_a_released_checkpoint(make, released, teacher, images, large_weights, path, half):
    where = released(path, half)
    if path.startswith("run"):
        released(
            "run/VLPromptLearner/model.pth.tar-20", **{"image_encoder.VPT": torch.zeros(4, 128)}
        )  # the best counts
        where = where.parent.parent
    opts = ("TRAINER.PROMPTKD.TEACHER_DIR", where, "TRAINER.PROMPTKD.TEACHER_BACKBONE", large_weights)
    method = make(*opts).method.taught_by
    text = teacher.text(method.space)
    torch.testing.assert_close(method.text(), text, atol=2e-3 if half else 1e-6, rtol=0)
    with torch.no_grad():
        ours, expected = method.image(images).pooled, teacher.image(images).pooled
    torch.testing.assert_close(ours, expected, atol=2e-2 if half else 1e-6, rtol=0)


def test_the_last_epoch_of_a_released_run_without_a_best(make, released, large_weights, tmp_path):
    released("run/VLPromptLearner/model.pth.tar-19")
    released("run/VLPromptLearner/model.pth.tar-20", **{"prompt_learner.ctx": torch.full((4, 128), 0.25)})
    opts = ("TRAINER.PROMPTKD.TEACHER_DIR", tmp_path / "run", "TRAINER.PROMPTKD.TEACHER_BACKBONE", large_weights)
    assert torch.equal(make(*opts).method.taught_by.text_prompts.ctx.unique(), torch.tensor([0.25]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"prompt_learner.ctx": torch.zeros(4, 96)},
            "has text prompts that are 96 wide and 2 blocks deep, but the text tower of .* is 128 wide and has 2 "
            "blocks; set TRAINER.PROMPTKD.TEACHER_BACKBONE to the backbone that they were trained on",
        ),
        (
            {"image_encoder.transformer.resblocks.3.VPT_shallow": torch.zeros(4, 128)},
            "has image prompts that are 128 wide and 4 blocks deep, but the image tower of .* is 128 wide and has 3",
        ),
        (
            {"image_encoder.transformer.resblocks.1.VPT_shallow": None},
            r"is no checkpoint of prompts in both towers: no tensors image_prompts.rows.0, .* without gaps",
        ),
        ({"prompt_learner.ctx": None}, "is no checkpoint of prompts in both towers: no tensors text_prompts.ctx"),
        ({"other.weight": torch.zeros(1)}, "does not fit this model.*other.weight is only in the file"),
    ],
)
def test_a_checkpoint_that_does_not_fit(make, released, large_weights, changes, message):
    opts = ("TRAINER.PROMPTKD.TEACHER_DIR", released(**changes))
    with pytest.raises(RuntimeError, match=message):
        make(*opts, "TRAINER.PROMPTKD.TEACHER_BACKBONE", large_weights)


def test_code_in_a_checkpoint_is_not_run(make, tmp_path):
    class Harmful:
        def __reduce__(self):
            return print, ("ran",)

    torch.save({"state_dict": {"image_encoder.VPT": Harmful()}}, tmp_path / "harmful.pth.tar")
    with pytest.raises(RuntimeError, match=r"harmful.pth.tar holds a pickled .*, which could run code when loaded"):
        make("TRAINER.PROMPTKD.TEACHER_DIR", tmp_path / "harmful.pth.tar")


def test_no_teacher(make, tmp_path):
    with pytest.raises(
        ValueError, match=r"PromptKD needs a trained teacher; name its run folder in TRAINER.PROMPTKD.TEACHER"
    ):
        make()
    with pytest.raises(
        FileNotFoundError, match=r"No teacher at .*/nowhere: neither a run folder with metrics.json, nor"
    ):
        make("TRAINER.PROMPTKD.TEACHER_DIR", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"finished": False}, "holds no finished training run; train the teacher to its end first"),
        ({"mode": "eval"}, "holds no finished training run"),
        ({"trainer": "Unheard"}, "is a run of Unheard, which is no method of this project"),
        ({"config": {"TRAINER": {"PROMPTSRC": {"OTHER": 1}}}}, "has options that this version does not know: .*OTHER"),
    ],
)
def test_a_run_that_cannot_teach(make, taught, changes, message):
    record = json.loads((taught / "metrics.json").read_text())
    config = changes.get("config", {})
    for name, node in config.get("TRAINER", {}).items():
        record["config"]["TRAINER"][name] |= node
    record |= {key: value for key, value in changes.items() if key != "config"}
    (taught / "metrics.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=message):
        make("TRAINER.PROMPTKD.TEACHER_DIR", taught)


def test_a_teacher_whose_text_depends_on_the_image(make, pictures, large_weights):
    make("OPTIM.MAX_EPOCH", "1", trainer="CoCoOp", output="images", backbone=large_weights).train()
    with pytest.raises(
        ValueError, match="is CoCoOp, which makes other text features for each image and so has no class"
    ):
        make("TRAINER.PROMPTKD.TEACHER_DIR", pictures / "images")


def test_a_backbone_that_changed_since(make, taught, large_weights, large_clip, tmp_path):
    other = tmp_path / "other.pt"
    torch.save({name: tensor * 1.5 for name, tensor in large_clip.state_dict().items()}, other)
    path = taught / "metrics.json"
    path.write_text(path.read_text().replace(str(large_weights), str(other)))
    with pytest.raises(
        RuntimeError, match=r"model.pth.tar-2 was made with another backbone: weights called .*other.pt with"
    ):
        make("TRAINER.PROMPTKD.TEACHER_DIR", taught)


def test_a_teacher_of_other_pixels(make, taught, tmp_path, tiny_clip):
    state = dict(tiny_clip.state_dict())
    state["visual.positional_embedding"] = torch.randn(26, 64)  # 5 x 5 patches of 8 pixels
    torch.save(state, tmp_path / "student.pt")
    with pytest.raises(
        ValueError, match="sees images of 32 pixels and the student of 40; take a backbone of the student's"
    ):
        make("TRAINER.PROMPTKD.TEACHER_DIR", taught, "INPUT.SIZE", "(40, 40)", backbone=tmp_path / "student.pt")


def test_a_teacher_that_knows_new_labels_is_reported(make, pictures, large_weights, capsys):
    make("OPTIM.MAX_EPOCH", "1", trainer="IVLP", output="all", backbone=large_weights, classes="all").train()
    make("TRAINER.PROMPTKD.TEACHER_DIR", pictures / "all", classes="new")
    said = "Warning: the teacher has seen labels of the all classes, so this is no transfer from base classes to new"
    assert said in capsys.readouterr().out


def test_a_released_students_checkpoint_loads(make, taught, pictures, tiny_clip, images):
    trainer = make("TRAINER.PROMPTKD.TEACHER_DIR", taught, "TRAINER.PROMPTKD.N_CTX_VISION", 3)
    own = {name: torch.randn(tensor.shape) for name, tensor in trainer.method.state_dict().items()}
    own["projector.bn.running_var"].abs_()
    own["projector.bn.num_batches_tracked"] = torch.tensor(7)
    state = {f"image_encoder.{name.removeprefix('visual.')}": t for name, t in tiny_clip.visual.state_dict().items()}
    state |= {
        "image_encoder.VPT": own["image_prompts.rows.0"],
        "image_encoder.transformer.resblocks.1.VPT_shallow": own["image_prompts.rows.1"],
        "VPT_image_trans.conv1.0.weight": own["projector.linear1.weight"][..., None, None],
        "VPT_image_trans.conv1.0.bias": own["projector.linear1.bias"],
        "VPT_image_trans.conv1.3.weight": own["projector.linear2.weight"][..., None, None],
        "VPT_image_trans.conv1.3.bias": own["projector.linear2.bias"],
        "logit_scale": tiny_clip.logit_scale.detach(),
    }
    for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        state[f"VPT_image_trans.conv1.1.{part}"] = own[f"projector.bn.{part}"]
    folder = pictures / "released" / "prompt_learner"
    folder.mkdir(parents=True)
    torch.save({"state_dict": state, "epoch": 20}, folder / "model.pth.tar-20")
    trainer.load_model(str(folder.parent), 20)
    assert all(torch.equal(own[name], tensor) for name, tensor in trainer.method.state_dict().items())
    assert own_layout(own).keys() == own.keys()  # ours stays as it is
