"""scripts/promptkd/*.sh: the teacher's training, what the student learns from, and who is tested where."""

import pytest

from tools.protocols import ROOT, ProtocolError, method_files

TAIL = "shots_16/{}/{}/seed{}"
TEACHER = f"shapes/{TAIL.format('PromptSRC', 'mini_vit8_l_ep10', 1)}"
STUDENT = "shapes/shots_16/PromptKD/mini_vit8_ep6/seed2"
KEY = "TRAINER.PROMPTKD.TEACHER_DIR"


def command(folder, *flags, trainer, config, dataset="shapes", seed="1", classes="base", extra=()):
    return [
        *("--root", "data", "--seed", seed, "--trainer", trainer),
        *("--dataset-config-file", f"configs/datasets/{dataset}.yaml"),
        *("--config-file", f"configs/trainers/{trainer}/{config}.yaml", "--output-dir", folder, *flags),
        *("DATASET.NUM_SHOTS", "16", "DATASET.SUBSAMPLE_CLASSES", classes, *extra),
    ]


@pytest.fixture
def copy(copy):
    """With the configs that these scripts choose."""
    for name in (
        *("PromptKD/mini_vit8_ep6", "PromptKD/vit_b16_ep20", "PromptKD/vit_b16_ep20_kd200", "PromptKD/vit_b16_ep20_xd"),
        *("PromptSRC/mini_vit8_l_ep10", "PromptSRC/vit_l14_ep20_bs8"),
    ):
        path = copy.root / "configs" / "trainers" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    teacher = copy.root / "scripts" / "promptsrc"
    teacher.mkdir(exist_ok=True)
    (teacher / "method.yaml").write_text(
        "trainer: PromptSRC\nconfigs: {base2new: {'*': vit_l14_ep20_bs8}, xd: {'*': vit_l14_ep20_bs8}}\n"
    )
    return copy


def test_teacher_then_student_then_new_classes(copy):
    missing = copy.run("scripts/promptkd/base2new_train.sh", "shapes", 2)
    teacher = f"output/base2new/train_base/{TEACHER}"
    assert missing.stderr == (
        f"error: no finished teacher in {teacher}. Train it first: "
        "CFG=mini_vit8_l_ep10 bash scripts/promptsrc/base2new_train.sh shapes 1\n"
    )
    assert copy.run("scripts/promptkd/train_teacher.sh", "shapes", 1).returncode == 0
    for which in ("train", "test"):
        done = copy.run(f"scripts/promptkd/base2new_{which}.sh", "shapes", 2)
        assert done.returncode == 0, done.stderr
    trained, tested = f"output/base2new/train_base/{STUDENT}", f"output/base2new/test_new/{STUDENT}"
    about = {"trainer": "PromptKD", "config": "mini_vit8_ep6", "seed": "2", "extra": (KEY, teacher)}
    model = ("--eval-only", "--model-dir", trained, "--load-epoch", "20")
    assert copy.calls == [
        command(teacher, trainer="PromptSRC", config="mini_vit8_l_ep10"),
        command(trained, **about),
        command(tested, *model, classes="new", **about),
    ]


def test_another_teacher_is_another_run(copy):
    for seed in (1, 3):
        assert copy.run("scripts/promptkd/train_teacher.sh", "shapes", seed).returncode == 0
    assert (
        copy.run("scripts/promptkd/base2new_train.sh", "shapes", 2, TEACHER_SEED="3", OUTPUT="output").returncode == 0
    )
    teacher = TEACHER.replace("seed1", "seed3")
    assert copy.calls[-1][-2:] == [KEY, f"output/base2new/train_base/{teacher}"]
    again = copy.run("scripts/promptkd/base2new_train.sh", "shapes", 2)
    assert again.returncode == 3
    assert f"with another config ({KEY}: not in the run's config)" in again.stderr
    wrong = copy.run("scripts/promptkd/base2new_train.sh", "shapes", 2, TEACHER_SEED="x")
    assert "error: TEACHER_SEED must be 0, 1, 2, ..., got 'x'" in wrong.stderr


def test_a_teacher_that_is_typed_counts(copy):
    assert copy.run("scripts/promptkd/base2new_train.sh", "shapes", 2, KEY, "model.pth.tar").returncode == 0
    assert copy.calls[0][-2:] == [KEY, "model.pth.tar"]


@pytest.mark.parametrize(
    ("dataset", "config"), [("eurosat", "vit_b16_ep20"), ("imagenet", "vit_b16_ep20"), ("dtd", "vit_b16_ep20_kd200")]
)
def test_the_published_weight_of_each_data_set(copy, dataset, config):
    (copy.root / "configs" / "datasets" / f"{dataset}.yaml").touch()
    assert copy.run("scripts/promptkd/train_teacher.sh", dataset, 1).returncode == 0
    assert copy.run("scripts/promptkd/base2new_train.sh", dataset, 1).returncode == 0
    teacher, student = copy.calls
    assert "configs/trainers/PromptSRC/vit_l14_ep20_bs8.yaml" in teacher
    assert f"configs/trainers/PromptKD/{config}.yaml" in student


def test_other_data_sets_are_learned_on_themselves(copy):
    done = copy.run("scripts/promptkd/train_teacher.sh", "imagenet", 1, FOR="xd")
    assert done.returncode == 0, done.stderr
    done = copy.run("scripts/promptkd/xd_test.sh", "eurosat", 3)
    assert done.returncode == 0, done.stderr
    teacher = f"output/fewshot/imagenet/{TAIL.format('PromptSRC', 'vit_l14_ep20_bs8', 1)}"
    student = f"output/xd/imagenet/eurosat/{TAIL.format('PromptKD', 'vit_b16_ep20_xd', 3)}"
    about = {"trainer": "PromptKD", "config": "vit_b16_ep20_xd", "dataset": "eurosat", "seed": "3"}
    assert copy.calls == [
        command(teacher, trainer="PromptSRC", config="vit_l14_ep20_bs8", dataset="imagenet", classes="all"),
        command(student, classes="all", extra=(KEY, teacher), **about),
    ]
    assert "== PromptKD (vit_b16_ep20_xd), all classes of eurosat, trained on imagenet, 16 shots, seed 3" in done.stdout


def test_help_and_mistakes_of_the_teachers_script(copy):
    done = copy.run("scripts/promptkd/train_teacher.sh", "--help")
    assert done.returncode == 0
    assert "train_teacher.sh DATASET SEED" in done.stdout
    assert copy.run("scripts/promptkd/train_teacher.sh", "shapes").returncode == 2
    done = copy.run("scripts/promptkd/train_teacher.sh", "shapes", 1, FOR="few")
    assert (done.returncode, done.stderr) == (1, "error: FOR must be base2new or xd, got 'few'.\n")


def test_the_teachers_configs_exist():
    teacher = method_files("promptkd").teacher
    configs = {config for patterns in teacher.configs.values() for config in patterns.values()}
    assert configs <= {path.stem for path in (ROOT / "configs/trainers/PromptSRC").glob("*.yaml")}
    with pytest.raises(ProtocolError, match=r"promptkd/method.yaml names no teacher's config for fewshot on dtd"):
        method_files("promptkd").teacher_config("fewshot", "dtd", 16)
