"""Images are read as people see them, whatever their kind; what cannot be read is one sentence with its path."""

import multiprocessing
import os
import pickle
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from dassl.utils import read_image
from dassl.utils.tools import ImageReadError

RED, WHITE = (255, 0, 0), (255, 255, 255)
NOISE = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
SMOOTH = Image.fromarray(NOISE).resize((56, 40), Image.Resampling.BICUBIC)


def _pixels(path):
    image = read_image(str(path))
    assert image.mode == "RGB"
    return np.asarray(image)


def _exif(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def test_rgb_is_unchanged(tmp_path):
    Image.fromarray(NOISE).save(tmp_path / "x.png")
    assert (_pixels(tmp_path / "x.png") == NOISE).all()


# ---- orientation

UPRIGHT = {  # by the Exif standard: what undoes each orientation
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, k=-1),  # the camera was held so that the picture must be turned clockwise by a quarter
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_pictures_are_upright(tmp_path, orientation, suffix):
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(NOISE).save(path, exif=_exif(orientation), **({"lossless": True} if suffix == "webp" else {}))
    assert (_pixels(path) == UPRIGHT[orientation](NOISE)).all()


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_jpegs_are_upright_and_not_turned_twice(tmp_path, orientation):
    SMOOTH.save(tmp_path / "x.jpg", exif=_exif(orientation))
    with Image.open(tmp_path / "x.jpg") as raw:
        expected = np.asarray(ImageOps.exif_transpose(raw))
    assert (_pixels(tmp_path / "x.jpg") == expected).all()
    again = ImageOps.exif_transpose(read_image(tmp_path / "x.jpg"))  # as a transform of somebody's own may do
    assert (np.asarray(again) == expected).all()


@pytest.mark.parametrize(
    "notes",
    [
        b"Exif\0\0",
        b"Exif\0\0no TIFF header",
        b"Exif\0\0MM\0*\xff\xff\xff\xff",  # the directory lies beyond the end
        b"Exif\0\0MM\0*\0\0\0\x08\0\x09\x01\x12",  # nine entries, of which four bytes are there
        _exif(0).tobytes(),
        _exif(9).tobytes(),
    ],
    ids=["nothing", "text", "beyond", "cut", "orientation 0", "orientation 9"],
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_malformed_notes_do_not_matter(tmp_path, notes):
    SMOOTH.save(tmp_path / "plain.jpg")
    SMOOTH.save(tmp_path / "x.jpg", exif=notes)
    assert (_pixels(tmp_path / "x.jpg") == _pixels(tmp_path / "plain.jpg")).all()


@pytest.mark.filterwarnings("ignore:Tag data larger than file")
def test_malformed_notes_after_the_orientation_do_not_matter(tmp_path):
    """Such a picture is turned, though its notes cannot be written again."""
    entries = [struct.pack(">HHII", 0x0112, 3, 1, 6 << 16), struct.pack(">HHII", 0x010F, 2, 99999, 99999)]
    directory = struct.pack(">H", 2) + b"".join(entries) + bytes(4)
    SMOOTH.save(tmp_path / "plain.jpg")
    SMOOTH.save(tmp_path / "x.jpg", exif=b"Exif\0\0MM\0*" + struct.pack(">I", 8) + directory)
    assert (_pixels(tmp_path / "x.jpg") == np.rot90(_pixels(tmp_path / "plain.jpg"), k=-1)).all()


# ---- grey, palettes, transparency, inks


def test_16_bit_grey_is_scaled(tmp_path):
    grey = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    for name in ("x.png", "x.tif"):
        Image.fromarray(grey).save(tmp_path / name)
        assert _pixels(tmp_path / name)[0, :, 1].tolist() == [0, 1, 128, 255], name
    big_endian = Image.frombytes("I;16B", (4, 1), grey.astype(">u2").tobytes())
    big_endian.save(tmp_path / "big.tif")
    assert _pixels(tmp_path / "big.tif")[0, :, 1].tolist() == [0, 1, 128, 255]
    Image.fromarray(grey.astype(np.int32)).save(tmp_path / "long.tif")
    assert _pixels(tmp_path / "long.tif")[0, :, 1].tolist() == [0, 1, 128, 255]
    Image.fromarray(np.array([[0, 7, 255]], dtype=np.int32)).save(tmp_path / "dark.tif")
    assert _pixels(tmp_path / "dark.tif")[0, :, 1].tolist() == [0, 7, 255]


def test_16_bit_grey_is_turned(tmp_path):
    grey = np.array([[0, 65535, 257]], dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "x.png", exif=_exif(6))
    assert _pixels(tmp_path / "x.png")[:, 0, 0].tolist() == [0, 255, 1]


@pytest.mark.filterwarnings("error")  # of palettes with transparency, Pillow warns if one converts them to RGB
def test_transparency_is_laid_on_white(tmp_path):
    rgba = Image.new("RGBA", (2, 1), (*RED, 255))
    rgba.putpixel((1, 0), (0, 0, 0, 0))
    rgba.save(tmp_path / "rgba.png")
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([*RED, 0, 0, 0])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "palette.png", transparency=1)
    palette.save(tmp_path / "bytes.png", transparency=b"\xff\x00")
    palette.save(tmp_path / "palette.gif", transparency=1)
    palette.save(tmp_path / "turned.png", transparency=1, exif=_exif(2))
    palette.save(tmp_path / "plain.png")
    rgb = Image.new("RGB", (2, 1), RED)
    rgb.putpixel((1, 0), (0, 0, 0))
    rgb.save(tmp_path / "key.png", transparency=(0, 0, 0))
    for name in ("rgba.png", "palette.png", "bytes.png", "palette.gif", "key.png"):
        assert _pixels(tmp_path / name).tolist() == [[list(RED), list(WHITE)]], name
    assert _pixels(tmp_path / "turned.png").tolist() == [[list(WHITE), list(RED)]]
    assert _pixels(tmp_path / "plain.png").tolist() == [[list(RED), [0, 0, 0]]]
    half = Image.new("RGBA", (1, 1), (0, 0, 0, 51))
    half.save(tmp_path / "half.png")
    assert _pixels(tmp_path / "half.png").tolist() == [[[204] * 3]]  # 255 · (1 − 51 / 255)


def test_grey_and_bilevel(tmp_path):
    Image.new("L", (1, 1), 77).save(tmp_path / "l.png")
    assert _pixels(tmp_path / "l.png").tolist() == [[[77] * 3]]
    Image.new("LA", (1, 1), (7, 0)).save(tmp_path / "la.png")
    assert _pixels(tmp_path / "la.png").tolist() == [[list(WHITE)]]
    Image.new("LA", (1, 1), (7, 255)).save(tmp_path / "la.png")
    assert _pixels(tmp_path / "la.png").tolist() == [[[7] * 3]]
    bits = Image.new("1", (2, 1), 1)
    bits.putpixel((1, 0), 0)
    for name in ("1.png", "1.tif"):
        bits.save(tmp_path / name)
        assert _pixels(tmp_path / name).tolist() == [[list(WHITE), [0] * 3]], name
    Image.new("LAB", (1, 1), (255, 128, 128)).save(tmp_path / "lab.tif")
    assert _pixels(tmp_path / "lab.tif").min() > 250


def test_inks_are_not_inverted(tmp_path):
    """JPEGs of four inks come from Adobe's programs, which store them inverted, and say so in a marker."""
    path = tmp_path / "x.jpg"
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(path, quality=100)  # Pillow writes what Adobe does
    data = path.read_bytes()
    at = data.index(b"\xff\xee\0\x0eAdobe")
    assert data[at + 15] == 0  # the marker's last byte: plain CMYK
    with Image.open(path) as raw:
        raw.tile = [(*raw.tile[0][:3], ("CMYK", ""))]
        assert np.abs(np.asarray(raw).astype(int) - (255, 0, 0, 255)).max() <= 3  # so they are stored inverted
    assert np.abs(_pixels(path).astype(int) - RED).max() <= 3
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "x.tif")
    assert _pixels(tmp_path / "x.tif").reshape(-1, 3).tolist() == [list(RED)] * 64


