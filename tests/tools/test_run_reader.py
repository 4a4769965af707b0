"""tools/run_reader.py: which number a run folder ends with, and why a run cannot be used."""

import os
import subprocess
import sys

import pytest

from dassl.engine import record
from tools import run_reader
from tools.run_reader import (
    RunProblem,
    find_runs,
    read_run,
)


def problem(folder, **options) -> RunProblem:
    with pytest.raises(RunProblem) as caught:
        read_run(folder, **options)
    return caught.value


def test_metrics_are_read_at_full_precision_and_before_the_log(runs):
    folder = runs.metrics(runs.folder("train_base", 3), 77.0833333333, seed=3)
    runs.log(folder, 11.1)
    run = read_run(folder)
    assert run.value == 77.0833333333
    assert run.source.name == "metrics.json"
    assert (run.dataset, run.trainer, run.config, run.shots, run.seed) == ("shapes", "CoOp", "rn50", 16, 3)


@pytest.mark.parametrize(("keyword", "value"), [("macro_f1", 74.0), ("error_rate", 25.0), ("error", 25.0)])
def test_other_metrics(runs, keyword, value):
    assert read_run(runs.metrics(runs.root / "seed1"), keyword).value == value


def test_unknown_metric_lists_the_known_ones(runs):
    found = problem(runs.metrics(runs.root / "seed1"), keyword="recall")
    assert str(found) == "it has no 'recall', only accuracy, error_rate, macro_f1"


@pytest.mark.parametrize(
    ("changes", "state", "reason"),
    [
        (
            {"finished": False, "final": None, "epochs": [{"epoch": 1}] * 7},
            "unfinished",
            "unfinished (after 7 of 20 epochs); the command that began it goes on with it",
        ),
        (
            {"finished": False, "final": None, "mode": "eval"},
            "unfinished",
            "unfinished; the command that began it goes on with it",
        ),
        ({"final": None}, "damaged", "metrics.json says finished but holds no final metrics"),
        ({"schema": 9}, "damaged", "metrics.json has schema 9, this program reads 1"),
        ({"seed": 2}, "damaged", "the folder's name says seed 1, its metrics.json seed 2"),
        ({"final": {"metrics": {"accuracy": None}}}, "damaged", "accuracy is None, not a number that can be averaged"),
        ({"final": {"metrics": {"accuracy": float("nan")}}}, "damaged", "accuracy is nan, not a number"),
        ({"final": {"metrics": {"accuracy": True}}}, "damaged", "accuracy is True, not a number"),
    ],
)
def test_unusable_metrics(runs, changes, state, reason):
    found = problem(runs.metrics(runs.root / "seed1", **changes))
    assert found.state == state
    assert reason in str(found)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"schema": 1, "finis', "metrics.json cannot be read"),
        (b"", "metrics.json cannot be read"),
        (b"\xff\xfe\x00", "metrics.json cannot be read"),
        (b"[1, 2]", "metrics.json holds a list, not an object"),
    ],
)
def test_damaged_metrics_are_not_replaced_by_the_log(runs, content, reason):
    folder = runs.log(runs.root / "seed1")
    (folder / "metrics.json").write_bytes(content)
    found = problem(folder)
    assert found.state == "damaged"
    assert reason in str(found)


def test_log_value_after_the_end_of_training(runs):
    run = read_run(runs.log(runs.folder("train_base", 2), 76.5))
    assert (run.value, run.seed, run.metrics) == (76.5, 2, None)
    assert read_run(run.folder, "error").value == 24.9


def test_log_of_projects_that_print_finished_training(runs, train_log):
    folder = runs.log(runs.root / "seed1", 61.2, train_log.replace("Finish training", "Finished training"))
    assert read_run(folder).value == 61.2


def test_evaluation_log(runs, test_log):
    folder = runs.log(runs.root / "seed1", "8.05e+1", test_log)
    assert read_run(folder).value == 80.5  # told apart by itself
    assert read_run(folder, test_log=True).value == 80.5
    assert "try --test-log" in str(problem(folder, test_log=False))


def test_unfinished_training_log_is_not_taken_for_an_evaluation(runs, train_log):
    folder = runs.log(runs.root / "seed1", text=train_log.split("Finish training")[0])
    found = problem(folder)  # it holds "=> result" of a validation
    assert found.state == "unfinished"
    assert "no line 'Finish training'" in str(found)


def test_signal_must_be_the_whole_line(runs, train_log):
    folder = runs.log(runs.root / "seed1", text=train_log.replace("Finish training", "Finish training soon"))
    assert problem(folder).state == "unfinished"


