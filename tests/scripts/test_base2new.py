"""scripts/{coop,zsclip}/base2new_*.sh: exact command lines, skipping, resuming, what a user can type wrongly."""

import json
import sys
from pathlib import Path

import pytest

TAIL = "shapes/shots_16/CoOp/mini_vit8_ep20/seed1"
TRAIN, TEST = f"output/base2new/train_base/{TAIL}", f"output/base2new/test_new/{TAIL}"


def command(folder, *flags, trainer="CoOp", config="CoOp/mini_vit8_ep20", classes="base", extra=(), **values):
    about = {"root": "data", "seed": "1", "dataset": "shapes", "shots": "16"} | values
    return [
        *("--root", about["root"], "--seed", about["seed"], "--trainer", trainer),
        *("--dataset-config-file", f"configs/datasets/{about['dataset']}.yaml"),
        *("--config-file", f"configs/trainers/{config}.yaml", "--output-dir", folder, *flags),
        *("DATASET.NUM_SHOTS", about["shots"], "DATASET.SUBSAMPLE_CLASSES", classes, *extra),
    ]


def test_coop_train_then_test(copy):
    done = copy.run("scripts/coop/base2new_train.sh", "shapes", 1)
    assert done.returncode == 0, done.stderr
    assert copy.calls == [command(TRAIN)]
    done = copy.run("scripts/coop/base2new_test.sh", "shapes", 1)
    assert done.returncode == 0, done.stderr
    assert copy.calls[1] == command(TEST, "--eval-only", "--model-dir", TRAIN, "--load-epoch", "20", classes="new")
    assert f"   folder: {TEST}\n" in done.stdout
    assert "== CoOp (mini_vit8_ep20), new classes of shapes, 16 shots, seed 1\n" in done.stdout
    assert done.stdout.endswith(f" train.py {' '.join(copy.calls[1])}\none of many lines\n")


def test_zero_shot_evaluates_both_halves(copy):
    for which in ("train", "test"):
        assert copy.run(f"scripts/zsclip/base2new_{which}.sh", "shapes", 1).returncode == 0
    tail = "shapes/shots_16/ZeroshotCLIP/mini_vit8/seed1"
    about = {"trainer": "ZeroshotCLIP", "config": "ZeroshotCLIP/mini_vit8"}
    assert copy.calls == [
        command(f"output/base2new/train_base/{tail}", "--eval-only", **about),
        command(f"output/base2new/test_new/{tail}", "--eval-only", classes="new", **about),
    ]


@pytest.mark.parametrize(
    ("dataset", "config"), [("eurosat", "vit_b16_ep200_ctxv1"), ("imagenet", "vit_b16_ep50_ctxv1")]
)
def test_real_data_sets_get_the_large_model_and_the_published_schedule(copy, dataset, config):
    assert copy.run("scripts/coop/base2new_train.sh", dataset, 2).returncode == 0
    folder = f"output/base2new/train_base/{dataset}/shots_16/CoOp/{config}/seed2"
    assert copy.calls == [command(folder, config=f"CoOp/{config}", dataset=dataset, seed="2")]


def test_every_variable_comes_from_the_environment(copy, tmp_path):
    variables = {
        "DATA": str(tmp_path / "my data"),
        "OUTPUT": str(tmp_path / "out"),
        "SHOTS": "4",
        "CFG": "vit_b16_ep50_ctxv1",
        "TRAINER": "CoOp2",
    }
    done = copy.run("scripts/coop/base2new_train.sh", "shapes", 0, **variables)
    assert done.returncode == 0, done.stderr
    folder = f"{tmp_path}/out/base2new/train_base/shapes/shots_4/CoOp2/vit_b16_ep50_ctxv1/seed0"
    about = {
        "trainer": "CoOp2",
        "config": "CoOp/vit_b16_ep50_ctxv1",
        "root": f"{tmp_path}/my data",
        "shots": "4",
        "seed": "0",
    }
    assert copy.calls == [command(folder, **about)]  # no folder configs/trainers/CoOp2: CoOp's configs serve
    assert copy.run("scripts/coop/base2new_test.sh", "shapes", 0, LOADEP="7", **variables).returncode == 0
    model = ("--model-dir", folder, "--load-epoch", "7")
    tested = folder.replace("train_base", "test_new")
    assert copy.calls[1] == command(tested, "--eval-only", *model, classes="new", **about)


