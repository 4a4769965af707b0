"""Google Drive through gdown, which a stand-in plays here: nothing in the tests leaves this machine."""

from pathlib import Path

import gdown
import pytest

from clip.download import DownloadError, Source, fetch_any
from datasets.preparation import gdrive
from datasets.preparation.prepare import RECEIVERS
from tests.datasets.preparation.official import split
from tests.datasets.preparation.server import PAGE


@pytest.fixture
def drive(monkeypatch):
    """What Google Drive does with the next requests: a list of bytes, errors, or None."""

    answers: list[object] = []

    def download(*, id, output, quiet, resume):
        assert (id, quiet, resume) == ("ABC", True, True)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if answer is not None:
            Path(output).write_bytes(answer)
        return output if answer is not None else None

    monkeypatch.setattr(gdown, "download", download)
    return answers


def test_a_file(drive, tmp_path):
    drive.append(b"content")
    gdrive.receive("gdrive:ABC", tmp_path / "x.part", quiet=True)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x.part", b"content")]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            gdown.exceptions.FileURLRetrievalError("Failed to retrieve file url:\n\n\tToo many users"),
            r"^Google Drive refused it \(Failed to retrieve file url: Too many users\)$",
        ),
        (ConnectionError("no route"), r"^Google Drive refused it \(no route\)$"),
        (KeyError("Content-Type"), r"^Google Drive refused it \('Content-Type'\)$"),
        (AssertionError(), r"^Google Drive refused it \(AssertionError\)$"),
        (None, r"^Google Drive refused it$"),
    ],
)
def test_refusals(drive, tmp_path, answer, message):
    drive.append(answer)
    with pytest.raises(RuntimeError, match=message):
        gdrive.receive("gdrive:ABC", tmp_path / "x.part", quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_a_page_instead_of_the_file(drive, tmp_path):
    drive.append(PAGE)
    with pytest.raises(DownloadError, match=r"^gdrive:ABC sent a web page instead of the file; .* over its quota\.$"):
        fetch_any([Source("gdrive:ABC")], tmp_path / "x.json", RECEIVERS)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_pages_for_people():
    assert gdrive.browser_address("gdrive:ABC") == "https://drive.google.com/file/d/ABC/view"
    assert gdrive.browser_address("https://example.org/a:b") == "https://example.org/a:b"


def test_the_second_address(drive, bench):
    """Through the whole of it: refused by the server, then taken from Google Drive."""
    bench.offer("EuroSAT", {"split_zhou_EuroSAT.json": split()})
    address = f"{bench.server.url}/split_zhou_EuroSAT.json"
    bench.sources.write_text(bench.sources.read_text().replace(f"- {address}", f"- {address}\n      - gdrive:ABC"))
    bench.server.faults["split_zhou_EuroSAT.json"] = [404]
    drive.append(split())
    assert bench.prepare().state == "ready"
    assert (bench.place / "split_zhou_EuroSAT.json").read_bytes() == split()
