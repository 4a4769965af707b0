"""ImageNet from its three archives: sorted by the development kit, with every fault of that."""

import hashlib
import io

import numpy as np
import pytest
from scipy.io import savemat

from datasets import imagenet_classes
from datasets.preparation.extract import ArchiveError
from datasets.preparation.imagenet import read_val_wnids, val_place
from tests.datasets.preparation.official import devkit, imagenet, pack_tar, picture, pictures, tree

WNIDS = ["n00000001", "n00000002", "n00000003"]
LINES = "51b5b1d8b800502030c5556eb206abaafdd682ef363ff7a7077591ea3c9befa5"  # of the published classnames.txt


@pytest.fixture
def archives(bench):
    """The three archives where the user puts them; the catalogue knows their digests."""
    files, _ = imagenet()
    bench.offer("ImageNet", files)
    bench.place.mkdir(parents=True)
    for name, content in files.items():
        (bench.place / name).write_bytes(content)
    return files


def test_the_three_archives(bench, archives):
    outcome = bench.prepare(accept_terms=True)
    assert (outcome.state, outcome.code) == ("ready", 0)
    _, truth = imagenet()
    val = [f"val/{wnid}/ILSVRC2012_val_{number:08d}.JPEG" for number, wnid in enumerate(truth, 1)]
    train = [f"train/{wnid}/{wnid}_{number}.JPEG" for wnid in WNIDS for number in range(2)]
    assert tree(bench.place / "images") == sorted(train + val)
    assert (bench.place / "images" / val[3]).read_bytes() == picture(3)
    assert (bench.place / "images" / train[1]).read_bytes() == picture(1)
    assert all((bench.place / name).exists() for name in archives)  # they are the user's
    lines = (bench.place / "classnames.txt").read_text().splitlines()
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == LINES
    assert lines[0] == "n01440764 tench"
    assert bench.prepare(accept_terms=True).state == "already there"
    assert bench.server.requests == []


def test_terms_come_first(bench, archives):
    outcome = bench.prepare()
    assert (outcome.state, outcome.code) == ("terms", 1)
    assert outcome.notes == [
        "ImageNet may be used only under its terms (access agreement; non-commercial research and education only, no "
        "redistribution; https://image-net.org/); add --accept-terms if you accept them."
    ]
    assert tree(bench.place) == sorted(archives)


def test_without_archives_the_steps_are_said(bench):
    files, _ = imagenet()
    bench.offer("ImageNet", files)
    outcome = bench.prepare(accept_terms=True)
    assert (outcome.state, outcome.code) == ("incomplete", 1)
    assert tree(bench.place) == ["classnames.txt"]
    steps = "\n".join(outcome.notes)
    assert "Make an account at https://image-net.org/login.php, ask for access, and accept the terms." in steps
    for name, content in files.items():
        kind, digest = ("MD5", hashlib.md5) if "devkit" in name else ("SHA-256", hashlib.sha256)
        assert f" to {bench.place}/{name} ({kind} {digest(content).hexdigest()})." in steps
    assert f"download ImageNet --accept-terms --root {bench.root}" in steps


@pytest.mark.parametrize("missing", ["ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_img_train.tar"])
def test_one_archive_is_missing(bench, archives, missing):
    (bench.place / missing).unlink()
    outcome = bench.prepare(accept_terms=True)
    assert (outcome.state, outcome.code) == ("incomplete", 1)
    notes = "\n".join(outcome.notes)
    assert f"Bring {missing} of " in notes
    val = bench.place / "ILSVRC2012_img_val.tar"
    assert (f"{val} has no labels; bring the development kit, too." in notes) == ("devkit" in missing)
    assert (bench.place / "images/val").exists() == ("devkit" not in missing)
    assert (bench.place / "images/train").exists() == ("train" not in missing)


