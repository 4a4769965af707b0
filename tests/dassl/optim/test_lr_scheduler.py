"""Learning-rate sequences against numbers written by hand and closed forms."""

import math
from types import SimpleNamespace

import pytest
import torch

from dassl.optim import ConstantWarmupScheduler, LinearWarmupScheduler, build_lr_scheduler
from dassl.optim.lr_scheduler import load_scheduler_state, scheduler_state

LR, T = 0.002, 10


def config(**changes):
    given = {"LR_SCHEDULER": "cosine", "STEPSIZE": (-1,), "GAMMA": 0.1, "MAX_EPOCH": T, "WARMUP_EPOCH": -1}
    given |= {"WARMUP_TYPE": "constant", "WARMUP_CONS_LR": 1e-5, "WARMUP_MIN_LR": 1e-6, "WARMUP_RECOUNT": True}
    return SimpleNamespace(**(given | changes))


def build(cfg, groups=1):
    params = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": LR * (i + 1)} for i in range(groups)]
    optimizer = torch.optim.SGD(params, lr=LR, momentum=0.9)
    return optimizer, build_lr_scheduler(optimizer, cfg)


def run(optimizer, scheduler, epochs):
    rates = []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(scheduler.get_last_lr())
        optimizer.step()
        scheduler.step()
    return rates


def cosine(epoch):
    return LR / 2 * (1 + math.cos(math.pi * epoch / T))


