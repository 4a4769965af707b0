"""Checkpoints: written whole, read without running code, from this project and from Dassl 0.6.3."""

import os
import pickle
import zipfile
from collections import OrderedDict, defaultdict
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import (
    count_num_param,
    init_network_weights,
    load_checkpoint,
    load_pretrained_weights,
    open_all_layers,
    open_specified_layers,
    resume_from_checkpoint,
    save_checkpoint,
)
from dassl.utils.torchtools import adjust_learning_rate, load_exactly, model_file, newest_checkpoint, set_bn_to_eval

KEYS = {"epoch": 3, "optimizer": None, "scheduler": None, "val_result": None}
OPTIM = SimpleNamespace(
    **{"NAME": "sgd", "LR": 0.1, "WEIGHT_DECAY": 0.0, "MOMENTUM": 0.9, "SGD_DAMPNING": 0, "SGD_NESTEROV": False},
    **{"ADAM_BETA1": 0.9, "ADAM_BETA2": 0.999, "STAGED_LR": False, "LR_SCHEDULER": "cosine", "MAX_EPOCH": 10},
    **{"STEPSIZE": (2, 5), "GAMMA": 0.1, "WARMUP_EPOCH": 1, "WARMUP_TYPE": "constant", "WARMUP_CONS_LR": 1e-5},
    WARMUP_RECOUNT=True,
)


def net(width=2):
    return nn.Sequential(nn.Linear(width, 3), nn.Linear(3, 1))


def trained(epochs, **changes):
    optim = SimpleNamespace(**{**vars(OPTIM), **changes})
    model = net()
    optimizer = build_optimizer(model, optim)
    scheduler = build_lr_scheduler(optimizer, optim)
    for _ in range(epochs):
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        scheduler.step()
    return model, optimizer, scheduler


def state(model, **more):
    return {"state_dict": model.state_dict(), **KEYS, **more}


# ---- saving -----------------------------------------------------------------------------------------------------


def test_names_pointer_and_best(tmp_path, capsys):
    save_checkpoint(state(net()), tmp_path / "model")
    assert capsys.readouterr().out == f"Checkpoint saved to {tmp_path}/model/model.pth.tar-3\n"
    assert (tmp_path / "model/checkpoint").read_text() == "model.pth.tar-3\n"
    save_checkpoint(state(net(), epoch=4), tmp_path / "model", model_name="model-best.pth.tar")
    assert (tmp_path / "model/checkpoint").read_text() == "model-best.pth.tar\n"
    save_checkpoint(state(net(), epoch=5), str(tmp_path / "best"), is_best=True)
    assert sorted(p.name for p in (tmp_path / "best").iterdir()) == [
        "checkpoint",
        "model-best.pth.tar",
        "model.pth.tar-5",
    ]
    assert torch.load(tmp_path / "best/model-best.pth.tar")["epoch"] == 5


def test_the_prefix_of_data_parallel_is_removed_once(tmp_path):
    weights = {"module.a": torch.ones(1), "b.module.c": torch.ones(1), "module.module.d": torch.ones(1)}
    save_checkpoint({"state_dict": dict(weights), "epoch": 1}, tmp_path)
    assert list(torch.load(tmp_path / "model.pth.tar-1")["state_dict"]) == ["a", "b.module.c", "module.d"]
    save_checkpoint({"state_dict": dict(weights), "epoch": 2}, tmp_path, remove_module_from_keys=False)
    assert list(torch.load(tmp_path / "model.pth.tar-2")["state_dict"]) == list(weights)


# ---- reading ----------------------------------------------------------------------------------------------------


def test_what_load_checkpoint_refuses(tmp_path):
    with pytest.raises(ValueError, match="File path is None"):
        load_checkpoint(None)
    with pytest.raises(FileNotFoundError, match=r"File is not found at .*/none; check the folder and the epoch"):
        load_checkpoint(tmp_path / "none")


@pytest.mark.parametrize("keep", [0, 10, 500, -1000, -30])
def test_a_truncated_file_is_named_with_what_to_do(tmp_path, keep):
    path = tmp_path / "model.pth.tar-3"
    torch.save(state(net()), path)
    path.write_bytes(path.read_bytes()[:keep])
    message = r"^.*/model.pth.tar-3 is damaged or not a checkpoint \(.+\); delete it and continue from an older one, or"
    with pytest.raises(RuntimeError, match=message) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"hello, I am a text", b"\x80\x02}q\x00.", b"\x00" * 300])
