"""The linear probe as a method and as runs on toy data; solver and search are test_logistic's."""

import json
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression

from clip.backbone import LabelSpace
from trainers import linear_probe
from trainers.linear_probe import LinearProbeMethod, difference
from trainers.logistic import LinearHead

NODE = "TRAINER.LINEARPROBE."
ONCE = ("OPTIM.MAX_EPOCH", "1")


@pytest.fixture
def run(run_trainer):
    """Run the linear probe by train.py on toy data; gives exit status, stdout and stderr."""
    return lambda *opts, trainer="LinearProbe", **kwargs: run_trainer(*ONCE, *opts, trainer=trainer, **kwargs)


@pytest.fixture
def probe(trainer_of):
    return lambda *opts, **kwargs: trainer_of(*ONCE, *opts, trainer="LinearProbe", **kwargs)


def metrics(tmp_path, output="run"):
    return json.loads((tmp_path / output / "metrics.json").read_text())


def saved(tmp_path, output="run"):
    return torch.load(tmp_path / output / "prompt_learner" / "model.pth.tar-1", weights_only=True)


def sentence(result):
    code, _, err = result
    assert code == 1
    (line,) = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert "Traceback" not in err
    return line


def plain_features(tiny_clip, items):
    """Features [n, d] by hand: Pillow, NumPy and CLIP's own encoder, no augmentation, not normalised."""
    rows = []
    for item in items:
        picture = Image.open(item.impath).convert("RGB").resize((32, 32), Image.Resampling.BICUBIC)
        pixels = (np.asarray(picture) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        rows.append(torch.tensor(pixels.transpose(2, 0, 1)).float())
    with torch.no_grad():
        return tiny_clip.encode_image(torch.stack(rows))


# ---- the method


def test_trained_tensors_and_logits(backbone, space, images, tiny_clip):
    method = LinearProbeMethod(backbone, space)
    assert {name: list(p.shape) for name, p in method.trainables().items()} == {"weight": [4, 32], "bias": [4]}
    assert set(method.state_dict()) == {"weight", "bias"}
    generator = torch.Generator().manual_seed(1)
    weight, bias = torch.randn(4, 32, generator=generator), torch.randn(4, generator=generator)
    method.take(LinearHead(weight, bias, 1))
    with torch.no_grad():
        expected = tiny_clip.encode_image(images).numpy() @ weight.numpy().T + bias.numpy()
        np.testing.assert_allclose(method(images), expected, atol=1e-4)
        torch.testing.assert_close(method(images, LabelSpace(space.names, "Elsewhere")), method(images))
        assert not torch.allclose(method.features(images).norm(dim=1), torch.ones(5), atol=0.1)


def test_other_classes_and_text_are_refused(backbone, space, images):
    method = LinearProbeMethod(backbone, space)
    with pytest.raises(ValueError, match=r"can only tell its own classes: 4 in training, 1 now, 'cat' is new\."):
        method(images, LabelSpace(("cat",)))
    with pytest.raises(ValueError, match="LinearProbe reads no text, so it has no text features"):
        method.class_vectors()


def test_differences_in_words():
    assert difference(("a", "b"), ("b", "a")) == "the same names in another order"
    assert difference(("a", "b"), ("a",)) == "2 in training, 1 now"
    assert difference(("a", "b"), ("a", "c")) == "2 in training, 2 now, 'c' is new"


# ---- training


def test_features_are_not_normalised_and_training_images_not_augmented(probe, tiny_clip):
    trainer = probe()
    data = trainer.dm.dataset
    for loader, items in ((trainer.train_loader_x, data.train_x), (trainer.val_loader, data.val)):
        features, label = trainer.features(loader, "images")
        assert features.dtype == torch.float32
        assert label.tolist() == [item.label for item in items]  # all of them, once, in order
        torch.testing.assert_close(features, plain_features(tiny_clip, items), atol=0.1, rtol=0.02)
        again, _ = trainer.features(loader, "images")
        assert torch.equal(features, again)


@pytest.mark.parametrize("solver", ["sklearn", "torch"])
def test_a_whole_run_is_a_search_and_one_solution(run, probe, tmp_path, solver):
    code, out, _ = run(NODE + "SOLVER", solver)
    assert code == 0
    record = metrics(tmp_path)
    assert record["finished"]
    assert record["parameters"]["trainable_tensors"] == 2
    assert record["parameters"]["trainable_scalars"] == 4 * 32 + 4
    (row,) = record["epochs"]
    found = row["probe"]
    assert (found["chosen_on"], found["fits"]) == ("val", 15)
    assert f"Solved with C = {found['c']:.6g} in {found['iterations']} iterations\n" in out
    assert out.count("accuracy on val") == 15
    assert record["final"]["epoch"] == 1
    accuracy = record["final"]["metrics"]["accuracy"]
    assert accuracy in {100 * k / 16 for k in range(17)}
    trainer = probe(output="other")
    state = saved(tmp_path)
    assert set(state["state_dict"]) == {"weight", "bias"}
    assert (state["epoch"], state["optimizer"], state["scheduler"]) == (1, None, None)
    assert state["made_with"]["class_names"] == list(trainer.method.space.names)
    trainer.method.load_state_dict(state["state_dict"])
    right = [
        trainer.model_inference(images).argmax(dim=1) == label
        for images, label in map(trainer.parse_batch_test, trainer.val_loader)
    ]
    assert found["accuracy"] == pytest.approx(100 * torch.cat(right).float().mean().item())
    # evaluation of the saved head gives the same
    flags = ("--eval-only", "--model-dir", str(tmp_path / "run"), "--load-epoch", "1")
    assert run(output="eval", flags=flags)[0] == 0
    assert metrics(tmp_path, "eval")["final"]["metrics"]["accuracy"] == accuracy


@pytest.mark.parametrize("solver", ["sklearn", "torch"])
def test_the_saved_head_is_scikit_learns(run, probe, tmp_path, solver):
    assert run(NODE + "SOLVER", solver, NODE + "C", "0.01")[0] == 0
    trainer = probe(output="other")
    x, y = (t.numpy() for t in trainer.features(trainer.train_loader_x, "images"))
    expected = LogisticRegression(C=0.01, max_iter=1000, tol=1e-9).fit(x.astype(float), y)
    weights = saved(tmp_path)["state_dict"]
    np.testing.assert_allclose(weights["weight"], expected.coef_, atol=5e-3)
    np.testing.assert_allclose(weights["bias"], expected.intercept_, atol=5e-3)


def test_a_finished_run_is_left_alone(run, tmp_path, monkeypatch):
    assert run(NODE + "C", "1.0")[0] == 0
    before = metrics(tmp_path)
    monkeypatch.setattr(linear_probe, "fit", None)
    code, out, _ = run(NODE + "C", "1.0")
    assert code == 0
    assert "is finished" in out
    assert metrics(tmp_path) == before


@pytest.mark.parametrize("when", [0, 4])  # number of heads solved before the signal comes
def test_a_stopped_run_starts_again_and_ends_the_same(run, tmp_path, monkeypatch, when):
    assert run(output="whole")[0] == 0
    solve, solved = linear_probe.fit, []

    def stopping(*args):
        solved.append(solve(*args))
        if len(solved) == when + 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return solved[-1]

    monkeypatch.setattr(linear_probe, "fit", stopping)
    with pytest.raises(SystemExit) as stop:
        run()
    assert stop.value.code == 143
    assert len(solved) == when + 1
    assert not metrics(tmp_path)["finished"]
    assert not list((tmp_path / "run").glob("**/*.pth.tar*"))
    monkeypatch.setattr(linear_probe, "fit", solve)
    assert run()[0] == 0
    assert torch.equal(saved(tmp_path)["state_dict"]["weight"], saved(tmp_path, "whole")["state_dict"]["weight"])
    assert metrics(tmp_path)["epochs"][0]["probe"] == metrics(tmp_path, "whole")["epochs"][0]["probe"]


def test_a_run_that_was_stopped_behind_the_solution_only_tests(run, tmp_path, monkeypatch):
    monkeypatch.setattr(linear_probe.LinearProbe, "after_train", lambda self: (_ for _ in ()).throw(ValueError("cut")))
    assert run(NODE + "C", "1.0")[0] == 1
    monkeypatch.undo()
    monkeypatch.setattr(linear_probe, "fit", None)
    assert run(NODE + "C", "1.0")[0] == 0
    record = metrics(tmp_path)
    assert record["finished"]
    assert record["epochs"][0]["probe"]["c"] == 1.0
    assert record["final"]["metrics"]["accuracy"] is not None


def test_the_best_model_on_validation_images_is_the_only_one(run, tmp_path):
    assert run(NODE + "C", "1.0", "TEST.FINAL_MODEL", "best_val")[0] == 0
    best = torch.load(tmp_path / "run" / "prompt_learner" / "model-best.pth.tar", weights_only=True)
    assert torch.equal(best["state_dict"]["weight"], saved(tmp_path)["state_dict"]["weight"])
    record = metrics(tmp_path)
    assert record["final"]["epoch"] == 1
    assert record["epochs"][0]["val"]["accuracy"] == best["val_result"]


def without_val(trainer):
    trainer.val_loader = None
    return trainer


def test_without_validation_images_c_is_chosen_on_folds(probe, monkeypatch):
    trainer = without_val(probe())
    parts = []
    monkeypatch.setattr(linear_probe, "search", lambda score: (score(0.5), 0.5)[1])
    solve = linear_probe.fit
    monkeypatch.setattr(linear_probe, "fit", lambda *args: (parts.append(args[1]), solve(*args))[1])
    trainer.run_epoch()
    *kept, whole = [torch.bincount(label, minlength=4).tolist() for label in parts]
    assert whole == [6] * 4  # the head that stays is of all training images
    assert [sum(counts) for counts in kept] == [18] * 4  # four folds of 24 images
    assert all(4 <= count <= 5 for counts in kept for count in counts)  # of each class its share
    assert trainer.epoch_facts()["probe"] == {
        **{"c": 0.5, "chosen_on": "folds", "fits": 5},
        "accuracy": trainer._found["accuracy"],
        "iterations": trainer._found["iterations"],
    }


def test_folds_depend_on_the_seed_alone_and_hold_every_image_once(probe):
    def held(trainer):
        label = torch.arange(4).repeat(6)
        parts = trainer.folds((torch.arange(24.0)[:, None], label), 3)
        for (kept, _), (out, _) in parts:
            assert sorted([*kept[:, 0].tolist(), *out[:, 0].tolist()]) == list(range(24))
        return [part[:, 0].tolist() for _, (part, _) in parts]

    first = held(probe())
    assert sorted(index for part in first for index in part) == list(range(24))
    assert held(probe()) == first
    assert held(probe("SEED", "2")) != first


def test_nothing_to_choose_c_on(probe):
    trainer = without_val(probe())
    items = trainer.dm.dataset.train_x
    del items[1:6]  # one image of the first class
    with pytest.raises(ValueError, match=r"no validation images here and a class with a single training image"):
        trainer.run_epoch()
    fixed = without_val(probe(NODE + "C", "2.0"))
    fixed.run_epoch()
    assert fixed.epoch_facts()["probe"]["c"] == 2.0


def test_a_single_class(probe):
    trainer = probe()
    trainer.method.space = LabelSpace(("only",))
    with pytest.raises(ValueError, match="LinearProbe needs at least two classes, Toy has 1 here"):
        trainer.run_epoch()


# ---- options


@pytest.mark.parametrize("prec", ["fp32", "amp", "bf16"])
def test_every_precision_solves_on_fp32_features(probe, images, prec):
    trainer = probe(NODE + "PREC", prec, NODE + "C", "1.0")
    features, _ = trainer.features(trainer.train_loader_x, "images")
    plain = probe(NODE + "C", "1.0")
    expected, _ = plain.features(plain.train_loader_x, "images")
    assert features.dtype == torch.float32
    assert torch.equal(features, expected) == (prec == "fp32")
    trainer.run_epoch()
    logits = trainer.model_inference(images)
    assert logits.dtype == torch.float32
    assert trainer.method.weight.dtype == torch.float32
    assert trainer.method.weight.abs().max() > 0


def test_every_key_changes_the_head(probe):
    def weight(*opts):
        trainer = probe(*opts)
        trainer.run_epoch()
        return trainer.method.weight.detach().clone()

    plain = weight()
    assert torch.equal(plain, weight())
    for change in (("C", "0.003"), ("SOLVER", "torch"), ("MAX_ITER", "2"), ("PREC", "bf16")):
        assert not torch.equal(plain, weight(NODE + change[0], change[1])), change


def test_the_limit_of_iterations_is_told(run):
    _, out, _ = run(NODE + "MAX_ITER", "2", NODE + "C", "1.0")
    assert "Solved with C = 1 in 2 iterations, the limit LINEARPROBE.MAX_ITER\n" in out


def test_automatic_solver(probe, monkeypatch):
    used = []
    solve = linear_probe.fit
    monkeypatch.setattr(linear_probe, "fit", lambda *args: (used.append(args[4]), solve(*args))[1])
    trainer = probe(NODE + "C", "1.0")
    trainer.run_epoch()
    trainer.device = torch.device("cuda")
    trainer.fit((torch.eye(4), torch.arange(4)), 1.0)
    assert used == ["sklearn", "torch"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((NODE + "C", "-1.0"), "TRAINER.LINEARPROBE.C must be positive, or 0 to search for it, got -1.0."),
        ((NODE + "SOLVER", "svm"), "TRAINER.LINEARPROBE.SOLVER must be auto, sklearn or torch, got 'svm'."),
        ((NODE + "MAX_ITER", "0"), "TRAINER.LINEARPROBE.MAX_ITER must be at least 1, got 0."),
        (("OPTIM.MAX_EPOCH", "2"), "LinearProbe solves once, set OPTIM.MAX_EPOCH to 1; it is 2."),
        ((NODE + "TEXT_CHUNK", "4"), "TRAINER.LINEARPROBE.TEXT_CHUNK must stay 0, got 4."),
        (("MODEL.INIT_WEIGHTS", "x.pt"), "LinearProbe solves from zero, leave MODEL.INIT_WEIGHTS empty."),
        ((NODE + "PREC", "fp8"), "PREC must be one of"),
    ],
)
def test_bad_values_end_in_one_sentence(run, options, message):
    assert message in sentence(run(*options))


def test_it_is_no_host(run):
    line = sentence(run("TRAINER.SPOTLIGHTER.HOST", "LinearProbe", trainer="Spotlighter"))
    assert "LinearProbe reads no text" in line


# ---- the head is tied to its classes


@pytest.mark.parametrize("classes", ["new", "all"])
def test_other_classes_end_in_one_sentence(run, tmp_path, classes):
    assert run("DATASET.SUBSAMPLE_CLASSES", "base", NODE + "C", "1.0")[0] == 0
    flags = ("--eval-only", "--model-dir", str(tmp_path / "run"), "--load-epoch", "1")
    line = sentence(run("DATASET.SUBSAMPLE_CLASSES", classes, output="eval", flags=flags))
    assert "was trained on other classes (2, from 'red square' to 'green_square')" in line
    assert "what LinearProbe trains here belongs to its classes; test it on the same ones, in their order" in line
