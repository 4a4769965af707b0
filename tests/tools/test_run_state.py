"""tools/run_state.py: finished or not, of the model and config that are asked for now or not, and the result."""

import pytest

from dassl.engine import resume
from tools import run_state
from tools.run_reader import RunProblem, load_metrics
from tools.run_state import (
    OtherConfig,
    config_differences,
    current_state,
    is_older,
    main,
    result_line,
    settings_of,
    state_of,
    trained_epoch,
)


def test_state(runs):
    folder = runs.root / "seed1"
    assert state_of(folder) == "absent"
    folder.mkdir()
    assert state_of(folder) == "absent"
    runs.metrics(folder)
    assert state_of(folder) == "finished"
    runs.metrics(folder, finished=False)
    assert state_of(folder) == "unfinished"
    (folder / "metrics.json").write_text('{"finished": true')
    assert state_of(folder) == "unfinished"
    (folder / "metrics.json").unlink()
    runs.log(folder)
    assert state_of(folder) == "unfinished"


@pytest.mark.parametrize(
    ("changes", "epoch"),
    [
        ({}, 20),
        ({"epochs": [{"epoch": 1}, {"epoch": 2}]}, 2),
        ({"epochs": [], "final": {"epoch": 5}}, 5),
        ({"epochs": [], "final": None}, 20),  # OPTIM.MAX_EPOCH
        ({"config": {"TEST": {"FINAL_MODEL": "best_val"}}}, None),
        ({"config": {"TEST": {"FINAL_MODEL": "released_best_val"}}}, None),
    ],
)
def test_trained_epoch(runs, changes, epoch):
    assert trained_epoch(load_metrics(runs.metrics(runs.root / "seed1", **changes) / "metrics.json")) == epoch


def test_trained_epoch_unknown():
    with pytest.raises(RunProblem, match=r"metrics\.json names no trained epoch"):
        trained_epoch({"epochs": [], "final": None, "config": {}})


@pytest.mark.parametrize(
    ("this", "other", "expected"),
    [
        ("2030-01-01T10:00:00", "2030-01-01T10:00:01", True),
        ("2030-01-01T10:00:01", "2030-01-01T10:00:00", False),
        ("2030-01-01T10:00:00Z", "2030-01-01T10:00:00+01:00", False),
        ("2030-01-01T09:00:00+01:00", "2030-01-01T09:00:00Z", True),
        ("2030-01-01T10:00:00", "2030-01-01T11:00:00Z", False),  # cannot be compared
        (None, "2030-01-01T11:00:00", False),
        ("yesterday", "2030-01-01T11:00:00", False),
    ],
)
def test_is_older(this, other, expected):
    assert is_older({"started": this}, than={"started": other}) is expected


def test_config_differences():
    metrics = {"config": {"OPTIM": {"LR": 0.02, "NAME": "sgd"}, "INPUT": {"SIZE": [64, 64]}, "SEED": 1}}
    same = ["OPTIM.LR", "2e-2", "OPTIM.NAME", "sgd", "INPUT.SIZE", "(64, 64)", "SEED", "1"]
    assert config_differences(metrics, same) == []
    other = ["OPTIM.LR", "0.1", "OPTIM.RATE", "1", "SEED.X", "3"]
    assert config_differences(metrics, other) == [
        "OPTIM.LR: the run has 0.02, now 0.1",
        "OPTIM.RATE: not in the run's config",
        "SEED.X: not in the run's config",
    ]


def test_config_differences_to_files():
    metrics = {"config": {"OPTIM": {"LR": 0.002, "MAX_EPOCH": 5}, "INPUT": {"SIZE": [64, 64]}, "USE_CUDA": True}}
    same = {"OPTIM.LR": "2e-3", "INPUT.SIZE": "(64, 64)", "OPTIM.MAX_EPOCH": 5, "NEW.KEY": 1, "USE_CUDA": False}
    assert config_differences(metrics, [], same) == []
    assert config_differences(metrics, [], {"OPTIM.MAX_EPOCH": 20}) == ["OPTIM.MAX_EPOCH: the run has 5, now 20"]
    assert config_differences(metrics, ["OPTIM.MAX_EPOCH", "5"], {"OPTIM.MAX_EPOCH": 20}) == []  # typed wins


def test_keys_that_may_change_are_those_of_the_engine():
    assert run_state.FREE_KEYS == resume.FREE_KEYS


def test_settings_of_files(tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("OPTIM: {LR: 0.1, NAME: sgd}\nSEED: 1\n")
    second.write_text("OPTIM: {LR: 2e-3}\n")
    assert settings_of([first, second]) == {"OPTIM.LR": "2e-3", "OPTIM.NAME": "sgd", "SEED": 1}
    second.write_text("")
    assert settings_of([second]) == {}
    second.write_text("a: [")
    with pytest.raises(RunProblem, match=r"b\.yaml cannot be read \(while parsing"):
        settings_of([second])


def test_a_test_of_an_older_model_is_stale(runs):
    runs.pair(1, 60.0, 90.0)
    trained, tested = runs.folder("train_base", 1), runs.folder("test_new", 1)
    assert current_state(tested, trained) == "finished"
    assert current_state(tested, trained, epoch=20) == "finished"
    assert current_state(tested, trained, epoch=5) == "stale"
    runs.metrics(trained, started="2030-01-01T11:00:01")
    assert current_state(tested, trained) == "stale"
    runs.metrics(trained, started="2030-01-01T11:00:01", finished=False)
    assert current_state(tested, trained) == "finished"


def test_other_options_than_those_of_a_finished_run(runs):
    folder = runs.metrics(runs.root / "seed1")
    assert current_state(folder, options=["OPTIM.LR", "0.02"]) == "finished"
    with pytest.raises(OtherConfig) as refused:
        current_state(folder, options=["OPTIM.LR", "0.1"])
    assert str(refused.value) == (
        f"{folder} holds a finished run with another config (OPTIM.LR: the run has 0.02, now 0.1). "
        "Set OUTPUT to another folder, or delete this one to run again."
    )
    runs.metrics(folder, finished=False)
    assert current_state(folder, options=["OPTIM.LR", "0.1"]) == "unfinished"


def test_result(runs, capsys):
    folder = runs.metrics(runs.root / "seed1", 77.086)
    assert result_line(folder) == "77.09% (12 s)"
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out == "77.09% (12 s)\n"
    runs.metrics(folder, wall_seconds=None)
    assert result_line(folder) == "75.00%"
    runs.metrics(folder, finished=False)
    assert main([str(folder)]) == 1
    assert capsys.readouterr().err.startswith(f"error: {folder}: unfinished (after 1 of 20 epochs)")
