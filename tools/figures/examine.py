"""Look at a trained run on its own data: what its test images are taken for, their features, their tokens.

Everything starts from a run folder and the data set on disk; `RunData` says in a sentence what is not there.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from clip.simple_tokenizer import get_tokenizer
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum, build_dataset
from tools.figures.features import Features, FeatureSet
from tools.figures.patches import batches, nearest_patches
from tools.figures.tokens import MAPS, Neighbour, Prototype, TokenView, crop
from tools.figures.words import END, SPECIAL, Neighbours, neighbours
from trainers.method import Method
from trainers.predictor import Prediction, Predictor
from trainers.saved_run import SavedRun
from trainers.spotlighter.method import SpotlighterMethod

CLASSES_SHOWN, IMAGES_SHOWN = 10, 20  # of t-SNE: classes, and images of each
CONTEXTS_SHOWN = 3  # of a method with a context a class


class NotOnDisk(FileNotFoundError):
    """The data set of a run is not on this machine."""


@dataclass(frozen=True)
class Tested:
    """What a run takes its test images for."""

    items: list[Datum]  # those looked at
    n_available: int  # images of the test
    predicted: np.ndarray  # labels [n]
    probability: np.ndarray  # fp32 [n], of the predicted class

    @property
    def true(self) -> np.ndarray:
        """Labels [n]."""
        return np.array([item.label for item in self.items], dtype=np.int64)

    @property
    def accuracy(self) -> float:
        """Percent."""
        return 100 * float((self.true == self.predicted).mean())


class RunData:
    """The images of a run, found again below a data root.

    Args:
        saved: the run.
        root: the data root; None: that of the run.
        opts: KEY, VALUE, … of the configuration, for what is elsewhere now.
    """

    def __init__(self, saved: SavedRun, root: Path | None = None, opts: Sequence[str] = ()):
        self.saved = saved
        self.opts = [*([] if root is None else ["DATASET.ROOT", str(root)]), *opts]

    @cached_property
    def test(self) -> list[Datum]:
        """Test images.

        Raises:
            NotOnDisk: there is no such data set below the root.
            ValueError, RuntimeError: it is damaged, or its classes are others than the run's.
        """
        return list(self._dataset(self.saved).test or [])

    @cached_property
    def train(self) -> list[Datum]:
        """The images that the model was trained on; of an evaluation, those of the run that it tested.

        Raises:
            NotOnDisk: as `test`; or the run that was tested is gone.
        """
        trained = self.saved
        if trained.record["mode"] != "train":
            folder, _ = trained.weights()
            if not folder:
                raise NotOnDisk(f"{self.saved.record['trainer']} trains nothing, so there are no training images.")
            trained = SavedRun.read(folder)
        dataset = self._dataset(trained)
        from_teacher = bool(trained.record["config"]["DATASET"].get("NUM_UNLABELLED"))
        return list((dataset.train_u if from_teacher else dataset.train_x) or [])

    def _dataset(self, saved: SavedRun) -> DatasetBase:
        cfg = saved.config(self.opts)
        reader = DATASET_REGISTRY.get(cfg.DATASET.NAME)
        folder = Path(cfg.DATASET.ROOT).expanduser() / getattr(reader, "dataset_dir", "")
        if not folder.is_dir():  # asked first, since some data sets would be made now
            raise NotOnDisk(f"The data set {cfg.DATASET.NAME} is not on this machine: there is no folder {folder}.")
        with contextlib.redirect_stdout(io.StringIO()):
            dataset = build_dataset(cfg)
        if list(dataset.classnames) != list(saved.names):
            raise ValueError(f"The data set in {folder} has other classes now than the run in {saved.folder} had.")
        return dataset


def spread(items: Sequence[Datum], limit: int) -> list[Datum]:
    """At most `limit` images, evenly over the classes: sorted by label, every so-manieth."""
    ordered = sorted(items, key=lambda item: item.label)
    if len(ordered) <= limit:
        return ordered
    return [ordered[i * len(ordered) // limit] for i in range(limit)]


def predict_test(predictor: Predictor, items: Sequence[Datum], limit: int) -> Tested:
    """Predict test images, at most `limit` of them.

    Raises:
        FileNotFoundError, ImageReadError: an image is missing or damaged.
    """
    chosen = spread(items, limit)
    results = [(p.label, float(p.probabilities[p.label])) for p in predictor.predict(item.impath for item in chosen)]
    predicted, probability = zip(*results, strict=True) if results else ((), ())
    return Tested(chosen, len(items), np.array(predicted, dtype=np.int64), np.array(probability, dtype=np.float32))


def examples(tested: Tested, n: int) -> list[tuple[Datum, bool]]:
    """About n images to look at, right ones and wrong ones, each of another class where there are enough.

    Of the wrong ones those that the run is surest of; of the right ones those in the middle.
    """
    right = tested.true == tested.predicted
    chosen: list[tuple[Datum, bool]] = []
    for is_right, count in ((True, n // 2), (False, n - n // 2)):
        index = np.flatnonzero(right == is_right)
        order = index[np.argsort(-tested.probability[index], kind="stable")]
        if is_right:
            middle = len(order) // 2
            order = np.concatenate([order[middle:], order[:middle]])
        labels: set[int] = set()
        for i in order:
            if len(labels) < count and tested.items[i].label not in labels:
                labels.add(tested.items[i].label)
                chosen.append((tested.items[i], is_right))
    return chosen


@torch.no_grad()
def feature_set(predictor: Predictor, items: Sequence[Datum]) -> FeatureSet:
    """Features of some classes before and after tuning.

    Args:
        items: the run's test images; those of at most CLASSES_SHOWN classes are used, evenly spaced.
    """
    trainer = predictor.trainer
    method, space = trainer.method, trainer.test_space
    there = sorted({item.label for item in items})
    n = min(CLASSES_SHOWN, len(there))
    labels = [there[i * len(there) // n] for i in range(n)]
    chosen = [item for label in labels for item in spread([i for i in items if i.label == label], IMAGES_SHOWN)]
    before, after = [], []
    for images in batches(predictor, [item.impath for item in chosen]):
        with trainer.precision.autocast():
            vision = method.image(images)
            frozen = method.frozen_image(images, vision)
            tuned = method.joint_image(vision)
            if isinstance(method, SpotlighterMethod):
                tuned = method.representative(images, space)
        before.append(F.normalize(frozen.float(), dim=1).cpu().numpy())
        after.append(F.normalize(tuned.float(), dim=1).cpu().numpy())
    texts_before = texts_after = None
    if method.reads_text:
        texts_before = method.frozen_text(space).cpu().numpy()[labels]
        if not method.text_depends_on_image:
            texts_after = method.class_vectors(space).cpu().numpy()[labels]
    return FeatureSet(
        Features(np.concatenate(before), texts_before),
        Features(np.concatenate(after), texts_after),
        np.array([labels.index(item.label) for item in chosen]),
        tuple(space.names[label] for label in labels),
        _what(method),
    )


def _what(method: Method) -> str:
    """What the features after tuning are."""
    if isinstance(method, SpotlighterMethod) and method.refines_images:
        told = "Image features are those with the representative tokens, text features the host's."
    elif not method.trainables():
        told = "The method trains nothing."
    elif not method.image_trains and not isinstance(method, SpotlighterMethod):
        moves = "only the text moves" if method.reads_text else "it trains a classifier on them"
        told = f"The method leaves the image features as they are; {moves}."
    else:
        told = ""
    if method.reads_text and method.text_depends_on_image:
        told += " Text features differ from image to image, so none are shown after tuning."
    return told.strip()


def context_words(predictor: Predictor, k: int = 5) -> list[Neighbours]:
    """The nearest words of what the method learned at the input of the text tower; [] if it learned no context.

    Of a method with a context a class, those of the first CONTEXTS_SHOWN classes.
    """
    trainer = predictor.trainer
    vocabulary = trainer.backbone.clip.token_embedding.weight.detach().float().cpu().numpy()
    names, contexts = trainer.test_space.names, {}
    for name, tensor in trainer.method.trainables().items():
        if name.split(".")[-1] != "ctx" or tensor.shape[-1] != vocabulary.shape[1]:
            continue
        rows = tensor.detach().float().cpu().numpy()
        if rows.ndim == 2:
            contexts[""] = rows
        else:
            contexts |= {names[c]: rows[c] for c in range(min(len(rows), CONTEXTS_SHOWN))}
    return neighbours(contexts, vocabulary, vocabulary_tokens(len(vocabulary)), k) if contexts else []


def vocabulary_tokens(n: int) -> list[str]:
    """The tokenizer's first n tokens; the signs that stand for their bytes are decoded."""
    tokenizer = get_tokenizer()

    def written(token: str) -> str:
        end = END if token.endswith(END) else ""
        signs = token.removesuffix(END)
        if token in SPECIAL or any(sign not in tokenizer.byte_decoder for sign in signs):
            return token
        return bytes(tokenizer.byte_decoder[sign] for sign in signs).decode("utf-8", errors="replace") + end

    return [written(tokenizer.decoder[i]) for i in range(n)]


