"""Archives of every kind, as they should be and as an enemy, or a bad connection, would make them."""

import contextlib
import io
import random
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from datasets.preparation import extract, members
from datasets.preparation.extract import ArchiveError, UnsafeArchive, unpack
from tests.datasets.preparation.official import PACKERS, pack_tar, pack_zip, pictures, tree

FILES = pictures("top/a/1.jpg", "top/a/2.jpg", "top/b/3.jpg")
PACKED = {"zip": pack_zip(FILES, ("top", "top/a"))} | {
    f"tar{packer}": pack_tar(FILES, packer, ("top", "top/a")) for packer in PACKERS
}


@pytest.fixture
def unpacked(tmp_path):
    """Unpacks bytes into a folder, everything in its own place unless a rule says otherwise."""

    def run(content, place=lambda name: name, expected=1_000_000):
        archive, folder = tmp_path / "archive.tar.gz", tmp_path / "out"
        archive.unlink(missing_ok=True)  # writing over a file is slow on some disks
        archive.write_bytes(content)
        folder.mkdir(exist_ok=True)
        unpack(archive, folder, place, expected)
        return folder

    return run


@pytest.mark.parametrize("kind", PACKED)
def test_the_kind_is_told_by_the_content(unpacked, kind):
    folder = unpacked(PACKED[kind])
    assert {name: (folder / name).read_bytes() for name in tree(folder)} == FILES
    assert all(not path.stat().st_mode & 0o111 for path in folder.rglob("*.jpg"))  # the modes in it do not count


@pytest.mark.parametrize("kind", ["zip", "targz"])
def test_a_rule_takes_renames_and_leaves_out(unpacked, kind):
    folder = unpacked(PACKED[kind], lambda name: name.replace("top/a/", "images/") if "/a/" in name else None)
    assert tree(folder) == ["images/1.jpg", "images/2.jpg"]


@pytest.mark.parametrize("inner", PACKED)
@pytest.mark.parametrize("outer", ["zip", "tar", "targz"])
def test_archives_in_archives(unpacked, inner, outer):
    files = {"x/inner.bin": PACKED[inner], "x/other": b"1"}
    packed = pack_zip(files) if outer == "zip" else pack_tar(files, outer[3:])
    folder = unpacked(packed, lambda name: (lambda name: f"got/{name}") if name == "x/inner.bin" else None)
    assert tree(folder) == sorted(f"got/{name}" for name in FILES)


def test_names_in_the_folder_itself(unpacked):
    assert tree(unpacked(pack_tar({"./a//b.jpg": b"1", "./c.jpg": b"2"}, folders=("./",)))) == ["a/b.jpg", "c.jpg"]


JUNK = (
    *("a/cache.pkl", "a/x.PICKLE", "a/model.pt", "a/model.pth", "a/run.sh", "a/setup.py", "a/tool.exe", "a/demo.m"),
    *("__MACOSX/a/1.jpg", "a/._1.jpg", "._a/1.jpg", "a/.DS_Store", "a/Thumbs.db"),
)


def test_what_no_data_set_needs_is_left_out(unpacked):
    assert tree(unpacked(pack_zip(dict.fromkeys(JUNK, b"1") | {"a/1.jpg": b"1", "a/pt": b"1"}))) == ["a/1.jpg", "a/pt"]


NAMES = ["../x", "a/../../x", "a/..", "/x", "/etc/x", "C:/x", "c:x", "a\\..\\x", "\\\\host\\x", "..\\x"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["zip", "tar", "inner"])
def test_names_that_lead_out(unpacked, tmp_path, name, kind):
    """The member is not even wanted: the whole archive is refused."""
    files = {"a/1.jpg": b"1", name: b"evil"}
    packed = pack_zip(files) if kind == "zip" else pack_tar(files)
    place = {"inner": lambda name: lambda inner: None}.get(kind, lambda name: None)
    message = r"archive\.tar\.gz.* would write to .*; nothing of it is used, do not trust it\."
    with pytest.raises(UnsafeArchive, match=message):
        unpacked(pack_zip({"inner.tar": packed}) if kind == "inner" else packed, place)
    assert tree(tmp_path) == ["archive.tar.gz"]


