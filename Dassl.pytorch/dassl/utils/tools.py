"""Files, seeds, images and near names."""

import contextlib
import difflib
import errno
import importlib.metadata
import json
import os
import platform
import random
import shutil
import stat
import sys
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from tqdm import tqdm

from .files import write_text

__all__ = [
    "ImageReadError",
    "check_availability",
    "check_isfile",
    "collect_env_info",
    "download_url",
    "get_most_similar_str_to_a_from_b",
    "listdir_nohidden",
    "mkdir_if_missing",
    "read_image",
    "read_json",
    "set_random_seed",
    "tolist_if_not",
    "write_json",
]


def mkdir_if_missing(dirname: str | os.PathLike) -> None:
    """Make a folder and its parents; an existing one is fine.

    Raises:
        FileNotFoundError: the name is empty.
    """
    if not os.fspath(dirname):
        raise FileNotFoundError(errno.ENOENT, "cannot make a folder with an empty name", "")
    os.makedirs(dirname, exist_ok=True)


def check_isfile(fpath: str | os.PathLike) -> bool:
    """Whether the file exists; warns when it does not."""
    isfile = os.path.isfile(fpath)
    if not isfile:
        warnings.warn(f'No file found at "{os.fspath(fpath)}"', stacklevel=2)
    return isfile


def read_json(fpath: str | os.PathLike) -> Any:
    """Read a JSON file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not JSON.
    """
    with open(fpath, encoding="utf-8") as f:
        try:
            return json.load(f)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{os.fspath(fpath)} is not a JSON file ({error}); restore or remove it.") from error


def write_json(obj: Any, fpath: str | os.PathLike) -> None:
    """Write a JSON file (indent 4) with its folder; a reader sees the old file or the whole new one."""
    write_text(fpath, json.dumps(obj, indent=4, separators=(",", ": ")))


def listdir_nohidden(path: str | os.PathLike, sort: bool = False) -> list[str]:
    """Names in a folder that do not start with a dot; in the order of the file system unless `sort`."""
    names = [name for name in os.listdir(path) if not name.startswith(".")]
    return sorted(names) if sort else names


