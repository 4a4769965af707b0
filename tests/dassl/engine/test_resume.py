"""An interrupted run, resumed, ends as the uninterrupted one does: bit for bit."""

import os
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from dassl.engine import resume
from dassl.engine.resume import FREE_KEYS, refuse_other_config, rng_state, set_rng_state

SETTINGS = {
    "sgd, last step": {},
    "adamw, best validation": {
        "OPTIM__NAME": "adamw",
        "OPTIM__LR": 0.01,
        "TEST__FINAL_MODEL": "best_val",
        "TRAIN__CHECKPOINT_FREQ": 2,
    },
    "two loaders": {"TRAINER__NAME": "LinearXU", "TRAIN__COUNT_ITER": "train_x", "DATALOADER__TRAIN_U__BATCH_SIZE": 6},
}
STEPS = 12  # 4 epochs of 3


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("every_step", [False, True], ids=["saved per epoch", "saved per step"])
def test_resumes_exactly_after_an_interruption_in_any_step(make, killed, outcome, same, name, every_step):
    settings = SETTINGS[name]
    settings = {**settings, "TRAIN__CHECKPOINT_SECONDS": 1e-9 if every_step else 0}
    whole = make("whole", **settings)
    whole.train()
    expected = outcome(whole, "whole")
    for step in range(STEPS) if name == "sgd, last step" and every_step else (1, 6, 11):
        killed(make(f"cut{step}", **settings), step)
        again = make(f"cut{step}", **settings)
        again.train()
        # nothing is lost when every step is saved; else the epoch is repeated
        assert again.steps == STEPS - (step if every_step else step // 3 * 3)
        same(outcome(again, f"cut{step}"), expected, f"step {step}")


def test_resumes_exactly_after_interruptions_in_every_epoch_of_one_run(make, killed, outcome, same):
    whole = make("whole", TRAIN__CHECKPOINT_SECONDS=1e-9)
    whole.train()
    expected = outcome(whole, "whole")
    lrs = []
    for step in (2, 2, 4, 1):  # counted anew by each process
        trainer = make(TRAIN__CHECKPOINT_SECONDS=1e-9)
        killed(trainer, step)
        lrs += trainer.lrs
    trainer = make(TRAIN__CHECKPOINT_SECONDS=1e-9)
    trainer.train()
    same(outcome(trainer), expected)
    assert lrs + trainer.lrs == whole.lrs


@pytest.mark.parametrize("epoch", range(4))
def test_learning_rates_stay_alive_after_an_interruption_at_every_epoch(make, killed, epoch):
    whole = make("whole")
    whole.train()
    first = make()
    killed(first, 3 * epoch)
    second = make()
    second.train()
    assert first.lrs + second.lrs == whole.lrs
    assert len(set(whole.lrs)) == 4


def test_a_loader_of_another_make_is_resumed_by_drawing_its_batches_again(make, killed, outcome, same):
    def foreign(output):
        trainer = make(output, TRAIN__CHECKPOINT_SECONDS=1e-9, INPUT__TRANSFORMS=("normalize",))
        data = trainer.train_loader_x.dataset
        trainer.train_loader_x = torch.utils.data.DataLoader(data, batch_size=5, shuffle=True)
        return trainer

    whole = foreign("whole")
    whole.train()
    expected = outcome(whole, "whole")
    for step in (1, 3, 5):
        killed(foreign(f"cut{step}"), step)
        again = foreign(f"cut{step}")
        again.train()
        same(outcome(again, f"cut{step}"), expected)


def test_a_validation_that_was_interrupted_is_repeated(make, outcome, same, monkeypatch):
    """From the generators' states before it: here the test draws from them, too."""

    def build(output="run", stop=False):
        trainer = make(output, TEST__FINAL_MODEL="best_val", OPTIM__LR=0.01)

        def infer(input):
            if stop and trainer.epoch == 1:
                os.kill(os.getpid(), 15)
            return trainer.model(input) + torch.rand(3)

        monkeypatch.setattr(trainer, "model_inference", infer)
        return trainer

    whole = build("whole")
    whole.train()
    expected = outcome(whole, "whole")
    with pytest.raises(SystemExit) as stopped:
        build(stop=True).train()
    assert stopped.value.code == 143
    again = build()
    again.train()
    assert again.steps == 6
    same(outcome(again), expected)


def test_generators_are_restored():
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    np.random.standard_normal()  # leaves a second number in store
    state = rng_state()

    def draw():
        return random.random(), np.random.standard_normal(3).tolist(), torch.rand(3).tolist()

    expected = draw()
    draw()
    set_rng_state(state)
    assert draw() == expected


def test_the_resume_file_is_plain_data_and_gone_when_the_run_is_finished(make, killed, tmp_path):
    killed(make(), 7)
    state = torch.load(tmp_path / "run/resume.pth.tar", weights_only=True)
    assert (state["epoch"], state["batch"]) == (2, 0)
    assert set(state["models"]) == {"linear"}
    make().train()
    assert not (tmp_path / "run/resume.pth.tar").exists()


def test_another_config_is_refused_with_both_values(make, killed):
    killed(make(), 7)
    with pytest.raises(ValueError, match=r"OPTIM.LR was 0.1, is 0.2; OPTIM.MAX_EPOCH was 4, is 9\); start with"):
        make(OPTIM__LR=0.2, OPTIM__MAX_EPOCH=9).train()


def test_keys_that_do_not_change_the_run_may_change(make, killed, tmp_path):
    killed(make(), 7)
    trainer = make(
        TRAIN__PRINT_FREQ=1, TRAIN__CHECKPOINT_FREQ=1, TRAIN__CHECKPOINT_SECONDS=1e-9, VERBOSE=True, USE_CUDA=False
    )
    trainer.train()
    assert trainer.steps == 6


def test_the_free_keys_exist_and_all_others_count(make):
    cfg = make().cfg
    tree = resume.plain(cfg)
    flat = resume._flat(tree)
    assert set(flat) >= FREE_KEYS
    for key in flat:
        changed = node = resume.plain(cfg)
        *nodes, leaf = key.split(".")
        for name in nodes:
            node = node[name]
        node[leaf] = "another value"
        if key in FREE_KEYS:
            refuse_other_config(changed, cfg, Path("run/resume.pth.tar"))
        else:
            with pytest.raises(ValueError, match=re.escape(key)):
                refuse_other_config(changed, cfg, Path("run/resume.pth.tar"))


def test_other_training_images_are_refused(make, killed):
    killed(make(), 7)
    trainer = make()
    trainer.dm.dataset.train_x.reverse()
    with pytest.raises(RuntimeError, match=r"The training images are not those that .*resume.pth.tar was made with"):
        trainer.train()


def test_other_models_are_refused(make, killed):
    killed(make(), 7)
    trainer = make()
    trainer.register_model("second", torch.nn.Linear(1, 1))
    with pytest.raises(RuntimeError, match=r"holds the models \['linear'\], this trainer registers"):
        trainer.train()


def test_a_truncated_resume_file_is_named_with_what_to_do(make, killed, tmp_path):
    killed(make(), 7)
    path = tmp_path / "run/resume.pth.tar"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(
        RuntimeError, match=r"run/resume.pth.tar is damaged .*; delete it and continue from an older one"
    ):
        make().train()


def test_a_file_of_another_format_is_refused(make, killed, tmp_path):
    killed(make(), 7)
    path = tmp_path / "run/resume.pth.tar"
    torch.save({"format": 0}, path)
    with pytest.raises(RuntimeError, match=r"resume.pth.tar is not a resume file of format 1 \(found 0\); delete it"):
        make().train()


WRONG = {
    "found a list": lambda state: [1],
    "it has no rng": lambda state: {k: v for k, v in state.items() if k != "rng"},
    "its epoch is a str": lambda state: state | {"epoch": "x"},
    "it counts no epochs and batches": lambda state: state | {"batch": -1},
    "its config or made_with is no plain data": lambda state: state | {"made_with": {"a": torch.zeros(2)}},
    "its models are no state dicts": lambda state: state | {"models": {"linear": 3}},
    "its loaders are no positions": lambda state: state | {"loaders": {"train_loader_x": {"seed": 1}}},
    "its record is none": lambda state: state | {"record": {"epochs": []}},
    "its rng_epoch sets no generator": lambda state: state | {"rng_epoch": {"python": 1}},
    "its progress is none": lambda state: state | {"progress": {"images": 3}},
}


@pytest.mark.parametrize("words", WRONG)
def test_a_resume_file_of_another_form_is_refused(make, killed, tmp_path, words):
    killed(make(TRAIN__CHECKPOINT_SECONDS=1e-9), 7)
    path = tmp_path / "run/resume.pth.tar"
    torch.save(WRONG[words](torch.load(path)), path)
    with pytest.raises(RuntimeError, match=rf"is not a resume file of format 1 \({words}\); delete it to continue"):
        make().train()


def test_a_state_that_does_not_fit_is_refused_before_a_step(make, killed, tmp_path):
    killed(make(), 7)
    path = tmp_path / "run/resume.pth.tar"
    state = torch.load(path)
    del state["optimizers"]["linear"]["param_groups"][0]["lr"]
    torch.save(state, path)
    trainer = make()
    with pytest.raises(
        RuntimeError,
        match=r"Cannot continue from .*/resume.pth.tar \(a step with .* fails, KeyError: 'lr'\); delete it",
    ):
        trainer.train()
    assert trainer.steps == 0


def test_without_resume_file_the_last_saved_model_is_continued_with_record_and_best_result(
    make, killed, tmp_path, record_of, capsys
):
    settings = {"TRAIN__CHECKPOINT_FREQ": 1, "TEST__FINAL_MODEL": "best_val"}
    killed(make(**settings), 7)
    (tmp_path / "run/resume.pth.tar").unlink()
    rows = record_of()["epochs"]
    trainer = make(**settings)
    trainer.interrupt = lambda step: None
    trainer.train()
    assert trainer.steps == 6
    assert "linear/model.pth.tar-2" in capsys.readouterr().out
    assert record_of()["epochs"][:2] == rows
    assert [row["epoch"] for row in record_of()["epochs"]] == [1, 2, 3, 4]
    assert trainer.best_result >= max(row["val"]["accuracy"] for row in rows)


@pytest.mark.parametrize("finished", [1, 2, 3])
def test_a_folder_of_dassl_063_resumes_with_a_live_learning_rate(make, tmp_path, finished):
    """Its scheduler state holds the pickled successor, with an optimiser inside."""
    whole = make("whole")
    whole.train()
    source = make("source")
    for _ in range(finished):
        source.optim.step()
        source.sched.step()
    scheduler = {key: value for key, value in vars(source.sched).items() if key != "optimizer"}
    state = {"state_dict": source.model.state_dict(), "epoch": finished, "optimizer": source.optim.state_dict()}
    folder = tmp_path / "old/linear"
    folder.mkdir(parents=True)
    torch.save({**state, "scheduler": scheduler, "val_result": None}, folder / f"model.pth.tar-{finished}")
    (folder / "checkpoint").write_text(f"model.pth.tar-{finished}\n")
    trainer = make(RESUME=str(tmp_path / "old"))
    trainer.train()
    assert trainer.lrs == whole.lrs[3 * finished :]
    assert len(set(trainer.lrs)) == 4 - finished


def test_entries_that_the_trainer_rebuilds_are_not_loaded(make, tmp_path):
    trainer = make(TRAIN__CHECKPOINT_FREQ=1)
    trainer.train()
    path = tmp_path / "run/linear/model.pth.tar-2"
    checkpoint = torch.load(path)
    checkpoint["state_dict"]["token_prefix"] = torch.zeros(5)
    torch.save(checkpoint, path)
    (tmp_path / "run/metrics.json").unlink()
    (path.parent / "checkpoint").write_text(path.name)
    for use in (lambda t: t.load_model(str(tmp_path / "run"), epoch=2), lambda t: t.train()):
        again = make(TRAIN__CHECKPOINT_FREQ=1)
        with pytest.raises(RuntimeError, match="token_prefix is only in the file"):
            use(again)
        again.rebuilt_on_load = ("token_prefix",)
        use(again)
    assert again.steps == 6


def test_facts_of_a_file_are_checked_before_it_is_used(make, killed, tmp_path):
    def with_facts(width):
        trainer = make(TRAIN__CHECKPOINT_FREQ=1)

        def check(facts, path):
            if facts != trainer.checkpoint_facts():
                raise RuntimeError(f"{path.name} was made with {facts}")

        trainer.checkpoint_facts, trainer.check_checkpoint_facts = lambda: {"width": width}, check
        return trainer

    killed(with_facts(7), 4)
    with pytest.raises(RuntimeError, match=r"resume.pth.tar was made with {'width': 7}"):
        with_facts(8).train()
    with pytest.raises(RuntimeError, match=r"model.pth.tar-1 was made with {'width': 7}"):
        with_facts(8).load_model(str(tmp_path / "run"), epoch=1)
    (tmp_path / "run/resume.pth.tar").unlink()
    with pytest.raises(RuntimeError, match=r"model.pth.tar-1 was made with {'width': 7}"):
        with_facts(8).train()
    with_facts(7).train()


def test_models_saved_at_different_epochs_continue_from_the_newest_that_all_have(make, killed, tmp_path):
    def pair():
        trainer = make(TRAIN__CHECKPOINT_FREQ=1)
        with torch.random.fork_rng():
            trainer.second = torch.nn.Linear(1, 1)
        trainer.register_model("second", trainer.second)
        return trainer

    killed(pair(), 10)
    (tmp_path / "run/resume.pth.tar").unlink()
    (tmp_path / "run/second/model.pth.tar-3").unlink()  # as if the power had failed between the two
    (tmp_path / "run/second/checkpoint").write_text("model.pth.tar-2")
    trainer = pair()
    killed(trainer, 3)
    assert trainer.epoch == 3
    (tmp_path / "run/resume.pth.tar").unlink()
    for name in ("model.pth.tar-1", "model.pth.tar-2"):
        (tmp_path / "run/second" / name).unlink()
    (tmp_path / "run/linear/model.pth.tar-3").unlink()
    with pytest.raises(RuntimeError, match=r"The models \['linear', 'second'\] in .* were saved at different epochs"):
        pair().train()


def test_state_that_is_not_plain_is_refused_when_saving(make):
    trainer = make()
    trainer.extra_state = lambda: {"a": [torch.zeros(1), object()]}
    with pytest.raises(
        TypeError, match=r"extra_state\(\)\['a'\]\[1\] must hold tensors and plain data only, got object"
    ):
        trainer.train()


def test_a_run_resumed_from_another_folder_goes_on_from_its_own(make, killed, outcome, same, tmp_path):
    whole = make("whole")
    whole.train()
    killed(make("first"), 4)
    moved = {"RESUME": str(tmp_path / "first")}
    trainer = make("second", **moved)
    killed(trainer, 4)  # in the fifth step of its own, in the third epoch
    trainer = make("second", **moved)
    trainer.train()
    assert trainer.steps == 6
    expected = outcome(whole, "whole")
    expected["metrics"]["config"]["RESUME"] = moved["RESUME"]
    got = outcome(trainer, "second")
    del expected["next random number"], got["next random number"]
    same(got, expected)


def test_resume_from_a_folder_that_does_not_exist_is_refused(make, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"RESUME is .*/nowhere, but there is no such folder"):
        make(RESUME=str(tmp_path / "nowhere")).train()
    assert not (tmp_path / "run").exists()
