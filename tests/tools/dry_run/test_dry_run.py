"""`train.py --dry-run` on toy data: every line of the report, every refusal, and that nothing is left behind."""

import importlib.util
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from yacs.config import CfgNode as CN

import clip.clip as openai_clip
import train
from clip.model import CLIP
from dassl.engine import TRAINER_REGISTRY
from dassl.engine.resume import rng_state
from datasets.shapes import Shapes
from tests.conftest import TINY, square
from tests.dassl.engine.test_distributed import torchrun
from tests.tools.dry_run.conftest import files_below, sections
from trainers.coop import CoOpMethod
from trainers.method import StepOutput

ROOT = Path(__file__).resolve().parents[3]
BASE = ("DATASET.SUBSAMPLE_CLASSES", "base", "TRAINER.COOP.N_CTX", "4")
FROZEN = sum(p.numel() for p in CLIP(TINY).parameters())
DURATION = r"\d+\.?\d* (s|min)"


def test_the_report(dry, tmp_path, tiny_weights):
    code, found, out, _ = dry(*BASE, "DATALOADER.NUM_WORKERS", "2", "DATALOADER.TEST.BATCH_SIZE", "3")
    assert code == 0
    run = tmp_path / "run"
    assert f"Dry run: nothing is trained, and nothing is written to {run}.\n" in out
    assert found["Method"] == [
        ("method", "CoOp"),
        ("backbone", str(tiny_weights)),
        ("trained", "1 tensor, 256 scalars"),
        ("frozen", f"{FROZEN:,} scalars"),
    ]
    assert found["Data"] == [
        ("data set", f"Toy in {tmp_path / 'data'}"),
        ("images", "train_x 12, val 4, test 8"),
        ("classes", "2 (base), from 'red square' to 'green_square'"),
        ("shots", "all images"),
        ("batch size", "4 in training, 3 in tests"),
        ("steps", "3 an epoch, 6 in 2 epochs"),
    ]
    estimate = dict(found["Estimate for cpu, from 3 steps behind 1 to warm up, and one test batch"])
    assert list(estimate) == ["a step", "training", "tests", "in all", "memory"]
    parts = f"{DURATION}: {DURATION} to load its images, {DURATION} to compute, 2 processes loading beside it"
    assert re.fullmatch(parts, estimate["a step"])
    assert re.fullmatch(f"{DURATION} for 6 steps", estimate["training"])
    assert re.fullmatch(f"{DURATION} for 1 test", estimate["tests"])
    assert re.fullmatch(f"{DURATION}, the start of the program left out", estimate["in all"])
    assert re.fullmatch(r"\d+\.\d GiB resident, of this process at its peak", estimate["memory"])
    assert found["Text"] == [
        ("'[4 rows] {}.'", "77 tokens - 7 of start, end and sentence = 70 for a class name"),
        ("longest", "'red square' 2, 'green square' 2"),
    ]
    recipe = dict(found["Published recipe configs/trainers/CoOp/vit_b16_ep200_ctxv1.yaml (base2new)"])
    assert recipe["OPTIM.LR"] == "0.1 → 0.002"
    assert recipe["OPTIM.MAX_EPOCH"] == "2 → 200"
    assert recipe["TRAINER.COOP.CTX_INIT"] == "'' → a photo of a"
    assert recipe["DATASET.NUM_SHOTS"] == "-1 → 16"
    assert not any(key.startswith(("TRAINER.MAPLE", "SEED", "DATALOADER.NUM_WORKERS")) for key in recipe)
    assert found[f"Output folder {run}"] == [
        ("holds", "nothing: there is no such folder"),
        ("the command", "trains from the beginning"),
    ]


def test_nothing_is_written(dry, tmp_path):
    assert dry(*BASE)[0] == 0  # the toy data set draws its pictures on first use
    before = files_below(tmp_path)
    assert dry(*BASE)[0] == 0
    assert files_below(tmp_path) == before
    assert not (tmp_path / "run").exists()


def test_no_few_shot_sample_is_kept(dry, tmp_path):
    for name in ("cat", "dog"):
        for index in range(6):
            square(tmp_path / "data" / "pictures" / name, "any", name == "dog", index)
    before = files_below(tmp_path)
    data = ("DATASET.NAME", "ImageFolder", "DATASET.IMAGE_FOLDER.DIR", "pictures", "DATASET.NUM_SHOTS", "2")
    code, found, _, err = dry(*data, "TRAINER.COOP.N_CTX", "4")
    assert code == 0, err
    assert ("shots", "2 shots") in found["Data"]
    assert files_below(tmp_path) == before


