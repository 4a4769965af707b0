"""All that there is to see of one trained run: classes, features, words, tokens; in a sentence what there is not."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dassl.utils.tools import ImageReadError
from tools.figures.classes import ClassRow, class_pictures, class_rows, confusion
from tools.figures.examine import RunData, Tested, context_words, examples, feature_set, predict_test, token_views
from tools.figures.features import LIMITS as TSNE_LIMITS
from tools.figures.features import SEED, feature_pictures
from tools.figures.picture import Picture, paint
from tools.figures.tokens import READING, TokenView, draw_maps, draw_prototypes
from tools.figures.words import Neighbours, yardstick
from trainers.predictor import Predictor
from trainers.saved_run import SavedRun

PARTS = ("classes", "features", "words", "tokens")
IMAGES = 2000  # test images that are predicted
EXAMPLES = 4  # pictures whose tokens are drawn
FAILURES = (OSError, ValueError, RuntimeError, AssertionError, ImageReadError)


@dataclass
class RunView:
    """What was seen of a run."""

    folder: Path
    pictures: dict[str, list[Picture]] = field(default_factory=dict)  # by part
    classes: list[ClassRow] = field(default_factory=list)
    words: list[Neighbours] = field(default_factory=list)
    word_distance: float = 0.0  # median distance of a word from its nearest other one
    notes: list[str] = field(default_factory=list)  # what is left out, and why; what to know


def look_at(
    folder: Path,
    parts: Collection[str] = PARTS,
    root: Path | None = None,
    opts: Sequence[str] = (),
    n_images: int = IMAGES,
    seed: int = SEED,
    report: Callable[[str], None] = lambda text: None,
) -> RunView:
    """Load a run and look; a part that cannot be had becomes a note.

    Args:
        folder: of the run.
        parts: of PARTS.
        root: the data root; None: that of the run.
        opts: KEY, VALUE, … of the configuration, for what is elsewhere now.
        n_images: test images to predict, at most.
        seed: of t-SNE.
        report: told what is done now.
    """
    view = RunView(folder)
    with contextlib.redirect_stdout(io.StringIO()):  # what trainers say of themselves
        try:
            report("loading")
            saved = SavedRun.read(folder)
            predictor = Predictor.load(folder, opts=opts)
        except FAILURES as error:
            view.notes.append(f"Nothing can be seen of its model: {_sentence(error)}")
            return view
        data = RunData(saved, root, opts)
        with _noted(view, "Nearest words are"):
            if "words" in parts:
                _words(view, predictor)
        if not {"classes", "features", "tokens"} & set(parts):
            return view
        with _noted(view, "Results by class, features and token maps are"):
            items = data.test
            if not items:
                raise ValueError("The data set has no test images.")
            report("test images")
            tested = predict_test(predictor, items, n_images)
            if "classes" in parts:
                _classes(view, predictor, tested)
            with _noted(view, "Features are"):
                if "features" in parts:
                    report("features")
                    view.pictures["features"] = feature_pictures(feature_set(predictor, items), seed)
                    view.notes.append(TSNE_LIMITS)
            with _noted(view, "Token maps are"):
                if "tokens" in parts:
                    report("tokens")
                    _tokens(view, predictor, tested, data)
    return view


@contextlib.contextmanager
def _noted(view: RunView, what: str) -> Iterator[None]:
    """A failure inside becomes a note."""
    try:
        yield
    except FAILURES as error:
        view.notes.append(f"{what} left out: {_sentence(error)}")


def _classes(view: RunView, predictor: Predictor, tested: Tested) -> None:
    counts = confusion(tested.true, tested.predicted, len(predictor.names))
    view.classes = class_rows(counts, predictor.names)
    n = len(tested.items)
    some = (
        f"{n:,} of the {tested.n_available:,} test images, evenly over the classes"
        if n < tested.n_available
        else (f"all {n:,} test images")
    )
    view.notes.append(f"Results by class are of {some}, predicted once more: {tested.accuracy:.2f} % are right.")
    view.pictures["classes"] = class_pictures(counts, predictor.names, "the run")


def _words(view: RunView, predictor: Predictor) -> None:
    view.words = context_words(predictor)
    if view.words:
        view.word_distance = yardstick(predictor.trainer.backbone.clip.token_embedding.weight.detach().cpu().numpy())
    else:
        view.notes.append("The method learns no context words, so none are shown.")


def _tokens(view: RunView, predictor: Predictor, tested: Tested, data: RunData) -> None:
    chosen = examples(tested, EXAMPLES)
    predictions = list(predictor.predict(item.impath for item, _ in chosen))
    if not any(prediction.tokens for prediction in predictions):
        view.notes.append("The method chooses no visual tokens in inference, so there are no token maps.")
        return
    titles = []
    for prediction, (item, is_right) in zip(predictions, chosen, strict=True):
        name, probability = prediction.top(1)[0]
        is_what = f"{name}, right" if is_right else f"taken for {name}, is {predictor.names[item.label]}"
        titles.append(f"{is_what}, {100 * probability:.0f} %")
    train = []
    with _noted(view, "Nearest training patches are"):
        train = data.train
    pictures = []
    for i, shown in enumerate(token_views(predictor, predictions, train, titles), 1):
        pictures += _token_pictures(shown, i)
    view.pictures["tokens"] = pictures
    view.notes.append(READING)


def _token_pictures(shown: TokenView, number: int) -> list[Picture]:
    """Maps, and prototypes, of one picture."""
    maps = paint(f"tokens_{number}", shown.describe(), f"{shown.title}.", lambda theme: draw_maps(shown, theme))
    near = [f"no. {p.number + 1}: {', '.join(n.name for n in p.neighbours)}" for p in shown.prototypes if p.neighbours]
    alt = f"{shown.title}. {len(shown.prototypes)} prototypes of {shown.matched} and the tokens matched with them."
    if near:
        alt += f" Classes of the nearest training patches, {'; '.join(near)}."
    caption = f"{shown.title}: prototypes of the nearest class of the memory bank, {shown.matched}."
    return [maps, paint(f"prototypes_{number}", alt, caption, lambda theme: draw_prototypes(shown, theme))]


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if text.endswith((".", "!", "?")) else f"{text}."
