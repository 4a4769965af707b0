"""docs/methods.md counts what the configs build, and quotes what docs/published holds."""

import csv
import json
from pathlib import Path

import pytest

from dassl.engine import TRAINER_REGISTRY
from tests.trainers.every import NAMES, defaults
from tools import count_parameters

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("| ")]
METHODS = [row for row in ROWS if row[0] in TRAINER_REGISTRY.registered_names()]
WITH_FILES = {"TextPriors": ("TRAINER.TEXTPRIORS.DESCRIPTIONS",), "PromptKD": ("TRAINER.PROMPTKD.TEACHER_DIR",)}
VARIANTS = {"ZeroshotCLIP2"}  # a variant of the row above


def published():
    """Averages of base, new and HM by method."""
    found = {}
    for path in sorted((ROOT / "docs/published").glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["protocol"] == "base2new" and row["dataset"] == "average":
                    found.setdefault(row["metric"], set()).add(row["value"])
    return found


def test_every_method_has_a_row():
    assert {row[0] for row in METHODS} == set(NAMES) - VARIANTS


@pytest.mark.parametrize("row", METHODS, ids=lambda row: row[0])
def test_row(row, capsys):
    name, config, _, tensors, scalars, figures, _ = row
    path = ROOT / "configs/trainers" / name / f"{config.strip('`')}.yaml"
    assert path.is_file()
    if name not in WITH_FILES:
        assert count_parameters.main(["--config-file", str(path), "--json"]) == 0
        total = json.loads(capsys.readouterr().out)["total"]
        assert (f"{total['trainable_tensors']:,}", f"{total['trainable_scalars']:,}") == (tensors, scalars)
    if figures != "–":
        for metric, value in zip(("base", "new", "hm"), figures.split(" / "), strict=True):
            assert value in published()[metric]


def test_switches_are_keys_with_these_defaults():
    switches = [row for row in ROWS if ":" in row[0] or "." in row[0].strip("`")]
    assert switches
    for names, default, _ in switches:
        nodes, _, keys = names.replace("`", "").rpartition(": ")
        pairs = (
            [(node, key) for node in nodes.split(", ") for key in keys.split(", ")]
            if nodes
            else [pair.split(".") for pair in keys.split(", ")]
        )
        for node, key in pairs:
            value = defaults()[node][key]
            if isinstance(value, str) and value:
                assert f"`{value}`" in default or key == "WRITE", (node, key)
