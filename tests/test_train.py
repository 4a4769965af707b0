"""The command line: precedence of settings, whole runs on toy data, and the sentence each mistake ends with."""

import dataclasses
import io
import json
import re
import sys
from pathlib import Path

import pytest
import torch

import train
from clip.model import CLIP, CLIPSpec
from dassl.engine import TRAINER_REGISTRY
from trainers.coop import CoOpMethod
from trainers.method import StepOutput

ROOT = Path(__file__).parent.parent


def parse(*argv):
    return train.setup_cfg(train.parse_args(list(argv)))


@pytest.fixture
def run(run_trainer):
    """Run train.py on toy data; gives exit status, stdout and stderr."""
    return run_trainer


def metrics(tmp_path, output="run"):
    return json.loads((tmp_path / output / "metrics.json").read_text())


# --- settings


def test_later_settings_win(tmp_path):
    data, method = tmp_path / "data.yaml", tmp_path / "method.yaml"
    data.write_text("DATASET:\n  NAME: FromData\n  NUM_SHOTS: 1\nOPTIM:\n  MAX_EPOCH: 1\n")
    method.write_text("OPTIM:\n  MAX_EPOCH: 2\n  LR: 0.5\nSEED: 7\nOUTPUT_DIR: from_method\n")
    files = ("--dataset-config-file", str(data), "--config-file", str(method))
    cfg = parse(*files)
    assert (cfg.DATASET.NAME, cfg.DATASET.NUM_SHOTS, cfg.OPTIM.MAX_EPOCH, cfg.SEED) == ("FromData", 1, 2, 7)
    assert cfg.OUTPUT_DIR == "from_method"  # a flag that was not typed changes nothing
    cfg = parse(*files, "--seed", "0", "--output-dir", "typed", "OPTIM.MAX_EPOCH", "3", "OUTPUT_DIR", "opt")
    assert (cfg.SEED, cfg.OPTIM.MAX_EPOCH, cfg.OUTPUT_DIR, cfg.OPTIM.LR) == (0, 3, "opt", 0.5)


@pytest.mark.parametrize("flag", sorted(train.FLAGS))
def test_every_flag_reaches_its_key(flag):
    typed, expected = {
        "seed": (["5"], 5),
        "source_domains": (["a", "b"], ["a", "b"]),
        "target_domains": (["c"], ["c"]),
        "transforms": (["normalize"], ["normalize"]),
    }.get(flag, (["something"], "something"))
    cfg = parse("--" + flag.replace("_", "-"), *typed)
    for name in train.FLAGS[flag].split("."):
        cfg = cfg[name]
    assert cfg == expected


def test_the_configuration_is_frozen():
    with pytest.raises(AttributeError):
        parse().SEED = 3


METHOD_FILES = sorted(ROOT.glob("configs/trainers/*/*.yaml"))
BACKBONES = {
    "rn50": "RN50",
    "rn101": "RN101",
    "vit_b32": "ViT-B/32",
    "vit_b16": "ViT-B/16",
    "vit_l14": "ViT-L/14",
    "mini_vit8_l": "Mini-ViT/8-L",
    "mini_vit8": "Mini-ViT/8",
    "timm_vit_b16_in21k": "timm:vit_base_patch16_224.augreg_in21k",
    "timm_vit_b16_mae": "timm:vit_base_patch16_224.mae",
}


