"""One request: pictures, class names and presets in, probabilities and activated tokens out. No gradio."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from PIL import Image

from tools.explorer.limits import Limits, Refused, checked_names, checked_paths, open_picture
from tools.explorer.presets import Predictors, Preset
from trainers.predictor import Prediction, Predictor

EXPECTED = (OSError, RuntimeError, ValueError, AssertionError)  # of which the text is a sentence for people


@dataclass(frozen=True)
class Seen:
    """What one preset says of one picture."""

    title: str  # of the preset
    prediction: Prediction
    picture: Image.Image  # as its model sees it, resized and cropped


@dataclass(frozen=True)
class Looked:
    """A picture that was looked at."""

    name: str
    seen: list[Seen]  # one a preset, in order; [] if the picture can't be used
    problem: str = ""  # why not


@dataclass
class Answer:
    """To one request."""

    pictures: list[Looked] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # presets that can't be used so, or time that ran out
    notes: list[str] = field(default_factory=list)


class Late(Exception):
    """The time of a request is over."""


class Explorer:
    """Answers requests, one at a time, whoever asks.

    Args:
        presets: what can be asked.
        limits: of a request.
        cached: predictors that are kept.
        clock: seconds, from any start.

    Raises:
        ValueError: `cached` is below 1.
    """

    def __init__(
        self, presets: Sequence[Preset], limits: Limits, cached: int, clock: Callable[[], float] = time.monotonic
    ):
        self.presets = {preset.title: preset for preset in presets}
        self.limits, self.clock = limits, clock
        self.predictors = Predictors(cached)
        self.lock = Lock()

    def answer(self, files: Sequence[str] | None, text: str | None, chosen: Sequence[str] | None) -> Answer:
        """Look at uploaded pictures.

        Args:
            files: their paths.
            text: class names, one a line.
            chosen: titles of presets.

        Raises:
            Refused: nothing can be done; the text is for the person who asked.
        """
        end = self.clock() + self.limits.max_seconds
        presets = [preset for title, preset in self.presets.items() if title in (chosen or ())]
        if not presets:
            raise Refused("No preset is chosen; tick at least one.")
        paths = checked_paths(files, self.limits)
        names, notes = checked_names(text, self.limits)
        if not self.lock.acquire(timeout=self.limits.max_seconds):
            raise Refused(f"Others were asking for {self.limits.max_seconds:g} seconds; try again in a moment.")
        try:
            return self._answer(paths, names, presets, Answer(notes=notes), end)
        finally:
            self.lock.release()

    def _answer(
        self, paths: Sequence[Path], names: tuple[str, ...], presets: Sequence[Preset], answer: Answer, end: float
    ) -> Answer:
        usable: dict[str, Predictor] = {}
        try:
            for preset in presets:
                self._hurry(end)
                try:
                    usable[preset.title] = self.predictors.get(preset, names)
                except Exception as error:
                    answer.problems.append(self._problem(preset.title, error))
            for path in paths:
                if not usable:
                    break
                answer.pictures.append(self._look(path, usable, answer, end))
        except Late:
            answer.problems.append(
                f"Stopped after {self.limits.max_seconds:g} seconds with {len(answer.pictures)} of {len(paths)} "
                "pictures done; ask again with fewer pictures, class names or presets."
            )
        return answer

    def _look(self, path: Path, usable: dict[str, Predictor], answer: Answer, end: float) -> Looked:
        """A picture through all presets; one that turns out to be unusable is told of and not asked again."""
        self._hurry(end)
        try:
            picture = open_picture(path, self.limits)
        except Refused as error:
            return Looked(path.name, [], str(error))
        seen = []
        for title, predictor in list(usable.items()):
            self._hurry(end)
            try:
                (prediction,) = predictor.predict(picture)
                seen.append(Seen(title, prediction, predictor.seen(picture)))
            except Exception as error:
                answer.problems.append(self._problem(title, error))
                del usable[title]
        return Looked(path.name, seen)

    def _problem(self, title: str, error: Exception) -> str:
        """What a page says of a preset that can't be used, without where its folder is on this machine."""
        return f"{title}: {sentence(error).replace(str(self.presets[title].run.folder), '…')}"

    def _hurry(self, end: float) -> None:
        if self.clock() > end:
            raise Late


def sentence(error: Exception) -> str:
    """What a page says of an error: its sentence, or that the terminal has it."""
    if isinstance(error, EXPECTED) and str(error):
        return " ".join(str(error).split())
    traceback.print_exception(error, file=sys.stderr)
    return "Something went wrong that should not; the terminal in which the explorer runs has the details."