def test_a_damaged_archive(bench, archives):
    (bench.place / "ILSVRC2012_img_val.tar").write_bytes(archives["ILSVRC2012_img_val.tar"][:-512])
    outcome = bench.prepare(accept_terms=True)
    assert outcome.code == 4
    assert "ILSVRC2012_img_val.tar has 9728 bytes where 10240 were expected; move it away" in outcome.notes[0]
    assert (bench.place / "images/train").is_dir()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "ILSVRC2012_img_train.tar",
            pack_tar(pictures("n01440764/1.JPEG")),
            "The training pictures hold 'n01440764/1.JPEG', where an archive n########.tar was expected.",
        ),
        (
            "ILSVRC2012_img_val.tar",
            pack_tar(pictures("ILSVRC2012_val_00000007.JPEG")),
            "The validation pictures hold 'ILSVRC2012_val_00000007.JPEG', where ILSVRC2012_val_00000001.JPEG to "
            "ILSVRC2012_val_00000006.JPEG were expected.",
        ),
        (
            "ILSVRC2012_img_val.tar",
            pack_tar(pictures("val/ILSVRC2012_val_00000001.JPEG")),
            "The validation pictures hold 'val/ILSVRC2012_val_00000001.JPEG', where ",
        ),
        ("ILSVRC2012_img_val.tar", pack_tar({}, folders=("a",)), " holds no picture; it is not the archive that was "),
    ],
)
def test_other_archives_under_these_names(bench, file, content, message):
    files, _ = imagenet()
    files[file] = content
    bench.offer("ImageNet", files)
    bench.place.mkdir(parents=True)
    for name, packed in files.items():
        (bench.place / name).write_bytes(packed)
    outcome = bench.prepare(accept_terms=True)
    assert outcome.code == 4
    assert message in outcome.notes[0]
    assert not (bench.place / ("images/train" if "train" in file else "images/val")).exists()


def test_class_names_that_have_changed(bench, archives, monkeypatch):
    monkeypatch.setattr(imagenet_classes, "classnames_text", lambda: "n01440764 hammerhead\n")
    outcome = bench.prepare(accept_terms=True)
    assert (outcome.state, outcome.code) == ("incomplete", 1)
    assert outcome.notes[0] == (
        "The installed open_clip_torch or timm has other class names of ImageNet; install another."
    )
    assert not (bench.place / "classnames.txt").exists()


def test_other_class_names_of_the_user(bench, archives):
    (bench.place / "classnames.txt").write_text("n01440764 hammerhead\n")
    outcome = bench.prepare(accept_terms=True)
    assert outcome.code == 4
    assert f"{bench.place}/classnames.txt is not the published file (content " in outcome.notes[0]


class TestDevkit:
    @pytest.fixture
    def write(self, tmp_path):
        def run(content):
            path = tmp_path / "devkit.tar.gz"
            path.write_bytes(content)
            return path

        return run

    def test_labels(self, write):
        """meta.mat has inner nodes, and an order of its own."""
        path = write(devkit(WNIDS, [3, 1, 1]))
        assert read_val_wnids(path) == ["n00000003", "n00000001", "n00000001"]
        assert val_place(path)("ILSVRC2012_val_00000002.JPEG") == "n00000001/ILSVRC2012_val_00000002.JPEG"

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (devkit(WNIDS, [4]), r"ground_truth\.txt has the label '4', which data/meta\.mat lacks\."),  # an inner node
            (devkit(WNIDS, []), r"ground_truth\.txt has the label 'nothing', which data/meta\.mat lacks\."),
            (
                pack_tar({"x/readme.txt": b"1"}),
                r"holds no data/meta\.mat; it is not the development kit of ILSVRC 2012\.",
            ),
            (b"<html>", r"devkit\.tar\.gz is no archive that can be read"),
        ],
    )
    def test_other_kits(self, write, content, message):
        with pytest.raises(ArchiveError, match=message):
            read_val_wnids(write(content))

    def test_another_table(self, write):
        file = io.BytesIO()
        savemat(file, {"synsets": np.array([(1, "n1")], dtype=[("ID", "O"), ("WNID", "O")])})
        with pytest.raises(
            ArchiveError, match=r"should give ILSVRC2012_ID, WNID, num_children, but gives \('ID', 'WNID'\)"
        ):
            read_val_wnids(write(devkit(WNIDS, [1], file.getvalue())))

    def test_a_damaged_table(self, write):
        with pytest.raises(ValueError, match=r"Cannot read .*meta\.mat \(it is empty\)"):
            read_val_wnids(write(devkit(WNIDS, [1], b"")))
