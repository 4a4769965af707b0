"""tools/result_stats.py: hand-computed means, spreads, harmonic means, and paired tests."""

import math

import pytest

from tools.result_stats import compare, harmonic_mean, summarise


def test_population_standard_deviation_and_interval():
    # 70, 74, 75: mean 73, squared deviations 9 + 1 + 4 = 14, 14/3 = 4.6667, root 2.160247
    found = summarise([70.0, 74.0, 75.0])
    assert (found.mean, found.n) == (73.0, 3)
    assert found.spread == pytest.approx(2.1602469)
    # 1.96 * 2.160247 / 1.7320508 = 2.444549
    assert summarise([70.0, 74.0, 75.0], ci95=True).spread == pytest.approx(2.444549, abs=1e-6)
    assert str(found) == "73.00 ± 2.16"


def test_one_value_has_no_spread():
    assert summarise([70.0]).spread is None
    assert str(summarise([70.0])) == "70.00 ± –"
    with pytest.raises(ValueError, match="expected at least one value to average, got none"):
        summarise([])


def test_harmonic_mean():
    assert harmonic_mean(60.0, 90.0) == pytest.approx(72.0)
    assert harmonic_mean(82.69, 63.22) == pytest.approx(71.66, abs=0.005)  # CoOp's published average
    assert harmonic_mean(0.0, 90.0) == 0.0


def test_t_test_of_four_pairs_by_hand():
    # differences 1, 2, 3, 4: mean 2.5, sample variance (2.25 + 0.25 + 0.25 + 2.25) / 3 = 5/3, t = 2.5 / sqrt(5/3 / 4)
    found = compare([71.0, 72.0, 73.0, 74.0], [70.0, 70.0, 70.0, 70.0])
    assert (found.n, found.difference) == (4, 2.5)
    assert found.error == pytest.approx(math.sqrt(5 / 3 / 4))
    t = 2.5 / math.sqrt(5 / 3 / 4)
    # two-sided p of Student's t with 3 degrees of freedom, from its closed form
    x = t / math.sqrt(3)
    cumulative = 0.5 + (math.atan(x) + x / (1 + x * x)) / math.pi
    assert found.t_test == pytest.approx(2 * (1 - cumulative), abs=1e-9)
    # all of 2^4 signs are equally likely, and two of them are as extreme as "all positive"
    assert found.wilcoxon == pytest.approx(2 / 16)


def test_signs_cancel():
    found = compare([1.0, 0.0], [0.0, 1.0])
    assert found.difference == 0.0
    assert found.t_test == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([], [], (0, None, None, None)),
        ([71.0], [70.0], (1, 1.0, None, None)),  # one pair says nothing about chance
        ([70.0, 71.0], [70.0, 71.0], (2, 0.0, None, None)),  # nothing differs
        ([71.0, 72.0], [70.0, 71.0], (2, 1.0, None, 0.5)),  # the same difference: t would divide by nothing
    ],
)
def test_tests_that_cannot_be_made(first, second, expected):
    found = compare(first, second)
    assert (found.n, found.difference, found.t_test, found.wilcoxon) == expected


def test_lists_that_do_not_belong_together():
    with pytest.raises(ValueError, match="zip"):
        compare([1.0], [1.0, 2.0])
