"""What may be asked at once, and the sentences for what is beyond it. No gradio, no torch."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from clip.simple_tokenizer import get_tokenizer
from dassl.utils.tools import as_seen
from tools.run_inputs import distinct_names

# Pillow reads more, some of it by other programs (EPS by Ghostscript); what strangers give is only opened as these.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
PILLOW_MEGAPIXELS = 178  # beyond twice Image.MAX_IMAGE_PIXELS Pillow refuses by itself
MEGABYTE = 2**20
QUOTED = 5  # names in a sentence that could have hundreds
QUOTED_LENGTH = 40  # characters of one


class Refused(ValueError):
    """What was asked can't be answered; the text is for the person who asked."""


def _limit(default: float, least: float, what: str) -> Any:
    return field(default=default, metadata={"least": least, "help": what})


@dataclass(frozen=True)
class Limits:
    """Of one request.

    Raises:
        ValueError: a limit is below its least value, or more pixels than Pillow opens.
    """

    max_pictures: int = _limit(12, 1, "pictures at once")
    max_megabytes: float = _limit(10.0, 0.001, "size of a picture's file in MB (1 MB is 1,048,576 bytes)")
    max_megapixels: float = _limit(40.0, 0.001, "millions of pixels of a picture")
    max_names: int = _limit(500, 1, "class names")
    max_characters: int = _limit(100, 1, "characters of a class name")
    max_tokens: int = _limit(50, 1, "tokens of a class name; the context around it needs room in the model's 77, too")
    max_seconds: float = _limit(
        60.0, 0.001, "seconds of a request, once it is its turn; looked at before each run and picture"
    )
    keep_minutes: float = _limit(10.0, 0.001, "minutes after which an uploaded picture is deleted")

    def __post_init__(self) -> None:
        for limit in fields(self):
            value, least = getattr(self, limit.name), limit.metadata["least"]
            if not value >= least:
                raise ValueError(f"{flag_of(limit.name)} must be at least {least}, got {value}.")
        if self.max_megapixels > PILLOW_MEGAPIXELS:
            raise ValueError(
                f"--max-megapixels must be at most {PILLOW_MEGAPIXELS}, which is all that Pillow opens, "
                f"got {self.max_megapixels:g}."
            )

    @property
    def max_bytes(self) -> int:
        return int(self.max_megabytes * MEGABYTE)


def flag_of(name: str) -> str:
    """The flag that sets a limit."""
    return "--" + name.replace("_", "-")


def add_limits(parser: argparse.ArgumentParser) -> None:
    """A flag for each limit."""
    group = parser.add_argument_group("limits of a request")
    for limit in fields(Limits):
        told = f"{limit.metadata['help']} (default: {limit.default:g})"  # type: ignore[str-bytes-safe]
        group.add_argument(flag_of(limit.name), type=type(limit.default), default=limit.default, metavar="N", help=told)


def limits_of(args: argparse.Namespace) -> Limits:
    """What the flags say.

    Raises:
        ValueError: a limit makes no sense.
    """
    return Limits(**{limit.name: getattr(args, limit.name) for limit in fields(Limits)})


def checked_names(text: str | None, limits: Limits) -> tuple[tuple[str, ...], list[str]]:
    """Class names of a text, one a line, and notes of what was left out.

    Raises:
        Refused: there is none, there are too many, or some are too long; the sentence names these.
    """
    text = text or ""
    most = limits.max_names * (limits.max_characters + 1)
    if len(text) > 4 * most:  # not even worth splitting
        raise Refused(f"The class names are {len(text):,} characters in all, far too many; give at most {most:,}.")
    names, _, repeated = distinct_names(text.splitlines())
    if not names:
        raise Refused("There are no class names; write at least one, one a line.")
    if len(names) > limits.max_names:
        raise Refused(f"{len(names)} class names are too many; give at most {limits.max_names}.")
    long = [name for name in names if len(name) > limits.max_characters]
    if long:
        raise Refused(_too_long(long, f"{limits.max_characters} characters"))
    encode = get_tokenizer().encode
    long = [name for name in names if len(encode(name.replace("_", " "))) > limits.max_tokens]
    if long:
        raise Refused(_too_long(long, f"{limits.max_tokens} tokens of CLIP's vocabulary"))
    notes = [f"Left out, because they came twice: {quoted(repeated)}."] if repeated else []
    return tuple(names), notes


def _too_long(names: Sequence[str], most: str) -> str:
    what = "This class name is" if len(names) == 1 else f"{len(names)} class names are"
    return f"{what} too long, at most {most} are read: {quoted(names)}; shorten {'it' if len(names) == 1 else 'them'}."


def quoted(names: Sequence[str]) -> str:
    """Names in a sentence, the first few of many, long ones cut."""
    cut = [name if len(name) <= QUOTED_LENGTH else name[: QUOTED_LENGTH - 1] + "…" for name in names[:QUOTED]]
    more = f" and {len(names) - QUOTED} more" if len(names) > QUOTED else ""
    return ", ".join(f"“{name}”" for name in cut) + more


def checked_paths(files: Sequence[str] | None, limits: Limits) -> list[Path]:
    """The uploaded files.

    Raises:
        Refused: there is none, or there are too many.
    """
    if not files:
        raise Refused("There is no picture; drop one or more on the field “Pictures”.")
    if len(files) > limits.max_pictures:
        raise Refused(f"{len(files)} pictures are too many at once; give at most {limits.max_pictures}.")
    return [Path(file) for file in files]


def open_picture(path: Path, limits: Limits) -> Image.Image:
    """An uploaded picture, upright and in RGB; its size is known before a pixel is decoded.

    Raises:
        Refused: it is too large, in bytes or in pixels, gone, or no picture; the sentence has its name, not its path.
    """
    name = path.name
    try:
        size = path.stat().st_size
    except OSError:
        raise Refused(
            f"“{name}” is not here any more, uploads are deleted after {limits.keep_minutes:g} minutes; drop it again."
        ) from None
    if size > limits.max_bytes:
        raise Refused(f"“{name}” has {size / MEGABYTE:.1f} MB; give pictures of at most {limits.max_megabytes:g} MB.")
    Image.init()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is another one
            image = Image.open(path, formats=[kind for kind in FORMATS if kind in Image.OPEN])
        with image:
            if image.width * image.height > limits.max_megapixels * 1e6:
                raise Refused(
                    f"“{name}” is {image.width} by {image.height} pixels; give pictures of at most "
                    f"{limits.max_megapixels:g} million pixels."
                )
            return as_seen(image)
    except Refused:
        raise
    except Image.DecompressionBombError:
        raise Refused(
            f"“{name}” has more than {PILLOW_MEGAPIXELS} million pixels; give pictures of at most "
            f"{limits.max_megapixels:g} million pixels."
        ) from None
    except UnidentifiedImageError:
        raise Refused(f"“{name}” is no picture that can be read; give a JPEG, PNG, WebP, GIF, BMP or TIFF.") from None
    except Exception as error:  # whatever Pillow's parsers raise
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise Refused(f"“{name}” is damaged ({reason}); give another copy of it.") from None
