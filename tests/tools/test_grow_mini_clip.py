"""A grown CLIP computes what it grew from, and every new weight can learn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from clip.clip import tokenize
from clip.model import CLIP, CLIPSpec, build_model
from clip.weights import read_file
from tools import pretrain_mini_clip
from tools.grow_mini_clip import deepen_image_tower, widen_joint_space

SPEC = CLIPSpec(16, 64, 2, 64, 8, transformer_width=64, transformer_heads=1, transformer_layers=1)


@pytest.fixture
def small() -> CLIP:
    torch.manual_seed(0)
    return CLIP(SPEC).eval()


def grown_state(small: CLIP, after=(0, 1), width=24) -> dict[str, torch.Tensor]:
    return widen_joint_space(deepen_image_tower(small.state_dict(), after), width, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("after", [(), (0,), (1,), (0, 1)])
@torch.no_grad()
def test_the_grown_model_gives_the_same_cosines(small: CLIP, after: tuple[int, ...]) -> None:
    model = build_model(grown_state(small, after), torch.float32)
    assert (model.spec.vision_layers, model.spec.embed_dim) == (2 + len(after), 24)
    images, ids = torch.randn(3, 3, 64, 64), tokenize(["a red star.", "a neon photo of a blue ring."])
    cosines = [
        F.normalize(m.encode_image(images), dim=1) @ F.normalize(m.encode_text(ids), dim=1).t() for m in (small, model)
    ]
    torch.testing.assert_close(cosines[1], cosines[0], atol=1e-5, rtol=0)


def test_every_new_block_learns(small: CLIP) -> None:
    model = build_model(grown_state(small), torch.float32)
    model.encode_image(torch.randn(2, 3, 64, 64)).square().mean().backward()
    for block in (1, 3):  # those on top of 0 and 1
        writers = [
            p
            for n, p in model.named_parameters()
            if n.startswith(f"visual.transformer.resblocks.{block}.") and "proj" in n
        ]
        assert any(p.grad.abs().sum() > 0 for p in writers)


def test_a_narrower_joint_space_is_refused(small: CLIP) -> None:
    with pytest.raises(ValueError, match=r"The joint space has 16 channels already and can't be narrowed to 8\."):
        grown_state(small, width=8)


def test_the_tool_grows_a_model_and_leaves_its_text_as_it_is(tmp_path: Path) -> None:
    tiny = ["--batch-size", "8", "--warmup", "1", "--eval-every", "9", "--eval-per-class", "1", "--processes", "1"]
    own = ["--width", "64", "--layers", "4", "--text-layers", "1"]
    pretrain_mini_clip.main(
        ["--work", str(tmp_path / "a"), "--out", str(tmp_path / "a.safetensors"), *tiny, *own, "--steps", "1"]
    )
    more = ["--grow", str(tmp_path / "a.safetensors"), "--favour", "neon", "--steps", "2"]
    pretrain_mini_clip.main(["--work", str(tmp_path / "b"), "--out", str(tmp_path / "b.safetensors"), *tiny, *more])
    before, after = read_file(tmp_path / "a.safetensors"), read_file(tmp_path / "b.safetensors")
    assert after["visual.proj"].shape == (64, 256)
    assert "visual.transformer.resblocks.5.ln_1.weight" in after
    for name in (
        "token_embedding.weight",
        "positional_embedding",
        "ln_final.weight",
        "transformer.resblocks.0.ln_1.bias",
    ):
        assert torch.equal(before[name].float(), after[name].float()), name
    moved = "visual.transformer.resblocks.0.mlp.c_fc.weight"
    assert not torch.equal(before[moved].float(), after[moved].float())


def test_a_favoured_condition_takes_its_share_before_the_others() -> None:
    conditions = [
        torch.cat([pretrain_mini_clip.Batches(500, "1", 10, favour)[step]["conditions"] for step in range(2)])
        for favour in (None, "neon")
    ]
    share = [(c == pretrain_mini_clip.CONDITIONS.index("neon")).float().mean().item() for c in conditions]
    assert share[0] == pytest.approx(0.08, abs=0.03)
    assert share[1] == pytest.approx(0.4 + 0.6 * 0.08, abs=0.05)
