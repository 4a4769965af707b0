"""Few-shot, other data sets and domains, zero-shot: exact command lines; base to new is test_base2new's."""

from __future__ import annotations

import pytest
import yaml

from tools.protocols import PROTOCOLS, ROOT, ProtocolError, Run, main, method_files, method_folders, transfers

CFG = "mini_vit8_ep20"


def command(folder, *flags, trainer="CoOp", config=CFG, dataset="shapes", shots="16", seed="1"):
    return [
        *("--root", "data", "--seed", seed, "--trainer", trainer),
        *("--dataset-config-file", f"configs/datasets/{dataset}.yaml"),
        *("--config-file", f"configs/trainers/{trainer}/{config}.yaml", "--output-dir", folder, *flags),
        *("DATASET.NUM_SHOTS", shots, "DATASET.SUBSAMPLE_CLASSES", "all"),
    ]


def test_few_shot(copy):
    assert copy.run("scripts/coop/fewshot.sh", "shapes", 4, 2).returncode == 0
    folder = f"output/fewshot/shapes/shots_4/CoOp/{CFG}/seed2"
    assert copy.calls == [command(folder, shots="4", seed="2")]


@pytest.mark.parametrize(
    ("dataset", "shots", "config"),
    [
        ("eurosat", 1, "vit_b16_ep50"),
        ("eurosat", 2, "vit_b16_ep100"),
        ("eurosat", 4, "vit_b16_ep100"),
        ("eurosat", 8, "vit_b16"),
        ("eurosat", 16, "vit_b16"),
        ("imagenet", 16, "vit_b16_ep50"),
    ],
)
def test_few_shot_schedules_of_coop(copy, dataset, shots, config):
    assert copy.run("scripts/coop/fewshot.sh", dataset, shots, 1).returncode == 0
    folder = f"output/fewshot/{dataset}/shots_{shots}/CoOp/{config}/seed1"
    assert copy.calls == [command(folder, config=config, dataset=dataset, shots=str(shots))]


def test_other_domains(copy):
    """What xd_test loads is what xd_train made; the domains of the embedded benchmark know their source."""
    done = copy.run("scripts/coop/xd_test.sh", "shapes_a", 1)
    model = f"output/fewshot/shapes/shots_16/CoOp/{CFG}/seed1"
    assert done.stderr == (
        f"error: no finished training in {model}. Train first: SOURCE=shapes bash scripts/coop/xd_train.sh 1\n"
    )
    assert copy.run("scripts/coop/xd_train.sh", 1, SOURCE="shapes").returncode == 0
    done = copy.run("scripts/coop/xd_test.sh", "shapes_a", 1)
    assert done.returncode == 0, done.stderr
    folder = f"output/xd/shapes/shapes_a/shots_16/CoOp/{CFG}/seed1"
    flags = ("--eval-only", "--model-dir", model, "--load-epoch", "20")
    assert copy.calls == [command(model), command(folder, *flags, dataset="shapes_a")]
    assert f"== CoOp ({CFG}), all classes of shapes_a, trained on shapes, 16 shots, seed 1\n" in done.stdout


def test_imagenet_is_the_source_of_real_data_sets(copy):
    assert copy.run("scripts/coop/xd_train.sh", 3).returncode == 0
    assert copy.run("scripts/coop/xd_test.sh", "eurosat", 3).returncode == 0
    config = "vit_b16_ep50_ctxv1"
    model = f"output/fewshot/imagenet/shots_16/CoOp/{config}/seed3"
    folder = f"output/xd/imagenet/eurosat/shots_16/CoOp/{config}/seed3"
    flags = ("--eval-only", "--model-dir", model, "--load-epoch", "20")
    assert copy.calls == [
        command(model, config=config, dataset="imagenet", seed="3"),
        command(folder, *flags, config=config, dataset="eurosat", seed="3"),
    ]


def test_training_for_other_domains_is_the_few_shot_run(copy):
    assert copy.run("scripts/coop/xd_train.sh", 1, SOURCE="shapes").returncode == 0
    done = copy.run("scripts/coop/fewshot.sh", "shapes", 16, 1)
    assert "finished already" in done.stdout
    assert len(copy.calls) == 1