def test_more_config_entries_are_passed_on(copy):
    extra = ("OPTIM.LR", "-1e-3", "TRAINER.COOP.CTX_INIT", "a photo of a")
    assert copy.run("scripts/coop/base2new_train.sh", "shapes", 1, *extra).returncode == 0
    assert copy.calls == [command(TRAIN, extra=extra)]
    assert "now -1e-3; TRAINER.COOP" in copy.run("scripts/coop/base2new_train.sh", "shapes", 1, *extra).stderr


def test_from_another_folder(copy, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    script = "../a repository/scripts/coop/base2new_train.sh"
    done = copy.run(script, "shapes", 1, cwd=tmp_path / "elsewhere", DATA="pictures")
    assert done.returncode == 0, done.stderr
    assert copy.calls == [command(TRAIN, root=f"{tmp_path}/elsewhere/pictures")]
    for i, data in enumerate(("../a repository//", "~/my data/", "/")):
        copy.run(script, "shapes", 2 + i, cwd=tmp_path / "elsewhere", DATA=data, HOME=str(tmp_path))
    roots = [call[call.index("--root") + 1] for call in copy.calls[1:]]
    assert roots == [f"{tmp_path}/elsewhere/../a repository", f"{tmp_path}/my data", "/"]
    copy.run(script, "shapes", 1, cwd=copy.root, OUTPUT=f"{copy.root}/")
    assert copy.calls[-1] == command(TRAIN.removeprefix("output/"))
    help_ = copy.run(script, "--help", cwd=tmp_path / "elsewhere").stdout
    assert "Example: bash scripts/coop/base2new_train.sh shapes 1" in help_


def test_cdpath_does_not_lead_astray(copy, tmp_path):
    (tmp_path / "trap" / "scripts" / "coop").mkdir(parents=True)
    done = copy.run("scripts/coop/base2new_train.sh", "shapes", 1, CDPATH=f"{tmp_path}/trap")
    assert done.returncode == 0, done.stderr
    assert copy.calls == [command(TRAIN)]


def test_a_finished_run_is_skipped_and_an_unfinished_one_goes_on(copy):
    script = ("scripts/coop/base2new_train.sh", "shapes", 1)
    stopped = copy.run(*script, FAKE_EXIT="143")
    assert stopped.returncode == 143  # train.py's own exit code comes through
    again = copy.run(*script)
    assert again.returncode == 0
    assert "not finished: it goes on from its last checkpoint" in again.stdout
    assert copy.calls == [command(TRAIN)] * 2  # the very same command resumes
    third = copy.run(*script)
    assert third.returncode == 0
    assert "finished already: 61.00% (4 s)" in third.stdout
    assert len(copy.calls) == 2


@pytest.mark.parametrize("content", ['{"schema": 1, "finished": tr', "", '{"schema": 1, "finished": "false"}'])
def test_damaged_metrics_mean_unfinished(copy, content):
    (copy.root / TRAIN).mkdir(parents=True)
    (copy.root / TRAIN / "metrics.json").write_text(content)
    assert copy.run("scripts/coop/base2new_train.sh", "shapes", 1).returncode == 0
    assert len(copy.calls) == 1


def test_an_empty_or_unmarked_folder_is_not_taken_for_finished(copy):
    (copy.root / TRAIN).mkdir(parents=True)
    (copy.root / TRAIN / "log.txt").write_text("Finish training\n")
    assert copy.run("scripts/coop/base2new_train.sh", "shapes", 1).returncode == 0
    assert len(copy.calls) == 1


def test_finished_run_with_other_values_is_refused(copy):
    script = ("scripts/coop/base2new_train.sh", "shapes", 1)
    assert copy.run(*script).returncode == 0
    assert copy.run(*script, "OPTIM.LR", "2e-2").returncode == 0
    refused = copy.run(*script, "OPTIM.LR", "0.5")
    assert refused.returncode == 3
    assert "OPTIM.LR: the run has 0.02, now 0.5" in refused.stderr
    assert len(copy.calls) == 1


def test_finished_run_with_other_values_than_the_config_file_is_refused(copy):
    """A trial with other values must not pass for the run that the plain command asks for."""
    script = ("scripts/coop/base2new_train.sh", "shapes", 1)
    assert copy.run(*script, "OPTIM.MAX_EPOCH", "20").returncode == 0
    config = copy.root / "configs" / "trainers" / "CoOp" / "mini_vit8_ep20.yaml"
    config.write_text("OPTIM:\n  LR: '2e-2'\n  MAX_EPOCH: 200\nTRAIN:\n  PRINT_FREQ: 5\n")
    assert copy.run(*script, "OPTIM.MAX_EPOCH", "20").returncode == 0
    refused = copy.run(*script)
    assert refused.returncode == 3
    assert "another config (OPTIM.MAX_EPOCH: the run has 20, now 200). Set OUTPUT to another" in refused.stderr
    config.write_text("OPTIM: [")
    assert "mini_vit8_ep20.yaml cannot be read (while parsing" in copy.run(*script).stderr
    assert len(copy.calls) == 1


def test_a_dry_run_makes_nothing_and_skips_nothing(copy, tmp_path):
    script = ("scripts/coop/base2new_train.sh", "shapes", 1)
    data = tmp_path / "new" / "data"
    done = copy.run(*script, "OPTIM.LR", "0.02", "--dry-run", DATA=str(data))
    assert done.returncode == 0, done.stderr
    expected = command(TRAIN, "--dry-run", root=str(data), extra=("OPTIM.LR", "0.02"))
    assert copy.calls == [expected]
    assert not data.exists()
    # the stand-in for train.py does not know the flag and has made the run
    done = copy.run(*script, "--dry-run", "OPTIM.LR", "0.02", DATA=str(data))
    assert "finished already: 61.00% (4 s); without --dry-run it would be left alone" in done.stdout
    assert copy.calls == [expected, expected]
    assert copy.run(*script, "OPTIM.LR", "0.3", "--dry-run").returncode == 3
    done = copy.run("scripts/coop/base2new_test.sh", "shapes", 2, "--dry-run")
    assert "no finished training in" in done.stderr
    assert "--dry-run  only say what would be done" in copy.run(script[0], "--help").stdout


def test_a_test_of_another_epoch_runs_again(copy):
    copy.run("scripts/coop/base2new_train.sh", "shapes", 1)
    script = ("scripts/coop/base2new_test.sh", "shapes", 1)
    for epoch in ("5", "5", ""):
        assert copy.run(*script, LOADEP=epoch).returncode == 0
    loaded = [call[call.index("--load-epoch") + 1] for call in copy.calls[1:]]
    assert loaded == ["5", "20"]


def test_the_test_loads_the_epoch_that_training_ended_with(copy):
    copy.run("scripts/coop/base2new_train.sh", "shapes", 1)
    path = copy.root / TRAIN / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["epochs"] = [{"epoch": 1}, {"epoch": 2}]
    path.write_text(json.dumps(metrics))
    assert copy.run("scripts/coop/base2new_test.sh", "shapes", 1).returncode == 0
    assert copy.calls[1][copy.calls[1].index("--load-epoch") + 1] == "2"


def test_several_processes_are_started_by_torchrun(copy, tmp_path):
    python = tmp_path / "python"  # says how torchrun is called, and is python for all else
    python.write_text(
        f'#!/bin/bash\nif [[ $2 == torch.distributed.run ]]; then echo "$@"; else exec {sys.executable} "$@"; fi\n'
    )
    python.chmod(0o755)
    done = copy.run("scripts/coop/base2new_train.sh", "shapes", 1, NPROC="3", PYTHON=str(python))
    assert done.returncode == 0, done.stderr
    started = done.stdout.splitlines()[-1]
    assert started.startswith("-m torch.distributed.run --standalone --nproc_per_node 3 train.py --root ")


def test_the_best_epoch_is_train_pys_default(copy):
    copy.run("scripts/coop/base2new_train.sh", "shapes", 1, FAKE_TEST='{"FINAL_MODEL": "best_val"}')
    copy.run("scripts/coop/base2new_test.sh", "shapes", 1)
    assert copy.calls[1] == command(TEST, "--eval-only", "--model-dir", TRAIN, classes="new")


def test_test_before_training(copy):
    done = copy.run("scripts/coop/base2new_test.sh", "shapes", 1)
    assert (done.returncode, copy.calls) == (1, [])
    assert done.stderr == (
        f"error: no finished training in {TRAIN}. Train first: bash scripts/coop/base2new_train.sh shapes 1\n"
    )
    copy.run("scripts/coop/base2new_train.sh", "shapes", 1, FAKE_EXIT="1")
    assert copy.run("scripts/coop/base2new_test.sh", "shapes", 1).returncode == 1
    assert len(copy.calls) == 1


def test_a_test_older_than_its_model_runs_again(copy):
    for which in ("train", "test"):
        copy.run(f"scripts/coop/base2new_{which}.sh", "shapes", 1)
    (copy.root / TRAIN / "metrics.json").unlink()
    copy.run("scripts/coop/base2new_train.sh", "shapes", 1)
    done = copy.run("scripts/coop/base2new_test.sh", "shapes", 1)
    assert "finished, but with another model than the one to test now: it runs again" in done.stdout
    assert len(copy.calls) == 4
    assert "finished already: 71.00%" in copy.run("scripts/coop/base2new_test.sh", "shapes", 1).stdout


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "expected DATASET SEED, got nothing"),
        (["shapes"], "expected DATASET SEED, got shapes"),
        (["shape", "1"], "unknown data set 'shape'; there are: eurosat imagenet shapes shapes_a"),
        (["shapes", "one"], "SEED must be 0, 1, 2, ..., got 'one'"),
        (["shapes", "-1"], "SEED must be 0, 1, 2, ..., got '-1'"),
        (["shapes", "01"], "SEED must be 0, 1, 2, ..., got '01'"),
        (["shapes", "1", "OPTIM.LR"], "expected pairs KEY VALUE after SEED, got: OPTIM.LR"),
        (["shapes", "1", "--backbone", "RN50"], "after SEED only pairs KEY VALUE are possible, got: --backbone RN50"),
    ],
)
@pytest.mark.parametrize("script", ["coop/base2new_train", "coop/base2new_test", "zsclip/base2new_train"])
def test_wrong_arguments_show_the_usage(copy, script, argv, message):
    done = copy.run(f"scripts/{script}.sh", *argv)
    assert (done.returncode, done.stdout, copy.calls) == (2, "", [])
    assert done.stderr.startswith(f"error: {message}\n\n")
    assert f"Example: bash scripts/{script}.sh shapes 1\n" in done.stderr


