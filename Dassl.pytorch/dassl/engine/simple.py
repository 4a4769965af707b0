"""`SimpleTrainer`: data, network, evaluator; training, test and evaluation of a run folder."""

import datetime
import os
import time
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from dassl import distributed
from dassl.data import DataManager
from dassl.evaluation import Classification, build_evaluator
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import count_num_param, load_checkpoint, load_pretrained_weights
from dassl.utils.torchtools import model_file

from . import record
from .agreement import count_images
from .device import select_device
from .recorded import RecordedTrainer
from .simple_net import SimpleNet

# TEST.FINAL_MODEL -> the split on which an epoch is chosen
CHOSEN_ON = {"last_step": None, "best_val": "val", "released_best_val": "test"}


class SimpleTrainer(RecordedTrainer):
    """A trainer built from a config; a subclass overrides what its method needs.

    Construction calls, in this order, `check_cfg(cfg)` (`self.cfg` is not set yet), `build_data_loader()` and
    `build_model()`.
    """

    def __init__(self, cfg: Any):
        super().__init__()
        _check_test_keys(cfg)
        self.check_cfg(cfg)
        self.device = self.select_device(cfg)
        self.start_epoch = self.epoch = 0
        self.max_epoch = cfg.OPTIM.MAX_EPOCH
        self.output_dir = cfg.OUTPUT_DIR
        self.cfg = cfg
        with distributed.in_turn():  # data and weights may be fetched or made on first use
            self.build_data_loader()
            self.build_model()
        self.evaluator = build_evaluator(cfg, lab2cname=self.lab2cname)
        if distributed.world_size() > 1 and not getattr(self.evaluator, "gathers", False):
            raise ValueError(
                f"TEST.EVALUATOR {cfg.TEST.EVALUATOR} does not gather what several processes were given; test with one."
            )
        self.best_result = float("-inf")

    select_device = staticmethod(select_device)

    def check_cfg(self, cfg: Any) -> None:
        """Refuse values that a method cannot work with; nothing is built yet."""

    def build_data_loader(self) -> None:
        """Make the data manager; an override sets at least `lab2cname` and the loaders that the run uses."""
        dm: Any = DataManager(self.cfg)
        self.train_loader_x = dm.train_loader_x
        self.train_loader_u = dm.train_loader_u
        self.val_loader = dm.val_loader
        self.test_loader = dm.test_loader
        self.num_classes = dm.num_classes
        self.num_source_domains = dm.num_source_domains
        self.lab2cname = dm.lab2cname
        self.dm = dm

    def build_model(self) -> None:
        """Make and register the network, here a `SimpleNet` by `cfg.MODEL`, with optimiser and scheduler."""
        cfg = self.cfg
        print("Building model")
        self.model: Any = SimpleNet(cfg, cfg.MODEL, self.num_classes)
        if cfg.MODEL.INIT_WEIGHTS:
            load_pretrained_weights(self.model, cfg.MODEL.INIT_WEIGHTS)
        self.model.to(self.device)
        print(f"# params: {count_num_param(self.model):,}")
        self.optim = build_optimizer(self.model, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("model", self.model, self.optim, self.sched)
        devices = torch.cuda.device_count() if self.device.type == "cuda" else 0
        if devices > 1 and distributed.world_size() == 1:
            print(f"Detected {devices} GPUs (use nn.DataParallel)")
            self.model = nn.DataParallel(self.model)

    # ---- training -----------------------------------------------------------------------------------------------

    def train(self) -> None:  # type: ignore[override]  # as in Dassl, where the start and end are the trainer's own
        """Train from the beginning, or from where this run was interrupted; then test.

        A run that is finished already is left alone.

        Raises:
            ValueError: the output folder holds a run of another config.
            RuntimeError: nothing to train, a damaged resume file, or an output folder that cannot be written or that
                another process uses.
            FloatingPointError: a loss is NaN or infinite.
            SystemExit: SIGTERM (143) or SIGINT (130) came; the same command continues.
        """
        if self._finished_before():
            return
        with self._running("train"):
            if not self._finished_before():  # meanwhile, by the process that was in the folder
                super().train(self.start_epoch, self.max_epoch)

    def before_train(self) -> None:
        self._begin_training()
        done = self._point["batch"] if self._point else 0
        steps = len(self.train_loader_x) if getattr(self, "train_loader_x", None) is not None else 0
        purge = self.start_epoch * steps + done
        self.init_writer(os.path.join(self.output_dir, "tensorboard"), purge_step=purge or None)
        self.epoch = max(self.start_epoch - 1, 0)  # what a test reports if no epoch is left
        self.time_start = time.time()  # for trainers that print it; the engine's own is not the clock's
        self._train_began = time.monotonic()

    def after_epoch(self) -> None:
        """Measure and keep the best model, if `TEST.FINAL_MODEL` asks for it; save every `CHECKPOINT_FREQ` epochs."""
        cfg = self.cfg
        split = CHOSEN_ON[cfg.TEST.FINAL_MODEL]
        if not cfg.TEST.NO_TEST and split is not None:
            result = self._measure(split)
            if result > self.best_result:
                self.best_result = result
                self.save_model(self.epoch, self.output_dir, val_result=result, model_name="model-best.pth.tar")
        done, every = self.epoch + 1, cfg.TRAIN.CHECKPOINT_FREQ
        if done == self.max_epoch or (every > 0 and done % every == 0):
            self.save_model(self.epoch, self.output_dir)
        if self._own_loop:
            self._close_epoch()

    def after_train(self) -> None:
        """Test the best or the last model, and close the record."""
        print("Finish training")
        print("Finished training")  # what parsers of MaPLe and PromptSRC wait for
        final = None
        if not self.cfg.TEST.NO_TEST:
            split = CHOSEN_ON[self.cfg.TEST.FINAL_MODEL]
            print(f"Deploy the model with the best {split} performance" if split else "Deploy the last-epoch model")
            if split == "test":
                print("Warning: this epoch was chosen on the test images, as released; the result is their maximum")
            if split:
                self.load_model(self.output_dir)
            self._measure(None)
            epoch = self._epoch_of(self.output_dir, None) if split else self.max_epoch
            final = self._final(epoch, None) | ({"chosen_on": "test"} if split == "test" else {})
        print(f"Elapsed: {datetime.timedelta(seconds=round(time.monotonic() - self._train_began))}")
        self.close_writer()
        self._finish_training(final)

    # ---- test ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluate on `val`, if there is a val loader, or on the test set.

        Outside a training or evaluation run the results go to a `metrics.json` of their own.

        Returns:
            The first result, accuracy in percent.
        """
        self.set_model_mode("eval")
        self.evaluator.reset()
        split = split or self.cfg.TEST.SPLIT
        if split == "val" and self.val_loader is not None:
            loader = self.val_loader
        else:
            split, loader = "test", self.test_loader
        print(f"Evaluate on the *{split}* set")
        begin, images = time.perf_counter(), 0
        for batch in self.until_stopped(tqdm(loader, disable=None)):  # a bar only where stderr is a terminal
            images += count_images(batch)
            input, label = self.parse_batch_test(batch)
            self.evaluator.process(self.model_inference(input), label)
        results = self.evaluator.evaluate()
        images = sum(distributed.gather_plain(images))
        speed = images / (time.perf_counter() - begin)  # after `evaluate`, which waits for the device
        for name, value in results.items():
            self.write_scalar(f"{split}/{name}", value, self.epoch)
        self._results = {"split": split, "metrics": dict(results), "images_per_second": speed}
        if not self._mode:
            self._record_evaluation(None, None)
        return next(iter(results.values()))

    def evaluate(self, model_dir: str = "", epoch: int | None = None) -> float:
        """Load weights, test, and record it: what `--eval-only` does.

        Args:
            model_dir: run folder with the registered models' sub-folders; "" to test the model as it is.
            epoch: take the weights of this epoch; None for the best ones.

        Returns:
            The first result, accuracy in percent.

        Raises:
            FileNotFoundError: no such weights; the message lists those that exist.
            RuntimeError: they are damaged, do not fit, or the output folder cannot be written.
            SystemExit: SIGTERM (143) or SIGINT (130) came.
        """
        with self._running("eval"):
            self._record = record.open_record(self.output_dir, "eval", record.collect_facts(self))
            self.load_model(model_dir, epoch=epoch)
            if model_dir:
                self._record.not_before(record.read_record(model_dir))
            self._record.write()  # only now: a mistyped folder or epoch does not overwrite an earlier result
            result = self._measure(None)
            self._record_evaluation(model_dir or None, self._epoch_of(model_dir, epoch) if model_dir else None)
        return result

    def _record_evaluation(self, model_dir: str | None, epoch: int | None) -> None:
        if self._record is None or self._record.tree["mode"] != "eval":
            self._record = record.open_record(self.output_dir, "eval", record.collect_facts(self))
        self._record.tree.update(final=self._final(epoch, model_dir), finished=True)
        self._record.write()

    def _measure(self, split: str | None) -> float:
        """`test`, which a trainer may have replaced by one that returns a number and leaves no results."""
        self._results = None
        value = self.test() if split is None else self.test(split=split)
        if self._results is None:
            name = "accuracy" if isinstance(self.evaluator, Classification) else "result"
            self._results = {"split": split or self.cfg.TEST.SPLIT, "metrics": {name: float(value)}}
            self._results["images_per_second"] = None
        return value

    def _final(self, epoch: int | None, model_dir: str | None) -> dict[str, Any]:
        assert self._results is not None
        return {"epoch": epoch, "model_dir": model_dir, **self._results}

    def _epoch_of(self, directory: str, epoch: int | None) -> int | None:
        """The epoch that loaded weights belong to; where it is not given, it is read from the file."""
        if epoch is not None or not self._models:
            return epoch
        try:
            return load_checkpoint(model_file(directory, next(iter(self._models)), None)).get("epoch")
        except FileNotFoundError:  # the trainer keeps its weights elsewhere
            return None

    def model_inference(self, input: Any) -> Any:
        return self.model(input)

    def parse_batch_test(self, batch: Any) -> tuple[Any, Any]:
        """Images [B, 3, H, W] and labels [B] of a batch, on the run's device."""
        return self._to_device(batch["img"]), self._to_device(batch["label"])

    def _to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """Copy to the run's device; to a GPU, from the loader's pinned memory, without waiting for its work."""
        return tensor.to(self.device, non_blocking=self.device.type == "cuda")


def _check_test_keys(cfg: Any) -> None:
    """Refuse values that would silently mean the other choice."""
    for key, known in (("FINAL_MODEL", tuple(CHOSEN_ON)), ("SPLIT", ("test", "val"))):
        if cfg.TEST[key] not in known:
            raise ValueError(f"TEST.{key} must be {', '.join(known[:-1])} or {known[-1]}, got {cfg.TEST[key]!r}.")
