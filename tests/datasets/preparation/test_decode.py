"""Decoding pictures: what is damaged and why, and processes that are interrupted or killed."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from datasets.preparation import decode
from datasets.preparation.decode import CHUNK, unreadable_images, why_unreadable
from tests.datasets.preparation.trees import picture, truncate


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.gif", "a.bmp", "a.webp"])
def test_whole_pictures_of_all_formats_can_be_read(tmp_path: Path, name: str) -> None:
    assert why_unreadable(str(picture(tmp_path / name, size=(64, 48)))) is None


def test_other_modes_and_endings_that_lie_can_be_read(tmp_path: Path) -> None:
    for mode in ("L", "CMYK", "RGBA", "P", "I;16"):
        path = tmp_path / f"{mode.replace(';', '')}.{'jpg' if mode == 'CMYK' else 'png'}"
        Image.new(mode, (8, 8)).save(path)
        assert why_unreadable(str(path)) is None
    path.rename(tmp_path / "png.jpg")
    assert why_unreadable(str(tmp_path / "png.jpg")) is None


def test_truncated_jpeg(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.jpg", size=(200, 200))
    reason = truncate(path)
    with Image.open(path) as image:
        image.verify()  # does not notice
    assert why_unreadable(str(path)) == reason


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.gif"])
@pytest.mark.parametrize("size", [4, 12, 30])
def test_picture_that_ends_in_its_header(tmp_path: Path, name: str, size: int) -> None:
    path = picture(tmp_path / name)
    path.write_bytes(path.read_bytes()[:size])
    assert re.search(r"truncated|not an image of a known format", why_unreadable(str(path)) or "", re.IGNORECASE)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file (0 bytes)"),
        (b"<!DOCTYPE html>", "not an image of a known format, it starts with '<!DOCTYPE html>'"),
        (b"version https://git-lfs", "not an image of a known format, it starts with 'version https://git-lfs'"),
    ],
)
def test_files_that_are_no_pictures(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    assert why_unreadable(str(path)) == reason


def test_damage_inside_a_picture(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", size=(64, 48))
    content = path.read_bytes()
    path.write_bytes(content[:60] + bytes(20) + content[80:])
    assert why_unreadable(str(path))


def test_what_the_system_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_unreadable(str(tmp_path / "gone.jpg")) == "there is no such file"
    assert why_unreadable(str(tmp_path)) == "a folder"

    def too_large(*_: object) -> None:
        raise Image.DecompressionBombError("Image size (10 pixels) exceeds\nlimit")

    monkeypatch.setattr(Image, "_decompression_bomb_check", too_large)
    assert why_unreadable(str(picture(tmp_path / "a.png"))) == "Image size (10 pixels) exceeds limit"


def test_harmless_warnings_are_kept_from_the_progress_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def warn(path: str) -> None:
        warnings.warn("corrupt EXIF", stacklevel=2)

    monkeypatch.setattr(decode, "read_image", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode.decode(str(tmp_path), ["a.jpg"]) == []


@pytest.fixture
def many(tmp_path: Path) -> list[str]:
    """Pictures for several tasks, every tenth one empty or cut off."""
    paths = [f"{i % 3}/{i}.jpg" for i in range(3 * CHUNK + 5)]
    for i, path in enumerate(paths):
        picture(tmp_path / path, size=(40, 40))
        if i % 20 == 7:
            (tmp_path / path).write_bytes(b"")
        if i % 20 == 17:
            truncate(tmp_path / path)
    return paths


def test_processes_find_what_one_finds_in_the_same_order(tmp_path: Path, many: list[str]) -> None:
    alone = unreadable_images(tmp_path, many, workers=0)
    assert [item.path for item in alone] == many[7::10]
    assert alone[0].reason == "empty file (0 bytes)"
    assert "truncated" in alone[1].reason
    for workers in (1, 2, None):
        assert unreadable_images(tmp_path, many, workers) == alone


def test_nothing_to_decode(tmp_path: Path) -> None:
    assert unreadable_images(tmp_path, []) == []


def when_children_are_there(act: Callable[[list], None]) -> threading.Thread:
    """Act on the decoding processes as soon as there are some."""

    def watch() -> None:
        deadline = time.monotonic() + 60
        while not multiprocessing.active_children() and time.monotonic() < deadline:
            time.sleep(0.01)
        act(multiprocessing.active_children())

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


@pytest.fixture
def endless(tmp_path: Path) -> list[str]:
    """More decoding than a test has patience for."""
    picture(tmp_path / "a.png", size=(600, 600))
    return ["a.png"] * 40_000


def test_ctrl_c_ends_all_processes(tmp_path: Path, endless: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    def interrupt(children: list) -> None:
        time.sleep(0.2)  # until they have begun
        for pid in [*(child.pid for child in children), os.getpid()]:
            os.kill(pid, signal.SIGINT)  # as a terminal does

    thread = when_children_are_there(interrupt)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        unreadable_images(tmp_path, endless, workers=2)
    thread.join()
    assert time.monotonic() - began < 30
    assert multiprocessing.active_children() == []
    assert "Traceback" not in capfd.readouterr().err


def test_killed_process(tmp_path: Path, endless: list[str]) -> None:
    thread = when_children_are_there(lambda children: os.kill(children[0].pid, signal.SIGKILL))
    with pytest.raises(
        RuntimeError, match=r"^A process that decoded pictures of .* was killed, perhaps .* --workers\.$"
    ):
        unreadable_images(tmp_path, endless, workers=2)
    thread.join()
    assert multiprocessing.active_children() == []
