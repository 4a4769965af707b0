"""What is refused, with which sentence, and that what is read is what Pillow reads."""

import argparse

import numpy as np
import pytest
from PIL import Image

from tools.explorer.limits import Limits, Refused, add_limits, checked_names, checked_paths, limits_of, open_picture

LIMITS = Limits()


def refusal(what, *given):
    with pytest.raises(Refused) as caught:
        what(*given)
    return str(caught.value)


def saved(path, size=(6, 4), **options):
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path, pixels


# --- class names


def test_names_are_cleaned_and_what_came_twice_is_told():
    names, notes = checked_names("  red   star\n\nblue_ring\r\nblue ring\nstraße", LIMITS)
    assert names == ("red star", "blue_ring", "straße")
    assert notes == ["Left out, because they came twice: “blue ring”."]
    assert checked_names("one", LIMITS) == (("one",), [])


@pytest.mark.parametrize("text", ["", None, " \n\t\n"])
def test_no_names(text):
    assert refusal(checked_names, text, LIMITS) == "There are no class names; write at least one, one a line."


def test_too_many_names():
    text = "\n".join(f"class {i}" for i in range(4))
    assert refusal(checked_names, text, Limits(max_names=3)) == "4 class names are too many; give at most 3."
    huge = refusal(checked_names, "x" * 81, Limits(max_names=2, max_characters=9))
    assert huge == "The class names are 81 characters in all, far too many; give at most 20."


def test_long_names_are_named():
    one = refusal(checked_names, "ok\n" + "b" * 60, Limits(max_characters=50))
    assert one == f"This class name is too long, at most 50 characters are read: “{'b' * 39}…”; shorten it."
    text = "\n".join(letter * 12 for letter in "abcdefg")
    many = refusal(checked_names, text, Limits(max_characters=10))
    shown = ", ".join(f"“{letter * 12}”" for letter in "abcde")
    assert many == f"7 class names are too long, at most 10 characters are read: {shown} and 2 more; shorten them."


def test_names_of_many_tokens_are_named():
    # each of these words is one token of CLIP's vocabulary
    limits = Limits(max_tokens=3)
    assert checked_names("a red star", limits)[0] == ("a red star",)
    told = refusal(checked_names, "a red star\na red star here\na_red_star_too", limits)
    assert told == (
        "2 class names are too long, at most 3 tokens of CLIP's vocabulary are read: “a red star here”, "
        "“a_red_star_too”; shorten them."
    )


# --- pictures


def test_number_of_pictures():
    assert refusal(checked_paths, None, LIMITS) == "There is no picture; drop one or more on the field “Pictures”."
    told = refusal(checked_paths, ["a", "b", "c"], Limits(max_pictures=2))
    assert told == "3 pictures are too many at once; give at most 2."


def test_a_picture_is_read_upright(tmp_path):
    path, pixels = saved(tmp_path / "a.png")
    assert np.array_equal(np.asarray(open_picture(path, LIMITS)), pixels)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rows are columns
    path, pixels = saved(tmp_path / "b.png", exif=exif)
    assert np.array_equal(np.asarray(open_picture(path, LIMITS)), np.rot90(pixels, -1))


def test_large_files_and_large_pictures(tmp_path):
    path, _ = saved(tmp_path / "photo.bmp", (600, 400))  # 3 bytes a pixel, and a header
    told = refusal(open_picture, path, Limits(max_megabytes=0.5))
    assert told == "“photo.bmp” has 0.7 MB; give pictures of at most 0.5 MB."
    told = refusal(open_picture, path, Limits(max_megapixels=0.2))
    assert told == "“photo.bmp” is 600 by 400 pixels; give pictures of at most 0.2 million pixels."
    assert open_picture(path, Limits(max_megapixels=0.24)).size == (600, 400)


def test_bombs_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    bomb = tmp_path / "bomb.png"
    Image.new("1", (14000, 14000)).save(bomb)
    assert bomb.stat().st_size < 50_000
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("it was decoded"))
    assert refusal(open_picture, bomb, LIMITS) == (
        "“bomb.png” has more than 178 million pixels; give pictures of at most 40 million pixels."
    )
    Image.new("1", (10000, 10000)).save(bomb)  # Pillow would only warn
    told = refusal(open_picture, bomb, LIMITS)
    assert told == "“bomb.png” is 10000 by 10000 pixels; give pictures of at most 40 million pixels."


def test_what_is_no_picture(tmp_path):
    path = tmp_path / "page.png"
    unreadable = "“page.png” is no picture that can be read; give a JPEG, PNG, WebP, GIF, BMP or TIFF."
    for content in (b"", b"<html>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"):  # no Ghostscript
        path.write_bytes(content)
        assert refusal(open_picture, path, LIMITS) == unreadable
    whole, _ = saved(tmp_path / "cut.jpg", (300, 300))
    whole.write_bytes(whole.read_bytes()[:2000])
    told = refusal(open_picture, whole, LIMITS)
    assert told.startswith("“cut.jpg” is damaged (")
    assert told.endswith("); give another copy of it.")
    assert str(tmp_path) not in told


def test_a_picture_that_is_gone(tmp_path):
    told = refusal(open_picture, tmp_path / "a.png", Limits(keep_minutes=2.5))
    assert told == "“a.png” is not here any more, uploads are deleted after 2.5 minutes; drop it again."


# --- flags


def test_flags_set_limits():
    parser = argparse.ArgumentParser()
    add_limits(parser)
    assert limits_of(parser.parse_args([])) == Limits()
    args = parser.parse_args(["--max-pictures", "3", "--max-megabytes", "0.5", "--keep-minutes", "1.5"])
    assert limits_of(args) == Limits(max_pictures=3, max_megabytes=0.5, keep_minutes=1.5)
    assert Limits(max_megabytes=2).max_bytes == 2 * 1024 * 1024


def test_limits_that_make_no_sense():
    with pytest.raises(ValueError, match="--max-pictures must be at least 1, got 0"):
        Limits(max_pictures=0)
    with pytest.raises(ValueError, match=r"--max-seconds must be at least 0\.001, got nan"):
        Limits(max_seconds=float("nan"))
    with pytest.raises(
        ValueError, match="--max-megapixels must be at most 178, which is all that Pillow opens, got 200"
    ):
        Limits(max_megapixels=200)
