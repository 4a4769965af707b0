"""A run folder, used on pictures: the numbers are those of the evaluation, and what is missing is named."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dassl.utils.tools import ImageReadError
from tests.conftest import NAMES as COLOURS
from tests.conftest import square
from tests.trainers.every import NAMES, UNTRAINED
from trainers.chosen_tokens import ChosenTokens, choices, on_grid
from trainers.predictor import Predictor, Unreadable
from trainers.saved_run import SavedRun, final_epoch

CPU = ("DEVICE", "cpu")


def finish(trainer):
    """Train, or evaluate what has nothing to train."""
    trainer.train() if trainer.method.trainables() else trainer.evaluate()
    return trainer


def evaluated(trainer):
    """Paths and logits of the test pictures, batch by batch as the test has them."""
    trainer.method.eval()
    batches = list(trainer.test_loader)
    paths = [path for batch in batches for path in batch["impath"]]
    return paths, torch.cat([trainer.model_inference(batch["img"]) for batch in batches]).numpy()


def all_logits(predictions):
    return np.stack([prediction.logits for prediction in predictions])


def change(folder, **values):
    path = Path(folder) / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def pictures(tmp_path):
    """Three pictures that belong to no data set."""
    return [str(square(tmp_path / "elsewhere", "other", colour, 0)) for colour in range(3)]


@pytest.fixture
def zero_shot(trainer_of, run_folder):
    """A run folder without trained tensors."""
    trainer_of("DATASET.SUBSAMPLE_CLASSES", "base", trainer="ZeroshotCLIP").evaluate()
    return run_folder


@pytest.fixture
def coop(trainer_of, run_folder):
    """A trained run folder."""
    trainer_of("DATASET.SUBSAMPLE_CLASSES", "base", "TRAINER.COOP.N_CTX", "2").train()
    return run_folder


# --- the numbers


@pytest.mark.parametrize("name", NAMES)
def test_predictions_are_those_of_the_evaluation(make_any, run_folder, name):
    finish(make_any(name))
    where, epoch = ("", None) if name in UNTRAINED else (run_folder, SavedRun.read(run_folder).weights()[1])
    again, every = make_any(name, output="again"), make_any(name, classes="all", output="all")
    again.load_model(where, epoch)
    paths, logits = evaluated(again)
    predictor = Predictor.load(run_folder, opts=CPU)
    predictions = list(predictor.predict(paths))
    assert [prediction.path for prediction in predictions] == paths
    assert np.array_equal(all_logits(predictions), logits)
    odds = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    posterior = odds / odds.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.stack([p.probabilities for p in predictions]), posterior, atol=1e-6)
    assert predictions[0].names == predictor.names == COLOURS[:2]
    assert [prediction.label for prediction in predictions] == logits.argmax(axis=1).tolist()
    if predictor.trainer.method.tied_to_classes:
        with pytest.raises(RuntimeError, match="was trained on other classes"):
            Predictor.load(run_folder, COLOURS, opts=CPU)
        return
    every.load_model(where, epoch)  # what a test on other classes does: trained prompts and the trained bank
    paths, logits = evaluated(every)
    assert np.array_equal(all_logits(Predictor.load(run_folder, COLOURS, opts=CPU).predict(paths)), logits)


def test_class_specific_contexts_are_refused_for_other_names(trainer_of, run_folder):
    trainer_of("TRAINER.COOP.CSC", "True", "TRAINER.COOP.N_CTX", "2").train()
    with pytest.raises(RuntimeError, match="what CoOp trains here belongs to its classes"):
        Predictor.load(run_folder, COLOURS[::-1], opts=CPU)


def test_the_data_set_need_not_be_there_and_nothing_is_written(coop, tmp_path, pictures):
    shutil.rmtree(tmp_path / "data")
    before = sorted(tmp_path.rglob("*"))
    assert len(list(Predictor.load(coop, opts=CPU).predict(pictures))) == 3
    assert sorted(tmp_path.rglob("*")) == before


def test_precision_is_that_of_the_run(trainer_of, run_folder):
    trainer_of("TRAINER.ZEROSHOTCLIP.PREC", "bf16", trainer="ZeroshotCLIP").evaluate()
    predictor = Predictor.load(run_folder, opts=CPU)
    assert (predictor.trainer.precision.name, predictor.trainer.backbone.dtype) == ("bf16", torch.bfloat16)
    changed = Predictor.load(run_folder, opts=(*CPU, "TRAINER.ZEROSHOTCLIP.PREC", "fp32"))
    assert changed.trainer.backbone.dtype == torch.float32


# --- which weights


def test_an_evaluation_names_the_run_that_it_tested(trainer_of, coop, tmp_path, pictures, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other = trainer_of("TRAINER.COOP.N_CTX", "2", "OUTPUT_DIR", "test/run", output="eval")
    other.evaluate("run", epoch=2)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")  # a relative folder is seen from where the evaluation ran
    predictions = list(Predictor.load(tmp_path / "test/run", opts=CPU).predict(pictures))
    expected = Predictor.load(coop, COLOURS, opts=CPU).predict(pictures)
    assert np.array_equal(all_logits(predictions), all_logits(expected))
    (tmp_path / "run").rename(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="tested the run in run, where no folder is; name that run instead"):
        Predictor.load(tmp_path / "test/run")


def test_the_best_epoch_or_the_last_or_a_chosen_one(trainer_of, tmp_path):
    best = ("TEST.FINAL_MODEL", "best_val", "TRAIN.CHECKPOINT_FREQ", "1", "TRAINER.COOP.N_CTX", "2")
    trainer_of(*best).train()
    run = SavedRun.read(tmp_path / "run")
    assert run.weights() == (str(tmp_path / "run"), None)
    assert run.weights(1) == (str(tmp_path / "run"), 1)
    trainer_of(*best, output="eval").evaluate(str(tmp_path / "run"))
    shutil.rmtree(tmp_path / "run" / "tensorboard")
    for path in (tmp_path / "run" / "prompt_learner").glob("model.pth.tar-*"):
        path.unlink()
    assert SavedRun.read(tmp_path / "eval").weights() == (str(tmp_path / "run"), None)
    trainer_of(*best, "TEST.NO_TEST", "True", output="untested").train()  # nothing was chosen
    assert SavedRun.read(tmp_path / "untested").weights() == (str(tmp_path / "untested"), 2)


@pytest.mark.parametrize(
    ("final", "no_test", "epoch"), [("last_step", False, 7), ("best_val", False, None), ("best_val", True, 7)]
)
def test_the_epoch_a_run_ended_with(final, no_test, epoch):
    config = {"TEST": {"FINAL_MODEL": final, "NO_TEST": no_test}}
    assert final_epoch({"config": config, "epochs": [{"epoch": 6}, {"epoch": 7}]}) == epoch


def test_an_unfinished_run_has_its_saved_epochs(coop, pictures):
    change(coop, finished=False)
    with pytest.raises(ValueError, match=r"is not finished \(2 of 2 epochs\); give its command again, or name a saved"):
        Predictor.load(coop)
    assert len(list(Predictor.load(coop, epoch=2, opts=CPU).predict(pictures))) == 3


# --- what is missing, in one sentence


def test_no_such_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No run folder at .*nowhere; name the folder that train\.py wrote"):
        Predictor.load(tmp_path / "nowhere")


def test_a_folder_that_does_not_say_what_ran(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no metrics\.json, so it does not say what ran there"):
        Predictor.load(tmp_path)
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(ValueError, match=r"metrics\.json is damaged or not of a run of train\.py; restore it"):
        Predictor.load(tmp_path)


def test_a_trainer_of_another_make(zero_shot):
    change(zero_shot, trainer="Stranger")
    with pytest.raises(ValueError, match="is a run of Stranger, which is no method of this project"):
        Predictor.load(zero_shot)


def test_options_of_another_version(zero_shot):
    config = json.loads((Path(zero_shot) / "metrics.json").read_text())["config"]
    config["TRAINER"]["SOMEBODY"] = {"ELSE": 1}  # a method that was registered then, but is not the run's
    change(zero_shot, config=config)
    assert SavedRun.read(zero_shot).config().TRAINER.NAME == "ZeroshotCLIP"
    config["INPUT"]["COLOUR"] = 1
    change(zero_shot, config=config)
    with pytest.raises(ValueError, match=r"has options that this version does not know: .*INPUT\.COLOUR"):
        Predictor.load(zero_shot)


def test_what_only_saves_time_in_training_is_left_out(zero_shot, pictures):
    """A run on a GPU with a cache can be used on a machine that has neither, nor a compiler."""
    expected = all_logits(Predictor.load(zero_shot, opts=CPU).predict(pictures))
    path = Path(zero_shot) / "metrics.json"
    tree = json.loads(path.read_text())
    tree["config"].update(CUDA_GRAPH=True, DEVICE="cuda")
    tree["config"]["MODEL"]["BACKBONE"]["COMPILE"] = True
    tree["config"]["DATALOADER"].update(CACHE="/gone", CACHE_VIEWS=2, CACHE_DTYPE="fp16")
    path.write_text(json.dumps(tree))
    assert np.array_equal(all_logits(Predictor.load(zero_shot).predict(pictures)), expected)


def test_no_checkpoint(coop):
    (Path(coop) / "prompt_learner" / "model.pth.tar-2").unlink()
    with pytest.raises(FileNotFoundError, match=r"Model not found at .*model\.pth\.tar-2; .* holds no model"):
        Predictor.load(coop)


def test_an_epoch_of_a_run_without_any(zero_shot):
    with pytest.raises(ValueError, match=r"ZeroshotCLIP trains nothing, so .* has no epochs to choose"):
        Predictor.load(zero_shot, epoch=1)


def test_weights_of_the_backbone_that_are_elsewhere(coop, tmp_path, tiny_weights):
    config = json.loads((Path(coop) / "metrics.json").read_text())["config"]
    config["MODEL"]["BACKBONE"]["NAME"] = str(tmp_path / "gone.pt")
    change(coop, config=config)
    with pytest.raises(FileNotFoundError, match=r"No weights at .*gone\.pt; check the path"):
        Predictor.load(coop, opts=CPU)
    assert Predictor.load(coop, opts=(*CPU, "MODEL.BACKBONE.NAME", str(tiny_weights))).names == COLOURS[:2]


def test_a_batch_has_pictures(zero_shot):
    with pytest.raises(ValueError, match="The batch size must be at least 1, got 0"):
        Predictor.load(zero_shot, batch_size=0, opts=CPU)
    with pytest.raises(ValueError, match="needs at least one class name"):
        Predictor.load(zero_shot, [], opts=CPU)


# --- pictures


def test_paths_and_opened_pictures_are_the_same(zero_shot, pictures):
    predictor = Predictor.load(zero_shot, opts=CPU)
    by_path = all_logits(predictor.predict(pictures))
    (single,) = predictor.predict(Path(pictures[1]))
    np.testing.assert_allclose(single.logits, by_path[1], atol=1e-5)
    opened = [Image.open(path) for path in pictures]
    assert np.array_equal(all_logits(predictor.predict(opened)), by_path)
    nameless = list(predictor.predict([Image.open(pictures[0]).convert("RGBA")] * 3))
    assert [prediction.path for prediction in nameless] == [""] * 3
    np.testing.assert_allclose(all_logits(nameless), by_path[[0, 0, 0]], atol=1e-5)
    assert predictor.seen(pictures[0]).size == (32, 32)
    assert predictor.preprocessed(pictures[0]).shape == (3, 32, 32)


def test_the_best_come_first(zero_shot, pictures):
    (prediction,) = Predictor.load(zero_shot, COLOURS, opts=CPU).predict(pictures[0])
    ranked = sorted(zip(COLOURS, prediction.probabilities.tolist(), strict=True), key=lambda pair: -pair[1])
    assert prediction.top(3) == ranked[:3]
    assert len(prediction.top()) == 4
    assert prediction.tokens is None


def test_pictures_are_read_when_their_turn_comes(zero_shot, pictures):
    asked = []

    def source():
        for i in range(10):
            asked.append(i)
            yield pictures[i % 3]

    results = Predictor.load(zero_shot, batch_size=2, opts=CPU).predict(source())
    assert asked == []
    next(results)
    assert asked == [0, 1, 2, 3]  # a batch, and the next one
    assert len(list(results)) == 9


def test_a_damaged_picture_stops_or_is_told(zero_shot, pictures, tmp_path):
    damaged, missing = tmp_path / "damaged.png", tmp_path / "missing.png"
    damaged.write_bytes(Path(pictures[0]).read_bytes()[:200])
    predictor = Predictor.load(zero_shot, batch_size=2, opts=CPU)
    results = list(predictor.attempt([damaged, missing, pictures[0], Image.open(damaged), pictures[1]]))
    assert [isinstance(result, Unreadable) for result in results] == [True, True, False, True, False]
    assert [result.path for result in results[:2]] == [str(damaged), str(missing)]
    assert isinstance(results[1].error, FileNotFoundError)
    assert re.match(rf"Cannot read the image {damaged} \(.+\); restore or remove it\.", str(results[3].error))
    with pytest.raises(ImageReadError, match=r"damaged\.png"):
        list(predictor.predict([pictures[0], damaged]))


# --- chosen tokens


def spotlighter(make_any, run_folder, *opts):
    make_any("Spotlighter", "TRAINER.SPOTLIGHTER.TOP_K", "3", *opts).train()
    return Predictor.load(run_folder, opts=CPU)


def test_tokens_of_spotlighter(make_any, run_folder, pictures):
    predictor = spotlighter(make_any, run_folder)
    for prediction in predictor.predict(pictures):
        choice = prediction.tokens
        assert choice.grid == 4
        assert choice.sample_map.shape == choice.semantic_map.shape == (4, 4)
        np.testing.assert_allclose(choice.summed_map, choice.sample_map + choice.semantic_map, atol=1e-6)
        for scores in (choice.sample_map, choice.semantic_map):
            assert scores.dtype == np.float32
            np.testing.assert_allclose([scores.mean(), scores.std()], [0, 1], atol=1e-4)
        best = np.argsort(-choice.summed_map.ravel(), kind="stable")[:3]
        assert choice.tokens.tolist() == best.tolist()  # ceil(0.6 · 3) = 2 of level 1
        assert (len(choice.level1), len(choice.level2)) == (2, 1)
        np.testing.assert_allclose(choice.scores, choice.summed_map.ravel()[best])
        assert choice.cell(best[0]) == (best[0] // 4, best[0] % 4)
        assert choice.matched_name == COLOURS[choice.matched_class]
        assert choice.prototypes.shape == (3,)
        assert set(choice.prototypes.tolist()) <= set(range(5))
        assert choice.class_weights.shape == (2, 3)
        np.testing.assert_allclose(choice.class_weights[:, :2].sum(axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(choice.class_weights[:, 2], 1, atol=1e-6)


def test_class_weights_are_eq_11(make_any, run_folder, pictures):
    """softmax_j(s · cos(T_c, tok_j)) of the tokens of level 1, in NumPy."""
    predictor = spotlighter(make_any, run_folder)
    method, clip = predictor.trainer.method, predictor.trainer.backbone.clip
    image = predictor.preprocessed(pictures[0])[None]
    (prediction,) = predictor.predict(pictures[0])
    with torch.no_grad():
        hidden = predictor.trainer.backbone.vision(image, want={"hidden:1"}).hidden[1][0, 1:]
        rows = clip.visual.project(hidden[prediction.tokens.level1.copy()]).numpy()
        text, scale = method.text().numpy(), clip.logit_scale.exp().item()
    cosine = text @ (rows / np.linalg.norm(rows, axis=1, keepdims=True)).T
    weights = np.exp(scale * (cosine - cosine.max(axis=1, keepdims=True)))
    weights /= weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(prediction.tokens.class_weights[:, :2], weights, atol=1e-4)


def test_tokens_behind_a_pruned_tower(make_any, run_folder, pictures):
    predictor = spotlighter(make_any, run_folder, "TRAINER.SPOTLIGHTER.PRUNE", "[[1, 0.5]]")
    (prediction,) = predictor.predict(pictures[0])
    choice = prediction.tokens
    for scores in (choice.summed_map, choice.sample_map, choice.semantic_map):
        assert np.isnan(scores).sum() == 8
    best = np.argsort(-np.nan_to_num(choice.summed_map.ravel(), nan=-np.inf), kind="stable")[:3]
    assert choice.tokens.tolist() == best.tolist()


def test_what_a_variant_does_not_have_is_none(make_any, run_folder, pictures):
    variant = ("TRAINER.SPOTLIGHTER.SEMANTIC", "False", "TRAINER.SPOTLIGHTER.TRM", "none")
    predictor = spotlighter(make_any, run_folder, *variant)
    (prediction,) = predictor.predict(pictures[0])
    assert prediction.tokens.semantic_map is None
    assert prediction.tokens.class_weights is None


def test_the_release_preset_chooses_none_in_inference(make_any, run_folder, pictures):
    make_any("Spotlighter", "TRAINER.SPOTLIGHTER.PRESET", "release").train()
    (prediction,) = Predictor.load(run_folder, opts=CPU).predict(pictures[0])
    assert prediction.tokens is None


def test_choices_by_hand():
    chosen = ChosenTokens(
        grid=2,
        levels={"level1": slice(0, 1)},
        index=torch.tensor([[3], [0]]),
        scores=torch.tensor([[0.0, 1.0, 2.0, 3.0], [9.0, 1.0, 2.0, 3.0]]),
        sample=torch.zeros(2, 4),
        semantic=None,
        matched_class=torch.tensor([1, 0]),
        prototypes=torch.tensor([[4], [2]]),
        class_weights=None,
    )
    first, second = choices(chosen, ("only",))
    assert (first.level1.tolist(), first.level2.tolist(), first.scores.tolist()) == ([3], [], [3.0])
    assert first.summed_map.tolist() == [[0.0, 1.0], [2.0, 3.0]]
    assert (first.matched_name, second.matched_name, first.matched_class) == ("", "only", 1)
    assert second.scores.tolist() == [9.0]


def test_scores_on_the_grid():
    placed = on_grid(torch.tensor([[1.0, 2.0]]), torch.tensor([[1, 3]]), 4)
    assert str(placed.tolist()) == "[[nan, 1.0, nan, 2.0]]"
    assert on_grid(placed, None, 4) is placed
