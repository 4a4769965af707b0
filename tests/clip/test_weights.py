"""Finding and reading weights: every layout gives the same state dict, every failure says what to do."""

import hashlib
import pickle
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from clip import weights
from clip.download import no_downloads
from clip.model import build_model
from clip.weights import MODELS, SOURCES, find_weights, read_file, read_weights


def equal(got, want):
    assert set(got) == set(want)
    for name, tensor in want.items():
        assert torch.equal(got[name], tensor), name


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


@pytest.fixture
def offline(monkeypatch):
    """No hub and no server; what is asked for is noted."""
    asked = []

    def no_hub(repository, file):
        asked.append((repository, file))
        error = huggingface_hub.utils.LocalEntryNotFoundError("cannot find the requested files in the local cache")
        raise error from ConnectionError("Name or service not known")

    def no_server(url, target, digest=None):
        asked.append((url, str(target)))
        raise RuntimeError(f"{url} could not be downloaded: Name or service not known.")

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repository, file: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", no_hub)
    monkeypatch.setattr(weights, "fetch", no_server)
    return asked


# ---- reading


def test_plain_state_dicts(state, tmp_path):
    for i, wrapped in enumerate((state, {"state_dict": state, "epoch": 3}, {"model": state})):
        torch.save(wrapped, tmp_path / f"{i}.pt")
        equal(read_file(tmp_path / f"{i}.pt"), state)
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "parallel.pt")
    equal(read_file(tmp_path / "parallel.pt"), state)
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    equal(read_file(tmp_path / "old.pt"), state)


@pytest.mark.filterwarnings("ignore")  # TorchScript is deprecated, tracing warns of shape checks
def test_torchscript_archive(state, tmp_path, images):
    model = build_model(state, torch.float32)
    torch.jit.trace_module(model, {"encode_image": images}).save(tmp_path / "scripted.pt")
    equal(read_file(tmp_path / "scripted.pt"), state)


def test_safetensors_and_hub_folders(state, tmp_path):
    for name in ("model.safetensors", "open_clip_model.safetensors"):
        folder = tmp_path / name
        folder.mkdir()
        save_file(state, folder / name)
        equal(read_weights(folder / name), state)
        equal(read_weights(folder), state)


def test_compact_format_of_the_future(tmp_path):
    path = tmp_path / "mini.safetensors"
    save_file({"x": torch.zeros(1)}, path, {"format": "compact-clip", "version": "2"})
    with pytest.raises(ValueError, match=r"has version 2 of the compact format, this code reads version 1; update"):
        read_file(path)


class Evil:
    def __reduce__(self):
        return print, ("unpickled",)


def test_nothing_is_unpickled(tmp_path, capsys):
    torch.save({"x": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Evil(), protocol=2))
    for name in ("evil.pt", "plain.pt"):
        with pytest.raises(ValueError, match=rf"{name} holds pickled objects besides tensors, which could run code"):
            read_file(tmp_path / name)
    assert capsys.readouterr().out == ""