def test_inks_coded_as_luma_and_chroma(tmp_path):
    """YCCK: what is stored inverted is coded like RGB; red ink values (0, 255, 255) give Y 179, Cb 171, Cr 1."""
    path = tmp_path / "x.jpg"
    stored = (179, 171, 1, 255)
    Image.new("CMYK", (8, 8), tuple(255 - v for v in stored)).save(path, quality=100)
    data = bytearray(path.read_bytes())
    data[data.index(b"\xff\xee\0\x0eAdobe") + 15] = 2
    path.write_bytes(bytes(data))
    assert np.abs(_pixels(path).astype(int) - RED).max() <= 4


# ---- formats


def test_progressive_jpegs(tmp_path):
    SMOOTH.save(tmp_path / "plain.jpg", quality=90)
    SMOOTH.save(tmp_path / "x.jpg", quality=90, progressive=True)
    assert b"\xff\xc2" in (tmp_path / "x.jpg").read_bytes()
    assert (_pixels(tmp_path / "x.jpg") == _pixels(tmp_path / "plain.jpg")).all()  # the same numbers in another order


def test_first_frame(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, (0, 0, 255))]
    for name in ("x.gif", "x.tif", "x.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert _pixels(tmp_path / name).reshape(-1, 3).tolist() == [list(RED)] * 16, name


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "WEBP", "TIFF"])
def test_the_content_tells_the_format(tmp_path, kind):
    Image.new("RGB", (4, 4), RED).save(tmp_path / "x.jpg", format=kind)
    assert np.abs(_pixels(tmp_path / "x.jpg").astype(int) - RED).max() <= 4