def test_wrong_variables(copy):
    script = ("scripts/coop/base2new_train.sh", "shapes", 1)
    done = copy.run(*script, CFG="vit_b61")
    assert done.returncode == 1
    assert done.stderr == (
        "error: no config configs/trainers/CoOp/vit_b61.yaml; CFG can be: mini_vit8_ep20 vit_b16 vit_b16_ep100 "
        "vit_b16_ep200_ctxv1 vit_b16_ep50 vit_b16_ep50_ctxv1\n"
    )
    assert "LOADEP must be an epoch or best, got 'last'" in copy.run(*script, LOADEP="last").stderr
    assert "NPROC must be a number of processes, got '0'" in copy.run(*script, NPROC="0").stderr
    assert "SHOTS must be a number of images a class, got 'few'" in copy.run(*script, SHOTS="few").stderr
    assert "PYTHON is 'python9', which is no program." in copy.run(*script, PYTHON="python9").stderr
    assert copy.calls == []


@pytest.mark.parametrize(("where", "expected"), [(".venv/bin", ".venv/bin/python"), ("path", "path/python3")])
def test_choice_of_python(copy, monkeypatch, where, expected):
    """PYTHON unset: .venv's interpreter, and without one, python3 of the PATH."""
    folder = copy.root / where
    folder.mkdir(parents=True)
    for name in ("python", "python3"):
        stub = folder / name
        stub.write_text(f'#!/bin/sh\necho "ran $0" >&2\nexec "{sys.executable}" "$@"\n')
        stub.chmod(0o755)
    monkeypatch.setenv("PATH", str(copy.root / "path"), prepend=":")
    done = copy.run("scripts/coop/base2new_train.sh", "shapes", 1, PYTHON=None)
    assert done.returncode == 0, done.stderr
    assert {Path(line.removeprefix("ran ")).name for line in done.stderr.splitlines()} == {Path(expected).name}
    assert all(line.endswith(expected) for line in done.stderr.splitlines())
    assert len(copy.calls) == 1


def test_the_embedded_benchmark_needs_no_data_folder_beforehand(copy, tmp_path):
    data = tmp_path / "new" / "data"
    assert copy.run("scripts/zsclip/base2new_train.sh", "shapes", 1, DATA=str(data)).returncode == 0
    assert data.is_dir()
    (tmp_path / "file").touch()
    done = copy.run("scripts/zsclip/base2new_train.sh", "shapes", 1, DATA=str(tmp_path / "file" / "data"))
    assert f"DATA is '{tmp_path}/file/data', which cannot be made." in done.stderr
