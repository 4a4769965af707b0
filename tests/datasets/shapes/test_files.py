"""Rendering to disk: once, whole or not at all, and again when the renderer has changed."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.shapes import files
from datasets.shapes.__main__ import main
from datasets.shapes.domains import CLASS_NAMES, Domain
from datasets.shapes.files import ensure_rendered, fingerprint
from datasets.splits import read_split


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_files_and_split(tmp_path: Path, small: Domain) -> None:
    folder = ensure_rendered(small, tmp_path)
    assert folder == tmp_path / "shapes"
    assert listing(tmp_path)[0] == "shapes"  # no temporary folder is left
    split = read_split(folder / "split_shapes.json")
    assert [len(part) for part in split] == [144, 144, 144]
    assert {item.label: item.name for item in split.test} == dict(enumerate(CLASS_NAMES))
    item = split.test[3]
    with Image.open(folder / "images" / item.path) as file:
        picture = np.array(file)
    np.testing.assert_array_equal(picture, small.pictures("test", np.array([3]), np.array([0]))[0])
    assert len(list(folder.rglob("*.png"))) == 432
    assert folder.stat().st_mode & 0o055 == 0o055  # others may read, as in any folder


def test_second_call_renders_nothing(tmp_path: Path, small: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ensure_rendered(small, tmp_path)
    monkeypatch.setattr(files, "_render_into", None)  # calling it would fail
    assert ensure_rendered(small, tmp_path) == folder


def test_changed_domain_is_rendered_anew(tmp_path: Path, small: Domain) -> None:
    ensure_rendered(small, tmp_path)
    changed = replace(small, counts=(2, 1, 1))
    assert fingerprint(changed) != fingerprint(small)
    folder = ensure_rendered(changed, tmp_path)
    assert len(read_split(folder / "split_shapes.json").train) == 288
    assert [path.name for path in tmp_path.iterdir()] == ["shapes"]


def test_changed_code_changes_the_fingerprint(tmp_path: Path, small: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(small)
    edited = tmp_path / "render.py"
    edited.write_text(Path(files.render.__file__).read_text() + "\n")
    monkeypatch.setattr(files.render, "__file__", str(edited))
    assert fingerprint(small) != before


@pytest.mark.parametrize("moment", ["pictures", "split"])
def test_interrupted_rendering_leaves_nothing(
    tmp_path: Path, small: Domain, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def stop(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*{"pictures": (Image.Image, "save"), "split": (files, "save_split")}[moment], stop)
        with pytest.raises(KeyboardInterrupt):
            ensure_rendered(small, tmp_path)
    assert listing(tmp_path) == []
    assert len(read_split(ensure_rendered(small, tmp_path) / "split_shapes.json").test) == 144


def test_killed_rendering_is_not_taken_for_the_data_set(tmp_path: Path, small: Domain) -> None:
    (tmp_path / ".shapes.abc" / "images").mkdir(parents=True)  # what a killed process leaves
    folder = ensure_rendered(small, tmp_path)
    assert len(list(folder.rglob("*.png"))) == 432


def test_two_at_the_same_time(tmp_path: Path, small: Domain) -> None:
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda _: ensure_rendered(small, tmp_path), range(2)))
    assert folders == [tmp_path / "shapes"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["shapes"]
    assert len(list(folders[0].rglob("*.png"))) == 432


def test_foreign_folder_is_not_touched(tmp_path: Path, small: Domain) -> None:
    mine = tmp_path / "shapes" / "thesis.txt"
    mine.parent.mkdir()
    mine.write_text("years of work")
    with pytest.raises(RuntimeError, match=r"shapes exists but was not rendered by this program; move it away"):
        ensure_rendered(small, tmp_path)
    assert mine.read_text() == "years of work"


def test_root_that_cannot_be_written(tmp_path: Path, small: Domain) -> None:
    root = tmp_path / "file"
    root.write_text("a file where a folder is expected")
    with pytest.raises(RuntimeError, match=r"Cannot render shapes into .*file \(Not a directory\); choose a data root"):
        ensure_rendered(small, root)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_root(tmp_path: Path, small: Domain) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(RuntimeError, match=r"Permission denied"):
        ensure_rendered(small, tmp_path)


def test_command_line(tmp_path: Path, small: Domain, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "deep" / "root"  # made by the command
    assert main(["--root", str(root), "--only", "shapes"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == str(root / "shapes")
    assert json.loads((root / "shapes" / "rendered.json").read_text())["fingerprint"] == fingerprint(small)
    (tmp_path / "file").touch()
    assert main(["--root", str(tmp_path / "file"), "--only", "shapes"]) == 1
    assert capsys.readouterr().err.startswith("Error: ")