@pytest.mark.parametrize("trainer", ["CoOp", "Spotlighter"])
def test_a_run_after_a_dry_run_is_the_run_without(dry, run_trainer, tmp_path, trainer):
    opts = ("DATASET.SUBSAMPLE_CLASSES", "base", "TRAINER.COOP.N_CTX", "2")

    def weights(output):
        assert run_trainer(*opts, trainer=trainer, output=output)[0] == 0
        path = tmp_path / output / "prompt_learner" / "model.pth.tar-2"
        return torch.load(path, weights_only=True)["state_dict"]

    plain = weights("plain")
    assert dry(*opts, trainer=trainer, output="after")[0] == 0
    after = weights("after")
    assert all(torch.equal(plain[name], after[name]) for name in plain)
    records = [json.loads((tmp_path / output / "metrics.json").read_text()) for output in ("plain", "after")]
    assert records[0]["final"]["metrics"] == records[1]["final"]["metrics"]


def test_generators_are_put_back(command, capsys):
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    before = rng_state()
    train.main(train.parse_args(command(*BASE, "SEED", "-1", flags=("--dry-run",))))
    after = rng_state()
    assert before["python"] == after["python"]
    assert torch.equal(before["torch"], after["torch"])
    assert torch.equal(before["numpy"][1], after["numpy"][1])
    assert before["numpy"][2:] == after["numpy"][2:]


def test_steps_are_more_than_an_epoch_has(dry):
    code, found, _, _ = dry(*BASE, "DATALOADER.TRAIN_X.BATCH_SIZE", "12")
    assert code == 0
    assert ("steps", "1 an epoch, 2 in 2 epochs") in found["Data"]


def test_validation_in_every_epoch_counts(dry):
    _, found, _, _ = dry(*BASE, "TEST.FINAL_MODEL", "best_val")
    (estimate,) = [dict(lines) for title, lines in found.items() if title.startswith("Estimate")]
    assert estimate["tests"].endswith(" for 3 tests")
    _, found, _, _ = dry(*BASE, "TEST.NO_TEST", "True")
    (estimate,) = [dict(lines) for title, lines in found.items() if title.startswith("Estimate")]
    assert estimate["tests"] == "0.000 s for 0 tests"


def test_an_evaluation(dry, run_trainer, tmp_path):
    assert run_trainer(*BASE)[0] == 0
    opts = ("DATASET.SUBSAMPLE_CLASSES", "new", "TRAINER.COOP.N_CTX", "4")
    flags = ("--eval-only", "--model-dir", str(tmp_path / "run"), "--load-epoch", "2")
    code, found, _, _ = dry(*opts, flags=flags, output="new")
    assert code == 0
    assert "steps" not in dict(found["Data"])
    estimate = dict(found["Estimate for cpu, from one test batch"])
    assert list(estimate) == ["tests", "in all", "memory"]
    assert found[f"Output folder {tmp_path / 'new'}"][1] == ("the command", "tests")
    assert not (tmp_path / "new").exists()


def test_no_train(dry, tmp_path):
    _, found, _, _ = dry(*BASE, flags=("--no-train",))
    assert ("the command", "builds everything, and stops (--no-train)") in found[f"Output folder {tmp_path / 'run'}"]
    assert list(found)[2] == "Estimate for cpu, from one test batch"


def test_a_method_around_a_host(dry):
    code, found, _, _ = dry(*BASE, trainer="Spotlighter")
    assert code == 0
    assert found["Method"][0] == ("method", "Spotlighter around CoOp")
    (estimate,) = [dict(lines) for title, lines in found.items() if title.startswith("Estimate")]
    assert re.fullmatch(f"{DURATION} to look at 12 images first, what is made of them not counted", estimate["before"])
    assert list(estimate) == ["a step", "before", "training", "tests", "in all", "memory"]


def test_a_solver_has_no_steps(dry):
    code, found, _, _ = dry("DATASET.SUBSAMPLE_CLASSES", "base", "OPTIM.MAX_EPOCH", "1", trainer="LinearProbe")
    assert code == 0
    assert ("batch size", "32 in tests") in found["Data"]
    assert ("steps", "1 epoch without steps that can be counted") in found["Data"]
    estimate = dict(found["Estimate for cpu, from one test batch"])
    assert estimate["training"].startswith("not estimated: the trainer's epochs are not made of steps")
    assert "in all" not in estimate
    assert found["Text"] == [("tokens", "LinearProbe reads no text")]


