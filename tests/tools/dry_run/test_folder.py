"""What a dry run says of the output folder is what the command then does."""

import json

import pytest
import torch

from tests.tools.dry_run.conftest import files_below

BASE = ("DATASET.SUBSAMPLE_CLASSES", "base", "TRAINER.COOP.N_CTX", "2")


def folder_lines(found):
    """What the folder holds, and what the command does."""
    (lines,) = [dict(lines) for title, lines in found.items() if title.startswith("Output folder")]
    return lines["holds"], lines["the command"]


def steps(found):
    """What the estimate counts."""
    (lines,) = [dict(lines) for title, lines in found.items() if title.startswith("Estimate")]
    return lines["training"].split(" for ")[1]


def test_a_finished_run_is_skipped(dry, run_trainer, tmp_path):
    assert run_trainer(*BASE)[0] == 0
    before = files_below(tmp_path)
    code, found, _, _ = dry(*BASE)
    assert code == 0
    assert folder_lines(found) == ("a finished training run", "skips it; delete the folder to train again")
    assert files_below(tmp_path) == before
    code, out, _ = run_trainer(*BASE)
    assert code == 0
    assert "is finished" in out


def test_a_finished_run_of_another_config_is_refused(dry, run_trainer):
    assert run_trainer(*BASE)[0] == 0
    code, found, _, err = dry(*BASE, "OPTIM.LR", "0.3")
    assert code == 1
    assert folder_lines(found) == ("a finished training run", "refuses to start")
    assert "Error: " in err
    assert "OPTIM.LR was 0.1, is 0.3" in err
    assert "OPTIM.LR was 0.1, is 0.3" in run_trainer(*BASE, "OPTIM.LR", "0.3")[2]


def test_an_interrupted_run_goes_on(dry, interrupted, run_trainer, tmp_path):
    interrupted(*BASE, step=4)
    before = files_below(tmp_path)
    code, found, _, _ = dry(*BASE)
    assert code == 0
    path = tmp_path / "run" / "resume.pth.tar"
    assert folder_lines(found) == (
        "an unfinished training run",
        f"goes on from {path}: 1 epoch and 2 batches done",
    )
    assert steps(found) == "1 step"
    assert files_below(tmp_path) == before
    assert f"Resuming from {path}: epoch 2, 2 batches of it done" in run_trainer(*BASE)[1]


def test_an_interrupted_run_of_another_config_is_refused(refused, interrupted):
    interrupted(*BASE, step=4)
    assert "OPTIM.LR was 0.1, is 0.3" in refused(*BASE, "OPTIM.LR", "0.3")


def test_a_damaged_resume_file_is_refused(refused, interrupted, tmp_path):
    interrupted(*BASE, step=4)
    path = tmp_path / "run" / "resume.pth.tar"
    path.write_bytes(path.read_bytes()[:100])
    assert str(path) in refused(*BASE)


def test_a_resume_file_of_other_images_is_refused(refused, interrupted, tmp_path):
    interrupted(*BASE, step=4)
    path = tmp_path / "run" / "resume.pth.tar"
    state = torch.load(path, weights_only=True)
    torch.save({**state, "train_digest": "0" * 16}, path)
    assert "The training images are not those" in refused(*BASE)


def test_a_run_without_resume_file_goes_on_from_its_models(dry, run_trainer, tmp_path):
    assert run_trainer(*BASE, "TRAIN.CHECKPOINT_FREQ", "1")[0] == 0
    record = tmp_path / "run" / "metrics.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "finished": False}))
    model = tmp_path / "run" / "prompt_learner" / "model.pth.tar-1"
    (model.parent / "model.pth.tar-2").unlink()
    (model.parent / "checkpoint").write_text(model.name + "\n")
    code, found, _, _ = dry(*BASE)
    assert code == 0
    assert folder_lines(found) == ("an unfinished training run", f"goes on from {model}: 1 epoch done")
    assert steps(found) == "3 steps"
    code, found, _, err = dry(*BASE, "OPTIM.LR", "0.3")
    assert code == 1
    assert "OPTIM.LR was 0.1, is 0.3" in err


def test_resume_names_the_start(dry, refused, interrupted, tmp_path):
    interrupted(*BASE, step=4, output="first")
    code, found, _, _ = dry(*BASE, "RESUME", str(tmp_path / "first"))
    assert code == 0
    start = tmp_path / "first" / "resume.pth.tar"
    assert folder_lines(found)[1] == f"goes on from {start}: 1 epoch and 2 batches done"
    nowhere = tmp_path / "nowhere"
    assert refused(*BASE, "RESUME", str(nowhere)).startswith(f"RESUME is {nowhere}, but there is no such folder")


def test_a_folder_that_cannot_be_written(refused, tmp_path):
    (tmp_path / "file").write_text("")
    expected = f"OUTPUT_DIR is {tmp_path / 'file/run'}, but {tmp_path / 'file'} is no folder; choose a folder that you "
    assert refused(*BASE, output="file/run") == expected + "may write to."


def test_a_folder_without_permission(refused, monkeypatch, tmp_path):
    monkeypatch.setattr("tools.dry_run.folder.os.access", lambda place, mode: False)
    assert f"but {tmp_path} cannot be written; choose a folder" in refused(*BASE)


@pytest.mark.parametrize(
    ("content", "holds"),
    [({}, "nothing"), ({"job.json": "{}"}, "nothing"), ({"log.txt": "a line"}, "an unfinished run")],
)
def test_folders_without_a_record(dry, tmp_path, content, holds):
    (tmp_path / "run").mkdir()
    for name, text in content.items():
        (tmp_path / "run" / name).write_text(text)
    assert folder_lines(dry(*BASE)[1]) == (holds, "trains from the beginning")


def test_evaluations(dry, run_trainer, refused, tmp_path):
    assert run_trainer(*BASE)[0] == 0
    flags = ("--eval-only", "--model-dir", str(tmp_path / "run"), "--load-epoch", "2")
    found = dry(*BASE, flags=flags)[1]
    does = "tests, and writes metrics-eval.json beside the training run's metrics.json"
    assert folder_lines(found) == ("a finished training run", does)
    assert run_trainer(*BASE, flags=flags, output="eval")[0] == 0
    found = dry(*BASE, flags=flags, output="eval")[1]
    assert folder_lines(found) == ("a finished test", "tests, and replaces metrics.json")
    (tmp_path / "file").write_text("")
    assert "is no folder" in refused(*BASE, flags=flags, output="file/run")
