"""Which data sets people mean: by registry name, name of the config file, or folder, in any case."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from yacs.config import CfgNode as CN

import datasets  # noqa: F401 -- registers the readers
from dassl.config import merge_file
from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import get_most_similar_str_to_a_from_b
from datasets.base import SplitDataset
from datasets.image_folder import ImageFolder
from datasets.preparation.find import ConfiguredFolder, expected_folder

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "datasets"
ALL = "all"


def resolve(names: Iterable[str], root: Path | None = None) -> list[type[SplitDataset]]:
    """Readers of data sets, each once, in the order of the names.

    Args:
        names: in any case; "all" stands for the data sets whose folder is below the root.
        root: None: "all" stands for all that are known.

    Raises:
        ValueError: a name is unknown (the sentence has the nearest), "all" finds nothing, or a config file is damaged.
    """
    known, configured = registered(), configured_readers()
    with_folder = [reader for reader in (known | configured).values() if reader.dataset_dir]
    by_name = {reader.dataset_dir.lower(): reader for reader in with_folder}
    by_name |= {name.lower(): reader for name, reader in (configured | known).items()}
    chosen: dict[type[SplitDataset], None] = {}  # an ordered set
    for name in names:
        if name.lower() == ALL:
            there = [r for r in with_folder if root is None or expected_folder(r, root).is_dir()]
            if not there:
                raise ValueError(f"No folder in {root} is that of a known data set; name data sets instead of {ALL}.")
            chosen |= dict.fromkeys(there)
        elif name.lower() in by_name:
            chosen[by_name[name.lower()]] = None
        else:
            nearest = get_most_similar_str_to_a_from_b(name.lower(), configured)
            raise ValueError(
                f"{name!r} is no data set; did you mean {nearest!r}? Known: {', '.join(sorted(configured))}, or {ALL}."
            )
    return list(chosen)


def registered() -> dict[str, type[SplitDataset]]:
    """Registry name -> reader, of those that have a split."""
    entries = {name: DATASET_REGISTRY.get(name) for name in DATASET_REGISTRY.registered_names()}
    return {name: reader for name, reader in entries.items() if issubclass(reader, SplitDataset)}


def configured_readers() -> dict[str, type[SplitDataset]]:
    """Name of a config file -> the reader it names; an ImageFolder keeps the file's settings and takes its name."""
    known, readers = registered(), {}
    for path in sorted(CONFIGS.glob("*.yaml")):
        cfg = CN({"DATASET": {"NAME": "", "IMAGE_FOLDER": {"DIR": ""}}})
        cfg.set_new_allowed(True)  # what else the file sets is for runs
        merge_file(cfg, path)
        name = cfg.DATASET.NAME
        if name == ImageFolder.__name__:
            facts = {"config_file": path, "dataset_dir": cfg.DATASET.IMAGE_FOLDER.DIR}
            readers[path.stem] = type(path.stem, (ConfiguredFolder,), facts)
        elif name in known:
            readers[path.stem] = known[name]
    return readers