def test_a_zero_byte_in_a_name(unpacked):
    packed = pack_zip({"a/evil!.jpg": b"1"}).replace(b"evil!", b"evil\0")
    with pytest.raises(UnsafeArchive, match="would write to"):
        unpacked(packed)


KINDS = {
    "a symbolic link": (tarfile.SYMTYPE, stat.S_IFLNK),
    "a hard link": (tarfile.LNKTYPE, None),
    "a device, pipe or socket": (tarfile.FIFOTYPE, stat.S_IFIFO),
    "a device, pipe or socket ": (tarfile.CHRTYPE, stat.S_IFCHR),
    "a device, pipe or socket  ": (tarfile.BLKTYPE, stat.S_IFBLK),
}


@pytest.mark.parametrize("kind", KINDS)
def test_links_and_devices_in_tar(unpacked, kind):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo("a/x")
        info.type, info.linkname = KINDS[kind][0], "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(UnsafeArchive, match=rf"archive\.tar\.gz holds {kind.strip()}, 'a/x'; nothing of it is used\."):
        unpacked(file.getvalue())


@pytest.mark.parametrize("kind", [kind for kind, (_, mode) in KINDS.items() if mode])
def test_links_and_devices_in_zip(unpacked, kind):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        info = zipfile.ZipInfo("a/x")
        info.external_attr = (KINDS[kind][1] | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(UnsafeArchive, match=rf"holds {kind.strip()}, 'a/x'; nothing of it is used\."):
        unpacked(file.getvalue())


def test_files_with_holes(unpacked, tmp_path):
    """As GNU tar writes them, a header of a few bytes may stand for terabytes."""
    info = tarfile.TarInfo("a/x")
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"00000000000\0" + b"00000000000\0"  # one piece of no bytes
    header[483:495] = b"77777777777\0"  # real size: 8 GB
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    with pytest.raises(UnsafeArchive, match="holds a file with holes, 'a/x'"):
        unpacked(bytes(header) + bytes(10240))


def test_encrypted_members(unpacked):
    packed = bytearray(pack_zip({"a/1.jpg": b"1"}))
    packed[packed.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(UnsafeArchive, match=r"holds an encrypted file, 'a/1\.jpg'"):
        unpacked(bytes(packed))


@pytest.mark.parametrize(
    ("names", "pair"),
    [
        (("a/1.jpg", "a/1.JPG"), "a/1.jpg and a/1.JPG"),
        (("a/1.jpg", "A/2.jpg"), "a and A"),
        (("a/straße.jpg", "a/STRASSE.jpg"), "a/straße.jpg and a/STRASSE.jpg"),
        (("a/e\u0301.jpg", "a/\u00e9.jpg"), "a/"),
    ],
)
def test_names_that_differ_in_case_only(unpacked, names, pair):
    with pytest.raises(UnsafeArchive, match=rf"holds {pair}.*, which are the same name on some disks\."):
        unpacked(pack_zip(dict.fromkeys(names, b"1")))
    assert tree(unpacked(pack_zip(dict.fromkeys(names, b"1")), lambda name: None)) != list(
        names
    )  # not wanted: no matter


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_same_name_twice(unpacked):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/1.jpg", b"1")
        archive.writestr("a/1.jpg", b"2")
    with pytest.raises(UnsafeArchive, match=r"holds a/1\.jpg twice; it is not what it should be\."):
        unpacked(file.getvalue())


def test_more_bytes_than_expected(unpacked):
    files = {f"a/{number}.jpg": bytes(1000) for number in range(16)}
    assert len(tree(unpacked(pack_zip(files), expected=10_667))) == 16  # one and a half times as much is allowed
    for packed in (pack_zip(files), pack_tar(files, "gz"), pack_zip({"in.tar": pack_tar(files)})):
        with pytest.raises(UnsafeArchive, match=r"holds more than 15\.9 kB, far more than expected; it is not"):
            unpacked(packed, lambda name: (lambda name: None) if name == "in.tar" else None, expected=10_600)


def test_far_smaller_packed_than_unpacked(unpacked, monkeypatch):
    monkeypatch.setattr(extract, "SMALL", 1000)
    with pytest.raises(UnsafeArchive, match=r"unpacks to more than 100 times its size; it is not what it should be\."):
        unpacked(pack_zip({"a/1.jpg": bytes(1_000_000)}))


def test_too_many_members(unpacked, monkeypatch):
    monkeypatch.setattr(extract, "MEMBERS", 2)
    with pytest.raises(UnsafeArchive, match=r"has more than 2 members; it is not what it should be\."):
        unpacked(PACKED["tar"])


def test_a_header_that_lies_about_its_size(unpacked, monkeypatch):
    """A pax header is read at once, so its size must be believed only up to a limit."""
    monkeypatch.setattr(members, "HEADER_LIMIT", 10_000)
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 20_000
    with pytest.raises(ArchiveError, match=r"is damaged or incomplete \(a header of 20480 bytes\)"):
        unpacked(info.tobuf() + bytes(40_000))


@pytest.mark.parametrize("kind", PACKED)
def test_truncated_at_every_place(unpacked, kind):
    whole = PACKED[kind]
    end = whole.rindex(FILES["top/b/3.jpg"]) + 700 if kind == "tar" else len(whole)  # a tar may lack its padding
    for size in range(1, end, 7):
        with pytest.raises(
            ArchiveError, match=r"is damaged or incomplete \(.*\); delete it and get it again|no archive"
        ):
            unpacked(whole[:size], lambda name: None)


@pytest.mark.parametrize("kind", PACKED)
def test_damaged_somewhere(unpacked, tmp_path, kind):
    """Whatever byte is changed: what comes out is whole, or there is one kind of error."""
    generator = random.Random(0)
    for _ in range(60):
        damaged = bytearray(PACKED[kind])
        damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
        with contextlib.suppress(ArchiveError):
            unpacked(bytes(damaged), lambda name: name if name in FILES else None)
        for name in tree(tmp_path / "out"):
            (tmp_path / "out" / name).unlink()
    assert tree(tmp_path) == ["archive.tar.gz"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"archive\.tar\.gz is no archive that can be read: it begins with b''\."),
        (b"<!DOCTYPE html><html>", r"is no archive that can be read: it begins with b'<!DO'\."),
        (b"x" * 2000, r"is no archive that can be read: it begins with b'xxxx'\."),
        (PACKERS["gz"](b"x" * 2000), r"is damaged or incomplete \(.*\); delete it and get it again\."),
        (
            b"PK\x03\x04" + b"x" * 100,
            r"is damaged or incomplete \(File is not a zip file\); delete it and get it again\.",
        ),
    ],
)
def test_no_archive(unpacked, content, message):
    with pytest.raises(ArchiveError, match=message):
        unpacked(content)


def test_a_compression_that_the_library_lacks(unpacked):
    packed = bytearray(pack_zip({"a/1.jpg": b"1"}))
    packed[packed.index(b"PK\x01\x02") + 10] = 99
    packed[8] = 99
    with pytest.raises(ArchiveError, match=r"cannot be read \(That compression method is not supported\)\."):
        unpacked(bytes(packed))


def test_a_tar_of_before_posix(unpacked):
    """Without a magic number, but with a checksum."""
    packed = bytearray(pack_tar({"a/1.jpg": b"1"}))
    packed[257:265] = bytes(8)
    packed[148:156] = b" " * 8
    packed[148:156] = f"{sum(packed[:512]):06o}\0 ".encode()
    assert tree(unpacked(bytes(packed))) == ["a/1.jpg"]


def test_a_full_disk(unpacked, monkeypatch):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(28, "No space left on device")

    real = Path.open
    monkeypatch.setattr(Path, "open", lambda path, mode="r", **kw: Full() if mode == "xb" else real(path, mode, **kw))
    with pytest.raises(RuntimeError, match=r"Cannot write .*top/a/1\.jpg \(No space left on device\)\.$"):
        unpacked(PACKED["zip"])
