"""Evaluators collect model outputs batch by batch and report at the end."""

import os
from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from torch import Tensor
from yacs.config import CfgNode

from dassl import distributed
from dassl.utils.files import write_torch

from .build import EVALUATOR_REGISTRY

__all__ = ["Classification", "EvaluatorBase"]

NO_CLASS = -1  # predicted where a model's output is NaN


class EvaluatorBase:
    """`reset()`, then `process(output, label)` for each batch, then `evaluate()`.

    Of several processes each is given its share of the batches. `gathers` says that `evaluate`, which all of them call,
    puts the shares together and gives every process the results of the whole set.
    """

    gathers = False

    def __init__(self, cfg: CfgNode):
        self.cfg = cfg

    def reset(self) -> None:
        """Forget what was processed."""
        raise NotImplementedError

    def process(self, mo: Tensor, gt: Tensor) -> None:
        """Take a batch of model outputs and of labels."""
        raise NotImplementedError

    def evaluate(self) -> "OrderedDict[str, float]":
        """Print and return the results; the first is the one that selects models."""
        raise NotImplementedError


@EVALUATOR_REGISTRY.register()
class Classification(EvaluatorBase):
    """Accuracy, error rate and macro F1, in percent.

    Args:
        cfg: reads TEST.PER_CLASS_RESULT, TEST.COMPUTE_CMAT and OUTPUT_DIR.
        lab2cname: label to class name, needed with TEST.PER_CLASS_RESULT.

    Raises:
        ValueError: TEST.PER_CLASS_RESULT without `lab2cname`.
    """

    gathers = True

    def __init__(self, cfg: CfgNode, lab2cname: dict[int, str] | None = None, **kwargs: Any):
        super().__init__(cfg)
        if cfg.TEST.PER_CLASS_RESULT and lab2cname is None:
            raise ValueError("TEST.PER_CLASS_RESULT needs the class names; pass lab2cname to build_evaluator.")
        self._lab2cname = lab2cname or {}
        self.reset()

    def reset(self) -> None:
        self._y_true: list[Tensor] = []  # [B] each, on the device they came on: reading them there would stop it
        self._y_pred: list[Tensor] = []

    def process(self, mo: Tensor, gt: Tensor) -> None:
        """Take a batch.

        Args:
            mo: [B, C] logits.
            gt: [B] labels.

        Raises:
            ValueError: the shapes do not match.
        """
        if mo.ndim != 2 or gt.shape != mo.shape[:1]:
            raise ValueError(f"expected logits [B, C] and labels [B], got {list(mo.shape)} and {list(gt.shape)}")
        mo = mo.detach()
        self._y_pred.append(mo.argmax(dim=1).masked_fill(mo.isnan().any(dim=1), NO_CLASS))
        self._y_true.append(gt.detach())

    def evaluate(self) -> "OrderedDict[str, float]":
        """Print the results and return them unrounded.

        Returns:
            `accuracy`, `error_rate`, `macro_f1` over the classes that occur in the labels, and with
            TEST.PER_CLASS_RESULT `perclass_accuracy`, the mean of the classes' accuracies; all in percent.

        Raises:
            ValueError: nothing was processed.
            FloatingPointError: outputs are NaN, which `argmax` would take for a class.
        """
        total = sum(distributed.gather_plain(sum(len(batch) for batch in self._y_true)))
        if total == 0:
            raise ValueError("There is nothing to evaluate: no sample was processed; check the split under test.")
        true = distributed.gather_rows(self._y_true).cpu().numpy()
        pred = distributed.gather_rows(self._y_pred).cpu().numpy()
        unknown = int((pred == NO_CLASS).sum())
        if unknown:
            raise FloatingPointError(
                f"The model's outputs for {unknown:,} of {total:,} images are NaN, so there is no result; try PREC "
                "fp32 or bf16 instead of fp16 or amp, and another checkpoint."
            )
        correct = int((true == pred).sum())
        accuracy = 100.0 * correct / total
        classes, n_true, n_hit, n_pred = _counts(true, pred)
        macro_f1 = 100.0 * float(np.mean(2 * n_hit / (n_true + n_pred)))
        results = OrderedDict(accuracy=accuracy, error_rate=100.0 - accuracy, macro_f1=macro_f1)
        # The form of these lines is fixed: parse_test_res.py and others search for them.
        print(
            "=> result\n"
            f"* total: {total:,}\n"
            f"* correct: {correct:,}\n"
            f"* accuracy: {accuracy:.2f}%\n"
            f"* error: {100.0 - accuracy:.2f}%\n"
            f"* macro_f1: {macro_f1:.2f}%"
        )
        if self.cfg.TEST.PER_CLASS_RESULT:
            results["perclass_accuracy"] = self._print_classes(classes, n_true, n_hit)
        if self.cfg.TEST.COMPUTE_CMAT:
            self._save_cmat(true, pred)
        return results

    def _print_classes(self, classes: np.ndarray, n_true: np.ndarray, n_hit: np.ndarray) -> float:
        print("=> per-class result")
        accs = 100.0 * n_hit / n_true
        for label, total, correct, acc in zip(classes.tolist(), n_true, n_hit, accs, strict=True):
            name = self._lab2cname.get(label, "?")
            print(f"* class: {label} ({name})\ttotal: {total:,}\tcorrect: {correct:,}\tacc: {acc:.2f}%")
        mean = float(accs.mean())
        print(f"* average: {mean:.2f}%")
        return mean

    def _save_cmat(self, true: np.ndarray, pred: np.ndarray) -> None:
        """Save [n, n] float64 over the labels that occur in either, ascending; row: label, sums to 1 (or is 0)."""
        labels, codes = np.unique(np.concatenate([true, pred]), return_inverse=True)
        n = len(labels)
        cells = np.bincount(codes[: len(true)] * n + codes[len(true) :], minlength=n * n).reshape(n, n)
        cmat = cells / cells.sum(axis=1, keepdims=True).clip(min=1)
        path = os.path.join(self.cfg.OUTPUT_DIR, "cmat.pt")
        if distributed.is_main():
            write_torch(path, torch.from_numpy(cmat))
        print(f"Confusion matrix saved to {path}")


def _counts(true: np.ndarray, pred: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The labels that occur in `true`, ascending, and for each: its number, hits, and predictions of it."""
    classes, n_true = np.unique(true, return_counts=True)

    def count(values: np.ndarray) -> np.ndarray:
        values = values[np.isin(values, classes)]
        return np.bincount(np.searchsorted(classes, values), minlength=len(classes))

    return classes, n_true, count(true[true == pred]), count(pred)
