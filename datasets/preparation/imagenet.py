"""ImageNet's official archives: training pictures in a tar of tars, validation pictures in a heap, labels elsewhere."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import numpy as np

from datasets.matlab import read_mat
from datasets.preparation.extract import ArchiveError, Place, unpack

META = "data/meta.mat"
TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"
DEVKIT_SIZE = 50_000_000  # bytes when unpacked, a generous guess


def train_place(name: str) -> Place:
    """`n01440764.tar` holds the pictures of one class, which go to a folder of that name."""
    found = re.fullmatch(r"(n\d{8})\.tar", name)
    if not found:
        raise ArchiveError(f"The training pictures hold {name!r}, where an archive n########.tar was expected.")
    return lambda inner: f"{found[1]}/{inner}"


def val_place(devkit: Path) -> Place:
    """Validation picture number i goes to the folder of its class.

    Args:
        devkit: the development kit, which holds the labels.

    Raises:
        ArchiveError: the development kit is damaged.
    """
    wnids = read_val_wnids(devkit)

    def place(name: str) -> str:
        found = re.fullmatch(r"ILSVRC2012_val_(\d{8})\.JPEG", name)
        if not found or not 1 <= int(found[1]) <= len(wnids):
            raise ArchiveError(
                f"The validation pictures hold {name!r}, where ILSVRC2012_val_00000001.JPEG to "
                f"ILSVRC2012_val_{len(wnids):08d}.JPEG were expected."
            )
        return f"{wnids[int(found[1]) - 1]}/{name}"

    return place


def read_val_wnids(devkit: Path) -> list[str]:
    """The class (`n########`) of each validation picture, in the order of their numbers.

    Raises:
        ArchiveError: the archive is damaged, or its labels do not fit its list of classes.
        DatasetError: its MATLAB file is damaged.
    """

    def place(name: str) -> str | None:
        return next((Path(wanted).name for wanted in (META, TRUTH) if name.endswith(f"/{wanted}")), None)

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        unpack(devkit, folder, place, DEVKIT_SIZE, quiet=True)
        for wanted in (META, TRUTH):
            if not (folder / Path(wanted).name).is_file():
                raise ArchiveError(f"{devkit} holds no {wanted}; it is not the development kit of ILSVRC 2012.")
        synsets = np.atleast_1d(read_mat(folder / Path(META).name, "synsets"))
        labels = (folder / Path(TRUTH).name).read_text(encoding="ascii").split()
    fields = ("ILSVRC2012_ID", "WNID", "num_children")
    if not set(fields) <= set(synsets.dtype.names or ()):
        raise ArchiveError(f"{devkit}: {META} should give {', '.join(fields)}, but gives {synsets.dtype.names}.")
    # Inner nodes of WordNet's tree are in the list, too; pictures belong to leaves.
    classes = {str(int(row["ILSVRC2012_ID"])): str(row["WNID"]) for row in synsets if int(row["num_children"]) == 0}
    unknown = [label for label in labels if label not in classes]
    if unknown or not labels:
        raise ArchiveError(f"{devkit}: {TRUTH} has the label {(unknown or ['nothing'])[0]!r}, which {META} lacks.")
    return [classes[label] for label in labels]