@pytest.mark.parametrize("path", METHOD_FILES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_every_method_file_merges_and_its_name_tells_the_truth(path):
    cfg = parse("--config-file", str(path), "--trainer", path.parent.name)
    backbone = max((stem for stem in BACKBONES if f"{path.stem}_".startswith(f"{stem}_")), key=len)
    assert BACKBONES[backbone] == cfg.MODEL.BACKBONE.NAME
    node = cfg.TRAINER.get(path.parent.name.upper(), {})
    rows = {key: node.get(key, 0) for key in ("N_CTX", "N_CTX_TEXT", "N_CTX_VISION")}
    for part in path.stem.removeprefix(f"{backbone}_").split("_"):
        kind, number = re.match(r"([a-z]*)(.*)", part).groups()
        if kind == "ep":
            assert int(number) == cfg.OPTIM.MAX_EPOCH
        elif kind == "batch":
            assert int(number) == cfg.DATALOADER.TRAIN_X.BATCH_SIZE
        elif kind == "c":  # rows in the text tower
            assert int(number) == rows["N_CTX"] + rows["N_CTX_TEXT"]
        elif number.endswith("ctx"):  # rows in both towers, or in the one tower that has rows
            texts, _, images = number.removesuffix("ctx").rpartition("+")
            assert int(images) == (rows["N_CTX_VISION"] or rows["N_CTX"])
            assert not texts or int(texts) == rows["N_CTX_TEXT"]
        elif kind in ("shallow", "deep"):
            assert (kind == "deep") == (node.PROMPT_DEPTH_VISION > 1)
    if path.parent.name in ("CoOp", "CoCoOp"):
        assert ("ctxv1" in path.stem) == (node.CTX_INIT == "a photo of a")
    if path.parent.name == "CLIPFit":
        weight = cfg.TRAINER.CLIPFIT.SIMILARITY_WEIGHT
        assert weight == (2.0 if path.stem.endswith("_lambda2") else 8.0)
    if path.parent.name == "PromptKD":
        parts = path.stem.split("_")
        assert ("kd200" in parts) == (node.KD_WEIGHT == 200)
        assert (16 if "16u" in parts else -1) == cfg.DATASET.NUM_UNLABELLED
        assert (3 if "xd" in parts else 9) == node.PROMPT_DEPTH_VISION
    if path.parent.name == "Spotlighter":
        node, told = cfg.TRAINER.SPOTLIGHTER, path.stem.split("_")[-1]
        presets = {"paper": "paper", "fast": "paper", "release": "release", "ctxv1": "release"}
        assert presets[told] == node.PRESET
        assert bool(node.PRUNE) == (told == "fast")  # fast is paper with pruning
        hosts = {name.lower(): name for name in TRAINER_REGISTRY.registered_names()}
        named = [hosts[part] for part in path.stem.split("_") if part in hosts]
        assert (named[0] if named else "CoOp") == node.HOST
        if not named:
            assert (cfg.TRAINER.COOP.CTX_INIT == "a photo of a") == path.stem.startswith("vit")
    if path.parent.name == "SPT":
        node, told = cfg.TRAINER.SPT, path.stem.split("_")
        assert ("linear" in told) == (node.HEAD == "linear")
        for part in told:
            if part.startswith("deep"):
                assert [int(part[4:]), 12] == [node.N_CTX_VISION, node.PROMPT_DEPTH_VISION]


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/datasets/*.yaml")), ids=lambda p: p.stem)
def test_every_data_set_file_names_a_registered_data_set(path):
    from dassl.data.datasets import DATASET_REGISTRY

    assert parse("--dataset-config-file", str(path)).DATASET.NAME in DATASET_REGISTRY.registered_names()


# --- whole runs


def test_train_then_test_on_new_classes(run, tmp_path):
    code, out, _ = run("DATASET.SUBSAMPLE_CLASSES", "base", "TRAINER.COOP.N_CTX", "4")
    assert code == 0
    record = metrics(tmp_path)
    assert record["finished"]
    assert record["parameters"]["trainable_tensors"] == 1
    assert record["parameters"]["trainable_scalars"] == 4 * 64
    assert "Trainable: 1 tensors, 256 scalars" in out
    flags = ("--eval-only", "--model-dir", str(tmp_path / "run"), "--load-epoch", "2")
    code, out, _ = run("DATASET.SUBSAMPLE_CLASSES", "new", "TRAINER.COOP.N_CTX", "4", output="new", flags=flags)
    assert code == 0
    record = metrics(tmp_path, "new")
    assert record["finished"]
    assert record["mode"] == "eval"
    assert record["class_names"] == ["blue square", "yellow square (large)"]
    accuracy = record["final"]["metrics"]["accuracy"]
    assert accuracy in {100 * k / 8 for k in range(9)}
    assert f"* accuracy: {accuracy:.2f}%" in out


def test_same_seed_same_result_other_seed_other_result(run, tmp_path):
    def context(output, seed):
        assert run("SEED", seed, "TRAINER.COOP.N_CTX", "2", output=output)[0] == 0
        path = tmp_path / output / "prompt_learner" / "model.pth.tar-2"
        return torch.load(path, weights_only=True)["state_dict"]["ctx"]

    first = context("a", "0")
    assert torch.equal(first, context("b", "0"))
    assert not torch.equal(first, context("c", "1"))


def test_initial_weights_are_those_of_the_method_as_in_the_family(run, trainer_of, tmp_path):
    assert run("TRAINER.COOP.N_CTX", "2")[0] == 0
    path = tmp_path / "run" / "prompt_learner" / "model.pth.tar-2"
    trainer = trainer_of("TRAINER.COOP.N_CTX", "2", "MODEL.INIT_WEIGHTS", str(path), output="from")
    torch.testing.assert_close(trainer.method.ctx.data, torch.load(path, weights_only=True)["state_dict"]["ctx"])
    changed = ("TRAINER.COOP.N_CTX", "3", "MODEL.INIT_WEIGHTS", str(path))
    assert "ctx is [2, 64] in the file and [3, 64] here" in sentence(run(*changed, output="other"))


def test_zero_shot_template_can_be_set(trainer_of, images):
    plain = trainer_of(trainer="ZeroshotCLIP")
    other = trainer_of("TRAINER.ZEROSHOTCLIP.TEMPLATE", "a sketch of a {}.", trainer="ZeroshotCLIP")
    ensemble = trainer_of(trainer="ZeroshotCLIP2")
    assert ensemble.method.templates[-1] == "a photo of a {}."
    logits = [t.model_inference(images) for t in (plain, other, ensemble)]
    assert not torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_moves_on_a_terminal_and_stays_out_of_the_log(run, tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "100")
    assert run("TRAINER.COOP.N_CTX", "2")[0] == 0
    assert re.search(r"epoch 2/2: +\d+%\|.*\| \d/6 ", terminal.getvalue())
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "%|" not in log
    assert "epoch [2/2] batch [6/6] time" in log


# --- mistakes: one sentence, exit status 1, no traceback on the terminal


def sentence(result):
    code, _, err = result
    assert code == 1
    (line,) = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert "Traceback" not in err
    return line


def test_a_loss_that_is_not_finite_names_its_terms(run, monkeypatch):
    def losses(self, images, label):
        finite = self.ctx.square().sum()
        return StepOutput(images.new_zeros(len(images), 2), {"ce": finite, "text_l1": finite * float("nan")})

    monkeypatch.setattr(CoOpMethod, "losses", losses)
    line = sentence(run("TRAINER.COOP.N_CTX", "2"))
    assert "text_l1" in line
    assert "ce" in line
    assert "OPTIM.LR" in line


def test_unknown_trainer(run):
    assert "CoOp" in sentence(run(trainer="CoOpp"))


def test_unknown_data_set(run):
    assert "Toy" in sentence(run("DATASET.NAME", "Toi"))


def test_misspelt_key_on_the_command_line(run):
    assert "MAX_EPOCH" in sentence(run("OPTIM.MAX_EPOCHS", "3"))


def test_misspelt_key_in_a_file(run, tmp_path):
    (tmp_path / "bad.yaml").write_text("TRAINER:\n  COOP:\n    NCTX: 3\n")
    line = sentence(run(flags=("--config-file", str(tmp_path / "bad.yaml"))))
    assert "NCTX" in line
    assert "N_CTX" in line


def test_a_flag_behind_the_keys(run):
    line = sentence(run("--eval-only"))
    assert "--eval-only stands behind a KEY VALUE pair; move it to the front" in line


@pytest.mark.parametrize("flags", [("--load-epoch", "0"), ("--model-dir", "somewhere")])
def test_a_model_to_test_without_eval_only(run, tmp_path, flags):
    assert "add --eval-only" in sentence(run(flags=flags))
    assert not (tmp_path / "run").exists()


def test_nothing_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert train.run([]) == 1
    assert "--trainer" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_value_of_the_wrong_kind(run):
    assert "STEPSIZE must end in an integer" in sentence(
        run("OPTIM.LR_SCHEDULER", "single_step", "OPTIM.STEPSIZE", "(1.5,)")
    )


def test_missing_config_file(run):
    path = "configs/trainers/CoOp/nothing.yaml"
    assert path in sentence(run(flags=("--config-file", path)))


def test_wrong_epoch_names_those_that_exist(run, tmp_path):
    assert run("TRAINER.COOP.N_CTX", "2")[0] == 0
    flags = ("--eval-only", "--model-dir", str(tmp_path / "run"), "--load-epoch", "7")
    line = sentence(run("TRAINER.COOP.N_CTX", "2", output="eval", flags=flags))
    assert "model.pth.tar-7" in line
    assert "holds epoch 2;" in line


def test_checkpoint_of_another_backbone(run, tmp_path):
    wide = dataclasses.replace(
        CLIPSpec(32, 32, 2, 64, 8, 77, 49408, 64, 1, 2), transformer_width=128, transformer_heads=2
    )
    torch.save(CLIP(wide).state_dict(), tmp_path / "wide.pt")
    assert run("TRAINER.COOP.N_CTX", "2")[0] == 0
    flags = ("--eval-only", "--model-dir", str(tmp_path / "run"), "--load-epoch", "2")
    backbone = ("MODEL.BACKBONE.NAME", str(tmp_path / "wide.pt"))
    line = sentence(run("TRAINER.COOP.N_CTX", "2", *backbone, output="eval", flags=flags))
    assert "another backbone" in line


def test_checkpoint_of_another_backbone_of_the_same_size(run, tmp_path):
    torch.manual_seed(9)
    torch.save(CLIP(CLIPSpec(32, 32, 2, 64, 8, 77, 49408, 64, 1, 2)).state_dict(), tmp_path / "other.pt")
    assert run("TRAINER.COOP.N_CTX", "2")[0] == 0
    flags = ("--eval-only", "--model-dir", str(tmp_path / "run"), "--load-epoch", "2")
    backbone = ("MODEL.BACKBONE.NAME", str(tmp_path / "other.pt"))
    line = sentence(run("TRAINER.COOP.N_CTX", "2", *backbone, output="eval", flags=flags))
    assert "another backbone" in line


@pytest.mark.parametrize("classes", ["all", "new"])  # other sizes, and the same sizes
def test_class_specific_context_on_other_classes(run, tmp_path, classes):
    csc = ("TRAINER.COOP.CSC", "True", "TRAINER.COOP.N_CTX", "2")
    assert run("DATASET.SUBSAMPLE_CLASSES", "base", *csc)[0] == 0
    flags = ("--eval-only", "--model-dir", str(tmp_path / "run"), "--load-epoch", "2")
    line = sentence(run("DATASET.SUBSAMPLE_CLASSES", classes, *csc, output="eval", flags=flags))
    assert "was trained on other classes (2, from 'red square' to 'green_square')" in line
    assert "what CoOp trains here belongs to its classes; test it on the same ones, in their order" in line


def test_truncated_checkpoint(run, tmp_path):
    assert run("TRAINER.COOP.N_CTX", "2")[0] == 0
    path = tmp_path / "run" / "prompt_learner" / "model.pth.tar-2"
    path.write_bytes(path.read_bytes()[:300])
    flags = ("--eval-only", "--model-dir", str(tmp_path / "run"), "--load-epoch", "2")
    assert str(path) in sentence(run("TRAINER.COOP.N_CTX", "2", output="eval", flags=flags))


def test_output_folder_that_cannot_be_written(run, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    assert "file/run" in sentence(run(output="file/run"))


def test_trained_method_without_a_model_folder(run):
    assert "--model-dir" in sentence(run(flags=("--eval-only",)))


def test_unknown_precision(run):
    assert "fp8" in sentence(run("TRAINER.COOP.PREC", "fp8"))


def test_missing_weights(run, tmp_path):
    assert "nowhere.pt" in sentence(run("MODEL.BACKBONE.NAME", str(tmp_path / "nowhere.pt")))


def test_training_a_method_without_parameters(run):
    assert "--eval-only" in sentence(run(trainer="ZeroshotCLIP"))
