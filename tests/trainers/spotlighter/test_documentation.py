"""docs/fidelity.md lists every key with its default, and its tables exist."""

import re
from pathlib import Path

import train
from tools.ablation_tables import TABLES

PAGE = Path(__file__).parents[3] / "docs" / "fidelity.md"


def rows():
    """Key, default and last cell of each line of the table of keys."""
    section = PAGE.read_text(encoding="utf-8").split("### Keys")[1].split("\n### ")[0]
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            yield cells[0].strip("`"), cells[2].strip("`"), cells[4]


def test_every_key_is_listed_with_its_default():
    node = train.setup_cfg(train.parse_args([])).TRAINER.SPOTLIGHTER
    expected = {key: str(value) for key, value in node.items() if key != "RELEASE"}
    expected |= {f"RELEASE.{key}": str(value) for key, value in node.RELEASE.items()}
    assert {key: default for key, default, _ in rows()} == expected


def test_every_ablation_of_a_listed_key_exists_and_varies_it():
    found = set()
    for key, _, cell in rows():
        for name in re.findall(r"`(\w+)`", cell):
            assert any(key in row.keys for row in TABLES[name].rows)
            found.add(name)
    assert found == set(TABLES)


def test_nothing_is_left_to_fill_in():
    assert not re.search(r"@\w+@", PAGE.read_text(encoding="utf-8"))