def token_views(
    predictor: Predictor,
    predictions: Sequence[Prediction],
    train: Sequence[Datum] = (),
    titles: Sequence[str] | None = None,
) -> list[TokenView]:
    """What to draw of pictures; [] if the run chooses no tokens.

    Args:
        predictions: as the predictor gives them, of pictures from files.
        train: training images among which the patches nearest to the matched prototypes are looked for.
        titles: of the pictures; None: the file's name with the first choice.
    """
    chosen = [(p, p.tokens) for p in predictions if p.tokens is not None]
    rows = sorted({(t.matched_class, int(j)) for _, t in chosen for j in t.prototypes})
    paths = [item.impath for item in train]
    near = nearest_patches(predictor, paths, rows) if paths and rows else {}
    views = []
    for i, (prediction, tokens) in enumerate(chosen):
        pixels = np.asarray(predictor.seen(prediction.path))
        maps = {"sample": tokens.sample_map, "semantic": tokens.semantic_map, "summed": tokens.summed_map}
        prototypes = []
        for number in dict.fromkeys(int(j) for j in tokens.prototypes):
            ranks = [rank for rank, j in enumerate(tokens.prototypes, 1) if j == number]
            patches = tuple(crop(pixels, tokens.tokens[rank - 1], tokens.grid) for rank in ranks)
            found = tuple(
                Neighbour(
                    crop(np.asarray(predictor.seen(paths[patch.image])), patch.patch, tokens.grid),
                    train[patch.image].classname or "unlabelled",
                    patch.cosine,
                )
                for patch in near.get((tokens.matched_class, number), [])
            )
            prototypes.append(Prototype(number, tuple(ranks), patches, found))
        name, probability = prediction.top(1)[0]
        title = titles[i] if titles else f"{Path(prediction.path).name}: {name}, {100 * probability:.0f} %"
        views.append(
            TokenView(
                pixels,
                tokens.grid,
                {key: maps[key] for key in MAPS if maps[key] is not None},
                {"level1": tokens.level1, "level2": tokens.level2},
                title,
                tokens.matched_name or f"class {tokens.matched_class}",
                tuple(prototypes),
            )
        )
    return views
