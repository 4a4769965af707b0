"""Linear probe: logistic regression on frozen image features (Radford et al., arXiv 2103.00020), as CoOp runs it.

Few-shot only: the head has a row for each class that it was trained on, and nothing to say about others.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NoReturn

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm
from yacs.config import CfgNode as CN

from clip.backbone import Backbone, LabelSpace
from dassl import distributed
from dassl.data.data_manager import build_data_loader
from dassl.data.transforms import build_transform
from dassl.engine import TRAINER_REGISTRY
from dassl.engine.precision import without_autocast
from trainers.base import MethodTrainer, declare_compute
from trainers.logistic import SOLVERS, LinearHead, fit, search
from trainers.method import Method

FOLDS = 4  # of the training images, where there are no validation images; fewer where a class has fewer images

Labelled = tuple[Tensor, Tensor]  # features [n, d], labels [n]


class LinearProbeMethod(Method):
    """Logits W f + b of un-normalised image features f; no text, and no other classes than its own."""

    reads_text = text_trains = False
    tied_to_classes = True

    def __init__(self, backbone: Backbone, space: LabelSpace):
        super().__init__(backbone, space)
        self.weight = nn.Parameter(torch.zeros(len(space), self.joint_width))  # W [C, d]
        self.bias = nn.Parameter(torch.zeros(len(space)))  # b [C]

    def prepare(self, space: LabelSpace) -> NoReturn:
        """Refuse to make text features.

        Raises:
            ValueError: always.
        """
        raise ValueError("LinearProbe reads no text, so it has no text features and no other method can stand on it.")

    def features(self, images: Tensor) -> Tensor:
        """Un-normalised image features [B, d] in fp32."""
        return self.image(images).pooled.float()

    @torch.no_grad()
    def take(self, head: LinearHead) -> None:
        """Set W and b."""
        self.weight.copy_(head.weight)
        self.bias.copy_(head.bias)

    def forward(self, images: Tensor, space: LabelSpace | None = None) -> Tensor:
        """Logits [B, C].

        Raises:
            ValueError: `space` has other classes than the method's own.
        """
        if space is not None and space.names != self.space.names:
            raise ValueError(f"LinearProbe can only tell its own classes: {difference(self.space.names, space.names)}.")
        features = self.features(images)
        with without_autocast(features.device):
            return F.linear(features, self.weight, self.bias)


@TRAINER_REGISTRY.register()
class LinearProbe(MethodTrainer):
    """Trainer of `LinearProbeMethod`; options under TRAINER.LINEARPROBE.

    Training is one epoch without steps: features of the training images, then the solver. C is chosen on the validation
    images; without any, by cross-validation on the training images, with which the head is then solved once more.
    """

    node = "LINEARPROBE"
    method: LinearProbeMethod

    @classmethod
    def extend_cfg(cls, cfg: CN) -> None:
        node = cfg.TRAINER.LINEARPROBE = CN()
        node.C = 0.0  # inverse strength of the L2 penalty; 0: search for it
        node.SOLVER = "auto"  # "sklearn" (on the CPU) | "torch" (on a CUDA GPU, else the CPU) | "auto": torch on CUDA
        node.MAX_ITER = 1000  # iterations of L-BFGS
        declare_compute(node)

    @classmethod
    def make_method(cls, cfg: CN, backbone: Backbone, space: LabelSpace) -> Method:
        return LinearProbeMethod(backbone, space)

    def check_cfg(self, cfg: CN) -> None:
        super().check_cfg(cfg)
        node = cfg.TRAINER.LINEARPROBE
        if node.C < 0:
            raise ValueError(f"TRAINER.LINEARPROBE.C must be positive, or 0 to search for it, got {node.C}.")
        if node.SOLVER not in ("auto", *SOLVERS):
            raise ValueError(f"TRAINER.LINEARPROBE.SOLVER must be auto, sklearn or torch, got '{node.SOLVER}'.")
        if node.MAX_ITER < 1:
            raise ValueError(f"TRAINER.LINEARPROBE.MAX_ITER must be at least 1, got {node.MAX_ITER}.")
        if cfg.OPTIM.MAX_EPOCH != 1:
            raise ValueError(f"LinearProbe solves once, set OPTIM.MAX_EPOCH to 1; it is {cfg.OPTIM.MAX_EPOCH}.")
        if node.TEXT_CHUNK:
            raise ValueError(
                f"LinearProbe reads no text; TRAINER.LINEARPROBE.TEXT_CHUNK must stay 0, got {node.TEXT_CHUNK}."
            )
        if cfg.MODEL.INIT_WEIGHTS:
            raise ValueError("LinearProbe solves from zero, leave MODEL.INIT_WEIGHTS empty.")

    def build_data_loader(self) -> None:
        """As in the engine, but training images come as test images do: once each, in order, not augmented."""
        super().build_data_loader()
        self.train_loader_x = build_data_loader(
            self.cfg,
            data_source=self.dm.dataset.train_x,
            batch_size=self.cfg.DATALOADER.TEST.BATCH_SIZE,
            tfm=build_transform(self.cfg, is_train=False),
            is_train=False,
            stream="train_x",
            replace=True,
        )

    def build_model(self) -> None:
        self._found: dict[str, Any] = {}  # what the epoch's row tells of the search
        super().build_model()

    def build_optim(self) -> tuple[Optimizer | None, LRScheduler | None]:
        """None: the solver is not an optimiser of the engine, and OPTIM counts for nothing."""
        return None, None

    def run_epoch(self) -> None:
        """Solve the head.

        Raises:
            ValueError: a single class, or nothing to choose C on.
            SystemExit: SIGTERM or SIGINT came; nothing is kept, the same command starts again.
        """
        node, n_cls = self.cfg.TRAINER.LINEARPROBE, len(self.method.space)
        if n_cls < 2:
            raise ValueError(f"LinearProbe needs at least two classes, {self.cfg.DATASET.NAME} has {n_cls} here.")
        smallest = min(Counter(item.label for item in self.dm.dataset.train_x).values())
        if not node.C and self.val_loader is None and smallest < 2:
            raise ValueError(
                f"{self.cfg.DATASET.NAME} has no validation images here and a class with a single training image, so "
                "nothing to choose C on; set TRAINER.LINEARPROBE.C, or more DATASET.NUM_SHOTS."
            )
        train = self.features(self.train_loader_x, "training images")
        if node.C:
            head = self.fit(train, node.C)
            self._found = {"c": node.C, "chosen_on": None, "accuracy": None, "fits": 1}
        elif self.val_loader is not None:
            head = self.choose([(train, self.features(self.val_loader, "validation images"))], "val")[0]
        else:
            self.choose(self.folds(train, min(FOLDS, smallest)), "folds")
            head = self.fit(train, self._found["c"])
            self._found["fits"] += 1
        self._found["iterations"] = head.iterations
        limit = f", the limit {self.node}.MAX_ITER" if head.iterations >= node.MAX_ITER else ""
        print(f"Solved with C = {self._found['c']:.6g} in {head.iterations} iterations{limit}")
        self.method.take(head)
        for parameter in self.method.parameters():  # each process has solved it; all take one solution
            distributed.from_main(parameter)

    @torch.no_grad()
    def features(self, loader: Any, what: str) -> Labelled:
        """Features of a loader's images, in fp32, and their labels, where the solver computes."""
        self.set_model_mode("eval")
        device = self.device if self.device.type == "cuda" else torch.device("cpu")
        found, labels = [], []
        bar = tqdm(loader, desc=f"features of {what}", disable=None, leave=False)
        for batch in self.until_stopped(bar, "before the head was solved"):
            images, label = self.parse_batch_test(batch)
            with self.precision.autocast():
                found.append(self.method.features(images).to(device))
            labels.append(label.to(device))
        return distributed.gather_rows(found).to(device), distributed.gather_rows(labels).to(device)

    def folds(self, train: Labelled, n: int) -> list[tuple[Labelled, Labelled]]:
        """Cut into n parts with the same share of every class: each part is scored by a head solved on the others."""
        features, label = train
        from sklearn.model_selection import StratifiedKFold  # here: it takes a second to import

        cut = StratifiedKFold(n, shuffle=True, random_state=max(self.cfg.SEED, 0))
        parts = cut.split(np.zeros(len(label)), label.cpu().numpy())
        return [
            ((features[kept], label[kept]), (features[held], label[held]))
            for kept, held in ((torch.from_numpy(k), torch.from_numpy(h)) for k, h in parts)
        ]

    def choose(self, rounds: list[tuple[Labelled, Labelled]], chosen_on: str) -> list[LinearHead]:
        """Search for C by the right answers in all rounds; the heads of the C that is found.

        Args:
            rounds: what to solve on, and what to score.
            chosen_on: what to call it in the record.
        """
        heads: dict[float, list[LinearHead]] = {}
        correct: dict[float, int] = {}
        n_scored = sum(len(label) for _, (_, label) in rounds)

        def score(c: float) -> int:
            heads[c] = [self.fit(kept, c) for kept, _ in rounds]
            correct[c] = sum(head.correct(*held) for head, (_, held) in zip(heads[c], rounds, strict=True))
            iterations = " ".join(str(head.iterations) for head in heads[c])
            print(f"C {c:<11.6g} accuracy on {chosen_on} {100 * correct[c] / n_scored:6.2f}% (iterations {iterations})")
            return correct[c]

        c = search(score)
        accuracy, fits = 100 * correct[c] / n_scored, len(heads) * len(rounds)
        self._found = {"c": c, "chosen_on": chosen_on, "accuracy": accuracy, "fits": fits}
        return heads[c]

    def fit(self, train: Labelled, c: float) -> LinearHead:
        """The head solved on some images, by the solver that the configuration names."""
        self.answer_stop("before the head was solved")
        node = self.cfg.TRAINER.LINEARPROBE
        solver = node.SOLVER
        if solver == "auto":
            solver = "torch" if self.device.type == "cuda" else "sklearn"
        return fit(*train, len(self.method.space), c, solver, node.MAX_ITER)

    def epoch_facts(self) -> dict[str, Any]:
        return {"probe": self._found}


def difference(trained: tuple[str, ...], now: tuple[str, ...]) -> str:
    """What distinguishes two lists of class names, in a few words."""
    if sorted(trained) == sorted(now):
        return "the same names in another order"
    name = next((name for name in now if name not in trained), None)
    example = f", '{name}' is new" if name else ""
    return f"{len(trained)} in training, {len(now)} now{example}"