def test_warnings_of_the_data_are_passed_on(dry, monkeypatch):
    made = TRAINER_REGISTRY.get("CoOp").build_data_loader

    def warning(trainer):
        print("Warning: not the published split")
        print("a line of no interest")
        made(trainer)

    monkeypatch.setattr(TRAINER_REGISTRY.get("CoOp"), "build_data_loader", warning)
    out = dry(*BASE)[2]
    assert "\nWarning: not the published split\n" in out
    assert "no interest" not in out


def test_the_cache_is_not_filled_but_asked_whether_it_can_be(dry, refused, tmp_path):
    cache = ("DATALOADER.CACHE", str(tmp_path / "cache"))
    code, found, _, _ = dry(*BASE, *cache, "DATALOADER.CACHE_VIEWS", "2")
    assert code == 0
    (estimate,) = [dict(lines) for title, lines in found.items() if title.startswith("Estimate")]
    assert estimate["cache"] == "measured without DATALOADER.CACHE, which makes all but the first run faster"
    assert not (tmp_path / "cache").exists()
    assert "VPT changes the image encoder here, so its features can't be cached" in refused(*cache, trainer="VPT")
    assert "CACHE names no folder" in refused(*BASE, "DATALOADER.CACHE_VIEWS", "2")


# --- class names


LONG = ("red " * 80).strip(), ("green " * 71).strip()


@pytest.fixture
def renamed(monkeypatch):
    """Rename the first classes of the toy data set."""

    def rename(*names):
        import tests.conftest

        known = list(tests.conftest.NAMES)
        monkeypatch.setattr(tests.conftest, "NAMES", (*names, *known[len(names) :]))

    return rename


def test_all_names_that_do_not_fit_are_listed(dry, renamed):
    renamed(*LONG)
    code, found, _, err = dry("TRAINER.COOP.N_CTX", "4")
    assert code == 1
    assert found["Text"] == [
        ("'[4 rows] {}.'", "77 tokens - 7 of start, end and sentence = 70 for a class name"),
        ("too long", f"80 tokens: '{LONG[0]}'"),
        ("too long", f"71 tokens: '{LONG[1]}'"),
    ]
    assert (
        "Error: 2 class names are too long for the text tower's 77 tokens, as listed above; shorten the names, or "
        "take a shorter context.\n"
    ) in err
    assert "Estimate for cpu, from 3 steps behind 1 to warm up, and one test batch" in found


def test_one_name_that_just_does_not_fit(dry, renamed):
    renamed(LONG[1])
    assert "Error: 1 class name is too long" in dry("TRAINER.COOP.N_CTX", "4")[3]
    renamed(LONG[1].removesuffix(" green"))
    code, found, _, _ = dry("TRAINER.COOP.N_CTX", "4")
    assert code == 0
    assert found["Text"][1][1].startswith(f"'{LONG[1].removesuffix(' green')}' 70, 'yellow square (large)' ")


@pytest.mark.parametrize("position", ["middle", "front"])
def test_long_names_in_other_places(dry, renamed, position):
    renamed(LONG[0])
    code, found, _, _ = dry("TRAINER.COOP.N_CTX", "4", "TRAINER.COOP.CLASS_TOKEN_POSITION", position)
    assert code == 1
    assert ("too long", f"80 tokens: '{LONG[0]}'") in found["Text"]


def test_every_text_of_a_method_counts(dry, renamed):
    """PromptSRC's own sentence leaves more room than those that it is held near to."""
    renamed(("green " * 69).strip())
    code, found, _, _ = dry(trainer="PromptSRC")
    assert code == 1
    assert any(what == "too long" for what, _ in found["Text"])
    assert sum(what.startswith("'") for what, _ in found["Text"]) > 1


# --- refusals


