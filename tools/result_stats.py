"""Numbers over seeds: mean and spread, harmonic mean, and whether two methods differ.

HM is the harmonic mean of the *mean* base and the *mean* new accuracy, as the papers compute it; the mean and spread
of the seeds' own HMs stand beside it. scipy is imported only where a test is asked for.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Mean and spread of n values; no spread with one value."""

    mean: float
    spread: float | None
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± " + ("–" if self.spread is None else f"{self.spread:.2f}")


@dataclass(frozen=True)
class PairedTest:
    """Differences of n pairs, and the p-values of two tests that their centre is zero (two-sided)."""

    n: int
    difference: float | None  # mean of first minus second; None without pairs
    t_test: float | None  # None where it cannot be computed: fewer than two pairs, or all differences the same
    wilcoxon: float | None  # None with fewer than two pairs, or where no pair differs
    error: float | None = None  # standard error of the mean difference; None with fewer than two pairs


def mean(values: Iterable[float]) -> float:
    """Arithmetic mean of at least one value, without rounding on the way."""
    values = list(values)
    return math.fsum(values) / len(values)


def summarise(values: Sequence[float], ci95: bool = False) -> Spread:
    """Mean and population standard deviation (ddof 0), or 1.96·std/√n with that same std, as the family prints them.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("expected at least one value to average, got none")
    n, centre = len(values), mean(values)
    if n == 1:
        return Spread(centre, None, 1)
    std = math.sqrt(mean((value - centre) ** 2 for value in values))
    return Spread(centre, 1.96 * std / math.sqrt(n) if ci95 else std, n)


def harmonic_mean(base: float, new: float) -> float:
    """2·base·new / (base + new); 0 where one of them is."""
    return 0.0 if base <= 0 or new <= 0 else 2 * base * new / (base + new)


def compare(first: Sequence[float], second: Sequence[float]) -> PairedTest:
    """Paired t-test and Wilcoxon signed-rank test of two lists whose items belong together.

    Raises:
        ValueError: lists of different length.
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    n = len(differences)
    if n < 2:
        return PairedTest(n, differences[0] if n else None, None, None)
    from scipy import stats

    moves = any(differences)
    varies = max(differences) - min(differences) > 1e-9  # otherwise t is a division by nothing
    return PairedTest(
        n,
        mean(differences),
        float(stats.ttest_rel(first, second).pvalue) if varies else None,
        float(stats.wilcoxon(differences).pvalue) if moves else None,
        statistics.stdev(differences) / math.sqrt(n),
    )
