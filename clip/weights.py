"""Weights of a CLIP: find the file, read it without running what it holds, give its state dict in OpenAI's layout.

Order of search for a known name: the family's cache, the hub (safetensors), OpenAI's archive.
"""

from __future__ import annotations

import contextlib
import difflib
import logging
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .download import fetch, may_download, sha256
from .layouts import COMPACT_FORMAT, COMPACT_VERSION, ROWS, expand_token_table, save_compact, to_openai

__all__ = ["MODELS", "cache_dir", "find_weights", "read_file", "read_weights", "save_compact"]

logger = logging.getLogger(__name__)

ARCHIVES = "https://openaipublic.azureedge.net/clip/models"
BUILTIN = "builtin:"  # scheme of the models that ship with the repository
SHIPPED = {
    name: Path(__file__).with_name("weights") / f"{stem}.safetensors"
    for name, stem in (("Mini-ViT/8", "mini_vit8"), ("Mini-ViT/8-L", "mini_vit8_l"))
}


@dataclass(frozen=True)
class Source:
    """Where the weights of a published model are."""

    file: str  # of OpenAI's archive, also its name in the cache
    digest: str  # SHA-256 of the archive
    hub: tuple[tuple[str, str], ...] = ()  # repositories and files with the same weights

    @property
    def url(self) -> str:
        return f"{ARCHIVES}/{self.digest}/{self.file}"


def _source(file: str, digest: str, timm: str, openai: str = "") -> Source:
    hub = [(f"timm/{timm}.openai", "open_clip_model.safetensors")]  # open_clip's layout
    if openai:
        hub.append((f"openai/{openai}", "model.safetensors"))  # Transformers' layout
    return Source(file, digest, tuple(hub))


SOURCES = {
    "RN50": _source("RN50.pt", "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762", "resnet50_clip"),
    "RN101": _source("RN101.pt", "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599", "resnet101_clip"),
    "RN50x4": _source(
        "RN50x4.pt", "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd", "resnet50x4_clip"
    ),
    "RN50x16": _source(
        "RN50x16.pt", "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa", "resnet50x16_clip"
    ),
    "RN50x64": _source(
        "RN50x64.pt", "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c", "resnet50x64_clip"
    ),
    "ViT-B/32": _source(
        "ViT-B-32.pt",
        "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
        "vit_base_patch32_clip_224",
        "clip-vit-base-patch32",
    ),
    "ViT-B/16": _source(
        "ViT-B-16.pt",
        "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
        "vit_base_patch16_clip_224",
        "clip-vit-base-patch16",
    ),
    "ViT-L/14": _source(
        "ViT-L-14.pt",
        "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
        "vit_large_patch14_clip_224",
        "clip-vit-large-patch14",
    ),
    "ViT-L/14@336px": _source(
        "ViT-L-14-336px.pt",
        "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
        "vit_large_patch14_clip_336",
        "clip-vit-large-patch14-336",
    ),
}
MODELS = {name: source.url for name, source in SOURCES.items()} | {
    name: BUILTIN + path.name for name, path in SHIPPED.items()
}


def cache_dir() -> Path:
    """Where the family keeps its archives; the environment variable CLIP_CACHE overrides ~/.cache/clip."""
    return Path(os.environ.get("CLIP_CACHE") or "~/.cache/clip").expanduser()


