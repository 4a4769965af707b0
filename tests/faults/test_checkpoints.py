"""Whole runs that meet files which are damaged, foreign or hostile, another config, or other classes."""

import io
import os
import pickle
import zipfile

import pytest
import torch

from dassl.data.datasets import DATASET_REGISTRY

EPOCHS = 2


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.fixture
def trained(run_trainer):
    """A run folder that was trained, with the model of each epoch."""
    assert run_trainer("TRAIN.CHECKPOINT_FREQ", "1", output="trained")[0] == 0
    return "trained"


@pytest.fixture
def interrupted(trainer_of, tmp_path):
    """The folder `run` of a run that was stopped in its second epoch."""
    trainer = trainer_of()
    step = trainer.forward_backward

    def stop(batch):
        if (trainer.epoch, trainer.batch_idx) == (1, 2):
            os.kill(os.getpid(), 15)
        return step(batch)

    trainer.forward_backward = stop
    with pytest.raises(SystemExit):
        trainer.train()
    return tmp_path / "run" / "resume.pth.tar"


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        inner = next(info for info in archive.infolist() if info.filename.endswith("data.pkl"))
    content[inner.header_offset + 150] ^= 0xFF
    path.write_bytes(content)


def foreign(path):
    torch.save({"weights": [1, 2], "iteration": 7}, path)


def text(path):
    path.write_text("version https://example.org/lfs\n")


def nothing(path):
    path.write_bytes(b"")


DAMAGES = [cut, flip, foreign, text, nothing]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
def test_a_damaged_resume_file_and_model_are_refused_and_stay(run_trainer, interrupted, trained, tmp_path, damage):
    model = tmp_path / trained / "prompt_learner" / f"model.pth.tar-{EPOCHS}"
    tests = ("--eval-only", "--model-dir", str(tmp_path / trained), "--load-epoch", str(EPOCHS))
    for path, run in (
        (interrupted, lambda: run_trainer()),
        (model, lambda: run_trainer(output="test", flags=tests)),
    ):
        damage(path)
        content = path.read_bytes()
        code, _, err = run()
        assert code == 1
        assert err.startswith(f"Error: {path} ")
        assert err.count("\n") == 1
        advice = "check the path" if (damage, path) == (foreign, model) else "delete it"
        assert advice in err
        assert path.read_bytes() == content


def hostile_files(path, mark):
    """The ways in which code gets into a file that torch reads."""
    torch.save({"state_dict": {}, "epoch": 2, "optimizer": Hostile(mark)}, path)
    yield "zip"
    torch.save({"state_dict": Hostile(mark)}, path, _use_new_zipfile_serialization=False)
    yield "before zip"
    path.write_bytes(pickle.dumps(Hostile(mark)))
    yield "plain pickle"
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Hostile(mark), protocol=2))
        archive.writestr("archive/version", "3\n")
    path.write_bytes(inner.getvalue())
    yield "a zip by hand"


def test_no_file_that_a_run_reads_runs_code(run_trainer, interrupted, trained, tmp_path):
    """Resume file, model, best model, initial weights, backbone: all refused with a sentence, none unpickled."""
    mark = tmp_path / "code ran"
    folder = tmp_path / trained / "prompt_learner"
    test = ("--eval-only", "--model-dir", str(tmp_path / trained))
    runs = {
        interrupted: lambda: run_trainer(),
        folder / f"model.pth.tar-{EPOCHS}": lambda: run_trainer(flags=(*test, "--load-epoch", "2"), output="t"),
        folder / "model-best.pth.tar": lambda: run_trainer(flags=test, output="t"),
        tmp_path / "begin": lambda: run_trainer("MODEL.INIT_WEIGHTS", str(tmp_path / "begin"), output="t"),
        tmp_path / "clip.pt": lambda: run_trainer("MODEL.BACKBONE.NAME", str(tmp_path / "clip.pt"), output="t"),
    }
    for path, run in runs.items():
        for kind in hostile_files(path, str(mark)):
            code, _, err = run()
            assert code == 1, (path, kind)
            assert err.startswith("Error: "), err
            assert str(path) in err
            assert err.count("\n") == 1, err
            assert not mark.exists(), (path, kind)


def test_another_config_is_refused_with_both_values_and_nothing_is_touched(run_trainer, interrupted, tmp_path):
    before = interrupted.read_bytes()
    code, _, err = run_trainer("OPTIM.LR", "0.2")
    assert (code, err) == (
        1,
        f"Error: The run in {tmp_path}/run was started with another config (OPTIM.LR was 0.1, is 0.2); start with the "
        "earlier values, delete that folder, or choose another OUTPUT_DIR.\n",
    )
    assert interrupted.read_bytes() == before
    assert run_trainer()[0] == 0


@pytest.fixture
def other_classes(monkeypatch):
    """Somebody edits the list of class names: the second class is called otherwise."""
    toy = DATASET_REGISTRY.get("Toy")
    begin = toy.__init__

    def edit():
        def other(self, cfg):
            begin(self, cfg)
            for item in [*self.train_x, *self.val, *self.test]:
                item._classname = item.classname.replace("green_square", "teal square")
            self._lab2cname = {k: v.replace("green_square", "teal square") for k, v in self._lab2cname.items()}
            self._classnames = [name.replace("green_square", "teal square") for name in self._classnames]

        monkeypatch.setattr(toy, "__init__", other)

    return edit


def test_other_classes_are_refused_on_resumption(run_trainer, interrupted, other_classes):
    other_classes()
    code, _, err = run_trainer()
    assert (code, err) == (
        1,
        f"Error: {interrupted} was made with other class_names ('green_square' then, 'teal square' now); restore what "
        "the run began with, or choose another OUTPUT_DIR.\n",
    )


def test_other_classes_are_refused_in_a_test_where_what_is_trained_belongs_to_them(
    run_trainer, other_classes, tmp_path
):
    csc = {"shared": ("TRAINER.COOP.CSC", "False"), "a context each": ("TRAINER.COOP.CSC", "True")}
    for name, opts in csc.items():
        assert run_trainer(*opts, output=name)[0] == 0
    other_classes()
    told = {}
    for name, opts in csc.items():
        flags = ("--eval-only", "--model-dir", str(tmp_path / name), "--load-epoch", str(EPOCHS))
        code, _, told[name] = run_trainer(*opts, output=f"{name} test", flags=flags)
        assert code == (1 if told[name] else 0)
    path = tmp_path / "a context each" / "prompt_learner" / f"model.pth.tar-{EPOCHS}"
    assert told == {
        "shared": "",
        "a context each": f"Error: {path} was trained on other classes (4, from 'red square' to 'yellow square "
        "(large)'), and what CoOp trains here belongs to its classes; test it on the same ones, in their order.\n",
    }


@pytest.mark.parametrize("facts", [{"class_names": 3}, {"class_names": [1]}, {"options": [1]}])
def test_facts_that_no_run_writes_are_refused(trainer_of, trained, tmp_path, facts):
    path = tmp_path / trained / "prompt_learner" / f"model.pth.tar-{EPOCHS}"
    checkpoint = torch.load(path)
    checkpoint["made_with"] |= facts
    torch.save(checkpoint, path)
    with pytest.raises(RuntimeError, match=r"what it says of its making \(made_with\) is none of ours; train again\.$"):
        trainer_of(output="test").load_model(str(tmp_path / trained), epoch=EPOCHS)