def test_other_files_are_no_checkpoints(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(RuntimeError, match="is damaged or not a checkpoint"):
        load_checkpoint(path)


class Hostile:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (self.mark,)


class Sneaky:
    """Calls a harmless-looking builtin that runs code."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return eval, (f"__import__('os').mkdir({self.mark!r})",)


@pytest.mark.parametrize("kind", [Hostile, Sneaky])
@pytest.mark.parametrize("archive", [True, False], ids=["zip", "old format"])
@pytest.mark.parametrize("where", ["state_dict", "scheduler"])
def test_pickled_code_is_refused_and_not_run(tmp_path, kind, archive, where):
    path, mark = tmp_path / "model", str(tmp_path / "was here")
    holder = {**state(net()), where: defaultdict(dict, {0: kind(mark)})}
    torch.save(holder, path, _use_new_zipfile_serialization=archive)
    with pytest.raises(
        RuntimeError, match=r"^.*/model holds a pickled [\w.]+, which could run code when loaded; "
    ) as e:
        load_checkpoint(path)
    assert "\n" not in str(e.value)
    assert not os.path.exists(mark)


def test_plain_pickles_are_refused(tmp_path):
    path, mark = tmp_path / "model", str(tmp_path / "was here")
    path.write_bytes(pickle.dumps(Hostile(mark), protocol=2))
    with pytest.raises(RuntimeError, match=r"holds a pickled .*mkdir, which could run code when loaded"):
        load_checkpoint(path)
    assert not os.path.exists(mark)


def test_the_allow_list_is_closed_again(tmp_path):
    path = tmp_path / "model"
    torch.save({"scheduler": trained(1)[2].successor}, path)
    load_checkpoint(path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


# ---- continuing -------------------------------------------------------------------------------------------------


def upstream_scheduler(scheduler):
    """What Dassl 0.6.3 saved: every attribute but the optimiser, the successor as the object itself."""
    return {key: value for key, value in vars(scheduler).items() if key != "optimizer"}


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop", "radam"])
@pytest.mark.parametrize("main", ["cosine", "single_step", "multi_step"])
@pytest.mark.parametrize("warmup", ["constant", "linear"])
def test_a_checkpoint_of_dassl_063_resumes_with_a_live_learning_rate(tmp_path, name, main, warmup):
    changes = {"NAME": name, "RMSPROP_ALPHA": 0.9, "LR_SCHEDULER": main, "WARMUP_TYPE": warmup, "WARMUP_MIN_LR": 1e-6}
    model, optimizer, scheduler = trained(4, **changes)
    saved = {**state(model, epoch=4), "optimizer": optimizer.state_dict(), "scheduler": upstream_scheduler(scheduler)}
    (tmp_path / "model").mkdir()
    torch.save(saved, tmp_path / "model/model.pth.tar-4")
    (tmp_path / "model/checkpoint").write_text("model.pth.tar-4\n")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "model/model.pth.tar-4", weights_only=True)

    other, live, schedule = trained(0, **changes)
    assert resume_from_checkpoint(tmp_path / "model", other, live, schedule) == 4
    assert schedule.successor.optimizer is schedule.optimizer is live
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    for _ in range(5):
        assert live.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
        for opt, sched in ((optimizer, scheduler), (live, schedule)):
            opt.step()
            sched.step()


def test_states_survive_a_round_trip(tmp_path):
    model, optimizer, scheduler = trained(3)
    from dassl.optim.lr_scheduler import scheduler_state

    saved = {"optimizer": optimizer.state_dict(), "scheduler": scheduler_state(scheduler)}
    save_checkpoint(state(model, **saved), tmp_path)
    other, live, schedule = trained(0)
    assert resume_from_checkpoint(tmp_path, other, live, schedule) == 3
    assert schedule.state_dict() == scheduler.state_dict()
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(optimizer.state[p]["momentum_buffer"], live.state[q]["momentum_buffer"])


@pytest.mark.parametrize(
    ("files", "pointer", "expected"),
    [
        ({"model.pth.tar-10": 10, "model-best.pth.tar": 4}, "model-best.pth.tar", 10),
        ({"model.pth.tar-9": 9, "model.pth.tar-10": 10, "model-best.pth.tar": 9}, "model-best.pth.tar", 10),
        ({"model.pth.tar-10": 10, "model-best.pth.tar": 12}, "model-best.pth.tar", 12),
        ({"model-best.pth.tar": 4}, "model-best.pth.tar", 4),
        ({"model.pth.tar-5": 5, "model.pth.tar-10": 10}, "model.pth.tar-5", 5),  # as the user wrote it
        ({"model.pth.tar-5": 5, "model.pth.tar-10": 10}, "model.pth.tar-99", 10),
        ({"model.pth.tar-5": 5}, None, 5),
        ({"model-best.pth.tar": 2}, None, 2),
    ],
)
def test_the_file_to_continue_from(tmp_path, files, pointer, expected):
    """Dassl's bug: it went back to the best epoch when that was the last file saved."""
    for name, epoch in files.items():
        torch.save(state(net(), epoch=epoch), tmp_path / name)
    if pointer:
        (tmp_path / "checkpoint").write_text(pointer + "\n")
    assert resume_from_checkpoint(tmp_path, net()) == expected


def test_errors_when_continuing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No checkpoint in .*; expected a file model.pth.tar-<epoch> or"):
        resume_from_checkpoint(tmp_path, net())
    model, optimizer, scheduler = trained(1)
    save_checkpoint(state(model), tmp_path)
    with pytest.raises(RuntimeError, match=r"0.weight is \[3, 2\] in the file and \[3, 5\] here.$"):
        resume_from_checkpoint(tmp_path, net(width=5))
    with pytest.raises(RuntimeError, match=r"2.weight is not in the file; 2.bias is not in the file.$"):
        resume_from_checkpoint(tmp_path, nn.Sequential(*net(), nn.Linear(1, 1)))
    with pytest.raises(RuntimeError, match=r"weight is not in the file; bias .*; 0.weight is only in .* and 3 more"):
        resume_from_checkpoint(tmp_path, nn.Linear(1, 1))
    save_checkpoint(state(model, scheduler={"last_epoch": 1}), tmp_path)
    with pytest.raises(RuntimeError, match=r"Cannot continue from .*: the saved learning-rate schedule has no warm-up"):
        resume_from_checkpoint(tmp_path, net(), optimizer, scheduler)
    spoilt = optimizer.state_dict() | {"state": {0: {"momentum_buffer": "x"}}}
    save_checkpoint(state(model, optimizer=spoilt), tmp_path)
    with pytest.raises(
        RuntimeError, match=r"Cannot continue from .*: a step with the saved optimizer and schedule fails, \w+Error: "
    ):
        resume_from_checkpoint(tmp_path, net(), optimizer)
    save_checkpoint(state(model, optimizer=[]), tmp_path)
    with pytest.raises(RuntimeError, match=r"Cannot continue from .*: TypeError: list indices must be"):
        resume_from_checkpoint(tmp_path, net(), optimizer)
    save_checkpoint(state(model) | {"epoch": "x"}, tmp_path, model_name="model.pth.tar-2")
    with pytest.raises(
        RuntimeError, match=r"-2 does not say after how many epochs it was saved, so no training can go"
    ):
        resume_from_checkpoint(tmp_path, net())
    torch.save({"weights": 1}, tmp_path / "model.pth.tar-3")
    (tmp_path / "checkpoint").unlink()
    with pytest.raises(RuntimeError, match="has no entry state_dict, so it is no checkpoint of a trainer"):
        resume_from_checkpoint(tmp_path, net())


@pytest.mark.parametrize("name", [b"\xff\xfe", b"../model.pth.tar-1", b"m" * 300, b"a\0b"])
def test_a_damaged_pointer_is_not_followed(tmp_path, name):
    save_checkpoint(state(net()), tmp_path / "m", model_name="model.pth.tar-1")
    (tmp_path / "m" / "checkpoint").write_bytes(name)
    assert newest_checkpoint(tmp_path / "m") == tmp_path / "m" / "model.pth.tar-1"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("x", r"0.weight is no tensor in the file and \[3, 2\] here"),
        (
            torch.ones(3, 2).to_sparse(),
            r"/w does not fit this model \(Error\(s\) in loading .*\); take another file\.$",
        ),
    ],
)
def test_weights_that_are_none(tmp_path, value, message):
    weights = net().state_dict()
    weights["0.weight"] = value
    with pytest.raises(RuntimeError, match=message):
        load_exactly(net(), weights, tmp_path / "w")