def test_a_picture_can_be_sent_between_processes(tmp_path):
    SMOOTH.save(tmp_path / "x.jpg", exif=_exif(1))
    image = read_image(tmp_path / "x.jpg")
    assert (np.asarray(pickle.loads(pickle.dumps(image))) == np.asarray(image)).all()


# ---- what cannot be read


def _reason(path):
    """Why it cannot be read, from a sentence that has the path."""
    with pytest.raises(ImageReadError) as caught:
        read_image(path)
    error = caught.value
    assert str(error) == f"Cannot read the image {path} ({error.reason}); restore or remove it."
    assert error.path == str(path)
    assert "\n" not in str(error)
    return error.reason


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
def test_truncated_jpegs(tmp_path, options):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.jpg", **options)
    data = (tmp_path / "whole.jpg").read_bytes()
    for length in (900, len(data) // 2, len(data) - 50):
        (tmp_path / "cut.jpg").write_bytes(data[:length])
        assert "truncated" in _reason(tmp_path / "cut.jpg")


@pytest.mark.parametrize("kind", ["png", "gif", "webp", "tif"])
def test_other_truncated_files(tmp_path, kind):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / f"x.{kind}")
    data = (tmp_path / f"x.{kind}").read_bytes()
    (tmp_path / f"x.{kind}").write_bytes(data[: len(data) // 2])
    assert _reason(tmp_path / f"x.{kind}")


def test_files_that_are_no_images(tmp_path):
    for name, content, reason in (
        ("empty.jpg", b"", "empty file (0 bytes)"),
        (
            "page.jpg",
            b"<!DOCTYPE html>\n<html><head>",
            r"not an image of a known format, it starts with '<!DOCTYPE html>\n<html><h'",
        ),
        ("head.jpg", b"\xff\xd8", r"not an image of a known format, it starts with '\xff\xd8'"),
        ("zeros.jpg", bytes(9), "not an image of a known format, it starts with '" + 9 * r"\x00" + "'"),
    ):
        (tmp_path / name).write_bytes(content)
        assert _reason(tmp_path / name) == reason


def test_an_image_of_too_many_pixels(tmp_path, monkeypatch):
    SMOOTH.save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # an error from twice that on; the picture has 2240
    assert _reason(tmp_path / "x.png").startswith("Image size (2240 pixels) exceeds limit of 2000 pixels")


def test_paths_that_are_no_regular_files(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    assert _reason(tmp_path / "folder.jpg") == "a folder"
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    assert "symbolic links" in _reason(tmp_path / "loop.jpg")
    (tmp_path / "file").write_text("")
    assert _reason(tmp_path / "file/x.jpg") == "Not a directory"
    os.mkfifo(tmp_path / "pipe.jpg")  # in a process, since the failure of this test is to wait for ever
    process = multiprocessing.get_context("fork").Process(target=_reason, args=(tmp_path / "pipe.jpg",))
    process.start()
    process.join(10)
    process.kill()
    assert process.exitcode == 0


def test_a_link_is_followed(tmp_path):
    SMOOTH.save(tmp_path / "x.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "x.png")
    assert (_pixels(tmp_path / "link.png") == np.asarray(SMOOTH)).all()


def test_a_missing_image(tmp_path):
    (tmp_path / "broken.png").symlink_to(tmp_path / "gone.png")
    for name in ("gone.png", "broken.png"):
        with pytest.raises(FileNotFoundError, match=rf"No image at .*{name}; was it moved since the run began\?"):
            read_image(str(tmp_path / name))


def test_the_error_can_be_sent_between_processes(tmp_path):
    (tmp_path / "x.jpg").touch()
    with pytest.raises(ImageReadError) as caught:
        read_image(tmp_path / "x.jpg")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.path, copy.reason) == (str(caught.value), caught.value.path, caught.value.reason)
