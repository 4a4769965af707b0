"""Looking at trained runs: against what the run's own evaluation gives, and what is said where something is missing."""

import csv
import io
import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tests.conftest import NAMES
from tools import show_run, show_tokens
from tools.figures import examine
from tools.figures.patches import batches, nearest_patches
from tools.figures.run_view import look_at
from trainers.predictor import Predictor
from trainers.saved_run import SavedRun

BELOW = "output/base2new/{}/toy/shots_6/{}/tiny/seed1"


@pytest.fixture
def spotlighter(tiny_runs):
    return tiny_runs / BELOW.format("train_base", "Spotlighter")


@pytest.fixture
def coop(tiny_runs):
    return tiny_runs / BELOW.format("train_base", "CoOp")


@pytest.fixture
def predictor(spotlighter):
    return Predictor.load(spotlighter, opts=("DEVICE", "cpu"))


def test_predictions_are_those_of_the_evaluation(spotlighter):
    predictor = Predictor.load(spotlighter, opts=("DEVICE", "cpu"))
    tested = examine.predict_test(predictor, examine.RunData(SavedRun.read(spotlighter)).test, 100)
    recorded = json.loads((spotlighter / "metrics.json").read_text())["final"]["metrics"]["accuracy"]
    assert tested.accuracy == pytest.approx(recorded)
    assert (len(tested.items), tested.n_available) == (8, 8)


def test_some_images_are_spread_over_the_classes(spotlighter):
    items = examine.RunData(SavedRun.read(spotlighter)).test
    assert [item.label for item in examine.spread(items, 4)] == [0, 0, 1, 1]
    assert examine.spread(items, 100) == sorted(items, key=lambda item: item.label)


def test_training_images_are_those_of_the_trained_model(tiny_runs):
    saved = SavedRun.read(tiny_runs / BELOW.format("test_new", "Spotlighter"))
    data = examine.RunData(saved)
    assert {item.classname for item in data.test} == set(NAMES[2:])
    assert {item.classname for item in data.train} == set(NAMES[:2])


def test_examples_are_right_and_wrong_ones_of_different_classes():
    class Item:
        def __init__(self, label):
            self.label = label

    items = [Item(label) for label in (0, 0, 1, 1, 2, 2)]
    predicted, probability = np.array([0, 0, 1, 0, 0, 1]), np.array([0.9, 0.5, 0.7, 0.4, 0.6, 0.8])
    chosen = examine.examples(examine.Tested(items, 6, predicted, probability), 4)
    # right, surest first: 0 (0.9), 2 (0.7), 1 (0.5), from the middle on: 2, 1; wrong: 5 (0.8), 4 (0.6), 3 (0.4)
    assert [(items.index(item), is_right) for item, is_right in chosen] == [
        (2, True),
        (1, True),
        (5, False),
        (3, False),
    ]


def test_features_are_frozen_ones_and_those_that_classify(predictor, spotlighter):
    items = examine.RunData(SavedRun.read(spotlighter)).test
    given = examine.feature_set(predictor, items)
    (images,) = batches(predictor, [item.impath for item in sorted(items, key=lambda item: item.label)])
    method = predictor.trainer.method
    with torch.no_grad():
        frozen = F.normalize(method.backbone.vision(images).pooled, dim=1)
        logits = method(images)
    np.testing.assert_allclose(given.before.images, frozen, atol=1e-6)
    assert given.labels.tolist() == [0] * 4 + [1] * 4
    assert given.names == NAMES[:2]
    for rows in (given.before.images, given.before.texts, given.after.images, given.after.texts):
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert np.abs(given.after.images - given.before.images).max() > 1e-4  # representative tokens are in them
    assert logits.shape == (8, 2)
    assert given.what == "Image features are those with the representative tokens, text features the host's."