def test_model_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="/m holds no model; check --model-dir and --load-epoch"):
        model_file(tmp_path, "m")
    for epoch in (10, 9, 100):
        save_checkpoint(state(net(), epoch=epoch), tmp_path / "m")
    assert model_file(tmp_path, "m", 9) == tmp_path / "m/model.pth.tar-9"
    with pytest.raises(FileNotFoundError, match=r"model-best.pth.tar; .*/m holds epoch 9, epoch 10, epoch 100;"):
        model_file(tmp_path, "m")
    save_checkpoint(state(net()), tmp_path / "m", model_name="model-best.pth.tar")
    with pytest.raises(FileNotFoundError, match=r"model.pth.tar-7; .*epoch 100, the best model;"):
        model_file(tmp_path, "m", 7)


# ---- weights ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nested", [True, False])
def test_pretrained_weights_are_taken_where_name_and_shape_fit(tmp_path, capsys, nested):
    weights = {"module.0.weight": torch.full((3, 2), 7.0), "1.weight": torch.zeros(9), "other": torch.zeros(1)}
    torch.save({"state_dict": weights} if nested else weights, tmp_path / "w")
    model = net()
    before = model[1].weight.clone()
    load_pretrained_weights(model, tmp_path / "w")
    assert model[0].weight.unique().item() == 7
    assert torch.equal(model[1].weight, before)
    assert "['1.weight', 'other']" in capsys.readouterr().out


