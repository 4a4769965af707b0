"""The catalogue: of each data set the files it is made of, their addresses, digests, and what of them goes where.

`sources.yaml` holds one entry a reader, under its registry name; `--sources` names another file of that form, for
example of an institute's mirror. The classes below say what the keys mean.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from clip.download import Expected, Source
from datasets.preparation.names import ALL, resolve
from datasets.preparation.nodes import CatalogueError, Node

SOURCES = Path(__file__).with_name("sources.yaml")
SCHEMES = ("https://", "http://", "gdrive:")
RULES = ("imagenet_train", "imagenet_val")  # of `datasets.preparation.imagenet`
MADE = ("imagenet_classnames",)


@dataclass(frozen=True)
class ExpectedContent(Expected):
    """A text file that may be written differently, for example with another line end, as long as it says the same."""

    content: str | None = None  # SHA-256 of what it says, see `content_digest`

    def fault(self, path: Path, quiet: bool = True) -> str | None:
        fault = super().fault(path, quiet)
        if self.content is None or (fault is None and self.digest):
            return fault
        found = None
        with contextlib.suppress(OSError, ValueError):
            found = content_digest(path.read_text(encoding="utf-8-sig"), ".json" in path.suffixes)
        return None if found == self.content else fault or f"content {found} where {self.content} was expected"


@dataclass(frozen=True)
class Copy:
    """The same bytes at several addresses. Copies of an artefact differ in bytes, not in what they are good for."""

    addresses: tuple[str, ...]  # in the order in which they are tried; none: the user brings the file
    expected: Expected
    size: int | None  # bytes


@dataclass(frozen=True)
class Piece:
    """What one part of an archive becomes."""

    sources: tuple[str, ...]  # folder or file in the archive, "/" between names; the first that exists counts
    to: str  # folder or file below the folder of the data set; a name with a suffix is a file. "": see `pieces`
    optional: bool = False  # the archive may lack it
    pieces: tuple[Piece, ...] = ()  # the part is an archive itself, of which these are taken
    rule: str | None = None  # one of `RULES`, which takes the place of `sources`

    def places(self) -> Iterable[Piece]:
        """The pieces that end in a place: itself, or those of the archive in the archive."""
        return self.pieces or (self,)


@dataclass(frozen=True)
class Artefact:
    """One file: an archive (`pieces`), or a file that is used as it is."""

    file: str
    copies: tuple[Copy, ...] = ()
    pieces: tuple[Piece, ...] = ()
    aliases: tuple[str, ...] = ()  # other names under which people have it
    about: int = 0  # bytes, where no copy has an exact size
    unpacked: int = 0  # bytes, roughly
    alternative: bool = False  # taken only if the user has it already; another artefact gives the same
    needed_for: str | None = None  # nothing of it is kept, but the piece at this place cannot do without
    made: str | None = None  # one of `MADE`: written on this machine instead of downloaded
    content: str | None = None  # see `ExpectedContent`

    @property
    def size(self) -> int:
        """Bytes to download, exact where that is known."""
        return next((copy.size for copy in self.copies if copy.size), self.about)

    @property
    def sources(self) -> list[Source]:
        """All addresses, in the order in which they are tried."""
        return [Source(address, copy.expected) for copy in self.copies for address in copy.addresses]

    @property
    def digests(self) -> list[str]:
        """One digest a copy, for people."""
        return [copy.expected.digest for copy in self.copies if copy.expected.digest]

    def places(self) -> list[Piece]:
        """What this artefact puts below the folder of the data set."""
        if self.needed_for:
            return []
        own = Piece((self.file,), self.file)
        return [place for piece in self.pieces for place in piece.places()] or [own]

    def fault(self, path: Path, quiet: bool = True) -> str | None:
        """What is wrong with a file that should be this artefact; None if it is one of the copies with a digest."""
        known = [copy.expected for copy in self.copies if copy.expected.digest]
        if self.made:
            known = [ExpectedContent(content=self.content)]
        faults = [expected.fault(path, quiet) for expected in known]
        return None if None in faults else "; or ".join(dict.fromkeys(filter(None, faults))) or None


@dataclass(frozen=True)
class Dataset:
    """An entry of the catalogue."""

    name: str  # of the reader in the registry
    folder: str  # below the data root
    homepage: str
    licence: str
    access: str  # "automatic", or "login": the user gets the archives himself
    acknowledge: bool  # the user has to say that he accepts the terms
    artefacts: tuple[Artefact, ...]
    manual: tuple[str, ...] = field(default=())  # lines: how to get the archives by hand

    @property
    def primary(self) -> list[Artefact]:
        return [artefact for artefact in self.artefacts if not artefact.alternative]

    @property
    def download(self) -> int:
        """Bytes of the archives and files."""
        return sum(artefact.size for artefact in self.primary)

    @property
    def unpacked(self) -> int:
        """Bytes of the data set, roughly."""
        return sum(artefact.unpacked or artefact.size for artefact in self.primary if not artefact.needed_for)


def content_digest(text: str, is_split: bool) -> str | None:
    """SHA-256 of what a text says: of a split its compact JSON (None if it is no split), else its stripped lines."""
    if is_split:
        try:
            tree = json.loads(text)
            text = json.dumps({part: tree[part] for part in ("train", "val", "test")}, separators=(",", ":"))
        except (ValueError, KeyError, TypeError):
            return None
    else:
        text = "\n".join(line.strip() for line in text.strip().splitlines())
    return hashlib.sha256(text.encode()).hexdigest()


def read_catalogue(path: str | os.PathLike[str] = SOURCES) -> dict[str, Dataset]:
    """Read and check a catalogue.

    Returns:
        Registry name to entry, in the order of the file.

    Raises:
        CatalogueError: the file cannot be read, or an entry is not as the classes here say.
    """
    path = Path(path)
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CatalogueError(f"The catalogue {path} cannot be read ({' '.join(str(error).split())}).") from error
    root = Node(tree, str(path))
    catalogue = {name: _dataset(name, root.child(name)) for name in root.names()}
    names: dict[str, str] = {}
    for name, dataset in catalogue.items():
        other = names.setdefault(dataset.folder, name)
        if other != name:
            raise CatalogueError(f"{path}: {other} and {name} have the same folder {dataset.folder!r}.")
    return catalogue


def _dataset(name: str, node: Node) -> Dataset:
    dataset = Dataset(
        name,
        folder=node.name("folder"),
        homepage=node.text("homepage"),
        licence=node.text("licence"),
        access=node.choice("access", ("automatic", "login"), "automatic"),
        acknowledge=node.flag("acknowledge"),
        manual=tuple(node.text("manual", "").splitlines()),
        artefacts=tuple(_artefact(child) for child in node.children("artefacts", needed=True)),
    )
    node.end()
    return dataset


def _artefact(node: Node) -> Artefact:
    content = node.digest("content", 64)
    artefact = Artefact(
        file=node.name("file"),
        copies=tuple(_copy(child, content) for child in node.children("copies")),
        pieces=tuple(_piece(child) for child in node.children("unpack")),
        aliases=node.texts("aliases"),
        about=node.count("about", 0) or 0,
        unpacked=node.count("unpacked", 0) or 0,
        alternative=node.flag("alternative"),
        needed_for=node.path("needed_for", None),
        made=node.choice("made", MADE, None),
        content=content,
    )
    node.end()
    if bool(artefact.made) == bool(artefact.copies):
        raise node.error("needs either copies or made")
    if artefact.pieces and not artefact.unpacked:
        raise node.error("needs unpacked, the bytes it has when unpacked, as a limit")
    return artefact


def _copy(node: Node, content: str | None) -> Copy:
    addresses, size = node.texts("addresses"), node.count("size", None)
    for address in addresses:
        if not address.startswith(SCHEMES):
            raise node.error(f"the address {address!r} must begin with one of {', '.join(SCHEMES)}")
    sha256, md5 = node.digest("sha256", 64), node.digest("md5", 32)
    if node.flag("unknown") == bool(sha256 or md5):
        raise node.error("needs sha256 or md5, or unknown: true where nobody has published one")
    node.end()
    if content:  # a file that may be written differently may have another length
        return Copy(addresses, ExpectedContent(sha256, md5, None, content), size)
    return Copy(addresses, Expected(sha256, md5, size), size)


def _piece(node: Node) -> Piece:
    pieces = tuple(_piece(child) for child in node.children("unpack"))
    piece = Piece(
        sources=node.paths("from"),
        to="" if pieces else node.path("to"),
        optional=node.flag("optional"),
        pieces=pieces,
        rule=node.choice("rule", RULES, None),
    )
    node.end()
    if bool(piece.sources) == bool(piece.rule):
        raise node.error("needs either from or rule")
    return piece


def find_datasets(names: Sequence[str], catalogue: dict[str, Dataset]) -> list[Dataset]:
    """The entries that names mean (see `resolve`); "all" is all of the catalogue.

    Raises:
        ValueError: an unknown name, or a data set that is not in the catalogue.
    """
    found: dict[str, Dataset] = {}
    for name in names:
        if name.lower() == ALL:
            found |= catalogue
            continue
        (reader,) = resolve([name])
        if reader.__name__ not in catalogue:
            raise ValueError(f"Nothing is downloaded for {name}; there are: {', '.join(catalogue)}.")
        found[reader.__name__] = catalogue[reader.__name__]
    return list(found.values())
