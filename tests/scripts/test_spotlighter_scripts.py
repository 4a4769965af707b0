"""scripts/spotlighter/*.sh: exact command lines; how the base-to-new scripts behave otherwise is test_base2new's."""

import json
from pathlib import Path

import pytest

BASE2NEW = "output/base2new"


def command(folder, *flags, config="mini_vit8_ep15_paper", dataset="shapes", seed="1", classes="base"):
    return [
        *("--root", "data", "--seed", seed, "--trainer", "Spotlighter"),
        *("--dataset-config-file", f"configs/datasets/{dataset}.yaml"),
        *("--config-file", f"configs/trainers/Spotlighter/{config}.yaml", "--output-dir", folder, *flags),
        *("DATASET.NUM_SHOTS", "16", "DATASET.SUBSAMPLE_CLASSES", classes),
    ]


def test_train_then_test(copy):
    tail = "shapes/shots_16/Spotlighter/mini_vit8_ep15_paper/seed1"
    trained, tested = f"{BASE2NEW}/train_base/{tail}", f"{BASE2NEW}/test_new/{tail}"
    for which in ("train", "test"):
        done = copy.run(f"scripts/spotlighter/base2new_{which}.sh", "shapes", 1)
        assert done.returncode == 0, done.stderr
    model = ("--eval-only", "--model-dir", trained, "--load-epoch", "20")
    assert copy.calls == [command(trained), command(tested, *model, classes="new")]


@pytest.mark.parametrize("dataset", ["eurosat", "imagenet"])
def test_real_data_sets_get_the_papers_schedule(copy, dataset):
    assert copy.run("scripts/spotlighter/base2new_train.sh", dataset, 2).returncode == 0
    config = "vit_b16_ep15_paper"
    folder = f"{BASE2NEW}/train_base/{dataset}/shots_16/Spotlighter/{config}/seed2"
    assert copy.calls == [command(folder, config=config, dataset=dataset, seed="2")]


@pytest.fixture
def ablation(copy):
    """Runs ablation.sh with a stand-in for the tool; gives its flags and what stands behind them."""
    (copy.root / "tools" / "ablate.py").write_text("import json, sys\nprint(json.dumps(sys.argv[1:]))\nsys.exit(3)\n")

    def run(*argv, **variables):
        done = copy.run("scripts/spotlighter/ablation.sh", *argv, **variables)
        assert done.returncode == 3, done.stderr  # the tool's own exit code
        words = json.loads(done.stdout)
        flags = dict(zip(words[:12:2], words[1:12:2], strict=True))
        return flags, words[12:]

    run.root = copy.root
    return run


def test_ablation(ablation):
    assert ablation("semantic") == (
        {
            "--dataset": "shapes",
            "--config": "mini_vit8_ep15_paper",
            "--root": "data",
            "--shots": "16",
            "--output": "output/ablation/shapes",
            "--jobs": "1",
        },
        ["semantic"],
    )
    assert (ablation.root / "data").is_dir()  # the pictures draw themselves there


def test_ablation_takes_everything_from_the_environment(ablation, tmp_path: Path):
    variables = {"DATA": f"{tmp_path}/my data", "OUTPUT": f"{tmp_path}/out", "SHOTS": "4", "JOBS": "2"}
    flags, rest = ablation("losses", 1, 2, "OPTIM.MAX_EPOCH", 1, DATASET="eurosat", **variables)
    assert flags == {
        "--dataset": "eurosat",
        "--config": "vit_b16_ep15_paper",
        "--root": f"{tmp_path}/my data",
        "--shots": "4",
        "--output": f"{tmp_path}/out/ablation/eurosat",
        "--jobs": "2",
    }
    assert rest == ["losses", "1", "2", "OPTIM.MAX_EPOCH", "1"]
    assert not (tmp_path / "my data").exists()
    assert ablation("k", CFG="mini_vit8_ep15_fast")[0]["--config"] == "mini_vit8_ep15_fast"


def test_asking_for_help_makes_no_folder(ablation):
    assert ablation("--help")[1] == ["--help"]
    assert not (ablation.root / "data").exists()
