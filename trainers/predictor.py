"""A trained run, used on pictures:

    from trainers.predictor import Predictor

    for prediction in Predictor.load("output/run").predict(["cat.jpg", "dog.jpg"]):
        print(prediction.path, prediction.top(3))

No data set is needed: the run folder says which classes, options, backbone, precision and preprocessing it has.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dassl.data.transforms import ToTensor, build_transform
from dassl.utils import read_image
from dassl.utils.tools import ImageReadError, as_seen
from trainers.base import MethodTrainer
from trainers.chosen_tokens import TokenChoice, choices
from trainers.saved_run import SavedRun

Picture = str | os.PathLike | Image.Image
Read = tuple[str, Tensor]  # path, and picture [3, H, W] as the model takes it
READERS = min(8, os.cpu_count() or 1)  # threads that read pictures


@dataclass(frozen=True)
class Prediction:
    """What a run says of one picture; C classes."""

    path: str  # of the file; "" for a picture that came from none
    names: tuple[str, ...]  # all classes, in the order of the numbers below
    probabilities: np.ndarray  # fp32 [C], softmax of the logits
    logits: np.ndarray  # fp32 [C], scaled
    tokens: TokenChoice | None  # the visual tokens that were chosen for it; None: the method chooses none

    @property
    def label(self) -> int:
        """Number of the most probable class."""
        return int(self.logits.argmax())

    def top(self, n: int = 5) -> list[tuple[str, float]]:
        """Names and probabilities of the n most probable classes, best first; of equals the earlier one."""
        order = np.argsort(-self.logits, kind="stable")[:n]
        return [(self.names[c], float(self.probabilities[c])) for c in order]


@dataclass(frozen=True)
class Unreadable:
    """A picture that could not be read."""

    path: str
    error: Exception  # FileNotFoundError or ImageReadError; its text is one sentence with the path


class Predictor:
    """Classifies pictures as the test of a run would.

    Args:
        trainer: of a run, with its trained tensors; `load` makes it.
        batch_size: pictures in one pass.

    Raises:
        ValueError: the batch size is below 1.
    """

    def __init__(self, trainer: MethodTrainer, batch_size: int):
        if batch_size < 1:
            raise ValueError(f"The batch size must be at least 1, got {batch_size}.")
        transform = build_transform(trainer.cfg, is_train=False)
        assert transform is not None, "a run with INPUT.NO_TRANSFORM can't have finished: its batches are no tensors"
        self.trainer, self.batch_size, self.transform = trainer, batch_size, transform

    @classmethod
    def load(
        cls,
        run: str | os.PathLike,
        classnames: Sequence[str] | None = None,
        epoch: int | None = None,
        batch_size: int | None = None,
        opts: Sequence[str] = (),
    ) -> Predictor:
        """The predictor of a run folder, on the best device of this machine.

        Args:
            run: what train.py wrote, in training or in an evaluation.
            classnames: other classes than the run's; they need no training.
            epoch: weights of this epoch, instead of those that the run ended with.
            batch_size: pictures in one pass; None: as in the run's test.
            opts: KEY, VALUE, … of the configuration, for what is elsewhere now (MODEL.BACKBONE.NAME) or must be
                otherwise on this machine (DEVICE).

        Raises:
            ValueError: the run is not finished, or its method can't be used on other classes or pictures.
            FileNotFoundError: something of the run is missing, or the backbone's weights.
            RuntimeError: weights are damaged, or belong to another backbone or to other classes.
        """
        trainer = SavedRun.read(run).trainer(classnames, epoch, opts)
        return cls(trainer, trainer.cfg.DATALOADER.TEST.BATCH_SIZE if batch_size is None else batch_size)

    @property
    def names(self) -> tuple[str, ...]:
        """The classes that compete."""
        return self.trainer.test_space.names

    def predict(self, pictures: Picture | Iterable[Picture]) -> Iterator[Prediction]:
        """One prediction a picture, in order; the next batch is read while one is computed, and not before.

        Args:
            pictures: paths or PIL images, or a single one.

        Raises:
            FileNotFoundError, ImageReadError: a picture is missing or damaged; `attempt` goes on behind it.
        """
        for result in self.attempt(pictures):
            if isinstance(result, Unreadable):
                raise result.error
            yield result

    def attempt(self, pictures: Picture | Iterable[Picture]) -> Iterator[Prediction | Unreadable]:
        """As `predict`, with an `Unreadable` in the place of a picture that is missing or damaged."""
        source = iter([pictures] if isinstance(pictures, str | os.PathLike | Image.Image) else pictures)
        with ThreadPoolExecutor(READERS) as readers:
            coming = self._read(readers, source)
            while coming:
                read, coming = [future.result() for future in coming], self._read(readers, source)
                yield from self._batch(read)

    def preprocessed(self, picture: Picture) -> Tensor:
        """A picture as the model takes it, [3, H, W].

        Raises:
            FileNotFoundError, ImageReadError: it is missing or damaged.
        """
        return self.transform(opened(picture))

    def seen(self, picture: Picture) -> Image.Image:
        """The part of a picture that the model sees, resized and cropped: what token numbers and maps lie on.

        Raises:
            FileNotFoundError, ImageReadError: it is missing or damaged.
        """
        image = opened(picture)
        for step in self.transform.transforms:
            if isinstance(step, ToTensor):
                break
            image = step(image)
        return image

    def _read(self, readers: ThreadPoolExecutor, source: Iterator[Picture]) -> list[Future[Read | Unreadable]]:
        """Begin to read the next batch."""
        return [readers.submit(self._open, picture) for picture in islice(source, self.batch_size)]

    def _open(self, picture: Picture) -> Read | Unreadable:
        try:
            if not isinstance(picture, Image.Image):
                return path_of(picture), self.preprocessed(picture)
            with _LOADING:
                image = opened(picture)
            return path_of(picture), self.transform(image)
        except (FileNotFoundError, ImageReadError) as error:
            return Unreadable(path_of(picture), error)

    def _batch(self, read: list[Read | Unreadable]) -> Iterator[Prediction | Unreadable]:
        images = [item[1] for item in read if not isinstance(item, Unreadable)]
        predicted = self._infer(torch.stack(images)) if images else []
        results = iter(predicted)
        for item in read:
            if isinstance(item, Unreadable):
                yield item
            else:
                logits, probabilities, tokens = next(results)
                yield Prediction(item[0], self.names, probabilities, logits, tokens)

    @torch.no_grad()
    def _infer(self, images: Tensor) -> list[tuple[np.ndarray, np.ndarray, TokenChoice | None]]:
        """Logits, probabilities and tokens of each image of [B, 3, H, W]."""
        trainer = self.trainer
        with trainer.precision.autocast():
            out = trainer.method.inspect(images.to(trainer.device), trainer.test_space)
        logits = out.logits.float()
        tokens = [None] * len(images) if out.tokens is None else choices(out.tokens, trainer.trained_names)
        return list(zip(logits.cpu().numpy(), logits.softmax(dim=1).cpu().numpy(), tokens, strict=True))


_LOADING = Lock()  # a PIL image loads its pixels when they are asked for, and may be given twice


def path_of(picture: Picture) -> str:
    """Where a picture comes from, "" if from no file."""
    if isinstance(picture, Image.Image):
        return str(getattr(picture, "filename", ""))
    return os.fspath(picture)


def opened(picture: Picture) -> Image.Image:
    """A picture in RGB, upright.

    Raises:
        FileNotFoundError: there is no such file.
        ImageReadError: it is damaged or no image.
    """
    if not isinstance(picture, Image.Image):
        return read_image(Path(picture))
    try:
        return as_seen(picture)
    except Exception as error:  # whatever Pillow's parsers raise
        path, reason = path_of(picture), " ".join(str(error).split())
        message = f"Cannot read the image {path or 'that was given'} ({reason}); restore or remove it."
        raise ImageReadError(message, path, reason) from error