def test_log_killed_before_its_result(runs, train_log):
    folder = runs.log(runs.root / "seed1", text=train_log.split("* accuracy: {")[0])
    assert str(problem(folder)) == "its newest log has no '* accuracy: …%' after 'Finish training'"


def test_newest_log_decides(runs, train_log):
    folder = runs.log(runs.root / "seed1", 10.0)
    runs.log(folder, 20.0, name="log.txt-2030-01-02-03-04-05")
    runs.log(folder, 30.0, name="log.txt-2030-11-02-03-04-05")
    runs.log(folder, 99.0, name="log.txt-old")  # not a name that the logger writes
    assert read_run(folder).value == 30.0
    runs.log(folder, text=train_log.split("Finish training")[0], name="log.txt-2031-01-01-00-00-00")
    assert problem(folder).state == "unfinished"


def test_an_evaluation_logged_beside_the_training_is_not_taken_for_it(runs, test_log):
    folder = runs.log(runs.root / "seed1", 60.0)
    runs.log(folder, 90.0, test_log, name="log.txt-2030-01-02-03-04-05")
    assert read_run(folder).value == read_run(folder, test_log=False).value == 60.0
    assert read_run(folder, test_log=True).value == 90.0


def test_an_evaluation_recorded_beside_the_training_is_not_taken_for_it(runs):
    """--eval-only into a training run's folder writes metrics-eval.json."""
    evaluated = runs.metrics(runs.root / "elsewhere", 90.0, mode="eval", classes="new") / "metrics.json"
    folder = runs.metrics(runs.root / "seed1", 60.0)
    evaluated = evaluated.rename(folder / "metrics-eval.json")
    assert read_run(folder).value == read_run(folder, test_log=False).value == 60.0
    run = read_run(folder, test_log=True)
    assert (run.value, run.source) == (90.0, evaluated)
    evaluated.write_text("{")
    assert "metrics-eval.json cannot be read" in str(problem(folder, test_log=True))


def test_keyword_is_no_pattern(runs, train_log):
    folder = runs.log(runs.root / "seed1", 76.5, train_log + "* top.1: 55.0%\n* topX1: 44.0%\n* f(1): 33.0%\n")
    assert read_run(folder, "top.1").value == 55.0
    assert read_run(folder, "f(1)").value == 33.0
    assert problem(folder, keyword="a.curacy").state == "unfinished"


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1.2.3"])
def test_log_values_that_are_no_numbers(runs, text):
    found = problem(runs.log(runs.root / "seed1", text))
    assert found.state == "damaged"
    assert f"accuracy is '{text}'" in str(found)


def test_folders_without_a_run(runs):
    (runs.root / "seed1").mkdir()
    assert str(problem(runs.root / "seed1")) == "it holds neither metrics.json nor log.txt"
    assert str(problem(runs.root / "seed2")) == "there is no such folder"


def test_bytes_that_are_no_utf8_do_not_stop_a_log(runs):
    folder = runs.log(runs.root / "seed1", 70.0)
    path = folder / "log.txt"
    path.write_bytes(b"caf\xe9\n" + path.read_bytes())
    assert read_run(folder).value == 70.0


def test_identity_without_the_family_layout(runs):
    run = read_run(runs.metrics(runs.root / "try", num_shots=4))
    assert (run.dataset, run.trainer, run.shots, run.seed) == ("shapes", "CoOp", 4, "try")
    underscore = read_run(runs.log(runs.root / "dtd" / "shots_0" / "PromptKD" / "rn50" / "seed_7"))
    assert (underscore.dataset, underscore.trainer, underscore.shots, underscore.seed) == ("dtd", "PromptKD", 0, 7)


def test_find_runs_goes_no_deeper_than_a_run_and_not_round_in_circles(runs):
    for seed in (10, 2):
        (runs.metrics(runs.folder("train_base", seed)) / "prompt_learner" / "seed5").mkdir(parents=True)
    (runs.root / "train_base" / ".cache" / "seed1").mkdir(parents=True)
    os.symlink(runs.root, runs.root / "train_base" / "loop")
    found = list(find_runs(runs.root / "train_base"))
    assert found == [runs.folder("train_base", 2), runs.folder("train_base", 10)]
    assert list(find_runs(found[0])) == [found[0]]


def test_reading_needs_neither_torch_nor_dassl():
    code = "import sys, parse_test_res, tools.run_protocol; print({'torch', 'dassl', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_evaluations_in_the_folder_of_a_training_are_where_the_engine_writes_them():
    assert run_reader.EVAL_FILE == record.EVAL_FILE