def read_weights(name_or_path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> dict[str, Tensor]:
    """State dict in OpenAI's layout of a known model or of a file; errors as in `find_weights` and `read_file`."""
    return read_file(find_weights(name_or_path, root))


def find_weights(name_or_path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> Path:
    """Local file of a model's weights, downloaded when it is nowhere on this machine.

    Args:
        name_or_path: a name of `MODELS`, a file, or a folder as the hub lays it out.

    Raises:
        RuntimeError: neither a known name nor an existing file.
        FileNotFoundError: a known name whose weights are not here and could not be downloaded.
    """
    name, path = str(name_or_path), Path(name_or_path).expanduser()
    if name in SOURCES:
        return _find_source(name, SOURCES[name], Path(root).expanduser() if root is not None else cache_dir())
    if name in SHIPPED:
        if not SHIPPED[name].is_file():
            raise FileNotFoundError(
                f"The weights of {name} belong to the repository but are missing at {SHIPPED[name]}; restore the file "
                f"with git, or train it with tools/pretrain_mini_clip.py."
            )
        return SHIPPED[name]
    if path.is_file():
        return path
    if path.is_dir():
        for file in ("open_clip_model.safetensors", "model.safetensors"):
            if (path / file).is_file():
                return path / file
        raise FileNotFoundError(
            f"The folder {path} holds neither open_clip_model.safetensors nor model.safetensors; "
            f"name a file of weights."
        )
    if path.suffix in (".pt", ".pth", ".bin", ".safetensors"):
        raise FileNotFoundError(f"No weights at {path}; check the path, or use one of {', '.join(MODELS)}.")
    near = difflib.get_close_matches(name, MODELS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    raise RuntimeError(f"Model {name!r} is no file and no known name; {hint}available models: {', '.join(MODELS)}.")


def _find_source(name: str, source: Source, folder: Path) -> Path:
    """Cache, hub, archive, in this order."""
    archive = folder / source.file
    tried = []
    if archive.is_file():
        if sha256(archive) == source.digest:
            return archive
        logger.warning("%s is damaged: it does not have the SHA-256 of OpenAI's archive; looking elsewhere.", archive)
        tried.append(f"{archive} is damaged")
    if (other := archive.with_suffix(".safetensors")).is_file():
        return other
    for where in source.hub:
        found = huggingface_hub.try_to_load_from_cache(*where)
        if isinstance(found, str):  # so that what is here, in either layout, is used without a network
            with contextlib.suppress(RuntimeError):  # damaged: named below
                return _checked(Path(found))
    if not may_download():
        raise FileNotFoundError(
            f"No weights of {name} on this machine, a run downloads them first; without a network put {source.url} at "
            f"{archive}, or name a file of weights as the model."
        )
    for repository, file in source.hub:
        try:
            return _checked(Path(huggingface_hub.hf_hub_download(repository, file)))
        except huggingface_hub.utils.LocalEntryNotFoundError as error:  # no network: other repositories fail alike
            tried.append(f"hub {repository}: {_reason(error.__cause__ or error)}")
            break
        except Exception as error:  # the hub's client lets errors of its HTTP library through; all go into the message
            tried.append(f"hub {repository}: {_reason(error)}")
    try:
        return fetch(source.url, archive, source.digest)
    except (OSError, RuntimeError) as error:
        tried.append(_reason(error))
    raise FileNotFoundError(
        f"No weights of {name} on this machine and none could be downloaded ({'; '.join(tried)}); download "
        f"{source.url} elsewhere and put it at {archive}, or name a file of weights as the model."
    )


def _reason(error: BaseException) -> str:
    """The first sentence of an error; torch goes on with advice that does not fit, such as weights_only=False."""
    return re.split(r"\.?\s*\n|\.\s", str(error), maxsplit=1)[0].rstrip(". ") or type(error).__name__


def _checked(path: Path) -> Path:
    """A file of the hub's cache, whose blob is named by its SHA-256."""
    blob = path.resolve()
    if re.fullmatch("[0-9a-f]{64}", blob.name) and sha256(blob) != blob.name:
        raise RuntimeError(f"{blob} is damaged, delete it")
    return path


def read_file(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """State dict in OpenAI's layout of a safetensors file, a plain state dict (.pt) or a TorchScript archive.

    Raises:
        ValueError: the file is damaged, holds other objects than tensors, or has a format of the future.
    """
    path = Path(path)
    try:
        return to_openai(_read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path))
    except (SafetensorError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        if "Unsupported global" in str(error):  # what the safe unpickler says of a class that it does not know
            raise ValueError(
                f"{path} holds pickled objects besides tensors, which could run code and are not loaded; save its "
                f"state_dict() alone."
            ) from None
        raise ValueError(
            f"{path} is no readable file of weights ({_reason(error)}); it may be incomplete, get it again."
        ) from None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") == COMPACT_FORMAT and metadata.get("version") != COMPACT_VERSION:
            raise ValueError(
                f"{path} has version {metadata.get('version')} of the compact format, this code reads version "
                f"{COMPACT_VERSION}; update the code."
            )
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    return expand_token_table(state, int(metadata["vocab_size"])) if ROWS in state else state


def _read_torch(path: Path) -> Mapping[str, Tensor]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            scripted = any(name.endswith("/constants.pkl") for name in archive.namelist())
        if scripted:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # TorchScript is deprecated, but OpenAI's archives are written in it
                return torch.jit.load(path, map_location="cpu").state_dict()
    state = torch.load(path, map_location="cpu", weights_only=True)
    for wrapper in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds {type(state).__name__} where a dictionary of tensors was expected.")
    return state