SEQUENCES = {
    "cosine": ({}, [cosine(e) for e in range(T)]),
    "cosine, 1 constant epoch": ({"WARMUP_EPOCH": 1}, [1e-5, *(cosine(e - 1) for e in range(1, T))]),
    "cosine, 3 constant epochs": ({"WARMUP_EPOCH": 3}, [1e-5] * 3 + [cosine(e) for e in range(T - 3)]),
    "cosine, 4 linear epochs": (
        {"WARMUP_EPOCH": 4, "WARMUP_TYPE": "linear"},
        [1e-6, LR / 4, LR / 2, LR * 3 / 4, *(cosine(e) for e in range(T - 4))],
    ),
    "single step": ({"LR_SCHEDULER": "single_step", "STEPSIZE": (9, 4)}, [LR] * 4 + [LR / 10] * 4 + [LR / 100] * 2),
    "single step, number": ({"LR_SCHEDULER": "single_step", "STEPSIZE": 7, "GAMMA": 0.5}, [LR] * 7 + [LR / 2] * 3),
    "single step, none": ({"LR_SCHEDULER": "single_step"}, [LR] * T),
    "single step, 2 constant epochs": (
        {"LR_SCHEDULER": "single_step", "STEPSIZE": (4,), "WARMUP_EPOCH": 2},
        [1e-5] * 2 + [LR] * 4 + [LR / 10] * 4,
    ),
    "single step, 2 linear epochs": (
        {"LR_SCHEDULER": "single_step", "STEPSIZE": (4,), "WARMUP_EPOCH": 2, "WARMUP_TYPE": "linear"},
        [1e-6, LR / 2] + [LR] * 4 + [LR / 10] * 4,
    ),
    "multi step": ({"LR_SCHEDULER": "multi_step", "STEPSIZE": (2, 5)}, [LR] * 2 + [LR / 10] * 3 + [LR / 100] * 5),
    "multi step, 1 constant epoch": (
        {"LR_SCHEDULER": "multi_step", "STEPSIZE": [2, 5], "WARMUP_EPOCH": 1},
        [1e-5] + [LR] * 2 + [LR / 10] * 3 + [LR / 100] * 4,
    ),
    "multi step, 3 linear epochs": (
        {"LR_SCHEDULER": "multi_step", "STEPSIZE": [2, 5], "WARMUP_EPOCH": 3, "WARMUP_TYPE": "linear"},
        [1e-6, LR / 3, LR * 2 / 3] + [LR] * 2 + [LR / 10] * 3 + [LR / 100] * 2,
    ),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequence(name):
    changes, expected = SEQUENCES[name]
    assert run(*build(config(**changes)), T) == pytest.approx(expected, rel=1e-9)


def test_the_familys_setting_as_printed():
    """Numbers of the interface description: LR .002, T 10, one constant epoch; with and without recount."""
    rates = run(*build(config(WARMUP_EPOCH=1)), T)
    printed = [1e-5, 0.002, 0.001951, 0.001809, 0.001588, 0.001309, 0.001, 0.000691, 0.000412, 0.000191]
    assert [round(rate, 6) for rate in rates] == printed
    rates = run(*build(config(WARMUP_EPOCH=1, WARMUP_RECOUNT=False)), 4)
    assert [round(rate, 6) for rate in rates] == [1e-5, 0.002, 0.001854, 0.001628]


def test_without_recount_steps_are_counted_from_the_first_epoch():
    changes = {"LR_SCHEDULER": "multi_step", "STEPSIZE": (4,), "WARMUP_EPOCH": 2, "WARMUP_RECOUNT": False}
    assert run(*build(config(**changes)), 6) == pytest.approx([1e-5] * 2 + [LR] * 2 + [LR / 10] * 2)


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("recount", [True, False])
def test_an_interruption_at_any_epoch_changes_nothing(name, recount, tmp_path):
    cfg = config(**SEQUENCES[name][0], WARMUP_RECOUNT=recount)
    whole = run(*build(cfg, groups=2), T)
    for epoch in range(T + 1):
        optimizer, scheduler = build(cfg, groups=2)
        rates = run(optimizer, scheduler, epoch)
        torch.save((optimizer.state_dict(), scheduler_state(scheduler)), tmp_path / "state")
        saved = torch.load(tmp_path / "state", weights_only=True)  # plain data only
        optimizer, scheduler = build(cfg, groups=2)
        optimizer.load_state_dict(saved[0])
        load_scheduler_state(scheduler, saved[1])
        assert scheduler.optimizer is optimizer
        assert rates + run(optimizer, scheduler, T - epoch) == whole  # to the bit


def test_the_successor_keeps_driving_the_live_optimiser():
    """Dassl's bug: after a resume the learning rate stayed where it was."""
    cfg = config(WARMUP_EPOCH=1)
    old_optimizer, old = build(cfg)
    run(old_optimizer, old, 4)
    optimizer, scheduler = build(cfg)
    optimizer.load_state_dict(old_optimizer.state_dict())
    scheduler.load_state_dict(old.state_dict())
    assert scheduler.successor.optimizer is scheduler.optimizer is optimizer
    before = old_optimizer.param_groups[0]["lr"]
    assert run(optimizer, scheduler, 3) == pytest.approx([cosine(e - 1) for e in (4, 5, 6)])
    assert old_optimizer.param_groups[0]["lr"] == before


def test_constant_warmup_is_one_rate_for_all_groups_and_linear_scales_each():
    for kind, at_start in (("constant", [1e-5, 1e-5]), ("linear", [1e-6, 1e-6])):
        optimizer, scheduler = build(config(WARMUP_EPOCH=2, WARMUP_TYPE=kind), groups=2)
        assert [group["lr"] for group in optimizer.param_groups] == at_start
        run(optimizer, scheduler, 1)
        second = [1e-5, 1e-5] if kind == "constant" else [LR / 2, LR]
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(second)


def test_attributes_of_a_warmup():
    optimizer, scheduler = build(config(WARMUP_EPOCH=2))
    assert isinstance(scheduler, ConstantWarmupScheduler)
    assert isinstance(scheduler.successor, torch.optim.lr_scheduler.CosineAnnealingLR)
    run(optimizer, scheduler, 5)
    assert (scheduler.warmup_epoch, scheduler.last_epoch, scheduler.successor.last_epoch) == (2, 2, 3)
    assert isinstance(build(config(WARMUP_EPOCH=1, WARMUP_TYPE="linear"))[1], LinearWarmupScheduler)


def test_milestones_are_counted_again_after_loading():
    """torch keeps them in a Counter, which plain data has not; `step(epoch)` needs it."""
    scheduler = build(config(LR_SCHEDULER="multi_step", STEPSIZE=(2, 5)))[1]
    state = scheduler_state(scheduler)
    assert state["milestones"] == {2: 1, 5: 1}
    assert type(state["milestones"]) is dict
    load_scheduler_state(scheduler, state)
    assert list(scheduler.milestones.elements()) == [2, 5]


def test_a_state_with_warmup_does_not_fit_a_schedule_without():
    plain, warm = build(config())[1], build(config(WARMUP_EPOCH=1))[1]
    with pytest.raises(ValueError, match="saved learning-rate schedule has a warm-up, unlike this run's CosineAnn"):
        load_scheduler_state(plain, scheduler_state(warm))
    with pytest.raises(ValueError, match="has no warm-up, unlike this run's ConstantWarmupScheduler; use the OPTIM"):
        load_scheduler_state(warm, scheduler_state(plain))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"LR_SCHEDULER": "step"}, ValueError, r"LR_SCHEDULER must be one of \['single_step', .*got 'step'"),
        ({"WARMUP_EPOCH": 1, "WARMUP_TYPE": "cubic"}, ValueError, r"WARMUP_TYPE must be one of .*got 'cubic'"),
        ({"LR_SCHEDULER": "multi_step", "STEPSIZE": 3}, TypeError, r"STEPSIZE must be a list or tuple .*got 3 \(int\)"),
        ({"LR_SCHEDULER": "single_step", "STEPSIZE": (0.5,)}, TypeError, r"STEPSIZE must end in an integer.*0.5"),
    ],
)
def test_errors(changes, error, message):
    with pytest.raises(error, match=message):
        build(config(**changes))
