"""Published figures: read docs/published/*.csv and find the one that belongs beside a figure of ours.

A figure is found by protocol, method, data set, metric, shots and backbone. Of several, a baseline's own (a file not
named spotlighter_*) goes before the copy in Spotlighter's tables. Rows with a `variant` (ablations) are never joined.
docs/published/README.md says what the files hold and what is damaged in their sources.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tools.result_stats import harmonic_mean, mean
from tools.run_names import REAL

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "published"
COLUMNS = (
    *("table", "protocol", "method", "variant", "dataset", "metric", "shots", "value", "unit", "backbone"),
    *("source", "note"),
)
AVERAGE = "average"  # in the column dataset: of the 11 data sets of REAL, or of the 10 targets of protocol cross
DEFAULT_BACKBONE = "ViT-B/16"
_ALIASES = {"zeroshotclip": "clip"}  # our name -> the papers'


@dataclass(frozen=True)
class Published:
    """One printed figure."""

    table: str
    protocol: str  # "base2new" | "fewshot" | "cross" | "domains" | "efficiency" | "ablation" | "datasets"
    method: str
    variant: str  # of a method, or the row of an ablation; "" for the method as it is
    dataset: str
    metric: str
    shots: str  # a number, "all" for all training images, "" where nothing is trained
    value: float
    unit: str
    backbone: str
    source: str
    note: str


def read_published(folder: Path = FOLDER) -> list[Published]:
    """All numbers of a folder's CSV files, baselines' own files first; rows of unit "text" are passed over.

    Raises:
        FileNotFoundError: no CSV file there.
        ValueError: a file without the columns, or a value that is no number.
    """
    files = sorted(folder.glob("*.csv"), key=lambda path: (path.name.startswith("spotlighter_"), path.name))
    if not files:
        raise FileNotFoundError(f"no published figures in {folder}: it holds no CSV file; or give --no-published")
    return [figure for file in files for figure in _read_file(file)]


def _read_file(path: Path) -> list[Published]:
    with path.open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f"{path} should have the columns {','.join(COLUMNS)}, got {reader.fieldnames}")
        figures = []
        for record in reader:
            if record["unit"] == "text":
                continue
            try:
                value = float(record["value"])
            except (TypeError, ValueError):
                raise ValueError(f"{path}, line {reader.line_num}: {record['value']!r} is no number") from None
            cells: dict[str, Any] = {**record, "value": value}
            figures.append(Published(**cells))
    return figures


class PublishedFigures:
    """Looks figures up.

    Args:
        figures: as `read_published` gives them, the preferred ones first.
    """

    def __init__(self, figures: Sequence[Published] = ()):
        self._index: dict[tuple[str, ...], list[Published]] = {}
        for figure in figures:
            if not figure.variant:
                key = (figure.protocol, _plain(figure.method), figure.dataset, figure.metric)
                self._index.setdefault(key, []).append(figure)

    def find(
        self,
        protocol: str,
        method: str,
        dataset: str,
        metric: str,
        shots: int | None,
        backbone: str | None = None,
    ) -> Published | None:
        """The figure, None where nothing is published.

        Args:
            method: as `run_layout.method_name` gives it.
            dataset: stem of its config, or AVERAGE.
            shots: images a class; 0 or less for all. None fits any.
            backbone: as in the run's config; None, if nothing tells, is taken for ViT-B/16.
        """
        for figure in self._index.get((protocol, _alias(method), dataset, metric), []):
            if _fits(figure.shots, shots) and _same_backbone(figure.backbone, backbone or DEFAULT_BACKBONE):
                return figure
        return None

    def average(
        self, protocol: str, method: str, datasets: Sequence[str], metric: str, shots: int | None, backbone: str | None
    ) -> Published | None:
        """The average over data sets: the printed one where it is over the same, else the mean of the printed figures.

        None where the figure of a data set is not published. HM is that of the two averaged accuracies.
        """
        whole = set(REAL) - ({"imagenet"} if protocol == "cross" else set())
        if set(datasets) == whole and (printed := self.find(protocol, method, AVERAGE, metric, shots, backbone)):
            return printed
        if metric == "hm":
            base, new = (self.average(protocol, method, datasets, m, shots, backbone) for m in ("base", "new"))
            if base is None or new is None:
                return None
            return replace(base, metric="hm", value=harmonic_mean(base.value, new.value), note=_averaged(datasets))
        figures = [self.find(protocol, method, dataset, metric, shots, backbone) for dataset in datasets]
        known = [figure for figure in figures if figure is not None]
        if not known or len(known) < len(figures):
            return None
        value = mean(figure.value for figure in known)
        return replace(known[0], dataset=AVERAGE, value=value, note=_averaged(datasets))


def _averaged(datasets: Sequence[str]) -> str:
    return f"not printed: the mean of the printed figures of the same {len(datasets)} data sets"


def _fits(printed: str, shots: int | None) -> bool:
    if not printed or shots is None:
        return True
    return shots <= 0 if printed == "all" else printed == str(shots)


def _same_backbone(printed: str, backbone: str) -> bool:
    name = backbone
    if re.search(r"\.\w+$", name):  # a file: /weights/ViT-B-16.pt
        name = Path(name).stem
    return not printed or _plain(printed) == _plain(name)


def _alias(method: str) -> str:
    host, separator, wrapper = method.partition(" w/ ")
    return _ALIASES.get(_plain(host), _plain(host)) + (_plain(f"w/ {wrapper}") if separator else "")


def _plain(text: str) -> str:
    return re.sub(r"[\W_]", "", text).lower()
