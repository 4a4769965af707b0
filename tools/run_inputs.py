"""What the tools that use a trained run are given: the run, other class names, pictures."""

from __future__ import annotations

import argparse
import glob
import sys
from collections.abc import Sequence
from pathlib import Path

from datasets.layout import images_below


def add_run(parser: argparse.ArgumentParser) -> None:
    """Flags that choose the run and the classes."""
    add = parser.add_argument
    add("--load-epoch", type=int, metavar="N", help="weights of this epoch; default: those that the run ended with")
    add("--classnames", type=Path, metavar="FILE", help="other classes than the run's: a UTF-8 file, one name a line")
    add(
        "--set",
        nargs=2,
        action="append",
        default=[],
        metavar=("KEY", "VALUE"),
        dest="opts",
        help="a configuration key, e.g. MODEL.BACKBONE.NAME where weights lie elsewhere now; repeatable",
    )


def opts_of(args: argparse.Namespace) -> list[str]:
    """What --set gave, as KEY, VALUE, …"""
    return [item for pair in args.opts for item in pair]


def read_classnames(path: Path) -> list[str]:
    """Class names, one a line; blank lines and repeated names are left out, with a note on stderr.

    Names are the same if their texts are: an underscore is a space.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no UTF-8 text, or holds no name.
    """
    if not path.is_file():
        raise FileNotFoundError(f"No class names at {path}; name a text file with one class name a line.")
    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no UTF-8 text; save it as UTF-8, one class name a line.") from None
    names, blank, repeated = distinct_names(lines)
    if not names:
        raise ValueError(f"{path} holds no class name; write one a line.")
    if blank:
        print(f"Note: {blank} blank lines of {path} are left out", file=sys.stderr)
    if repeated:
        print(f"Note: {len(repeated)} repeated names of {path} are left out (first: '{repeated[0]}')", file=sys.stderr)
    return names


def distinct_names(lines: Sequence[str]) -> tuple[list[str], int, list[str]]:
    """Class names of lines, each once; how many lines are blank; and the names that came again.

    Names are the same if their texts are: an underscore is a space.
    """
    names: dict[str, str] = {}  # text -> name, the first one
    blank, repeated = 0, []
    for line in lines:
        name = " ".join(line.split())
        if not name:
            blank += 1
        elif name.replace("_", " ") in names:
            repeated.append(name)
        else:
            names[name.replace("_", " ")] = name
    return list(names.values()), blank, repeated


def find_images(arguments: Sequence[str]) -> list[Path]:
    """Pictures that are named by paths, folders (with all folders below them) and patterns, each once, in this order.

    Raises:
        FileNotFoundError: there is nothing at a path, no picture in a folder, or no file for a pattern.
    """
    found: dict[Path, None] = {}
    for argument in arguments:
        path = Path(argument).expanduser()
        if path.is_dir():
            here = images_below(path)
        elif path.exists():
            here = [path]
        elif glob.has_magic(argument):
            matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
            here = [image for match in matches for image in (images_below(match) if match.is_dir() else [match])]
        else:
            raise FileNotFoundError(f"There is no picture or folder at {path}; correct the path.")
        if not here:
            raise FileNotFoundError(f"No picture found for {argument}; correct it.")
        found |= dict.fromkeys(here)
    return list(found)
