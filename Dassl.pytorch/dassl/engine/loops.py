"""The two training loops: labelled data, and labelled beside unlabelled data."""

from typing import Any

from .simple import SimpleTrainer


class TrainerX(SimpleTrainer):
    """One labelled loader."""

    def run_epoch(self) -> None:
        self.set_model_mode("train")
        for (batch,) in self.training_steps(len(self.train_loader_x), self.train_loader_x):
            self.finish_step(self.forward_backward(batch))

    def parse_batch_train(self, batch: Any) -> Any:
        """Images [B, 3, H, W], labels [B] and domains [B] of a batch, on the run's device."""
        return tuple(self._to_device(batch[key]) for key in ("img", "label", "domain"))


class TrainerXU(SimpleTrainer):
    """A labelled and an unlabelled loader; `TRAIN.COUNT_ITER` says which one's length is an epoch."""

    def run_epoch(self) -> None:
        self.set_model_mode("train")
        loaders = (self.train_loader_x, self.train_loader_u)
        for batch_x, batch_u in self.training_steps(self._count_batches(), *loaders, endless=True):
            self.finish_step(self.forward_backward(batch_x, batch_u))

    def _count_batches(self) -> int:
        if self.train_loader_u is None:
            raise RuntimeError(f"{self.cfg.TRAINER.NAME} needs unlabelled images, but the data set has no train_u.")
        labelled, unlabelled = len(self.train_loader_x), len(self.train_loader_u)
        counts = {"train_x": labelled, "train_u": unlabelled, "smaller_one": min(labelled, unlabelled)}
        if self.cfg.TRAIN.COUNT_ITER not in counts:
            raise ValueError(f"TRAIN.COUNT_ITER must be one of {list(counts)}, got {self.cfg.TRAIN.COUNT_ITER!r}.")
        return counts[self.cfg.TRAIN.COUNT_ITER]

    def parse_batch_train(self, batch_x: Any, batch_u: Any) -> Any:
        """Labelled images, their labels, and unlabelled images, on the run's device."""
        return tuple(self._to_device(tensor) for tensor in (batch_x["img"], batch_x["label"], batch_u["img"]))
