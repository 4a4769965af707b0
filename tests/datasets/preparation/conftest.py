"""A file server, and data sets prepared from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from clip import transfer
from datasets.preparation.catalogue import read_catalogue
from datasets.preparation.plan import Options
from datasets.preparation.prepare import Outcome, prepare
from tests.datasets.preparation.official import write_sources
from tests.datasets.preparation.server import FileServer, serving


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(transfer, "PAUSE", 0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving() as server:
        yield server


class Bench:
    """Prepares data sets from small archives that the server has."""

    def __init__(self, server: FileServer, folder: Path) -> None:
        self.server, self.folder, self.root = server, folder, folder / "data"

    def offer(self, name: str, files: dict[str, bytes | list[bytes]]) -> None:
        """The data set `name` consists of these files; a list has one entry a copy."""
        self.name = name
        self.sources = write_sources(self.folder / "sources.yaml", name, files, self.server.url)
        for file, contents in files.items():
            for number, content in enumerate([contents] if isinstance(contents, bytes) else contents, 1):
                self.server.files[f"{file}.{number}" if number > 1 else file] = content

    @property
    def dataset(self):
        return read_catalogue(self.sources)[self.name]

    @property
    def place(self) -> Path:
        """The folder of the data set."""
        return self.root / self.dataset.folder

    def options(self, **changes) -> Options:
        return Options(self.root, **{"quiet": True, **changes})

    def prepare(self, **changes) -> Outcome:
        return prepare(self.dataset, self.options(**changes))


@pytest.fixture
def bench(server, tmp_path) -> Bench:
    return Bench(server, tmp_path)