def test_pretrained_weights_that_do_not_fit_at_all(tmp_path):
    torch.save({"x": torch.zeros(1)}, tmp_path / "w")
    with pytest.warns(UserWarning, match=r"No tensor of .*/w fits the model by name and shape: nothing was loaded"):
        load_pretrained_weights(net(), str(tmp_path / "w"))
    torch.save([1, 2], tmp_path / "w")
    with pytest.raises(RuntimeError, match=r"/w has no entry state_dict"):
        load_pretrained_weights(net(), tmp_path / "w")


# ---- small things -----------------------------------------------------------------------------------------------


def test_counting():
    model = net()
    model[0].requires_grad_(False)
    assert count_num_param(model) == 13
    assert count_num_param(params=model.parameters()) == 13
    groups = [{"params": list(model[0].parameters())}, {"params": model[1].weight}]
    assert count_num_param(params=groups) == 9 + 3
    assert count_num_param(params=groups[0]) == 9
    with pytest.raises(ValueError, match="count_num_param needs a model or params"):
        count_num_param()


def test_opening_layers():
    model = nn.Sequential(OrderedDict(body=nn.Linear(1, 1), head=nn.Linear(1, 1)))
    open_specified_layers(nn.DataParallel(model), "head")
    assert [child.training for child in model] == [False, True]
    assert [child.weight.requires_grad for child in model] == [False, True]
    with pytest.raises(AssertionError, match=r"'tail' is not a layer of the model, which has \['body', 'head'\]"):
        open_specified_layers(model, ["tail"])
    open_all_layers(model)
    assert all(child.training and child.weight.requires_grad for child in model)


def test_batch_norms_to_eval():
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout())
    model.apply(set_bn_to_eval)
    assert [child.training for child in model] == [False, True]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"stepsize": 2}, [1.0, 1.0, 0.1, 0.1, 0.01]),
        ({"stepsize": [1, 3], "gamma": 0.5}, [1.0, 0.5, 0.5, 0.25, 0.25]),
        ({"linear_decay": True, "final_lr": 0.2, "max_epoch": 4}, [1.0, 0.8, 0.6, 0.4, 0.2]),
    ],
)
def test_learning_rates_by_hand(options, expected):
    optimizer = torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))]} for _ in range(2)], lr=9.0)
    for epoch, lr in enumerate(expected):
        adjust_learning_rate(optimizer, 1.0, epoch, **options)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([lr, lr])


def test_initial_weights():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(50, 60, 1), nn.Linear(60, 50), nn.BatchNorm2d(3), nn.LayerNorm(2), nn.ReLU())
    for module in model[:4]:
        nn.init.constant_(module.weight, 5.0)
        nn.init.constant_(module.bias, 5.0)
    init_network_weights(model, "normal", gain=0.3)
    assert model[0].weight.std().item() == pytest.approx(0.3, rel=0.05)
    assert [module.bias.unique().item() for module in model[:4]] == [0, 0, 0, 5]
    assert [module.weight.unique().item() for module in model[2:4]] == [1, 5]
    init_network_weights(model, "orthogonal", gain=2.0)
    gram = model[1].weight @ model[1].weight.T  # [50, 50]
    assert torch.allclose(gram, 4 * torch.eye(50), atol=1e-4)
    init_network_weights(model, "xavier", gain=1.0)
    assert model[1].weight.std().item() == pytest.approx((2 / 110) ** 0.5, rel=0.05)
    init_network_weights(model, "kaiming")
    assert model[1].weight.std().item() == pytest.approx((2 / 60) ** 0.5, rel=0.05)
    with pytest.raises(NotImplementedError, match=r"init_type must be one of .*, got 'zeros'"):
        init_network_weights(model, "zeros")


def test_a_file_with_a_flipped_byte_is_damaged(tmp_path):
    path = tmp_path / "model"
    torch.save({"state_dict": {"a": torch.arange(1000)}}, path)
    with zipfile.ZipFile(path) as archive:
        inner = next(info for info in archive.infolist() if info.filename.endswith("data.pkl"))
    data = bytearray(path.read_bytes())
    data[inner.header_offset + 200] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(RuntimeError, match="is damaged or not a checkpoint"):
        load_checkpoint(path)
