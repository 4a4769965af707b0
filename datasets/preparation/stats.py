"""A data set in numbers, and digests by which people compare theirs: of the split and of few-shot samples."""

from __future__ import annotations

import contextlib
import io
import json
import statistics
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from PIL import Image
from tabulate import tabulate

from datasets.base import Found, SplitDataset
from datasets.preparation.picture import spread
from datasets.preparation.states import NONE, printable
from datasets.samples import sample_digest
from datasets.splits import PARTS, Item, Split, by_label, sample_few_shot, sample_generator, subset_labels

MEASURED = 200  # pictures whose header is read for --images
DIGITS = 16  # of a digest: enough to tell any two apart


@dataclass(frozen=True)
class Sizes:
    """A list: its pictures, and those of its smallest and largest class."""

    images: int
    smallest: int
    largest: int

    def __str__(self) -> str:
        if not self.images:
            return NONE
        each = f"{self.smallest:,}" if self.smallest == self.largest else f"{self.smallest:,}–{self.largest:,}"
        return f"{self.images:,} ({each})"


@dataclass(frozen=True)
class Images:
    """What a sample of the pictures has: median width and height in pixels, and how many are of each mode."""

    width: int
    height: int
    modes: dict[str, int]

    def __str__(self) -> str:
        modes = " ".join(f"{mode} {n}" for mode, n in self.modes.items())
        return f"{self.width} × {self.height} ({modes})"


@dataclass(frozen=True)
class Stats:
    """A data set in numbers.

    Attributes:
        base_new: classes of the base and of the new half.
        base_new_test: test pictures of them.
        split_digest: of the split's content, DIGITS hex digits.
        sample: digests of the few-shot sample's training and validation pictures; None where there are none.
        images: None where not asked for, or where no picture could be read.
        note: why there is no sample, though asked for.
    """

    dataset: str
    n_classes: int
    train: Sizes
    val: Sizes
    test: Sizes
    base_new: tuple[int, int]
    base_new_test: tuple[int, int]
    split_digest: str
    split_published: bool | None
    sample: tuple[str | None, str | None] = (None, None)
    images: Images | None = None
    note: str = ""


def describe(
    reader: type[SplitDataset], found: Found, shots: int | None = None, seed: int = 1, images: bool = False
) -> Stats:
    """The numbers of a data set that `find` has found.

    Args:
        shots: training pictures a class of the sample; None: no sample.
        seed: of the sample, 0 or more.
        images: read the headers of some pictures.
    """
    split, labels = found.split, [item.label for item in found.split.test]
    base = set(subset_labels(split.test, "base"))
    n_classes, base_test = len(set(labels)), sum(label in base for label in labels)
    sample, note = sample_digests(reader, split, shots, seed) if shots else ((None, None), "")
    train, val, test = map(sizes, split)
    return Stats(
        reader.__name__,
        n_classes,
        train,
        val,
        test,
        (len(base), n_classes - len(base)),
        (base_test, len(labels) - base_test),
        split.digest[:DIGITS],
        found.published,
        sample,
        measure(found) if images else None,
        note,
    )


def sizes(items: Iterable[Item]) -> Sizes:
    """Numbers of a list."""
    counts = [len(group) for group in by_label(items)]
    return Sizes(sum(counts), min(counts, default=0), max(counts, default=0))


def sample_digests(
    reader: type[SplitDataset], split: Split, shots: int, seed: int
) -> tuple[tuple[str | None, str | None], str]:
    """Digests of the sample that a run draws, train and val, and why there is none.

    They are SHA-256 of the paths relative to the image folder, joined by line ends, in the order drawn.
    """
    if not split.train:
        return (None, None), "it is for tests only, so no sample is drawn."
    try:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            drawn = sample_few_shot(split, shots, sample_generator(seed), reader.__name__, reader.small_classes)
    except ValueError as error:
        return (None, None), str(error)
    val = sample_digest(drawn.val)[:DIGITS] if drawn.val else None
    return (sample_digest(drawn.train)[:DIGITS], val), said.getvalue().strip().removeprefix("Note: ")


def measure(found: Found) -> Images | None:
    """Sizes and modes of pictures spread evenly over all lists; only their headers are read."""
    widths, heights, modes = [], [], Counter[str]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd EXIF, which does no harm
        for item in spread([item for part in found.split for item in part], MEASURED):
            # Pillow's plugins raise whatever their parsers raise; naming unreadable pictures is what verify is for.
            with contextlib.suppress(Exception), Image.open(found.images / item.path) as image:
                widths.append(image.width)
                heights.append(image.height)
                modes[image.mode] += 1
    if not widths:
        return None
    return Images(round(statistics.median(widths)), round(statistics.median(heights)), dict(modes.most_common()))


def to_table(rows: Sequence[Stats], shots: int | None = None, seed: int = 1) -> str:
    """A row a data set, and below them what the columns mean."""
    titles = ["data set", "classes", *PARTS, "base / new", "base / new test", "split"]
    if shots:
        titles += ["sample train", "sample val"]
    if any(row.images for row in rows):
        titles.append("images")
    cells = []
    for row in rows:
        line = [row.dataset, f"{row.n_classes:,}", str(row.train), str(row.val), str(row.test)]
        line += [f"{base:,} / {new:,}" for base, new in (row.base_new, row.base_new_test)]
        line.append(row.split_digest + (" (not the published one)" if row.split_published is False else ""))
        line += [digest or NONE for digest in row.sample] if shots else []
        line += [str(row.images or NONE)] if "images" in titles else []
        cells.append(line)
    align = ["left", *["right"] * 6, *["left"] * (len(titles) - 7)]
    lines = [tabulate(cells, titles, tablefmt="simple", colalign=align, disable_numparse=True), ""]
    lines.append("In parentheses: images of the smallest and largest class. split: digest of the lists' content.")
    if shots:
        lines.append(f"sample: digests of the images that a run with {shots} shots and seed {seed} draws.")
    if "images" in titles:
        lines.append(f"images: median width × height in pixels, and modes, of up to {MEASURED}.")
    lines += [f"{row.dataset}: {row.note}" for row in rows if row.note]
    return printable("\n".join(lines))


def to_json(rows: Sequence[Stats], shots: int | None = None, seed: int = 1) -> str:
    """JSON of all rows; pure ASCII."""
    sample = {"shots": shots, "seed": seed} if shots else None
    return json.dumps({"sample": sample, "datasets": [asdict(row) for row in rows]}, indent=2)
