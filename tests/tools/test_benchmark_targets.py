"""From seconds to verdicts, on given numbers; and every row of the table runs on a tiny model."""

import time
from dataclasses import replace

import pytest
import torch

from clip.model import CLIPSpec
from tools.benchmarks import targets as module
from tools.benchmarks.memory import DoesNotFit
from tools.benchmarks.rows import TARGETS, choose
from tools.benchmarks.subjects import Setting
from tools.benchmarks.targets import Bench, Measured, NotMeasured, Target, judge, margin, run_targets
from tools.benchmarks.timing import Ratio, Times, is_out_of_memory, paired, seconds, take_turns, warm_up

CPU = torch.device("cpu")


def target(limit=2.0, is_least=True, measure=None):
    return Target("row", "a figure", limit, is_least, "fp32", 3, measure)


def bench():
    setting = Setting(batch=3, spec=CLIPSpec(32, 32, 12, 64, 8, 77, 49408, 64, 1, 2))
    return Bench(setting, repeats=2)


def test_ratios_are_paired_and_their_median_is_told():
    times = Times({"a": [1.0, 8.0, 3.0], "b": [2.0, 2.0, 1.0]})
    assert times.median("a") == 3
    assert times.ratio("a", "b") == Ratio(3.0, 0.5, 4.0) == paired([1, 8, 3], [2, 2, 1])
    assert str(Ratio(3.0, 0.5, 4.0)) == "3 (0.5–4)"


def test_steps_take_turns_in_alternating_order():
    order = []
    steps = {name: (lambda name=name: order.append(name)) for name in "abc"}
    times = take_turns(steps, 3, CPU)
    assert "".join(order) == "abccbaabc"
    assert [len(found) for found in times.seconds.values()] == [3, 3, 3]
    assert warm_up(steps, CPU) == {}
    assert "".join(order[9:]) == "abc"


def test_seconds_last_as_long_as_the_step():
    assert seconds(lambda: time.sleep(0.01), CPU) >= 0.01


def test_long_comparisons_end_early_but_not_where_rounds_are_asked_for(monkeypatch):
    monkeypatch.setattr("tools.benchmarks.timing.PATIENCE", {"cpu": 0.0})
    assert len(take_turns({"a": int}, None, CPU).seconds["a"]) == 3
    assert len(take_turns({"a": int}, 4, CPU).seconds["a"]) == 4


def test_what_does_not_fit_is_told_from_other_errors():
    def too_large():
        torch.empty(2**60, dtype=torch.int8)

    def broken():
        raise RuntimeError("shapes differ")

    failed = warm_up({"large": too_large, "small": int}, CPU)
    assert failed == {"large": f"does not fit in memory: no room for another {2**60} bytes"}
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    with pytest.raises(RuntimeError, match="shapes differ"):
        warm_up({"broken": broken}, CPU)


@pytest.mark.parametrize(
    ("limit", "is_least", "value", "verdict", "reached"),
    [
        (2.0, True, 2.0, "reached", 1.0),
        (2.0, True, 1.5, "missed", 0.75),
        (0.5, False, 0.25, "reached", 2.0),
        (0.5, False, 0.5, "reached", 1.0),
        (0.5, False, 1.0, "missed", 0.5),
        (0.5, False, 0.0, "reached", float("inf")),
    ],
)
def test_verdicts(limit, is_least, value, verdict, reached):
    row = target(limit, is_least)
    assert judge(row, Measured(value)).verdict == verdict
    assert margin(row, value) == reached


def test_an_objection_outweighs_the_figure():
    result = judge(target(), Measured(9.0, objection="features differ"))
    assert (result.verdict, result.reason) == ("missed", "features differ")


def test_a_record_holds_what_a_reader_needs():
    record = judge(target(2.0), Measured.of(Ratio(3.0, 2.5, 3.5), ["seen"])).record()
    assert record == {
        **{"name": "row", "figure": "a figure", "limit": 2.0, "is_least": True, "precision": "fp32", "n_classes": 3},
        **{"unit": "", "value": 3.0, "low": 2.5, "high": 3.5, "margin": 1.5, "verdict": "reached", "reason": ""},
        "notes": ["seen"],
    }


