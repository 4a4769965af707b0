"""A data set of small noise pictures and trainers of one linear layer, in which every generator plays a part.

Run as a script it is one training process: `python toy_runs.py ROOT OUTPUT [KEY VALUE ...]`, which the variable
`INTERRUPT=<signal>@<step>` makes send itself a signal in its step number `step`, counted from 0.
"""

import os
import random
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.engine import TRAINER_REGISTRY, TrainerX, TrainerXU, build_trainer
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import set_random_seed


@DATASET_REGISTRY.register()
class NoisePictures(DatasetBase):
    """Three classes; 15 labelled, 12 unlabelled, 6 validation and 9 test pictures of 8 x 8."""

    def __init__(self, cfg):
        parts = {
            part: self.draw(Path(cfg.DATASET.ROOT), part, n) for part, n in (("x", 5), ("u", 4), ("v", 2), ("t", 3))
        }
        super().__init__(train_x=parts["x"], train_u=parts["u"], val=parts["v"], test=parts["t"])

    @staticmethod
    def draw(root, part, per_class):
        items = []
        for label in range(3):
            for i in range(per_class):
                path = root / f"{part}_{label}_{i}.png"
                if not path.exists():
                    root.mkdir(parents=True, exist_ok=True)
                    noise = np.random.default_rng([label, i, ord(part)]).integers(0, 200, (8, 8, 3), dtype=np.uint8)
                    noise[..., label] += 3
                    Image.fromarray(noise).save(path)
                items.append(Datum(impath=str(path), label=label, classname=f"class {label}"))
        return items


class Steps:
    """Parts that both trainers share; `steps` counts calls, `interrupt` is called with the count."""

    interrupt = staticmethod(lambda step: None)

    def build_model(self):
        self.model = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(192, 3)).to(self.device)
        self.optim = build_optimizer(self.model, self.cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, self.cfg.OPTIM)
        self.register_model("linear", self.model, self.optim, self.sched)
        self.average = torch.zeros(3, 192)  # state outside the registered model
        self.steps = 0
        self.lrs = []

    def noisy_loss(self, image, label):
        self.interrupt(self.steps)
        self.steps += 1
        self.lrs.append(self.get_current_lr())
        image = image + 0.01 * random.random() + 0.01 * float(np.random.rand()) + 0.01 * torch.rand(())
        logits = self.model(image)
        return F.cross_entropy(logits, label), logits

    def after_step(self):
        self.average = 0.9 * self.average + 0.1 * self.model[2].weight.detach()
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()

    def extra_state(self):
        return {"average": self.average}

    def load_extra_state(self, state):
        self.average = state["average"]


@TRAINER_REGISTRY.register()
class LinearX(Steps, TrainerX):
    def forward_backward(self, batch):
        image, label, _ = self.parse_batch_train(batch)
        loss, logits = self.noisy_loss(image, label)
        self.model_backward_and_update(loss)
        self.after_step()
        return {"loss": loss, "acc": compute_accuracy(logits, label)[0], "skipped": None}


@TRAINER_REGISTRY.register()
class LinearXU(Steps, TrainerXU):
    def forward_backward(self, batch_x, batch_u):
        image, label, unlabelled = self.parse_batch_train(batch_x, batch_u)
        loss, _ = self.noisy_loss(image, label)
        loss_u = self.model(unlabelled).softmax(1).square().mean()
        self.model_backward_and_update(loss + loss_u)
        self.after_step()
        return {"loss": loss.item(), "loss_u": loss_u}


def toy_cfg(root, output, **changes):
    """Two steps of warm-up and cosine in 4 epochs of 3 batches; `changes` as `OPTIM__LR=1.0`."""
    cfg = get_cfg_default()
    cfg.DATASET.ROOT, cfg.OUTPUT_DIR, cfg.DATASET.NAME = str(root), str(output), "NoisePictures"
    cfg.DEVICE, cfg.SEED, cfg.VERBOSE = "cpu", 3, False
    cfg.INPUT.SIZE, cfg.INPUT.TRANSFORMS = (8, 8), ("random_flip", "random_resized_crop", "normalize")
    cfg.DATALOADER.NUM_WORKERS, cfg.DATALOADER.TRAIN_X.BATCH_SIZE, cfg.DATALOADER.TEST.BATCH_SIZE = 0, 5, 4
    cfg.DATALOADER.TRAIN_U.SAME_AS_X, cfg.DATALOADER.TRAIN_U.BATCH_SIZE = False, 4
    cfg.OPTIM.NAME, cfg.OPTIM.LR, cfg.OPTIM.LR_SCHEDULER, cfg.OPTIM.MAX_EPOCH = "sgd", 0.1, "cosine", 4
    cfg.OPTIM.WARMUP_EPOCH, cfg.OPTIM.WARMUP_TYPE = 1, "constant"
    cfg.TRAIN.PRINT_FREQ, cfg.TRAIN.CHECKPOINT_SECONDS = 2, 0
    cfg.TRAINER.NAME = "LinearX"
    for key, value in changes.items():
        *nodes, leaf = key.split("__")
        node = cfg
        for name in nodes:
            node = node[name]
        node[leaf] = value
    cfg.freeze()
    return cfg


def toy_trainer(root, output, **changes):
    cfg = toy_cfg(root, output, **changes)
    set_random_seed(cfg.SEED)
    return build_trainer(cfg)


def main(root, output, *pairs):
    torch.set_num_threads(1)
    name, _, at = os.environ.get("INTERRUPT", "").partition("@")
    trainer = toy_trainer(root, output, **{k: eval(v) for k, v in zip(pairs[::2], pairs[1::2], strict=True)})
    if name:
        group = os.environ.get("GROUP")  # as a terminal or a batch system does: to the workers, too
        number = signal.Signals[name]
        send = (lambda: os.killpg(0, number)) if group else (lambda: os.kill(os.getpid(), number))
        trainer.interrupt = lambda step: send() if step == int(at) else None
    trainer.train()


if __name__ == "__main__":
    main(*sys.argv[1:])
