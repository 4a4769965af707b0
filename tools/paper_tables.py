"""The paper's tables from collected runs: what stands in each cell, the published figure beside it, tests and gaps.

| table | paper | lines | columns |
|---|---|---|---|
| base2new | Table I | data set, method | base, new, HM, HM per seed |
| fewshot | Table II, Figure 7 | data set, method | images a class |
| cross | – | source, method | other data sets |
| domains | Table III | source, method | other domains of the source |
| efficiency | Table IV | data set, method | trained parameters, images/s, HM; what a wrapper adds to its host |

Builders: `tools/paper_base_new.py` and `tools/paper_all_classes.py`. `tools/paper_render.py` shows what they build,
`tools/paper_figures.py` draws it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tools.result_gaps import Gap
from tools.result_published import Published
from tools.result_stats import PairedTest, compare, mean, summarise
from tools.run_names import host_of

Seed = int | str
NAMES = ("base2new", "fewshot", "cross", "domains", "efficiency")


@dataclass(frozen=True)
class Column:
    """A column of figures."""

    key: str
    title: str
    unit: str = "%"  # "%" | "points" | "count" | "images/s"
    metric: str = "accuracy"
    dataset: str = ""  # what is tested, where the lines are of one source
    shots: int | None = None  # images a class, where the columns differ in them


@dataclass(frozen=True)
class Cell:
    """One figure of ours with what belongs to it; `value` None is a gap, or something that does not apply."""

    value: float | None = None
    spread: float | None = None  # population standard deviation over seeds
    per_seed: dict[Seed, float] = field(default_factory=dict)
    published: Published | None = None

    @property
    def difference(self) -> float | None:
        """Ours minus published."""
        return None if self.value is None or self.published is None else self.value - self.published.value


@dataclass(frozen=True)
class Line:
    """A method on a data set, on a source, or on the average of data sets."""

    dataset: str  # stem of its config; "average"
    group: str  # how it is written
    method: str  # with its config in brackets, where a method has several
    shots: int | None
    cells: dict[str, Cell]
    config: str = ""

    @property
    def is_average(self) -> bool:
        return self.dataset == "average"

    @property
    def seeds(self) -> list[Seed]:
        """Seeds of any cell, in their order."""
        return list(dict.fromkeys(seed for cell in self.cells.values() for seed in cell.per_seed))


@dataclass(frozen=True)
class Comparison:
    """A method against the reference method, over common pairs of data set and seed."""

    method: str
    versus: str
    what: str  # the title of the columns compared
    test: PairedTest


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper, made from runs."""

    name: str  # one of NAMES
    title: str
    group_title: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    comparisons: tuple[Comparison, ...] = ()
    gaps: tuple[Gap, ...] = ()
    notes: tuple[str, ...] = ()  # what only this table needs below it

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(line.method for line in self.lines))


def over_seeds(per_seed: dict[Seed, float], published: Published | None = None) -> Cell:
    """The cell of a figure that was measured once a seed; a gap without any."""
    if not per_seed:
        return Cell(published=published)
    result = summarise(list(per_seed.values()))
    return Cell(result.mean, result.spread, per_seed, published)


def over_cells(cells: Sequence[Cell], published: Published | None = None) -> Cell:
    """The mean of cells, its spread over seeds that are the same in all; a gap if one of them is a gap."""
    values = [cell.value for cell in cells if cell.value is not None]
    if not values or len(values) < len(cells):
        return Cell(published=published)
    seeds = list(cells[0].per_seed)
    if seeds and all(list(cell.per_seed) == seeds for cell in cells):
        return over_seeds({seed: mean(cell.per_seed[seed] for cell in cells) for seed in seeds}, published)
    return Cell(mean(values), published=published)


def compare_methods(
    lines: Sequence[Line], quantities: Iterable[tuple[str, Sequence[str]]], versus: str | None, seedless: set[str]
) -> tuple[Comparison, ...]:
    """Test every method against its reference over the pairs that both have.

    Args:
        lines: those of averages are passed over.
        quantities: title and keys of the columns whose values are pooled.
        versus: the reference; None: the host of a wrapper, if it is there, else CoOp.
        seedless: methods that train nothing: their value is paired with every seed of the other.
    """
    lines = [line for line in lines if not line.is_average]
    methods = list(dict.fromkeys(line.method for line in lines))
    by_place = {(line.method, line.dataset, line.shots): line for line in lines}
    found = []
    for method in methods:
        reference = versus or default_reference(method, methods)
        if reference is None or reference == method:
            continue
        for what, keys in quantities:
            first: list[float] = []
            second: list[float] = []
            for line in (line for line in lines if line.method == method):
                other = by_place.get((reference, line.dataset, line.shots))
                if other is None:
                    continue
                for key in keys:
                    ours, theirs = line.cells.get(key, Cell()).per_seed, other.cells.get(key, Cell()).per_seed
                    ours = _for_all_seeds(ours, theirs, method in seedless)
                    theirs = _for_all_seeds(theirs, ours, reference in seedless)
                    common = [seed for seed in ours if seed in theirs]
                    first += [ours[seed] for seed in common]
                    second += [theirs[seed] for seed in common]
            if first:
                found.append(Comparison(method, reference, what, compare(first, second)))
    return tuple(found)


def default_reference(method: str, methods: Sequence[str]) -> str | None:
    """The host of a wrapper, if it was run, else CoOp; None if that was not run either."""
    plain = method.split(" (")[0]
    for wanted in (host_of(plain), "CoOp"):
        match = next((other for other in methods if other.split(" (")[0] == wanted), None)
        if match is not None and match != method:
            return match
    return None


def _for_all_seeds(values: dict[Seed, float], other: dict[Seed, float], is_seedless: bool) -> dict[Seed, float]:
    if not is_seedless or len(values) != 1:
        return values
    (value,) = values.values()
    return dict.fromkeys(other, value) or values