def test_features_of_a_method_that_moves_text_only(coop):
    predictor = Predictor.load(coop, opts=("DEVICE", "cpu"))
    given = examine.feature_set(predictor, examine.RunData(SavedRun.read(coop)).test)
    np.testing.assert_array_equal(given.before.images, given.after.images)
    assert np.abs(given.before.texts - given.after.texts).max() > 1e-3
    assert given.what == "The method leaves the image features as they are; only the text moves."


def test_nearest_patches_against_all_of_them(predictor, spotlighter):
    items = examine.RunData(SavedRun.read(spotlighter)).train
    paths = [item.impath for item in items]
    rows = [(0, 1), (1, 0)]
    found = nearest_patches(predictor, paths, rows, n=3)
    method = predictor.trainer.method
    with torch.no_grad():
        hidden = torch.cat([method.backbone.vision(x, want={"hidden:1"}).hidden[1] for x in batches(predictor, paths)])
        patches = F.normalize(method.project(hidden[:, 1:]), dim=-1).numpy()
        bank = F.normalize(method.project(method.head.memory.prototypes), dim=-1).numpy()
    for c, j in rows:
        cosine = patches @ bank[c, j]  # [images, N]
        images = np.argsort(-cosine.max(axis=1), kind="stable")[:3]
        assert [patch.image for patch in found[c, j]] == images.tolist()
        assert [patch.patch for patch in found[c, j]] == cosine[images].argmax(axis=1).tolist()
        np.testing.assert_allclose([patch.cosine for patch in found[c, j]], cosine[images].max(axis=1), atol=1e-5)
    assert nearest_patches(predictor, [], rows) == {(0, 1): [], (1, 0): []}


def test_patches_need_a_bank_of_classes(coop):
    with pytest.raises(ValueError, match=r"has no memory bank with prototypes of classes"):
        nearest_patches(Predictor.load(coop, opts=("DEVICE", "cpu")), [], [(0, 0)])


def test_words_of_learned_rows(predictor):
    found = examine.context_words(predictor, 2)
    assert [near.row for near in found] == ["1", "2"]
    weight = predictor.trainer.backbone.clip.token_embedding.weight.detach().numpy()[:-2]  # the last two are no words
    row = predictor.trainer.method.trainables()["host.ctx"].detach().numpy()[0]
    by_hand = np.sort(np.linalg.norm(weight - row, axis=1))[:2]
    np.testing.assert_allclose(found[0].distances, by_hand, rtol=1e-5)
    listed = examine.vocabulary_tokens(49408)
    assert {"photo</w>", "<start_of_text>", "é</w>"} < set(listed)


def test_everything_of_a_run(spotlighter):
    view = look_at(spotlighter, opts=("DEVICE", "cpu"))
    assert {part: [picture.name for picture in pictures] for part, pictures in view.pictures.items()}.keys() == {
        "classes",
        "features",
        "tokens",
    }
    assert [row.name for row in view.classes] == list(NAMES[:2])
    assert view.notes[0].startswith("Results by class are of all 8 test images, predicted once more: ")
    names = [picture.name for picture in view.pictures["tokens"]]
    assert names[:2] == ["tokens_1", "prototypes_1"]
    assert "Classes of the nearest training patches, no. " in view.pictures["tokens"][1].alt
    some = look_at(spotlighter, ["classes"], opts=("DEVICE", "cpu"), n_images=4)
    assert some.notes == [
        f"Results by class are of 4 of the 8 test images, evenly over the classes, predicted once "
        f"more: {100 * sum(row.n_correct for row in some.classes) / 4:.2f} % are right."
    ]


def test_what_is_missing_is_said(spotlighter, coop, tmp_path):
    (tmp_path / "empty").mkdir()
    view = look_at(spotlighter, root=tmp_path / "empty", opts=("DEVICE", "cpu"))
    assert view.notes == [
        "Results by class, features and token maps are left out: The data set Toy is not on this machine: there is no "
        f"folder {tmp_path / 'empty' / 'toy'}."
    ]
    assert view.words
    assert "The method chooses no visual tokens in inference, so there are no token maps." in look_at(coop).notes
    broken = shutil.copytree(spotlighter, tmp_path / "seed1")
    shutil.rmtree(broken / "prompt_learner")
    (note,) = look_at(broken).notes
    assert note.startswith("Nothing can be seen of its model: ")


