"""Two processes, started by torchrun, against one: weights, metrics, resumption, signals, failures.

What they do is in together.py. Each start takes seconds, so that many scenes share one.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dassl import distributed
from dassl.engine.device import select_device
from tests.dassl.engine.conftest import Killed, without_times

SCRIPT = Path(__file__).with_name("together.py")
SCENES = ("collectives", "trained", "two_loaders", "refused", "stopped", "saved", "resumed", "damaged")
pytestmark = pytest.mark.slow


def torchrun(*arguments, script=SCRIPT, n=2):
    paths = os.pathsep.join(p for p in sys.path if p)
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(n), str(script)]
        + [str(argument) for argument in arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def toy(toys, pictures, tmp_path_factory):
    """A toy trainer without dropout, in this process."""
    root = tmp_path_factory.mktemp("alone")

    def build(output, folder=root, pictures=pictures, **changes):
        trainer = toys.toy_trainer(pictures, folder / output, **changes)
        trainer.model[1].p = 0.0
        return trainer

    build.root = root
    return build


@pytest.fixture(scope="module")
def both(toy, pictures, tmp_path_factory):
    """What came out of all scenes: the folder, and by scene what each process returned."""
    folder = tmp_path_factory.mktemp("together")
    trainer = toy(
        "begun", folder=folder, TRAIN__CHECKPOINT_SECONDS=1e-9
    )  # is interrupted in its step 4, to be continued by two processes
    shutil.copytree(pictures, folder / "data")
    for name in ("x_0_1", "x_1_0", "x_1_3"):
        (folder / f"data/{name}.png").write_bytes(b"")

    def die(step):
        if step == 4:
            raise Killed

    trainer.interrupt = die
    with pytest.raises(Killed):
        trainer.train()
    ended = torchrun(pictures, folder, *SCENES)
    assert ended.returncode == 0, ended.stderr
    returned = {scene: json.loads((folder / f"{scene}.json").read_text()) for scene in SCENES}
    return SimpleNamespace(folder=folder, out=ended.stdout, err=ended.stderr, **returned)


def weights(folder, name="model.pth.tar-4"):
    return torch.load(folder / f"linear/{name}", weights_only=True)["state_dict"]


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def assert_like_one(together, alone, name="model.pth.tar-4"):
    """Weights within 1e-5, results of tests equal, and what an epoch reports nearly so."""
    torch.testing.assert_close(weights(together, name), weights(alone, name), atol=1e-5, rtol=0)
    a, b = without_times(metrics(together)), without_times(metrics(alone))
    assert a["final"]["metrics"] == b["final"]["metrics"]
    assert [row["val"] for row in a["epochs"]] == [row["val"] for row in b["epochs"]]
    assert [row["lr"] for row in a["epochs"]] == [row["lr"] for row in b["epochs"]]
    for row, other in zip(a["epochs"], b["epochs"], strict=True):
        assert row["train"] == pytest.approx(other["train"], abs=1e-4)


# ---- alone


def test_alone_everything_is_given_back(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    distributed.start()
    x = torch.ones(2, requires_grad=True)
    assert (distributed.world_size(), distributed.rank(), distributed.is_main()) == (1, 0, True)
    assert distributed.sum_all(x) == (x,)
    assert distributed.sum_with_gradient(x) is distributed.max_all(x) is distributed.own_part(x) is x
    assert distributed.from_main(x) is distributed.mean_over_batch(x) is x
    assert distributed.gather_plain(3) == [3]
    assert distributed.share(5) == slice(0, 5)
    assert distributed.batch_rows(7) == (7, slice(None))
    assert distributed.differing({"x": x}) is None


def test_variables_without_the_rest_of_torchrun_are_named(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RuntimeError, match=r"^WORLD_SIZE is 2, but .* cannot be joined \(.*\); start them with"):
        distributed.start()


def test_each_process_has_a_gpu_of_its_own(monkeypatch, toys, tmp_path):
    group = distributed.group.Group(rank=3, world_size=4, local_rank=1, store=None)
    chosen = []
    monkeypatch.setattr(distributed.group, "_group", group)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    cfg = toys.toy_cfg(tmp_path, tmp_path, DEVICE="cuda")
    assert select_device(cfg) == torch.device("cuda", 1)
    assert chosen == [1]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(RuntimeError, match="at least 2 processes on this machine, which has 1 GPUs"):
        select_device(cfg)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert select_device(toys.toy_cfg(tmp_path, tmp_path, DEVICE="auto")) == torch.device("cpu")
    with pytest.raises(RuntimeError, match="on cuda or cpu, not on mps; set DEVICE to cpu"):
        select_device(toys.toy_cfg(tmp_path, tmp_path, DEVICE="mps"))


# ---- together


def test_what_processes_exchange(both):
    first, second = both.collectives
    assert (first.pop("first in turn"), second.pop("first in turn")) == (True, False)
    assert (first.pop("share of 5"), second.pop("share of 5")) == ([0, 2], [2, 5])
    assert (first.pop("terminal"), second.pop("terminal")) == ([False, "<stdout>"], [False, "/dev/null"])
    assert first == second
    assert first == {
        "sum": [3.0, 10.0],
        "gradient of the sum": [110.0, 2.0],
        "sums": [[[2.0, 2.0], [2.0, 2.0]], [6], "torch.int64"],
        "max": [1, 0],
        "any": [True, False],
        "vote": [1, 1, 0],
        "main's": [7.0],
        "plain": [{"rank": 0, "text": ""}, {"rank": 1, "text": "ä"}],
        "rows": [[0], [0], [9], [1], [1], [9]],
        "rows of one": [[1.0] * 3] * 2,
        "differing": "b",
    }


def test_unequal_shares_train_as_one_process_does(both, toy):
    toy("trained", TEST__FINAL_MODEL="best_val", TEST__COMPUTE_CMAT=True, TEST__PER_CLASS_RESULT=True).train()
    assert_like_one(both.folder / "trained", toy.root / "trained")
    assert_like_one(both.folder / "trained", toy.root / "trained", "model-best.pth.tar")
    cmat = [torch.load(folder / "trained/cmat.pt") for folder in (both.folder, toy.root)]
    assert torch.equal(*cmat)
    assert both.trained[0] == both.trained[1]
    assert metrics(both.folder / "trained")["processes"] == 2


def test_one_process_writes(both):
    folder = both.folder / "trained"
    assert len(list((folder / "tensorboard").iterdir())) == 1
    assert sorted(path.name for path in (folder / "linear").iterdir()) == [
        *("checkpoint", "model-best.pth.tar", "model.pth.tar-4")
    ]
    assert both.out.count("Confusion matrix saved to") == 5
    assert both.out.count(f"The run in {folder} is finished") == 1
    assert "it/s" not in both.err


def test_two_loaders_train_as_in_one_process(both, toy):
    settings = {"DATALOADER__TRAIN_X__BATCH_SIZE": 4, "TRAIN__COUNT_ITER": "smaller_one", "TRAINER__NAME": "LinearXU"}
    toy("two_loaders", **settings).train()
    assert_like_one(both.folder / "two_loaders", toy.root / "two_loaders")


def test_what_several_processes_cannot_do_is_one_sentence(both):
    first, second = both.refused
    folders = [refused.pop("other folder") for refused in both.refused]
    assert first == second
    assert first["small batch"].startswith("A batch of 1 images cannot be divided among 2 processes; start fewer")
    assert first["other shares"].startswith("Batches of 5 and 4 images are not divided alike among 2 processes")
    assert first["evaluator"] == (
        "TEST.EVALUATOR Alone does not gather what several processes were given; test with one."
    )
    assert first["own step"].startswith(
        "The processes hold different values of linear.2.weight after epoch 1, so Scattered cannot be trained by"
    )
    assert "different values of linear.2.bias at the start" in first["other weights"]
    assert first["in use"].startswith(
        f"{both.folder / 'in use'} is in use by another process; wait until it is through"
    )
    assert first["other data"].startswith("The processes of this run read different training images")
    for told, folder in zip(folders, ("refused", "begun"), strict=True):
        assert told.startswith(f"The processes of this run find different states in {both.folder / folder}; OUTPUT_DIR")


@pytest.mark.parametrize("where", ["in a step", "in the last step", "in the validation"])
def test_a_signal_to_one_stops_both_and_one_goes_on(both, toy, where):
    assert both.stopped == [dict.fromkeys(both.stopped[0], 143)] * 2
    settings = {"TEST__FINAL_MODEL": "best_val"} if "validation" in where else {}
    again = toy(f"stopped {where}", folder=both.folder, **settings)
    again.train()
    # an agreement takes one step more; the last step of a run has none
    assert again.steps == {"in a step": 6, "in the last step": 0, "in the validation": 9}[where]
    name = "validated" if settings else "whole"
    toy(name, **settings).train()
    assert_like_one(both.folder / f"stopped {where}", toy.root / name)


def test_two_go_on_where_one_was_killed(both, toy):
    toy("whole").train()
    assert f"Resuming from {both.folder / 'begun/resume.pth.tar'}: epoch 2, 1 batches of it done" in both.out
    assert_like_one(both.folder / "begun", toy.root / "whole")


def test_all_save_when_one_finds_it_is_time(both):
    ends = [[epoch, 0] for epoch in (1, 2, 3, 4)]
    assert both.saved[0] == both.saved[1]
    assert [point for point in both.saved[0] if point not in ends] == [[1, 3]]
    assert [point for point in both.saved[0] if point in ends] == ends


def test_damaged_images_of_both_are_counted_and_named(both, toy):
    settings = {"DATASET__ROOT": str(both.folder / "data"), "INPUT__ON_ERROR": "replace"}
    alone = toy("damaged", **settings)
    alone.train()
    assert_like_one(both.folder / "damaged", toy.root / "damaged")
    assert [row["replaced_images"] for row in metrics(both.folder / "damaged")["epochs"]] == [3] * 4
    assert both.out.count("another image of its class takes its place") == 3
    assert "12 damaged images were replaced by others of their class in training; restore or remove" in both.out
    assert [set(state["damaged"]) for state in both.damaged] == [set(alone.train_loader_x.damaged)] * 2


# ---- failures


@pytest.mark.parametrize(
    ("scene", "sentence"),
    [
        ("broken", "Error: Loss is infinite or NaN in a process."),
        ("killed", "Error: Process 0 of 2 lost contact with the others ("),
        ("bug", "IndexError: a bug"),
    ],
)
def test_the_failure_of_one_ends_both_with_its_sentence(pictures, tmp_path, scene, sentence):
    ended = torchrun(pictures, tmp_path, scene)
    assert ended.returncode == 1
    assert [line[: len(sentence)] for line in ended.stderr.splitlines() if "Error: " in line[:20]] == [sentence]