def set_random_seed(seed: int) -> None:
    """Seed Python, NumPy, torch and all CUDA devices.

    Raises:
        ValueError: the seed is outside 0..2^32 - 1, the range that NumPy takes.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"a seed must be in 0..4294967295, got {seed}")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)  # queued until CUDA is used; initialises nothing


def download_url(url: str, dst: str | os.PathLike) -> None:
    """Download `url` to the file `dst`, which appears only once it is complete.

    Raises:
        RuntimeError: the address cannot be read.
    """
    print(f"Downloading {url} to {os.fspath(dst)}")
    part = f"{os.fspath(dst)}.part"
    try:
        with urllib.request.urlopen(url) as source, open(part, "wb") as target:
            size = int(source.headers.get("Content-Length") or 0) or None
            with tqdm.wrapattr(source, "read", total=size, disable=None) as counted:
                shutil.copyfileobj(counted, target)
        if size is not None and os.path.getsize(part) != size:
            raise RuntimeError(f"{url} broke off after {os.path.getsize(part)} of {size} bytes; download it again.")
    except (urllib.error.URLError, ValueError) as error:
        raise RuntimeError(f"Cannot download {url} ({error}); put the file at {os.fspath(dst)} by hand.") from error
    os.replace(part, dst)


class ImageReadError(RuntimeError):
    """An image file that cannot be read; the message is one sentence with its path.

    Args:
        message: the sentence.
        path: the file.
        reason: what is wrong with it, in a few words.
    """

    def __init__(self, message: str, path: str = "", reason: str = ""):
        super().__init__(message)
        self.path = path
        self.reason = reason


def read_image(path: str | os.PathLike) -> Image.Image:
    """Read an image as people see it, in RGB; the format is told by the content, not by the name.

    The orientation that a camera noted is applied, transparency is laid on white, 16-bit grey is scaled to 8 bits
    (PIL alone would clip it), CMYK and palettes are converted; of several frames the first is taken.

    Raises:
        FileNotFoundError: there is no such file.
        ImageReadError: the file is damaged or not an image.
    """
    try:
        file = os.stat(path)
        if not stat.S_ISREG(file.st_mode):  # to open a named pipe would wait for a writer
            raise OSError("a folder" if stat.S_ISDIR(file.st_mode) else "not a regular file")
        if file.st_size == 0:
            raise OSError("empty file (0 bytes)")
        with Image.open(path) as image:
            return as_seen(image)
    except FileNotFoundError:
        raise FileNotFoundError(f"No image at {os.fspath(path)}; was it moved since the run began?") from None
    except Exception as error:  # Pillow's plugins raise whatever their parsers raise
        reason = _reason(path, error)
        message = f"Cannot read the image {os.fspath(path)} ({reason}); restore or remove it."
        raise ImageReadError(message, os.fspath(path), reason) from error


def as_seen(image: Image.Image) -> Image.Image:
    """An opened image as `read_image` gives it."""
    image.load()
    return _to_rgb(_upright(image))


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # what undoes each orientation of the Exif standard


def _upright(image: Image.Image) -> Image.Image:
    """`ImageOps.exif_transpose`, which would copy an upright image and refuse one whose notes are malformed."""
    if image.format == "TIFF":  # is turned in loading, and some versions of Pillow leave the note
        return image
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # whatever the parser raises; the picture itself is sound
        return image
    if turn is None:
        return image
    turned = image.transpose(turn)
    turned.info = {key: image.info[key] for key in ("transparency",) if key in image.info}  # the notes are used up
    return turned


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # "I;16*", or "I", in which 16-bit files arrive on some versions of Pillow
        grey = np.asarray(image).astype(np.float64)
        if image.mode.startswith("I;16") or grey.max(initial=0) > 255:
            grey = grey * (255 / 65535)
        return Image.fromarray(grey.clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _reason(path: str | os.PathLike, error: Exception) -> str:
    """What is wrong with an image file, in a few words on one line."""
    if isinstance(error, UnidentifiedImageError):
        with open(path, "rb") as file:
            start = repr(file.read(24))[1:]  # without the b of bytes
        return f"not an image of a known format, it starts with {start}"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()).rstrip(".") or type(error).__name__


def collect_env_info() -> str:
    """Versions and hardware, one item a line; starts no process and initialises no device without need."""
    rows = [
        ("Python", f"{platform.python_version()} ({sys.executable})"),
        ("Platform", f"{platform.system()} {platform.release()}"),
        ("CPUs", f"{os.cpu_count()} ({platform.machine()}), of which torch uses {torch.get_num_threads()}"),
        ("torch", torch.__version__),
    ]
    for package in ("torchvision", "numpy", "Pillow", "open_clip_torch"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            rows.append((package, importlib.metadata.version(package)))
    rows.append(("CUDA build", torch.version.cuda or "none"))
    if torch.cuda.is_available():
        rows.append(("cuDNN", str(torch.backends.cudnn.version())))
        rows += [(f"GPU {i}", torch.cuda.get_device_name(i)) for i in range(torch.cuda.device_count())]
    else:
        rows.append(("GPU", "none that torch can use"))
    return "\n".join(f"{name}: {value}" for name, value in rows)


def tolist_if_not(x: Any) -> list:
    """`x` itself if it is a list, else `[x]` (a tuple is wrapped too)."""
    return x if isinstance(x, list) else [x]


def get_most_similar_str_to_a_from_b(a: str, b: Iterable[str]) -> str | None:
    """The string of `b` that is nearest to `a` (difflib ratio); the last of equals, None if `b` is empty."""
    best, best_ratio = None, 0.0
    for candidate in b:
        ratio = difflib.SequenceMatcher(None, a, candidate).ratio()
        if ratio >= best_ratio:
            best, best_ratio = candidate, ratio
    return best


def check_availability(requested: str, available: Sequence[str]) -> None:
    """Make sure that a name is one of those that exist.

    Raises:
        ValueError: it is not; the message lists those that are, and the nearest.
    """
    if requested not in available:
        nearest = get_most_similar_str_to_a_from_b(requested, available)
        raise ValueError(
            f"{requested!r} does not exist; expected one of [{', '.join(available)}] (do you mean {nearest!r}?)."
        )