def test_zero_shot(copy):
    done = copy.run("scripts/zsclip/zeroshot.sh", "shapes_a")
    assert done.stdout.startswith("== ZeroshotCLIP (mini_vit8), all classes of shapes_a, seed 1\n")
    folder = "output/zeroshot/shapes_a/ZeroshotCLIP/mini_vit8/seed1"
    assert copy.calls == [
        command(folder, "--eval-only", trainer="ZeroshotCLIP", config="mini_vit8", dataset="shapes_a")
    ]


@pytest.mark.parametrize(
    ("script", "argv", "message"),
    [
        ("coop/fewshot", ["shapes", "16"], "expected DATASET SHOTS SEED, got shapes 16"),
        ("coop/fewshot", ["shapes", "few", "1"], "SHOTS must be a number of images a class, got 'few'"),
        ("coop/xd_train", [], "expected SEED, got nothing"),
        ("coop/xd_train", ["shapes", "1"], "SEED must be 0, 1, 2, ..., got 'shapes'"),
        ("coop/xd_test", ["shapes_b", "1"], "unknown data set 'shapes_b'; there are: eurosat imagenet shapes shapes_a"),
        ("coop/xd_test", ["shapes", "1"], "shapes is what is trained on; its own result is in the training run"),
        ("zsclip/zeroshot", ["shapes", "OPTIM.LR"], "expected pairs KEY VALUE after DATASET, got: OPTIM.LR"),
    ],
)
def test_wrong_arguments(copy, script, argv, message):
    done = copy.run(f"scripts/{script}.sh", *argv)
    assert (done.returncode, done.stdout, copy.calls) == (2, "", [])
    assert done.stderr.startswith(f"error: {message}\n\n")
    assert f"Usage: bash scripts/{script}.sh " in done.stderr


def test_another_host(copy):
    """The config around a host has a folder of its own; what has none is refused."""
    assert copy.run("scripts/spotlighter/base2new_train.sh", "shapes", 1, HOST="MaPLe").returncode == 0
    config = "mini_vit8_ep5_maple_paper"
    assert copy.calls[0][copy.calls[0].index("--config-file") + 1] == f"configs/trainers/Spotlighter/{config}.yaml"
    assert f"/Spotlighter/{config}/" in copy.calls[0][copy.calls[0].index("--output-dir") + 1]
    done = copy.run("scripts/spotlighter/base2new_test.sh", "shapes", 2, HOST="MaPLe")
    assert "Train first: HOST=MaPLe bash scripts/spotlighter/base2new_train.sh shapes 2\n" in done.stderr
    done = copy.run("scripts/spotlighter/base2new_train.sh", "shapes", 1, HOST="VPT")
    assert "error: Spotlighter has no scripts around VPT; HOST can be: CoCoOp MaPLe" in done.stderr
    done = copy.run("scripts/coop/base2new_train.sh", "shapes", 1, HOST="VPT")
    assert done.stderr == "error: CoOp has no scripts around VPT; it takes no HOST\n"


def test_unknown_source(copy):
    done = copy.run("scripts/coop/xd_train.sh", 1, SOURCE="imagenet21k")
    assert (done.returncode, copy.calls) == (1, [])
    assert "error: unknown data set 'imagenet21k'; there are: eurosat" in done.stderr


# ---- the methods' files, and runs as other tools see them


@pytest.mark.parametrize("folder", method_folders())
def test_methods_name_what_exists(folder):
    files = method_files(folder)
    protocols = [files.configs, *files.hosts.values()]
    configs = {config for keys in protocols for patterns in keys.values() for config in patterns.values()}
    there = {path.stem for path in (ROOT / "configs/trainers" / files.trainer).glob("*.yaml")}
    assert configs <= there
    assert {key for keys in protocols for key in keys} <= {protocol.configs for protocol in PROTOCOLS.values()}
    for host, keys in files.hosts.items():
        for config in {config for patterns in keys.values() for config in patterns.values()}:
            tree = yaml.safe_load((ROOT / f"configs/trainers/{files.trainer}/{config}.yaml").read_text())
            assert tree["TRAINER"][files.trainer.upper()]["HOST"] == host
    for path in (ROOT / "scripts" / folder).glob("*.sh"):
        if path.stem in PROTOCOLS:
            key = PROTOCOLS[path.stem].configs
            if files.transfers:
                assert files.config(key, "eurosat", 16)
            assert f"\nprotocol {path.stem} " in path.read_text()
            assert path.read_text().startswith("#!/usr/bin/env bash\n# ")


