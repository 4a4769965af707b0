"""The pretraining: two tiny steps, an exact resume, and a checkpoint that the loader reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clip.clip import tokenize
from clip.model import CLIP, CLIPSpec
from clip.weights import read_file
from datasets.shapes.captions import ALL_TEMPLATES
from datasets.shapes.render import NAMES
from tools import pretrain_mini_clip as tool

TINY = ["--steps", "4", "--batch-size", "8", "--width", "64", "--layers", "1", "--text-layers", "1", "--warmup", "2"]
TINY += ["--eval-every", "4", "--eval-per-class", "1", "--processes", "1"]


def run(work: Path, *more: str) -> dict[str, torch.Tensor]:
    """Run in this process and return what the checkpoint holds of the model."""
    tool.main(["--work", str(work), *TINY, *more])
    return torch.load(work / "checkpoint.pt", weights_only=True)["model"]


def test_resumed_run_ends_with_the_same_bits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = run(tmp_path / "a", "--out", str(tmp_path / "model.safetensors"))
    half = run(tmp_path / "b", "--stop-after", "2")
    assert not all(torch.equal(half[name], whole[name]) for name in whole)
    resumed = run(tmp_path / "b")
    assert "steps 2 to 4 of 4" in capsys.readouterr().out
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)

    state = read_file(tmp_path / "model.safetensors")
    np.testing.assert_allclose(
        state["visual.conv1.weight"].float(), whole["clip.visual.conv1.weight"], rtol=1e-3, atol=1e-6
    )
    vocabulary = tool.Vocabulary()
    rows = state["token_embedding.weight"].float()
    assert rows.shape == (49408, 128)
    words = whole["clip.token_embedding.weight"] * tool.TEXT_RESIDUAL
    np.testing.assert_allclose(rows[vocabulary.ids], words, rtol=1e-3, atol=1e-6)
    line = json.loads((tmp_path / "a" / "log.jsonl").read_text())
    assert line["step"] == 4
    assert set(line["accuracy"]["night"]) == {"plain", "word"}


def test_a_smaller_residual_stream_gives_the_same_text_features(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = CLIP(CLIPSpec(32, 64, 1, 64, 8, transformer_width=64, transformer_heads=1, transformer_layers=2))
    with torch.no_grad():
        model.token_embedding.weight.normal_()  # large beside LayerNorm's epsilon
        ids = tokenize([f"a neon photo of a {name}." for name in NAMES[:5]])
        before = model.encode_text(ids)
        model.load_state_dict(tool.shrink_text_residual(model.state_dict(), 0.25))
        torch.testing.assert_close(model.encode_text(ids), before, atol=1e-3, rtol=1e-3)


@pytest.mark.slow
def test_two_processes_share_a_batch(tmp_path: Path) -> None:
    trained = run(tmp_path, "--processes", "2", "--stop-after", "1")
    assert all(torch.isfinite(tensor).all() for tensor in trained.values())


def test_other_settings_do_not_continue_a_run(tmp_path: Path) -> None:
    run(tmp_path, "--stop-after", "1")
    with pytest.raises(ValueError, match=r"checkpoint.pt was written with other settings .*'lr': \(0.002, 0.1\)"):
        run(tmp_path, "--lr", "0.1")


def test_batch_that_cannot_be_shared(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--batch-size 8 cannot be shared by 3 processes"):
        run(tmp_path, "--processes", "3")


def test_loss_that_explodes_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "contrastive_loss", lambda image, text, scale, meaning: image.sum() * torch.inf)
    with pytest.raises(
        RuntimeError, match=r"The gradient of step 0 is \w+; lower --lr \(now 0.002\) or raise --warmup"
    ):
        run(tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_every_weight_is_trained(tmp_path: Path) -> None:
    args = tool.parse_args(["--work", str(tmp_path), *TINY])
    before = tool.build(args, tool.Vocabulary()).state_dict()
    after = run(tmp_path)
    frozen = [name for name, tensor in before.items() if torch.equal(tensor, after[f"clip.{name}"])]
    assert frozen == []


def test_batches_depend_on_seed_and_step_only() -> None:
    def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
        return all(torch.equal(a[name], b[name]) for name in a)

    batch = tool.Batches(6, "1/0", 100)[7]
    assert same(batch, tool.Batches(6, "1/0", 100)[7])
    assert not same(batch, tool.Batches(6, "1/0", 100)[8])
    assert not same(batch, tool.Batches(6, "1/1", 100)[7])
    assert batch["pictures"].shape == (6, 64, 64, 3)


def test_vocabulary_renumbers_and_keeps_the_end_token_last() -> None:
    vocabulary = tool.Vocabulary()
    templates, labels = torch.tensor([0, len(ALL_TEMPLATES) - 1]), torch.tensor([143, 5])
    ids = vocabulary.ids[vocabulary(templates, labels)]
    texts = [ALL_TEMPLATES[t].format(NAMES[c]) for t, c in zip(templates, labels, strict=True)]
    assert torch.equal(ids, tokenize(texts))
    assert vocabulary.ids[-1] == 49407


def test_loss_equals_its_definition() -> None:
    rng = np.random.default_rng(0)
    image, text = (F.normalize(torch.from_numpy(rng.standard_normal((5, 3))), dim=-1) for _ in range(2))
    meaning = np.array([0, 1, 0, 2, 0])
    logits = 7 * image.numpy() @ text.numpy().T
    total = 0.0
    for table in (logits, logits.T):
        log_p = table - np.log(np.exp(table).sum(1, keepdims=True))
        for i in range(5):
            total -= log_p[i, meaning == meaning[i]].mean() / 5
    loss = tool.contrastive_loss(image, text, torch.tensor(7.0), torch.from_numpy(meaning))
    assert loss.item() == pytest.approx(total / 2)


def test_learning_rate() -> None:
    args = tool.parse_args(["--work", "x", "--steps", "110", "--warmup", "10", "--lr", "1"])
    rates = [tool.learning_rate(step, args) for step in (0, 4, 9, 10, 60, 109)]
    assert rates[:4] == pytest.approx([0.1, 0.5, 1, 1])
    assert rates[4] == pytest.approx(0.5)
    assert 0 < rates[5] < 0.001


def test_curriculum_ends_with_the_pretraining_style() -> None:
    assert tool.style_at(1.0) == tool.style_at(5.0) == tool.PRETRAIN_STYLE
    easy = tool.style_at(0.0)
    assert easy.distractors == (0, 0)
    assert easy.radius[0] > tool.PRETRAIN_STYLE.radius[0]


def test_pictures_are_normalised_as_clip_does() -> None:
    pictures = torch.full((1, 64, 64, 3), 255, dtype=torch.uint8)
    expected = (1 - np.array([0.48145466, 0.4578275, 0.40821073])) / np.array([0.26862954, 0.26130258, 0.27577711])
    np.testing.assert_allclose(tool.normalise(pictures)[0, :, 5, 9], expected, rtol=1e-5)