def test_other_classes_on_disk_are_refused(spotlighter, tmp_path):
    copied = shutil.copytree(spotlighter, tmp_path / "seed1")
    record = json.loads((copied / "metrics.json").read_text())
    (copied / "metrics.json").write_text(json.dumps(record | {"class_names": ["a", "b"]}))
    with pytest.raises(ValueError, match=r"has other classes now than the run in .* had\."):
        _ = examine.RunData(SavedRun.read(copied)).test


# --- command lines


def test_show_tokens(spotlighter, tiny_runs, tmp_path, capsys):
    pictures = sorted(map(str, (tiny_runs / "data" / "toy").glob("test_0_*.png")))[:2]
    out = tmp_path / "new" / "tokens.png"
    assert show_tokens.main([str(spotlighter), *pictures, "-o", str(out), "--set", "DEVICE", "cpu"]) == 0
    told = capsys.readouterr()
    with Image.open(out) as image:
        assert "Activated tokens, best first, level 1: row " in image.info["Description"]
        assert image.info["Description"] in told.out
    assert f"wrote {out}" in told.out
    (tmp_path / "empty").mkdir()
    less = [str(spotlighter), pictures[0], "-o", str(out), "--root", str(tmp_path / "empty"), "--dark"]
    assert show_tokens.main(less) == 0
    assert "Note: no nearest training patches: The data set Toy is not on this machine" in capsys.readouterr().err


def test_show_tokens_refuses_what_it_cannot_draw(spotlighter, coop, tiny_runs, tmp_path, capsys):
    pictures = sorted(map(str, (tiny_runs / "data" / "toy").glob("*.png")))
    assert show_tokens.main([str(coop), pictures[0], "-o", str(tmp_path / "x.png")]) == 1
    assert "chooses no visual tokens in inference; name a run of Spotlighter's paper preset." in capsys.readouterr().err
    assert show_tokens.main([str(spotlighter), *pictures[:13], "-o", str(tmp_path / "x.png")]) == 1
    assert "Error: 13 pictures are too many for one figure; name at most 12." in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()


def test_show_run(spotlighter, tmp_path, capsys):
    assert show_run.main([str(spotlighter), "-o", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    written = {path.name for path in tmp_path.iterdir()}
    assert {"curves_loss.png", "confusion.png", "features_after.png", "tokens_1.png", "words.csv"} < written
    assert "Perplexity 3, seed 0" in told  # 8 images and 2 texts
    assert "A nearest word says where a context row lies" in told
    records = list(csv.DictReader(io.StringIO((tmp_path / "classes.csv").read_text())))
    assert [record["class"] for record in records] == list(NAMES[:2])
    assert {record["images"] for record in records} == {"4"}


def test_show_run_says_what_is_wrong(tmp_path, capsys, coop):
    (tmp_path / "run").mkdir()
    out = ["-o", str(tmp_path / "out")]
    assert show_run.main([str(tmp_path / "run"), *out]) == 1
    assert "holds no metrics.json; name the folder that train.py wrote (--output-dir)." in capsys.readouterr().err
    (tmp_path / "run" / "metrics.json").write_text("{")
    assert show_run.main([str(tmp_path / "run"), *out, "--what", "curves"]) == 1
    assert "metrics.json cannot be read" in capsys.readouterr().err
    assert show_run.main([str(coop), *out, "--images", "0"]) == 1
    assert "--images must be at least 1, got 0." in capsys.readouterr().err
    assert show_run.main([str(tmp_path / "run"), *out, "--what", "words"]) == 1
    assert "Note: Nothing can be seen of its model" in capsys.readouterr().out