def test_missing_weights(refused, tmp_path, monkeypatch):
    assert "nowhere.pt" in refused("MODEL.BACKBONE.NAME", str(tmp_path / "nowhere.pt"))
    monkeypatch.setenv("CLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *where: None)
    line = refused("MODEL.BACKBONE.NAME", "ViT-B/16")
    assert line.startswith("No weights of ViT-B/16 on this machine, a run downloads them first; without a network put ")
    assert str(tmp_path / "cache" / "ViT-B-16.pt") in line
    assert not (tmp_path / "cache").exists()


def test_missing_data(refused, tmp_path):
    assert "OxfordPets" in refused("DATASET.NAME", "OxfordPets", "DATASET.ROOT", str(tmp_path))
    line = refused("DATASET.NAME", "Shapes", "DATASET.ROOT", str(tmp_path))
    command = Shapes.draw_command(tmp_path)
    assert line == f"No pictures of Shapes below {tmp_path}; a run draws them first, or draw them now with: {command}."
    assert not (tmp_path / "shapes").exists()


def test_nothing_to_train(refused):
    assert "There is nothing to train" in refused(trainer="ZeroshotCLIP")


def test_a_loss_that_is_not_finite(refused, monkeypatch):
    def losses(self, images, label):
        return StepOutput(images.new_zeros(len(images), 2), {"ce": self.ctx.sum() * float("nan")})

    monkeypatch.setattr(CoOpMethod, "losses", losses)
    assert "Loss is infinite or NaN" in refused(*BASE)


def test_a_model_that_is_not_there(refused, tmp_path):
    assert "--model-dir" in refused(*BASE, flags=("--eval-only",))
    flags = ("--eval-only", "--model-dir", str(tmp_path / "nowhere"), "--load-epoch", "2")
    assert "nowhere" in refused(*BASE, flags=flags)


# --- other kinds of runs


def test_a_trainer_of_another_project(dry, refused, monkeypatch, tiny_weights, tmp_path, renamed):
    path = ROOT / "tests" / "third_party" / "family_trainer.py"
    spec = importlib.util.spec_from_file_location("tests.third_party.family_again", path)
    family = importlib.util.module_from_spec(spec)
    others = {name: entry for name, entry in TRAINER_REGISTRY._entries.items() if name != "FamilyTrainer"}
    monkeypatch.setattr(TRAINER_REGISTRY, "_entries", others)  # that of the family's own tests may be there
    spec.loader.exec_module(family)
    extend = staticmethod(lambda cfg: setattr(cfg.TRAINER, "FAMILY", CN({"N_CTX": 4, "PREC": "fp32"})))
    monkeypatch.setattr(family.FamilyTrainer, "extend_cfg", extend, raising=False)
    monkeypatch.setitem(openai_clip._MODELS, "tiny", "somewhere/tiny.pt")
    monkeypatch.setattr(openai_clip, "_download", lambda url: str(tiny_weights))
    opts = ("DATASET.SUBSAMPLE_CLASSES", "base", "MODEL.BACKBONE.NAME", "tiny")
    code, found, _, err = dry(*opts, trainer="FamilyTrainer")
    assert code == 0, err
    assert dict(found["Method"])["trained"] == "1 tensor, 256 scalars"
    assert found["Method"][-1][1].startswith("a trainer of another project")
    assert ("steps", "3 an epoch, 6 in 2 epochs") in found["Data"]
    assert "Estimate for cpu, from 3 steps behind 1 to warm up, and one test batch" in found
    assert found["Text"] == [("tokens", "FamilyTrainer makes its texts itself; they are not counted")]
    assert found["Published recipe"] == [("none", "nothing is published for FamilyTrainer trained on base classes")]
    assert not (tmp_path / "run").exists()
    renamed(*LONG)
    assert "does not fit the context of 77" in refused(*opts, trainer="FamilyTrainer")


@pytest.mark.slow
def test_two_processes_are_one_report(command, tmp_path):
    script = tmp_path / "toy_train.py"
    script.write_text("import sys\nimport tests.conftest\nimport train\nsys.exit(train.run())\n")
    argv = command(*BASE, "DATALOADER.TEST.BATCH_SIZE", "3", flags=("--dry-run",))
    done = torchrun(*argv, script=script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Dry run: nothing is trained") == 1
    found = sections(done.stdout)
    assert ("batch size", "4 in training, 3 in tests; divided among 2 processes") in found["Data"]
    assert ("steps", "3 an epoch, 6 in 2 epochs") in found["Data"]
    assert not (tmp_path / "run").exists()
    done = torchrun(*argv, "DATALOADER.TRAIN_X.BATCH_SIZE", "1", script=script)
    assert done.returncode != 0
    assert "A batch of 1 images cannot be divided among 2 processes" in done.stderr
