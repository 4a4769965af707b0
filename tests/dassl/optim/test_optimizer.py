import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dassl.optim import RAdam, build_optimizer


def config(**changes):
    given = {"NAME": "sgd", "LR": 0.1, "WEIGHT_DECAY": 5e-4, "MOMENTUM": 0.9, "SGD_DAMPNING": 0.3}
    given |= {"SGD_NESTEROV": False, "RMSPROP_ALPHA": 0.98, "ADAM_BETA1": 0.8, "ADAM_BETA2": 0.95}
    given |= {"STAGED_LR": False, "NEW_LAYERS": (), "BASE_LR_MULT": 0.1}
    return SimpleNamespace(**(given | changes))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.root = nn.Parameter(torch.zeros(1))
        self.body = nn.Linear(2, 3)
        self.head = nn.Linear(3, 1)


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("sgd", torch.optim.SGD, {"momentum": 0.9, "dampening": 0.3, "nesterov": False}),
        ("adam", torch.optim.Adam, {"betas": (0.8, 0.95), "amsgrad": False}),
        ("amsgrad", torch.optim.Adam, {"betas": (0.8, 0.95), "amsgrad": True}),
        ("adamw", torch.optim.AdamW, {"betas": (0.8, 0.95)}),
        ("rmsprop", torch.optim.RMSprop, {"momentum": 0.9, "alpha": 0.98}),
        ("radam", RAdam, {"betas": (0.8, 0.95), "decoupled_weight_decay": True}),
    ],
)
def test_names_and_settings(name, kind, settings):
    optimizer = build_optimizer(nn.Linear(2, 2), config(NAME=name))
    assert type(optimizer) is kind
    group = optimizer.param_groups[0]
    expected = {"lr": 0.1, "weight_decay": 5e-4, **settings}
    assert {key: group[key] for key in expected} == expected


def test_frozen_parameters_keep_their_place():
    net = Net()
    net.body.requires_grad_(False)
    assert len(build_optimizer(net, config()).param_groups[0]["params"]) == 5


def test_iterables_and_groups():
    net = Net()
    assert len(build_optimizer(net.head.parameters(), config()).param_groups[0]["params"]) == 2
    groups = [{"params": [net.root], "lr": 7.0}, {"params": [net.head.weight]}]
    assert [g["lr"] for g in build_optimizer(net, config(), groups).param_groups] == [7.0, 0.1]
    with pytest.warns(UserWarning, match="STAGED_LR is ignored, because param_groups were given"):
        build_optimizer(net, config(STAGED_LR=True), groups)


@pytest.mark.parametrize("new", ["head", ("head",)])
@pytest.mark.parametrize("wrap", [lambda net: net, nn.DataParallel])
def test_staged_learning_rates(new, wrap):
    net = Net()
    groups = build_optimizer(wrap(net), config(STAGED_LR=True, NEW_LAYERS=new)).param_groups
    assert [group["lr"] for group in groups] == [pytest.approx(0.01), 0.1]
    assert [[id(p) for p in g["params"]] for g in groups] == [
        [id(p) for p in m.parameters()] for m in (net.body, net.head)
    ]


def test_staged_learning_rates_errors():
    with pytest.raises(TypeError, match=r"STAGED_LR needs a torch.nn.Module, got list"):
        build_optimizer([], config(STAGED_LR=True))
    with pytest.raises(ValueError, match=r"NEW_LAYERS names \['tail'\], but the model's children are \['body',"):
        build_optimizer(Net(), config(STAGED_LR=True, NEW_LAYERS=("tail",)))
    with pytest.warns(UserWarning, match=r"NEW_LAYERS is empty: all layers get LR \* BASE_LR_MULT"):
        build_optimizer(Net(), config(STAGED_LR=True))


def test_unknown_name():
    with pytest.raises(ValueError, match=r"OPTIM.NAME must be one of \['adam', .*\], got 'lion'"):
        build_optimizer(Net(), config(NAME="lion"))


def test_radam_against_its_equations():
    """Decoupled decay; momentum alone while the length of the averaged second moment is at most 5."""
    lr, beta1, beta2, eps, decay, gradients = 0.1, 0.8, 0.95, 1e-8, 0.01, [1.0, -0.5, 0.25, 2.0, 1.0, 0.3, 0.7, -1.0]
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = RAdam([weight], lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=decay)
    w, m, v, longest, rectified = 1.0, 0.0, 0.0, 2 / (1 - beta2) - 1, 0
    for t, g in enumerate(gradients, 1):
        weight.grad = torch.tensor([g], dtype=torch.float64)
        optimizer.step()
        w -= lr * decay * w
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        m_hat, rho = m / (1 - beta1**t), longest - 2 * t * beta2**t / (1 - beta2**t)
        if rho > 5:
            rectified += 1
            r = math.sqrt((rho - 4) * (rho - 2) * longest / ((longest - 4) * (longest - 2) * rho))
            w -= lr * m_hat * r * math.sqrt(1 - beta2**t) / (math.sqrt(v) + eps)
        else:
            w -= lr * m_hat
        assert weight.item() == pytest.approx(w, rel=1e-6)
    assert 0 < rectified < len(gradients)