def test_damaged_files(state, tmp_path):
    torch.save(state, tmp_path / "whole.pt")
    save_file(state, tmp_path / "whole.safetensors")
    for suffix in ("pt", "safetensors"):
        whole = (tmp_path / f"whole.{suffix}").read_bytes()
        for name, content in (("cut", whole[: len(whole) // 2]), ("empty", b""), ("page", b"<html>not found</html>")):
            path = tmp_path / f"{name}.{suffix}"
            path.write_bytes(content)
            with pytest.raises(
                ValueError, match=rf"{name}.{suffix} is no readable file of weights .* get it again\."
            ) as e:
                read_file(path)
            assert "weights_only" not in str(e.value)  # torch's advice to load it unsafely


def test_files_with_other_contents(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(ValueError, match=r"list.pt holds list where a dictionary of tensors was expected\."):
        read_file(tmp_path / "list.pt")
    torch.save({"epoch": 3}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other.pt holds dict where a dictionary of tensors was expected\."):
        read_file(tmp_path / "other.pt")


# ---- finding


def test_names_and_addresses():
    assert list(MODELS) == [
        *("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64"),
        *("ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px", "Mini-ViT/8", "Mini-ViT/8-L"),
    ]
    assert MODELS["ViT-B/16"] == (
        "https://openaipublic.azureedge.net/clip/models/"
        "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f/ViT-B-16.pt"
    )
    assert SOURCES["ViT-L/14@336px"].hub == (
        ("timm/vit_large_patch14_clip_336.openai", "open_clip_model.safetensors"),
        ("openai/clip-vit-large-patch14-336", "model.safetensors"),
    )
    assert SOURCES["RN50"].hub == (("timm/resnet50_clip.openai", "open_clip_model.safetensors"),)


def test_digests_are_those_that_open_clip_knows():
    from open_clip import get_pretrained_url

    for name, source in SOURCES.items():
        model = name.replace("/", "-").replace("@336px", "-336")
        assert get_pretrained_url(model, "openai") == source.url


def test_the_cache_comes_first(cache, offline, monkeypatch):
    content = b"weights"
    source = SOURCES["ViT-B/32"]
    monkeypatch.setitem(SOURCES, "ViT-B/32", type(source)(source.file, hashlib.sha256(content).hexdigest(), source.hub))
    (cache / "ViT-B-32.pt").write_bytes(content)
    assert find_weights("ViT-B/32") == cache / "ViT-B-32.pt"
    (cache / "ViT-L-14.safetensors").write_bytes(content)
    assert find_weights("ViT-L/14") == cache / "ViT-L-14.safetensors"
    assert offline == []


def test_the_cache_of_the_family_is_in_the_home_folder(monkeypatch):
    monkeypatch.delenv("CLIP_CACHE", raising=False)
    assert weights.cache_dir() == Path.home() / ".cache" / "clip"


def test_the_hub_comes_second_and_is_checked(cache, tmp_path, monkeypatch, offline):
    digest = hashlib.sha256(b"weights").hexdigest()
    (tmp_path / digest).write_bytes(b"weights")
    link = tmp_path / "open_clip_model.safetensors"
    link.symlink_to(tmp_path / digest)
    asked = []
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *what: asked.append(what) or str(link))
    assert find_weights("ViT-B/16") == link
    assert asked == [("timm/vit_base_patch16_clip_224.openai", "open_clip_model.safetensors")]
    (tmp_path / digest).write_bytes(b"bytes that rotted")
    with pytest.raises(FileNotFoundError, match=rf"{digest} is damaged, delete it; hub openai/clip-vit-base-patch16: "):
        find_weights("ViT-B/16")


def test_what_the_hub_left_here_needs_no_network(cache, tmp_path, monkeypatch, offline):
    digest = hashlib.sha256(b"weights").hexdigest()
    (tmp_path / digest).write_bytes(b"weights")
    (tmp_path / "model.safetensors").symlink_to(tmp_path / digest)
    here = {"openai/clip-vit-base-patch16": str(tmp_path / "model.safetensors")}
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repository, file: here.get(repository))
    assert find_weights("ViT-B/16") == tmp_path / "model.safetensors"
    assert offline == []
    (tmp_path / digest).write_bytes(b"bytes that rotted")
    with pytest.raises(FileNotFoundError, match=r"No weights of ViT-B/16"):
        find_weights("ViT-B/16")


def test_the_archive_comes_last(cache, offline, monkeypatch):
    asked = []
    monkeypatch.setattr(weights, "fetch", lambda *what: asked.append(what) or what[1])
    source = SOURCES["RN50"]
    assert find_weights("RN50") == cache / "RN50.pt"
    assert asked == [(source.url, cache / "RN50.pt", source.digest)]


def test_without_a_network_one_sentence_says_what_to_do(cache, offline):
    with pytest.raises(FileNotFoundError) as caught:
        find_weights("ViT-B/16")
    url, target = SOURCES["ViT-B/16"].url, cache / "ViT-B-16.pt"
    assert str(caught.value) == (
        f"No weights of ViT-B/16 on this machine and none could be downloaded ("
        f"hub timm/vit_base_patch16_clip_224.openai: Name or service not known; "
        f"{url} could not be downloaded: Name or service not known); "
        f"download {url} elsewhere and put it at {target}, or name a file of weights as the model."
    )
    assert [first for first, _ in offline] == ["timm/vit_base_patch16_clip_224.openai", url]  # the hub is asked once


def test_inside_no_downloads_nobody_is_asked(cache, offline, tmp_path, monkeypatch):
    with no_downloads():
        with pytest.raises(FileNotFoundError) as error:
            find_weights("ViT-B/16")
        assert str(error.value) == (
            "No weights of ViT-B/16 on this machine, a run downloads them first; without a network put "
            f"{SOURCES['ViT-B/16'].url} at {cache / 'ViT-B-16.pt'}, or name a file of weights as the model."
        )
        here = tmp_path / "open_clip_model.safetensors"
        here.touch()
        monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repository, file: str(here))
        assert find_weights("ViT-B/16") == here
    assert offline == []


def test_a_damaged_archive_is_named(cache, offline):
    (cache / "ViT-B-16.pt").write_bytes(b"half a download")
    with pytest.raises(FileNotFoundError, match=rf"\({cache / 'ViT-B-16.pt'} is damaged; hub timm/"):
        find_weights("ViT-B/16")


def test_a_cache_that_cannot_be_written_is_named(cache, offline, monkeypatch):
    def denied(url, target, digest):
        raise PermissionError(13, "Permission denied", str(target))

    monkeypatch.setattr(weights, "fetch", denied)
    with pytest.raises(FileNotFoundError, match=r"Permission denied: '.*/cache/RN50.pt'\); download https"):
        find_weights("RN50")


def test_other_errors_of_finding(tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match=r"Model 'ViT-B/61' is no file and no known name; did you mean ViT-B/16\?"):
        find_weights("ViT-B/61")
    with pytest.raises(RuntimeError, match=r"Model 'zebra' is no file and no known name; available models: RN50, "):
        find_weights("zebra")
    with pytest.raises(FileNotFoundError, match=r"No weights at .*/none.pt; check the path, or use one of RN50, "):
        find_weights(tmp_path / "none.pt")
    with pytest.raises(FileNotFoundError, match=r"holds neither open_clip_model.safetensors nor model.safetensors;"):
        find_weights(tmp_path)
    monkeypatch.setitem(weights.SHIPPED, "Mini-ViT/8", tmp_path / "mini_vit8.safetensors")
    with pytest.raises(FileNotFoundError, match=r"Mini-ViT/8 belong to the repository but are missing at .*/mini_vit8"):
        find_weights("Mini-ViT/8")
    save_file({"x": torch.zeros(1)}, tmp_path / "mini_vit8.safetensors")
    assert find_weights("Mini-ViT/8") == tmp_path / "mini_vit8.safetensors"
