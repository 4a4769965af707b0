"""docs/datasets.md says what the readers say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from dassl.data.datasets import DATASET_REGISTRY
from datasets.base import SplitDataset

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/datasets.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("| ")]
BENCHMARKS = [row for row in ROWS if row[0] in DATASET_REGISTRY.registered_names()]


def test_all_benchmarks_are_in_the_table() -> None:
    readers = {name: DATASET_REGISTRY.get(name) for name in DATASET_REGISTRY.registered_names()}
    published = {name for name, reader in readers.items() if issubclass(reader, SplitDataset) and reader.n_classes}
    assert {row[0] for row in BENCHMARKS} == published


@pytest.mark.parametrize("row", BENCHMARKS, ids=lambda row: row[0])
def test_row(row: list[str]) -> None:
    name, config, folder, classes, counts, halves = row[:6]
    reader = DATASET_REGISTRY.get(name)
    assert yaml.safe_load((ROOT / "configs/datasets" / f"{config}.yaml").read_text()) == {"DATASET": {"NAME": name}}
    assert folder == reader.dataset_dir
    assert int(classes) == reader.n_classes
    assert counts == " / ".join(f"{n:,}" if n else "–" for n in reader.counts)
    assert halves == f"{-(-reader.n_classes // 2)} / {reader.n_classes // 2}"


def test_layouts_name_the_readers_folders() -> None:
    layouts = TEXT.split("### Layouts")[1].split("## Splits")[0]
    for name, *_ in BENCHMARKS:
        reader = DATASET_REGISTRY.get(name)
        start = "/".join(part for part in (reader.dataset_dir, reader.image_dir) if part)
        assert re.search(rf"(?:^|\s){re.escape(start)}/", layouts), start
        assert not reader.split_file or f"{reader.dataset_dir}/{reader.split_file}" in layouts
