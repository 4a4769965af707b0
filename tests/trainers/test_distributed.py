"""Two processes against one with whole methods: the same global batches give the same weights and the same results."""

import json
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

import train
from dassl.engine import build_trainer
from dassl.utils import set_random_seed
from tests.conftest import command_below
from tests.dassl.engine.test_distributed import torchrun
from tests.trainers.spotlighter.runs import BASE, RELEASE, SMALL
from trainers.batch_norm import BatchNorm

SCRIPT = Path(__file__).with_name("together.py")
FIXED = (*BASE, "DATALOADER.TEST.BATCH_SIZE", "3")  # 8 test images are 3 batches: one here, two there
UNEVEN = ("DATALOADER.TRAIN_X.BATCH_SIZE", "5")  # 2 images here, 3 there
RUNS = {  # name -> trainer, opts
    "CoOp": ("CoOp", ()),
    "CoOp, uneven": ("CoOp", UNEVEN),
    "Spotlighter": ("Spotlighter", (*SMALL, *UNEVEN)),  # a bank, filled by k-means
    "release": ("Spotlighter", (*SMALL, *RELEASE, *UNEVEN)),  # batch norm, dropout, a bank without classes
    "TextRefiner": ("TextRefiner", (*SMALL, *UNEVEN)),  # batch norm with running statistics, a cache
    "cached": ("Spotlighter", (*SMALL, *UNEVEN, "DATALOADER.CACHE_VIEWS", "2")),
    "PromptSRC": ("PromptSRC", ("TEST.FINAL_MODEL", "best_val")),  # penalties, an average over epochs
    "LinearProbe": ("LinearProbe", ("OPTIM.MAX_EPOCH", "1", "TRAINER.LINEARPROBE.C", "1.0")),
}
pytestmark = pytest.mark.slow


def train_alone(argv, stop=None):
    """Train in this process; in step `stop` it is asked to stop."""
    cfg = train.setup_cfg(train.parse_args(argv))
    set_random_seed(cfg.SEED)
    trainer = build_trainer(cfg)
    forward, steps = trainer.forward_backward, []

    def watched(batch):
        if len(steps) == stop:
            signal.raise_signal(signal.SIGTERM)
        steps.append(None)
        return forward(batch)

    trainer.forward_backward = watched
    if stop is None:
        trainer.train()
    else:
        with pytest.raises(SystemExit):
            trainer.train()
    return trainer


def cache_of(root, by, name):
    """A folder of its own, so that each way of running writes it."""
    return ("DATALOADER.CACHE", str(root / f"cache {by}")) if name == "cached" else ()


@pytest.fixture(scope="module")
def runs(tiny_weights, tmp_path_factory):
    """All runs by one process in `alone`, by two in `both`; and by two then one, one then two, with Spotlighter."""
    root = tmp_path_factory.mktemp("runs")
    command = command_below(root, tiny_weights)
    argv = {
        (by, name): command(*FIXED, *opts, *cache_of(root, by, name), trainer=trainer, output=f"{by}/{name}")
        for name, (trainer, opts) in RUNS.items()
        for by in ("alone", "both", "one then two", "two then one")
    }
    for name in RUNS:
        train_alone(argv["alone", name])
    train_alone(argv["one then two", "Spotlighter"], stop=2)
    flags = ("--eval-only", "--model-dir", str(root / "alone/CoOp"), "--load-epoch", "2")
    test = {by: command(*FIXED, output=f"{by}/test", flags=flags) for by in ("alone", "both")}
    train.main(train.parse_args(test["alone"]))
    jobs = [(argv["both", name], None) for name in RUNS]
    jobs += [(argv["one then two", "Spotlighter"], None), (argv["two then one", "Spotlighter"], 1)]
    jobs.append((test["both"], None))
    path = root / "jobs.json"
    path.write_text(json.dumps(jobs))
    ended = torchrun(path, script=SCRIPT)
    assert ended.returncode == 0, ended.stderr
    ends = json.loads(Path(f"{path}.ends").read_text())
    assert ends == [[0, 0]] * (len(RUNS) + 1) + [[143, 143], [0, 0]]
    train_alone(argv["two then one", "Spotlighter"])
    return root


def final(folder):
    return json.loads((folder / "metrics.json").read_text())["final"]


def weights(folder):
    newest = sorted(folder.glob("prompt_learner/model.pth.tar-*"))[-1]
    return torch.load(newest, weights_only=True)["state_dict"]


def assert_same_run(folder, other):
    torch.testing.assert_close(weights(folder), weights(other), atol=1e-5, rtol=0)
    assert final(folder)["metrics"] == final(other)["metrics"]
    assert final(folder)["epoch"] == final(other)["epoch"]


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_train_what_one_does(runs, name):
    assert_same_run(runs / "both" / name, runs / "alone" / name)


@pytest.mark.parametrize("order", ["one then two", "two then one"])
def test_a_run_goes_on_with_another_number_of_processes(runs, order):
    assert_same_run(runs / order / "Spotlighter", runs / "alone" / "Spotlighter")


def test_two_processes_test_as_one_does(runs):
    assert final(runs / "both/test")["metrics"] == final(runs / "alone/test")["metrics"]


def test_alone_batch_norm_is_torchs():
    torch.manual_seed(0)
    rows = torch.randn(6, 4)
    own, theirs = BatchNorm(4), nn.BatchNorm1d(4)
    assert torch.equal(own(rows), theirs(rows))
    assert all(torch.equal(a, b) for a, b in zip(own.buffers(), theirs.buffers(), strict=True))
