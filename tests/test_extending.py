"""docs/extending.md: its example is run as it stands there, with all tests that every trainer gets."""

import importlib.util
import inspect
import json
import re
import sys
import types
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml

import clip.clip as openai_clip
import train
from dassl.engine import TRAINER_REGISTRY
from tests.trainers import every, test_every_key, test_every_trainer
from tests.trainers.spotlighter import test_every_host
from tools.protocols import method_files
from trainers.method import Method

PAGE = Path(__file__).parent.parent / "docs" / "extending.md"
TEXT = PAGE.read_text(encoding="utf-8")
NAME = "ScaledText"


def block(language, words):
    """The one code block of the page that has these words."""
    (found,) = [code for code in re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL) if words in code]
    return found


@pytest.fixture
def registry(monkeypatch):
    """Trainers that a test registers are gone after it."""
    monkeypatch.setattr(TRAINER_REGISTRY, "_entries", dict(TRAINER_REGISTRY._entries))


@pytest.fixture
def example(registry):
    module = types.ModuleType("trainers.scaled_text")
    exec(compile(block("python", f"class {NAME}("), str(PAGE), "exec"), module.__dict__)
    return module


@pytest.fixture
def make_any(trainer_of):
    def build(name, *opts, classes="base", output="run"):
        return trainer_of("DATASET.SUBSAMPLE_CLASSES", classes, *map(str, opts), trainer=name, output=output)

    return build


PROMISES = [
    test
    for test in [*vars(test_every_trainer).values(), *vars(test_every_key).values()]
    if getattr(test, "__name__", "").startswith("test_") and "name" in inspect.signature(test).parameters
]
PROMISES.remove(test_every_trainer.test_a_method_without_trained_tensors_is_not_trained)


@pytest.mark.parametrize("promise", PROMISES, ids=lambda test: test.__name__)
def test_the_example_passes_the_tests_of_every_trainer(example, promise, make_any, images, tmp_path, monkeypatch):
    given = {"name": NAME, "make_any": make_any, "images": images, "monkeypatch": monkeypatch}
    given |= {"run_folder": str(tmp_path / "run"), "prec": "bf16", "key": "RATIO"}
    promise(**{argument: given[argument] for argument in inspect.signature(promise).parameters})


@pytest.mark.parametrize("key", ["HOLD", "PREC"])
def test_its_other_keys_change_something(example, make_any, images, key):
    assert set(every.defaults()["SCALEDTEXT"]) == {"RATIO", "HOLD", "PREC", every.MEMORY_ONLY}
    test_every_key.test_every_key_changes_something(make_any, images, NAME, key)


def test_spotlighter_stands_on_it(example, make_any, images, tmp_path):
    stands = test_every_host.test_spotlighter_stands_on_every_other_method
    stands(make_any, images, str(tmp_path / "run"), NAME)
    log = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert {"ce", "host_hold"} <= set(log["epochs"][0]["train"])


def test_its_equations(example, backbone, space, images, tiny_clip):
    method = example.ScaledTextMethod(backbone, space, ratio=0.25, hold=3.0)
    with torch.no_grad():
        method.factors.copy_(torch.linspace(0.5, 2, 32))
    ids = torch.cat([openai_clip.tokenize(f"a photo of a {name}.") for name in space.cleaned])
    plain = F.normalize(tiny_clip.encode_text(ids), dim=1)
    scaled = F.normalize(plain * (0.75 + 0.25 * torch.linspace(0.5, 2, 32)), dim=1)
    torch.testing.assert_close(method.text(), scaled, atol=1e-5, rtol=0)
    out = method.losses(images, torch.tensor([0, 1, 2, 3, 0]))
    assert out.terms["hold"].item() == pytest.approx(float((scaled - plain).square().sum(1).mean()), rel=1e-4)
    assert out.total.item() == pytest.approx(out.terms["ce"].item() + 3 * out.terms["hold"].item(), rel=1e-6)


@pytest.mark.parametrize("ratio", [0, 1.5])
def test_its_error(example, backbone, space, ratio):
    with pytest.raises(ValueError, match=rf"TRAINER.SCALEDTEXT.RATIO must be in \(0, 1\], got {ratio}"):
        example.ScaledTextMethod(backbone, space, ratio)


def test_its_config_and_method_file(example, tmp_path):
    config = tmp_path / "configs" / "mini_vit8_ep20.yaml"
    config.parent.mkdir()
    config.write_text(block("yaml", "SCALEDTEXT:"))
    cfg = train.setup_cfg(train.parse_args(["--config-file", str(config), "--trainer", NAME]))
    assert (cfg.OPTIM.MAX_EPOCH, cfg.MODEL.BACKBONE.NAME) == (20, "Mini-ViT/8")
    folder = tmp_path / "scripts" / "scaled_text"
    folder.mkdir(parents=True)
    (folder / "method.yaml").write_text(block("yaml", f"trainer: {NAME}"))
    method = method_files("scaled_text", tmp_path)
    assert (method.trainer, method.trains) == (NAME, True)
    assert {method.config(key, "shapes", 16) for key in ("base2new", "fewshot", "xd")} == {config.stem}
    protocols = yaml.safe_load((PAGE.parent.parent / "scripts" / "coop" / "method.yaml").read_text())["configs"]
    assert set(method.configs) == set(protocols)


def test_every_member_of_a_method_is_explained():
    section = TEXT[TEXT.index("## What a `Method` may override") : TEXT.index("## Spotlighter on your method")]
    told = set(re.findall(r"`(\w+)[` ]", section))
    assert {name for name in vars(Method) if not name.startswith("_")} - told == set()


def test_a_trainer_file_of_another_project(registry, command, tiny_weights, monkeypatch, tmp_path, capsys):
    path = Path(__file__).parent / "third_party" / "family_trainer.py"
    spec = importlib.util.spec_from_file_location("trainers.family", path)
    family = importlib.util.module_from_spec(spec)
    TRAINER_REGISTRY._entries.pop("FamilyTrainer", None)  # of its own tests
    spec.loader.exec_module(family)
    monkeypatch.setitem(sys.modules, "trainers.family", family)
    exec(compile(block("python", "FamilyTrainer"), str(PAGE), "exec"), {"__name__": "trainers.family_options"})
    monkeypatch.setitem(openai_clip._MODELS, "tiny", "somewhere/tiny.pt")
    monkeypatch.setattr(openai_clip, "_download", lambda url: str(tiny_weights))
    terminal = sys.stdout
    code = train.run(command("MODEL.BACKBONE.NAME", "tiny", trainer="FamilyTrainer"))
    monkeypatch.setattr(sys, "stdout", terminal)
    assert code == 0, capsys.readouterr().err
    assert (tmp_path / "run" / "prompt_learner" / "model.pth.tar-2").is_file()
