"""`RecordedTrainer`: a run that can be stopped at any step, goes on exactly there, and leaves a record."""

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch
from tqdm import tqdm

from dassl import distributed
from dassl.data import damaged_images, loader_state, share_damage, start_epoch
from dassl.utils.files import remove_leftovers, write_torch
from dassl.utils.torchtools import BEST_MODEL, load_checkpoint

from . import agreement, record, resume
from .base import TrainerBase
from .progress import Progress
from .run_lock import run_lock
from .signals import StopSignals


class RecordedTrainer(TrainerBase):
    """Keeps `metrics.json` and `resume.pth.tar`, answers SIGTERM and SIGINT, hands batches to the loop."""

    cfg: Any
    device: torch.device
    output_dir: str
    best_result: float

    def __init__(self) -> None:
        super().__init__()
        self._mode = ""  # "train" | "eval" while a run is under way
        self._record: record.RunRecord | None = None
        self._stop = StopSignals()
        self._point: dict[str, Any] | None = None  # resume state that the first epoch still has to take up
        self._rng_epoch: dict[str, Any] = {}  # generators at the beginning of the epoch
        self._rng_steps: dict[str, Any] | None = None  # generators after its last step, until the epoch is closed
        self._own_loop = False  # whether the trainer replaced `train`, so that the engine's part is done in other hooks
        self._saved_at = 0.0
        self._results: dict[str, Any] | None = None  # of the last test: {"split", "metrics", "images_per_second"}
        self._step_times = (0.0, 0.0)  # when the step began to wait for its batch, and when it had it
        self._step_images = 0

    # ---- a run from outside -------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _running(self, mode: str) -> Iterator[None]:
        """A run of one mode, alone in its folder; whatever happens inside, signals and writer are given back.

        Raises:
            RuntimeError: another process is at work in the folder, or a loading process died.
        """
        with run_lock(self.output_dir):
            self._mode = mode
            self._stop = StopSignals()
            self._stop.install()
            try:
                yield
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                if self._stop.requested and distributed.world_size() == 1:
                    self._leave()  # the signal went to the workers, too, and one died within a step
                raise RuntimeError(
                    f"A process that loads images died ({' '.join(str(error).split()).rstrip('.')}), perhaps for want "
                    "of memory; give the same command again, with a smaller DATALOADER.NUM_WORKERS if it happens again."
                ) from error
            finally:
                self._stop.restore()
                self.close_writer()
                self._mode, self._progress, self._rng_steps = "", None, None

    def _finished_before(self) -> bool:
        """Whether the output folder holds this very run, finished; says so.

        Raises:
            ValueError: it holds a finished run of another config.
        """
        earlier = record.read_record(self.output_dir)
        if earlier is None or earlier.get("mode") != "train" or not earlier.get("finished"):
            return False
        path = Path(self.output_dir) / record.FILE
        resume.refuse_other_config(earlier.get("config") or {}, self.cfg, path)
        if distributed.is_main():
            (path.parent / resume.FILE).unlink(missing_ok=True)
        metrics = (earlier.get("final") or {}).get("metrics") or {}
        result = "".join(f", {name} {value:.2f}%" for name, value in list(metrics.items())[:1] if value is not None)
        print(f"The run in {self.output_dir} is finished{result}; delete the folder to train again")
        return True

    def check_training(self) -> None:
        """Refuse what can't be trained.

        Raises:
            RuntimeError: no model is registered.
            ValueError: a number is out of range.
        """
        if not self._models:
            raise RuntimeError(
                f"There is nothing to train: TRAINER.NAME {self.cfg.TRAINER.NAME} registers no model; use --eval-only."
            )
        if not isinstance(self.cfg.TRAIN.PRINT_FREQ, int) or self.cfg.TRAIN.PRINT_FREQ < 1:
            raise ValueError(f"TRAIN.PRINT_FREQ must be an integer of at least 1, got {self.cfg.TRAIN.PRINT_FREQ!r}.")
        if self.cfg.OPTIM.MAX_EPOCH < 1:
            raise ValueError(
                f"OPTIM.MAX_EPOCH must be at least 1, got {self.cfg.OPTIM.MAX_EPOCH}; only test: --eval-only."
            )

    def _begin_training(self) -> None:
        """Find out where to start, and make sure that the output folder can be written."""
        self.check_training()
        self._mode = "train"
        self._record = record.open_record(self.output_dir, "train", record.collect_facts(self))
        self.start_epoch = self.resume_model_if_exist(resume.start_folder(self.output_dir, self.cfg.RESUME))
        agreement.refuse_other_start(self)
        self._record.write()
        if distributed.is_main():
            remove_leftovers(self.output_dir)
        self._saved_at = time.monotonic()

    def resume_model_if_exist(self, directory: str | os.PathLike) -> int:
        """Continue from a folder's resume file, exactly; without one, from its newest saved models, as Dassl does.

        Returns:
            The number of finished epochs.

        Raises:
            ValueError: the run there has another config.
            RuntimeError: a file is damaged or does not fit.
        """
        assert self._record is not None, "resume_model_if_exist is called in before_train"
        earlier = record.read_record(directory)
        path = Path(directory) / resume.FILE
        if path.is_file():
            state = resume.read(path)
            resume.apply(self, state, path)
            told = state["record"]
            self._record.resume(told["epochs"], told["started"], told["wall_seconds"], told["resumed"] + 1)
            self._point = state
            print(f"Resuming from {path}: epoch {state['epoch'] + 1}, {state['batch']} batches of it done")
            return state["epoch"]
        trained = earlier is not None and earlier.get("mode") == "train" and self._newest_of_all(Path(directory))
        if earlier is not None and trained:
            resume.refuse_other_config(earlier.get("config") or {}, self.cfg, Path(directory) / record.FILE)
        finished = super().resume_model_if_exist(directory)
        if finished:
            self._take_over(earlier, finished, Path(directory))
        return finished

    def _take_over(self, earlier: dict[str, Any] | None, finished: int, directory: Path) -> None:
        """After a resume from saved models: the epochs' record if there is one, and the best result so far."""
        assert self._record is not None
        known = {"started", "wall_seconds", "resumed"} <= set(earlier or {})
        if earlier is not None and earlier.get("mode") == "train" and known:
            epochs = [row for row in earlier.get("epochs", []) if row["epoch"] <= finished]
            self._record.resume(epochs, earlier["started"], earlier["wall_seconds"], earlier["resumed"] + 1)
        best = directory / next(iter(self._models)) / BEST_MODEL
        if best.is_file():
            checkpoint = load_checkpoint(best)
            result = checkpoint.get("val_result") if isinstance(checkpoint, dict) else None
            self.best_result = float(result) if isinstance(result, (int, float)) else self.best_result

    def _finish_training(self, final: dict[str, Any] | None) -> None:
        assert self._record is not None
        total = sum(row.get("replaced_images", 0) for row in self._record.tree["epochs"])
        paths = dict.fromkeys(path for loader in self._loaders() for path in damaged_images(loader)[1])
        if total or paths:
            remedy = f"; restore or remove {', '.join(paths)}" if paths else ""
            print(f"{total} damaged images were replaced by others of their class in training{remedy}")
        self._record.tree.update(final=final, finished=True)
        self._record.write()
        if distributed.is_main():
            (Path(self.output_dir) / resume.FILE).unlink(missing_ok=True)

    # ---- an epoch -----------------------------------------------------------------------------------------------

    def _loaders(self) -> list[Any]:
        return [getattr(self, name, None) for name in resume.LOADERS]

    def _open_epoch(self) -> None:
        for loader in self._loaders():
            start_epoch(loader, self.epoch)
        if self._point is not None:
            resume.set_rng_state(self._point["rng_epoch"])
        self._rng_epoch = resume.rng_state()
        self._results = None

    def training_steps(self, num_batches: int, *loaders: Any, endless: bool = False) -> Iterator[tuple[Any, ...]]:
        """Yield one batch of each loader per step of an epoch; after each, the loop calls `finish_step`.

        A resumed epoch goes on after the last step that was saved.

        Args:
            num_batches: steps of the epoch.
            endless: start a loader again when it is exhausted; else the epoch ends there.
        """
        self._own_loop = not self._rng_epoch
        if self._own_loop:
            self._open_epoch()
        self.num_batches = num_batches
        self._progress = Progress(
            self.epoch, self.max_epoch, num_batches, self.cfg.TRAIN.PRINT_FREQ, self.write_scalar, self._advice
        )
        sources = [_Source(loader, endless) for loader in loaders]
        first = self._take_up(sources)
        bar = {
            "initial": first,
            "total": num_batches,
            "desc": f"epoch {self.epoch + 1}/{self.max_epoch}",
            "leave": False,
        }
        for self.batch_idx in tqdm(range(first, num_batches), disable=None, **bar):  # only where stderr is a terminal
            begin = time.perf_counter()
            try:
                batches = [next(source) for source in sources]
            except StopIteration:
                break
            except RuntimeError:
                if self._stop.requested and distributed.world_size() == 1:  # a worker was stopped by the same signal
                    self._save_and_leave(self.batch_idx, resume.rng_state())
                raise
            self._step_times = (begin, time.perf_counter())
            self._step_images = agreement.begin_step(loaders, batches)
            if self._progress.lr is None:
                self._progress.lr = self.get_current_lr()
            yield tuple(batches)
        self._progress.flush()
        self._rng_steps = resume.rng_state()

    def _take_up(self, sources: list["_Source"]) -> int:
        """Bring a new epoch's sources, averages and generators to where the run was interrupted; first batch to do."""
        point, self._point = self._point, None
        if point is None or not point["batch"]:
            return 0
        assert self._progress is not None
        for source in sources:
            if not loader_state(source.loader):  # not one of dassl.data's: it cannot skip, so its batches are drawn
                for _ in range(point["batch"]):
                    next(source)
        self._progress.load_state_dict(point["progress"])
        resume.set_rng_state(point["rng"])
        return point["batch"]

    def finish_step(self, losses: dict[str, Any] | None) -> None:
        """Report a step; save the run's state if it is time to, or if a signal asks for it.

        Raises:
            FloatingPointError: a loss is NaN or infinite.
            SystemExit: SIGTERM (143) or SIGINT (130) came; the state is saved.
        """
        assert self._progress is not None, "finish_step belongs into a loop over training_steps"
        begin, loaded = self._step_times
        seconds = time.perf_counter() - begin
        lr = self.get_current_lr()
        losses = agreement.over_all_images(losses)
        self._progress.add(self.batch_idx, losses, lr, loaded - begin, seconds, self._step_images)
        done = self.batch_idx + 1
        every = self.cfg.TRAIN.CHECKPOINT_SECONDS
        stop, save = self._stop.agree_in_step(every > 0 and time.monotonic() - self._saved_at >= every)
        if stop:
            self._save_and_leave(done, resume.rng_state())
        if save:
            self._save_point(self.epoch, done, self._rng_epoch, resume.rng_state())

    def _close_epoch(self) -> None:
        """Note the epoch in the record, and save the point at which the next one begins."""
        assert self._record is not None
        progress, self._progress, self._rng_steps, self._rng_epoch = self._progress, None, None, {}
        self._point = None  # a loop of the trainer's own has not taken it up
        agreement.refuse_divergence(self, f"after epoch {self.epoch + 1}")
        for loader in self._loaders():
            share_damage(loader)
        row: dict[str, Any] = {"epoch": self.epoch + 1, "lr": None, "train": None, "val": None}
        row |= {"seconds": None, "images_per_second": None}
        row["replaced_images"] = sum(damaged_images(loader)[0] for loader in self._loaders())
        if progress is not None:
            row.update(lr=progress.lr, train=progress.averages(), seconds=progress.seconds)
            row["images_per_second"] = progress.images / progress.seconds if progress.seconds else None
        if self._results is not None:
            row["test" if self.cfg.TEST.FINAL_MODEL == "released_best_val" else "val"] = self._results["metrics"]
        row |= self.epoch_facts()
        self._record.tree["epochs"].append(row)
        rng = resume.rng_state()
        self._save_point(self.epoch + 1, 0, rng, rng)
        self._record.write()
        if self._stop.agree(self._stop.requested) and self.epoch + 1 < self.max_epoch:
            self._leave(f"after epoch {self.epoch + 1}")

    # ---- saving and stopping ------------------------------------------------------------------------------------

    def _save_point(self, epoch: int, batch: int, rng_epoch: dict[str, Any], rng: dict[str, Any]) -> None:
        if self._progress is not None:
            self._progress.flush()  # a loss that is not finite must not be followed by a save
        for loader in self._loaders():
            share_damage(loader)
        if distributed.is_main():
            write_torch(Path(self.output_dir) / resume.FILE, resume.capture(self, epoch, batch, rng_epoch, rng))
        distributed.barrier()  # who leaves now makes torchrun end the others
        self._saved_at = time.monotonic()

    def _save_and_leave(self, batch: int, rng: dict[str, Any]) -> NoReturn:
        self._save_point(self.epoch, batch, self._rng_epoch, rng)
        self._leave(f"after epoch {self.epoch + 1}, batch {batch} of {self.num_batches}")

    def until_stopped(self, batches: Iterable[Any], where: str = "in the test") -> Iterator[Any]:
        """Batches of a pass without steps; a signal ends it between two of them, in all processes.

        A validation is repeated when the run goes on.

        Raises:
            SystemExit: SIGTERM (143) or SIGINT (130) came.
        """
        stopped = False
        for batch in batches:
            stopped = self._stop.requested
            if stopped:
                break
            yield batch
        if self._stop.agree(stopped):
            self._leave_pass(where)

    def answer_stop(self, where: str) -> None:
        """Leave if a signal has come: to be called now and then in a long task that no loop of the engine is around.

        Several processes, which must leave together, do not leave here.

        Raises:
            SystemExit: as `until_stopped`.
        """
        if self._stop.requested and distributed.world_size() == 1:
            self._leave_pass(where)

    def _leave_pass(self, where: str) -> NoReturn:
        if self._rng_steps is not None:
            self._save_and_leave(self.num_batches, self._rng_steps)
        self._leave(where)

    def _leave(self, where: str = "") -> NoReturn:
        assert self._stop.received is not None
        path = Path(self.output_dir) / resume.FILE
        goes_on = f"continues from {path}" if self._mode == "train" and path.is_file() else "starts again"
        name = self._stop.received.name
        print(f"Stopped by {name} {where or 'within a step'}; the same command {goes_on}", flush=True)
        raise SystemExit(self._stop.exit_code)

    def _advice(self) -> str:
        path = Path(self.output_dir) / resume.FILE
        kept = f"; the last good state is in {path}" if self._mode == "train" and path.is_file() else ""
        return f"{super()._advice().rstrip('.')}{kept}."


class _Source:
    """Batches of a loader, once or again and again."""

    def __init__(self, loader: Any, endless: bool):
        self.loader = loader
        self.endless = endless
        self._batches = iter(loader)

    def __iter__(self) -> "_Source":
        return self

    def __next__(self) -> Any:
        try:
            return next(self._batches)
        except StopIteration:
            if not self.endless:
                raise
            self._batches = iter(self.loader)
            return next(self._batches)