def test_a_method_that_knows_its_own_classes_only(copy):
    said = "error: LinearProbe can only tell the classes that it was trained on, so there is no {} of it; what it gives"
    said += " are base2new_train (base classes) and fewshot (all classes)\n"
    for protocol, dataset in (("base2new_test", "shapes"), ("xd_test", "shapes_a")):
        done = copy.run(f"scripts/linear_probe/{protocol}.sh", dataset, 1)
        assert (done.returncode, done.stderr, copy.calls) == (1, said.format(protocol), [])
    with pytest.raises(ProtocolError, match="so there is no xd_train of it"):
        Run("xd_train", "linear_probe", "", source="shapes").resolved()
    assert transfers("CoOp")
    assert transfers("Unknown")
    assert not transfers("LinearProbe")


def test_shell_lines_name_what_is_not_the_default():
    def line(*args, **changes):
        return Run(*args, **changes).resolved().shell_line()

    assert line("base2new_train", "coop", "shapes", 2) == "bash scripts/coop/base2new_train.sh shapes 2"
    assert line("fewshot", "coop", "dtd", 1, 4) == "bash scripts/coop/fewshot.sh dtd 4 1"
    assert line("xd_train", "coop", "", 1, source="shapes") == "SOURCE=shapes bash scripts/coop/xd_train.sh 1"
    assert line("xd_train", "coop", "", 1) == "bash scripts/coop/xd_train.sh 1"
    assert line("xd_test", "coop", "shapes_r", 1) == "bash scripts/coop/xd_test.sh shapes_r 1"
    assert line("zeroshot", "zsclip", "dtd") == "bash scripts/zsclip/zeroshot.sh dtd"
    changed = {"config": "vit_b16_ep100", "output": "my runs", "options": ("OPTIM.LR", "0.1")}
    assert line("base2new_test", "coop", "dtd", 1, 4, **changed) == (
        "CFG=vit_b16_ep100 SHOTS=4 OUTPUT='my runs' bash scripts/coop/base2new_test.sh dtd 1 OPTIM.LR 0.1"
    )


def test_training_and_testing_agree_on_the_folder():
    for protocol, of in PROTOCOLS.items():
        if of.after:
            test = Run(protocol, "coop", "shapes_a", 3, 8).resolved()
            again = test.model.resolved()
            assert again == test.model
            assert again.trains
            assert not test.trains


def test_what_a_method_lacks(tmp_path, capsys):
    with pytest.raises(ProtocolError, match=r"No method 'cooop'; there are: .*coop .*spotlighter .*zsclip"):
        Run("fewshot", "cooop", "shapes").resolved()
    with pytest.raises(ProtocolError, match=r"No protocol 'few'; there are: base2new_train"):
        Run("few", "coop", "shapes").resolved()
    with pytest.raises(ProtocolError, match=r"scripts/zsclip/method.yaml names no config for fewshot on shapes"):
        Run("fewshot", "zsclip", "shapes").resolved()
    (tmp_path / "scripts/odd").mkdir(parents=True)
    (tmp_path / "scripts/odd/method.yaml").write_text(yaml.safe_dump({"trainer": "Odd"}))
    with pytest.raises(ProtocolError, match=r"odd/method.yaml must name trainer and configs"):
        method_files("odd", tmp_path)
    assert main(["coop", "base2new", "imagenet", "16"]) == 0
    assert capsys.readouterr().out == "vit_b16_ep50_ctxv1\n"
    assert main(["coop", "zeroshot", "imagenet", "16"]) == 1
    assert "error: scripts/coop/method.yaml names no config for zeroshot" in capsys.readouterr().err
