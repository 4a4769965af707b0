"""OpenAI's public names: `load`, `tokenize`, `available_models`, `build_model`, and what trainers of the family use."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms

from .download import fetch, sha256
from .model import CLIP, build_model
from .simple_tokenizer import get_tokenizer
from .weights import BUILTIN, SHIPPED, cache_dir, find_weights, read_file, read_weights
from .weights import MODELS as _MODELS

__all__ = ["available_models", "build_model", "load", "tokenize"]

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

_tokenizer = get_tokenizer()


def available_models() -> list[str]:
    """Names that `load` knows."""
    return list(_MODELS)


def load(
    name: str, device: str | torch.device | None = None, jit: bool = False, download_root: str | None = None
) -> tuple[CLIP, Callable[[Image.Image], Tensor]]:
    """Load a model in evaluation mode and the transform of its images.

    Args:
        name: one of `available_models()`, or a file of weights.
        device: CUDA if there is one, else the CPU. Weights are fp16 on CUDA and fp32 elsewhere, as in OpenAI's package.
        jit: must be False; scripted models are read, but run as ordinary modules.
        download_root: folder of the archives, instead of the cache.

    Raises:
        RuntimeError: unknown name.
        FileNotFoundError: the weights are nowhere and cannot be downloaded.
        ValueError: `jit`, or a file that holds no CLIP.
    """
    if jit:
        raise ValueError("jit=True is not supported; load(..., jit=False) gives the same model as an ordinary module.")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    state = read_weights(name, download_root)
    model = build_model(state, torch.float16 if device.type == "cuda" else torch.float32).to(device)
    return model, _transform(model.visual.input_resolution)


def _transform(n_px: int) -> Callable[[Image.Image], Tensor]:
    """CLIP's test transform: short side to `n_px`, centre crop, RGB, [0, 1], normalised."""
    return transforms.Compose(
        [
            transforms.Resize(n_px, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(n_px),
            transforms.Lambda(_to_rgb),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )


def _to_rgb(image: Image.Image) -> Image.Image:
    return image.convert("RGB")


def _download(url: str, root: str | os.PathLike[str] | None = None) -> str:
    """Local path of an address of `_MODELS`, for trainers that load archives themselves.

    The file is what `torch.jit.load` or `torch.load` read. A model that ships with the repository is unpacked into the
    cache as a plain state dict.

    Raises:
        RuntimeError: the file did not arrive, or arrived with another digest than the address names.
    """
    folder = Path(root).expanduser() if root is not None else cache_dir()
    if url.startswith(BUILTIN):
        name = next(name for name, path in SHIPPED.items() if url == BUILTIN + path.name)
        return str(_unpack(find_weights(name), folder))
    digest, file = url.split("/")[-2:]
    return str(fetch(url, folder / file, digest if len(digest) == 64 else None))


def _unpack(compact: Path, folder: Path) -> Path:
    """The compact file as a plain state dict, named by its content."""
    target = folder / f"{compact.stem}-{sha256(compact)[:16]}.pt"
    if not target.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.{os.getpid()}.part")
        torch.save(read_file(compact), part)
        os.replace(part, target)
    return target


def tokenize(texts: str | Sequence[str], context_length: int = 77, truncate: bool = False) -> Tensor:
    """Token ids of texts, int64 [len(texts), context_length]: start token, text, end token, zeros.

    Args:
        truncate: cut a text that is too long, so that its last id is the end token.

    Raises:
        RuntimeError: a text is too long and `truncate` is off.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    result = torch.zeros(len(texts), context_length, dtype=torch.int64)
    for row, text in zip(result, texts, strict=True):
        ids = [_tokenizer.sot_token_id, *_tokenizer.encode(text), _tokenizer.eot_token_id]
        if len(ids) > context_length:
            if not truncate:
                raise RuntimeError(
                    f"A text of {len(ids)} tokens does not fit the context of {context_length}: {text!r}; "
                    f"shorten it or pass truncate=True."
                )
            ids = [*ids[: context_length - 1], _tokenizer.eot_token_id]
        row[: len(ids)] = torch.tensor(ids)
    return result
