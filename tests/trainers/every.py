"""Which trainers there are, and what the tests of every trainer must be told of some.

A new method is tested by being registered. It needs a line here only for what can't be guessed: an option that it can't
run without, the other value of a key, a promise that it does not make by design.
"""

import json
from pathlib import Path

import torch

import train
from dassl.config import get_cfg_default
from dassl.engine import TRAINER_REGISTRY
from trainers.base import MethodTrainer

# Trainers that train nothing.
UNTRAINED = ("TextPriors", "ZeroshotCLIP", "ZeroshotCLIP2")
TEACHER = "<teacher>"  # stands for the run folder of a trained teacher
# What a trainer can't run without on six pictures of 16 patches a class: KEY, value, ….
OPTIONS: dict[str, tuple[str, ...]] = {
    "LinearProbe": ("OPTIM.MAX_EPOCH", "1"),  # solves once
    "TextPriors": ("TRAINER.TEXTPRIORS.DESCRIPTIONS", str(Path(__file__).with_name("toy_descriptions.json"))),
    # the toy has no unlabelled pictures; tests/trainers/promptkd/ tests the learning from a teacher
    "PromptKD": ("TRAINER.PROMPTKD.TEACHER_DIR", TEACHER, "TRAINER.PROMPTKD.TARGET", "labels"),
    "CoCoOp": ("SEED", "2"),  # the toy's net has two hidden units, and with seed 1 neither is ever active
}
# What a trainer does not do, by design, and need not be tested for: trainer → "steps" (training is one step of an
# optimiser after another) or "text" (logits are cosines with texts) → why.
EXEMPT: dict[str, dict[str, str]] = {
    "LinearProbe": {"steps": "a solver finds its head at once", "text": "logits are linear in the image features"},
}
# Trained tensors whose gradient is zero in a whole run of two epochs: trainer → tensor → why.
NO_GRADIENT: dict[str, dict[str, str]] = {}
# The other value of a key, by KEY or by NODE.KEY; numbers and switches change by themselves (test_every_key.py). A
# tuple goes on with what else must be set, KEY, value, ….
OTHER_VALUE = {
    "PREC": "bf16",
    "CTX_INIT": "an image of one",
    "INJECT": "post_ln",
    "TEMPLATE": "a sketch of a {}.",
    "COOP.CLASS_TOKEN_POSITION": "front",
    "IVLP.PROMPT_DEPTH_TEXT": 1,  # more than the toy's two blocks is cut
    "IVLP.PROMPT_DEPTH_VISION": 1,
    "MAPLE.PROMPT_DEPTH": 1,
    "LINEARPROBE.C": 0.1,
    "LINEARPROBE.SOLVER": "torch",
    "LINEARPROBE.MAX_ITER": 1,
    "PROMPTSRC.PROMPT_DEPTH_TEXT": 1,
    "PROMPTSRC.PROMPT_DEPTH_VISION": 1,
    "PROMPTSRC.TEXT_TARGET": "unit",
    "PROMPTSRC.KL_MEAN": "batch",
    "PROMPTSRC.GPA": "off",
    "PROMPTSRC.GPA_MEAN": (1.0, "OPTIM.MAX_EPOCH", 2),  # an average over one epoch has one weight
    "PROMPTSRC.GPA_STD": (9.0, "OPTIM.MAX_EPOCH", 2),
    "TEXTREFINER.HOST": "VPT",
    "TEXTREFINER.WRITE": "mean",
    "PROMPTSRC.KEEP_WORDS": (False, "TRAINER.PROMPTSRC.N_CTX_TEXT", 2),
}
MEMORY_ONLY = "TEXT_CHUNK"  # the one key that must not change the result
# Nodes, or keys, whose effect another file tests.
TESTED_ELSEWHERE = {
    "SPOTLIGHTER": "tests/trainers/spotlighter/test_options.py",
    "TEXTPRIORS": "tests/trainers/test_textpriors.py",
    "PROMPTKD": "tests/trainers/promptkd/test_trainer.py",
    "SPT": "tests/trainers/spt/test_trainer.py",
    "TEXTREFINER.KD_LOCAL_WEIGHT": "tests/trainers/test_textrefiner.py",  # these two need a teacher
    "TEXTREFINER.KD_TEXT_WEIGHT": "tests/trainers/test_textrefiner.py",
    "MAPLE.COUPLING_INIT": "tests/trainers/test_maple.py",  # needs three blocks
}

NAMES = [
    name
    for name in TRAINER_REGISTRY.registered_names()
    if (trainer := TRAINER_REGISTRY.get(name)).__module__.startswith("trainers.") and issubclass(trainer, MethodTrainer)
]
TRAINED = [name for name in NAMES if name not in UNTRAINED]
STEPPED = [name for name in TRAINED if "steps" not in EXEMPT.get(name, {})]
WITH_TEXT = [name for name in NAMES if "text" not in EXEMPT.get(name, {})]


def defaults():
    cfg = get_cfg_default()
    train.extend_cfg(cfg)
    return cfg.TRAINER


def node_of(name):
    return TRAINER_REGISTRY.get(name).node


def logits_of(trainer, images):
    trainer.method.eval()
    return trainer.model_inference(images)


def copied(tensors):
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def moved(before, after):
    assert set(before) == set(after)
    return {name for name in before if not torch.equal(before[name], after[name])}


def train_and_watch(trainer):
    """Train; gives each trained tensor's gradients, one a step, as norms, or None where there was none."""
    step, norms = trainer.forward_backward, {name: [] for name in trainer.method.trainables()}

    def watched(batch):
        result = step(batch)
        for name, p in trainer.method.trainables().items():
            norms[name].append(None if p.grad is None else p.grad.double().norm().item())
        return result

    trainer.forward_backward = watched
    trainer.train()
    return norms


def without_gradient(norms):
    """Tensors that got none, one that is not finite, or zeros in every step."""
    inf = float("inf")
    return {n for n, steps in norms.items() if not all(s is not None and s < inf for s in steps) or not any(steps)}


def extra_step(trainer, images):
    trainer.method.train()
    trainer.forward_backward({"img": images[:4], "label": torch.tensor([0, 1, 0, 1]), "domain": torch.zeros(4)})
    trainer.method.eval()


def record_of(trainer):
    return json.loads((Path(trainer.output_dir) / "metrics.json").read_text())


def final_of(trainer):
    return record_of(trainer)["final"]["metrics"]