@pytest.mark.parametrize(
    "error",
    [NotMeasured("why"), DoesNotFit("why"), MemoryError("Tried to allocate 3 bytes")],
)
def test_what_cannot_be_measured_says_why(error):
    def measure(bench, target):
        raise error

    (result,) = run_targets(bench(), [target(measure=measure)])
    assert result.verdict == "not measured"
    assert result.reason in ("why", "does not fit in memory: no room for another 3 bytes")
    assert result.record()["value"] is None


def test_other_errors_are_not_hidden():
    def measure(bench, target):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        list(run_targets(bench(), [target(measure=measure)]))


def test_a_step_that_does_not_fit_ends_its_row_before_the_others_run():
    def too_large():
        torch.empty(2**60, dtype=torch.int8)

    ran = []
    with pytest.raises(NotMeasured, match=r"^plain does not fit in memory: no room for another \d+ bytes$"):
        bench().time({"plain": too_large, "ours": lambda: ran.append(1)}, target())
    assert ran == []


def test_the_limits():
    limits = {(t.name, t.precision): (t.limit, t.is_least, t.n_classes) for t in TARGETS}
    assert limits == {
        ("eval-bare", "fp32"): (1.03, True, 100),
        ("eval-bare", "bf16"): (1.03, True, 100),
        ("eval-pruned", "fp32"): (1.25, True, 100),
        ("eval-pruned", "bf16"): (1.25, True, 100),
        ("eval-100", "fp32"): (1.8, True, 100),
        ("eval-100", "bf16"): (5, True, 100),
        ("eval-1000", "fp32"): (6, True, 1000),
        ("train-50", "fp32"): (0.6, False, 50),
        ("train-50", "bf16"): (0.2, False, 50),
        ("train-500", "fp32"): (0.3, False, 500),
        ("train-500", "bf16"): (0.12, False, 500),
        ("memory-500", "fp32"): (0.35, False, 500),
        ("memory-1000", "fp32"): (8, False, 1000),
        ("bank", "fp32"): (0.02, False, 500),
        ("bank", "bf16"): (0.02, False, 500),
        ("cache-eval", "fp32"): (20, True, 100),
        ("cache-train", "fp32"): (20, True, 100),
    }


def test_rows_are_chosen_by_name_and_precision():
    assert choose([], []) == TARGETS
    assert [(t.name, t.precision) for t in choose(["train-50", "bank"], ["bf16"])] == [
        ("train-50", "bf16"),
        ("bank", "bf16"),
    ]
    with pytest.raises(ValueError, match=r"^There is no target 'speed'; there are eval-bare, eval-pruned, "):
        choose(["speed"], [])
    with pytest.raises(ValueError, match=r"^No target eval-1000 is set for bf16; leave --prec out\.$"):
        choose(["eval-1000"], ["bf16"])


def test_every_row_runs_on_a_tiny_model(monkeypatch):
    monkeypatch.setattr("tools.benchmarks.rows.BANK", (4, 2))
    monkeypatch.setattr(
        "tools.benchmarks.rows.training_peak", lambda request: 2e9 if request.what == "plain path" else 1e9
    )
    rows = [replace(row, n_classes=4) for row in TARGETS if row.precision == "fp32"]
    results = {result.target.name: result.record() for result in run_targets(bench(), rows)}
    assert list(results) == list(dict.fromkeys(row.name for row in TARGETS))
    assert results["cache-eval"]["notes"][0].startswith("with Spotlighter's head, which reads all tokens, ")
    assert all(record["verdict"] in (module.REACHED, module.MISSED) for record in results.values())
    assert all(record["value"] > 0 for record in results.values())
    assert results["memory-500"]["value"] == 0.5
    assert results["memory-500"]["notes"] == ["peak in GB: ours 1.00, plain 2.00"]
    assert (results["memory-1000"]["value"], results["memory-1000"]["unit"]) == (1.0, "GB")
    assert results["eval-bare"]["notes"][0].startswith("unit features differ by at most ")
    assert float(results["eval-bare"]["notes"][0].split()[-1]) <= 1e-5
