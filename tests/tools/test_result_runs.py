"""tools/result_runs.py: which runs are found below an output folder, and why one is left out."""

import os

import pytest

from tools.result_runs import collect


def reasons(collection, root):
    return {str(item.folder.relative_to(root)): item.reason for item in collection.left_out}


def test_all_protocols(runs):
    runs.root = runs.root / "base2new"
    runs.pair(1, 60.0, 90.0)
    runs.root = runs.root.parent
    runs.of("fewshot/dtd/shots_4", 50.0)
    runs.of("fewshot/imagenet/shots_16", 70.0)
    runs.of("xd/imagenet/dtd/shots_16", 40.0, mode="eval", started="2030-01-01T11:00:00")
    runs.of("zeroshot/dtd", 44.0, trainer="ZeroshotCLIP", config="vit_b16", mode="eval", num_shots=-1)
    runs.of("ablation/dtd/train_base", 1.0)  # no protocol of the tables
    found = collect(runs.root)
    assert found.left_out == []
    assert [(base.value, new.value) for base, new in found.pairs] == [(60.0, 90.0)]
    assert {(r.place.protocol, r.place.source, r.dataset, r.value) for r in found.runs} == {
        ("fewshot", None, "dtd", 50.0),
        ("fewshot", None, "imagenet", 70.0),
        ("xd_test", "imagenet", "dtd", 40.0),
        ("zeroshot", None, "dtd", 44.0),
    }
    assert sorted(run.value for run in found.all_runs()) == [40.0, 44.0, 50.0, 60.0, 70.0, 90.0]


def test_the_folder_of_one_protocol(runs, monkeypatch):
    runs.of("fewshot/dtd/shots_4", 50.0)
    runs.of("zeroshot/dtd", 44.0)
    assert [run.value for run in collect(runs.root / "fewshot").runs] == [50.0]
    runs.of("xd/dtd/ucf101/shots_4", 30.0)
    assert [run.value for run in collect(runs.root / "xd").runs] == [50.0, 30.0]  # with what was trained
    monkeypatch.chdir(runs.root / "fewshot")
    assert [run.value for run in collect(type(runs.root)()).runs] == [50.0]


def test_no_protocol(runs):
    message = r"found no base2new/, fewshot/, xd/ or zeroshot/ in .*; name the folder that the scripts call OUTPUT"
    for folder in (runs.root, runs.root / "nowhere", runs.root / "fewshot"):
        with pytest.raises(FileNotFoundError, match=message):
            collect(folder)


def test_unusable_runs_are_named(runs):
    runs.of("fewshot/dtd/shots_4", 50.0, seed=1, finished=False)
    runs.of("fewshot/dtd/shots_4", 50.0, seed=2, classes="base")
    (runs.of("fewshot/dtd/shots_4", 50.0, seed=3) / "metrics.json").write_text("{")
    runs.log(runs.root / "fewshot/dtd/CoOp/rn50/seed4")
    found = collect(runs.root)
    told = reasons(found, runs.root)
    assert found.runs == []
    assert told["fewshot/dtd/shots_4/CoOp/rn50/seed1"].startswith("unfinished")
    assert told["fewshot/dtd/shots_4/CoOp/rn50/seed2"] == "it evaluated the 'base' classes, expected 'all' here"
    assert "cannot be read" in told["fewshot/dtd/shots_4/CoOp/rn50/seed3"]
    assert told["fewshot/dtd/CoOp/rn50/seed4"] == (
        f"its path below {runs.root}/fewshot is not laid out as the scripts do it"
    )
    assert [item.place.seed for item in found.found] == [1, 2, 3]


def test_strangers_of_base_to_new_are_told_once(runs):
    runs.root = runs.root / "base2new"
    runs.pair(1, 60.0, 90.0)
    for side in ("train_base", "test_new"):
        runs.log(runs.root / side / "a" / "seed1")
    found = collect(runs.root)
    assert len(found.pairs) == 1
    assert sorted(reasons(found, runs.root)) == ["test_new/a/seed1", "train_base/a/seed1"]


def test_a_target_tested_with_another_model_is_left_out(runs):
    runs.of("fewshot/imagenet/shots_16", 70.0, started="2030-01-01T12:00:00")
    runs.of("xd/imagenet/dtd/shots_16", 40.0, mode="eval")
    epoch = {"final": {"epoch": 5, "metrics": {"accuracy": 41.0}}}
    runs.of("xd/imagenet/eurosat/shots_16", 41.0, mode="eval", started="2030-01-01T13:00:00", **epoch)
    runs.of("xd/imagenet/ucf101/shots_16", 42.0, mode="eval", started="2030-01-01T13:00:00", seed=2)
    found = collect(runs.root)
    told = reasons(found, runs.root)
    tail = "shots_16/CoOp/rn50/seed1"
    assert told[f"xd/imagenet/dtd/{tail}"] == "it was tested before its model was trained (anew); test again"
    assert told[f"xd/imagenet/eurosat/{tail}"] == (
        "it tested epoch 5, and its training run measured epoch 20; test again"
    )
    assert [run.value for run in found.runs] == [70.0, 42.0]  # the training run of 42.0 lies elsewhere


def test_the_method_of_a_damaged_run_is_that_of_its_siblings(runs):
    about = {"trainer": "Spotlighter", "host": "MaPLe"}
    runs.of("fewshot/dtd/shots_4", 50.0, **about)
    damaged = runs.of("fewshot/dtd/shots_4", 50.0, seed=2, **about)
    (damaged / "metrics.json").write_text("{")
    os.makedirs(runs.root / "fewshot/dtd/shots_4/SPT/rn50/seed1")
    methods = {(item.place.trainer, item.place.seed): item.method for item in collect(runs.root).found}
    assert methods == {
        ("Spotlighter", 1): "MaPLe w/ Spotlighter",
        ("Spotlighter", 2): "MaPLe w/ Spotlighter",
        ("SPT", 1): "SPT",
    }


def test_logs_have_the_trainer_as_method(runs):
    runs.log(runs.root / "fewshot/dtd/shots_4/Spotlighter/rn50/seed1")
    assert [item.method for item in collect(runs.root).found] == ["Spotlighter"]
