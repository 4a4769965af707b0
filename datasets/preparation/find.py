"""Find a data set on disk as a run would, but without a configuration at hand and without drawing anything."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import NamedTuple

from dassl.config import get_cfg_default, merge_file
from datasets.base import Found, SplitDataset, extend_cfg
from datasets.errors import DatasetLayout, DatasetMissing
from datasets.image_folder import ImageFolder
from datasets.samples import report_pickles
from datasets.shapes import RenderedDataset
from datasets.shapes.domains import DOMAINS
from datasets.shapes.files import drawn_by, fingerprint


class Sighting(NamedTuple):
    """A data set on disk, and the notes and warnings that its reader printed on the way."""

    found: Found
    said: tuple[str, ...]


class ConfiguredFolder(ImageFolder):
    """`ImageFolder` with the settings of a config file; subclasses have the file's name.

    Attributes:
        config_file: with DATASET.IMAGE_FOLDER, whose DIR is `dataset_dir`, too.
    """

    config_file: Path


def find(reader: type[SplitDataset], root: Path) -> Sighting:
    """The data set of a reader below the data root.

    Raises:
        DatasetError: as in `SplitDataset`; a data set that draws itself and has not yet is missing.
        ValueError: a config file has impossible settings.
    """
    said = io.StringIO()
    with contextlib.redirect_stdout(said):  # readers talk; standard output is for tables and JSON
        if issubclass(reader, ImageFolder):
            found = _find_image_folder(reader, root)
        else:
            if issubclass(reader, RenderedDataset):
                _check_rendered(reader, root)
            found = reader.find_below(root)
        report_pickles(found.folder)
    lines = said.getvalue().splitlines()
    return Sighting(found, tuple(line.removeprefix("Note: ").removeprefix("Warning: ") for line in lines))


def expected_folder(reader: type[SplitDataset], root: Path) -> Path:
    """Where the data set's folder is, or should be."""
    return root / reader.dataset_dir


def _find_image_folder(reader: type[ImageFolder], root: Path) -> Found:
    cfg = get_cfg_default()
    extend_cfg(cfg)
    if issubclass(reader, ConfiguredFolder):
        merge_file(cfg, reader.config_file)
    cfg.DATASET.ROOT = str(root)
    return reader.__new__(reader).find(cfg)  # its __init__ would divide and check for a run


def _check_rendered(reader: type[RenderedDataset], root: Path) -> None:
    """Make sure that looking for the data set will not draw it."""
    domain, folder = DOMAINS[reader.__name__], expected_folder(reader, root)
    artist = drawn_by(folder)
    if artist == fingerprint(domain):
        return
    if artist is not None:
        raise DatasetMissing(
            f"{folder} was drawn by another version of the renderer; the next run draws it anew, or now: "
            f"{reader.draw_command(root)}"
        )
    if folder.exists():
        raise DatasetLayout(f"{folder} was not drawn by this program; move it away, or use another data root.")
    raise DatasetMissing(f"No folder {folder}; the first run draws it, or now: {reader.draw_command(root)}")
