"""The sheet of sample pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.base import Found
from datasets.oxford_pets import OxfordPets
from datasets.preparation.picture import (
    CAPTION,
    GAP,
    HEADER,
    MARGIN,
    TILE,
    WIDTH,
    draw_sheet,
    save_sheet,
    sheet_height,
    spread,
)
from datasets.splits import Item, Split
from tests.datasets.preparation.trees import make_pets, picture


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Found:
    make_pets(tmp_path, monkeypatch)
    return OxfordPets.find_below(tmp_path)


def tile(sheet: Image.Image, row: int, column: int) -> np.ndarray:
    """Pixels of a place in the grid, [TILE, TILE, 3]."""
    left, top = MARGIN + CAPTION + GAP + column * (TILE + GAP), HEADER + row * (TILE + GAP)
    return np.asarray(sheet.crop((left, top, left + TILE, top + TILE)), int)


def caption(sheet: Image.Image, row: int) -> np.ndarray:
    top = HEADER + row * (TILE + GAP)
    return np.asarray(sheet.crop((MARGIN, top, MARGIN + CAPTION, top + TILE)), int)


def test_spread() -> None:
    assert spread(range(3), 8) == [0, 1, 2]
    assert spread(range(101), 5) == [0, 25, 50, 75, 100]
    assert spread([], 5) == []


def test_sheet_is_a_png_of_the_stated_size(tmp_path: Path, found: Found) -> None:
    path = tmp_path / "new" / "pets.png"
    save_sheet(path, found, "OxfordPets")
    with Image.open(path) as sheet:
        assert (sheet.format, sheet.size) == ("PNG", (WIDTH, HEADER + 3 * TILE + 2 * GAP + MARGIN))
        assert WIDTH == 1200
        again = draw_sheet(found, "OxfordPets")
        assert (np.asarray(sheet) == np.asarray(again)).all()


def test_a_row_a_class_with_its_name(found: Found) -> None:
    sheet = draw_sheet(found, "OxfordPets")
    for row in range(3):  # mostly red, green and blue
        for column in range(3):
            assert tile(sheet, row, column).mean((0, 1)).argmax() == row
        assert (tile(sheet, row, 3) == 255).all()  # there are three test pictures a class
        assert (caption(sheet, row) < 100).any()
    assert not (caption(sheet, 0) == caption(sheet, 1)).all()


def test_missing_and_damaged_pictures_are_grey(found: Found) -> None:
    (found.images / "abyssinian_test_0.jpg").unlink()
    (found.images / "abyssinian_test_1.jpg").write_bytes(b"")
    sheet = draw_sheet(found, "OxfordPets")
    missing, damaged = tile(sheet, 0, 0), tile(sheet, 0, 1)
    for pixels in (missing, damaged):
        assert (pixels.max(2) == pixels.min(2)).all()
        assert pixels.min() < pixels.max() == 0xE8  # a word on a grey ground
    assert not (missing == damaged).all()  # another word


def test_many_classes_with_long_names(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    name = "2012 Ram C/V Cargo Van Minivan with a name that goes on_and_on and has äöü " * 3
    items = [Item("a.png", label, name) for label in range(200) for _ in range(9)]
    sheet = draw_sheet(Found(tmp_path, tmp_path, Split(items, [], items), None), "Long \udcff")
    assert sheet.size == (WIDTH, sheet_height(8))
    assert (tile(sheet, 7, 5).mean((0, 1)).argmax()) == 0
    assert (caption(sheet, 3)[:, -4:] == 255).all()  # names keep clear of the pictures


def test_sheet_that_cannot_be_written(tmp_path: Path, found: Found) -> None:
    (tmp_path / "sheet.png").mkdir()
    with pytest.raises(
        RuntimeError, match=r"^Cannot write .*sheet.png \(Is a directory\); choose another --picture\.$"
    ):
        save_sheet(tmp_path / "sheet.png", found, "OxfordPets")
