"""OpenAI's public names as third-party trainers use them."""

import inspect

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import clip
from clip import weights
from clip.clip import _MODELS, _download
from clip.layouts import save_compact


@pytest.fixture
def mini(state, tmp_path, monkeypatch):
    """A compact file in place of the one that ships with the repository, and a cache to unpack it into."""
    save_compact(state, [49406, 49407, 320], tmp_path / "mini_vit8.safetensors")
    monkeypatch.setitem(weights.SHIPPED, "Mini-ViT/8", tmp_path / "mini_vit8.safetensors")
    monkeypatch.setenv("CLIP_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_both_ways_to_import():
    from clip import clip as module

    assert clip.load is module.load
    assert clip.tokenize is module.tokenize
    assert clip.build_model is module.build_model
    assert clip.available_models() == module.available_models() == list(module._MODELS)
    assert "Mini-ViT/8" in clip.available_models()
    assert [*inspect.signature(clip.load).parameters] == ["name", "device", "jit", "download_root"]


def test_load_gives_model_and_transform(state, tmp_path):
    save_file(state, tmp_path / "tiny.safetensors")
    model, preprocess = clip.load(str(tmp_path / "tiny.safetensors"), device="cpu", jit=False)
    assert model.dtype == torch.float32
    assert not model.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    image = preprocess(Image.new("L", (50, 40), 255))
    assert image.shape == (3, 32, 32)
    mean, std = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
    np.testing.assert_allclose(image[:, 5, 7], (1 - mean) / std, rtol=1e-5)
    logits, _ = model(image[None], clip.tokenize(["a dog", "a cat"]))
    assert logits.shape == (1, 2)


def test_load_refuses_jit():
    with pytest.raises(ValueError, match=r"jit=True is not supported; load\(..., jit=False\) gives the same model"):
        clip.load("RN50", jit=True)


def test_load_looks_into_the_given_folder(tmp_path, state, monkeypatch):
    save_file(state, tmp_path / "RN50.safetensors")
    model, _ = clip.load("RN50", "cpu", download_root=str(tmp_path))
    assert model.spec.embed_dim == 48


@pytest.mark.filterwarnings("ignore:.*torch.jit.load.*deprecated")
def test_trainers_of_the_family_load_the_shipped_model_themselves(mini, state):
    """`load_clip_to_cpu` of the family, literally: address, local path, scripted or plain, build."""
    path = _download(_MODELS["Mini-ViT/8"])
    try:
        model = torch.jit.load(path, map_location="cpu").eval()
        state_dict = None
    except RuntimeError:
        state_dict = torch.load(path, map_location="cpu")
    model = clip.build_model(state_dict or model.state_dict())
    assert model.dtype == torch.float16
    torch.testing.assert_close(
        model.token_embedding.weight[[320, 49406]], state["token_embedding.weight"][[320, 49406]], rtol=1e-3, atol=1e-3
    )
    direct = clip.build_model(weights.read_weights("Mini-ViT/8"))
    assert all(torch.equal(tensor, direct.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert _download(_MODELS["Mini-ViT/8"]) == path
    assert path.startswith(str(mini / "cache" / "mini_vit8-"))


def test_download_checks_the_digest_in_the_address(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("clip.clip.fetch", lambda *what: asked.append(what) or what[1])
    monkeypatch.setenv("CLIP_CACHE", str(tmp_path))
    url = _MODELS["ViT-B/16"]
    assert _download(url) == str(tmp_path / "ViT-B-16.pt")
    assert _download("https://example.org/models/other.pt", tmp_path / "root") == str(tmp_path / "root" / "other.pt")
    assert [digest for *_, digest in asked] == [url.split("/")[-2], None]


def test_tokenize():
    ids = clip.tokenize("a photo of a cat.")
    assert ids.dtype == torch.int64
    assert ids.shape == (1, 77)
    assert ids[0, :9].tolist() == [49406, 320, 1125, 539, 320, 2368, 269, 49407, 0]  # ids of the published vocabulary
    assert torch.equal(clip.tokenize(["A  PHOTO of a cat."]), ids)
    assert clip.tokenize(["", "x"], context_length=5).tolist()[0] == [49406, 49407, 0, 0, 0]
    assert clip.tokenize(()).shape == (0, 77)


def test_tokenize_long_texts():
    text = " ".join(["cat"] * 76)
    with pytest.raises(RuntimeError, match=r"A text of 78 tokens does not fit the context of 77: 'cat .*truncate=True"):
        clip.tokenize([text])
    assert clip.tokenize([text], truncate=True)[0].tolist() == [49406, *[2368] * 75, 49407]
    assert clip.tokenize(" ".join(["cat"] * 75))[0, -1] == 49407
