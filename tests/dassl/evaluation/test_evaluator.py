import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, f1_score
from torch.utils._python_dispatch import TorchDispatchMode

from dassl.config import get_cfg_default
from dassl.evaluation import EVALUATOR_REGISTRY, Classification, EvaluatorBase, build_evaluator


@pytest.fixture
def cfg(tmp_path):
    cfg = get_cfg_default()
    cfg.OUTPUT_DIR = str(tmp_path / "output")
    cfg.VERBOSE = False
    return cfg


def _logits(pred, n_cls):
    return torch.nn.functional.one_hot(torch.as_tensor(pred), n_cls).float()


def _feed(evaluator, true, pred, n_cls, batch=7):
    for i in range(0, len(true), batch):
        evaluator.process(_logits(pred[i : i + batch], n_cls), torch.as_tensor(true[i : i + batch]))


@pytest.mark.parametrize("seed", range(6))
def test_results_equal_scikit_learns(cfg, seed, capsys):
    rng = np.random.default_rng(seed)
    true = rng.choice([0, 2, 3, 7], size=60)  # 1, 4, 5, 6 have no sample but may be predicted
    pred = np.where(rng.random(60) < 0.5, true, rng.integers(0, 8, 60))
    cfg.TEST.PER_CLASS_RESULT = True
    cfg.TEST.COMPUTE_CMAT = True
    evaluator = Classification(cfg, lab2cname={i: f"c{i}" for i in range(8)})
    _feed(evaluator, true, pred, 8)
    results = evaluator.evaluate()
    assert list(results) == ["accuracy", "error_rate", "macro_f1", "perclass_accuracy"]
    accuracy = 100 * (true == pred).mean()
    assert results["accuracy"] == pytest.approx(accuracy, abs=1e-10)
    assert results["error_rate"] == pytest.approx(100 - accuracy, abs=1e-10)
    f1 = f1_score(true, pred, average="macro", labels=np.unique(true))
    assert results["macro_f1"] == pytest.approx(100 * f1, abs=1e-10)
    per_class = [100 * (pred[true == label] == label).mean() for label in np.unique(true)]
    assert results["perclass_accuracy"] == pytest.approx(np.mean(per_class), abs=1e-10)
    assert all(type(value) is float for value in results.values())

    cmat = torch.load(f"{cfg.OUTPUT_DIR}/cmat.pt", weights_only=True)
    np.testing.assert_allclose(cmat.numpy(), confusion_matrix(true, pred, normalize="true"), atol=1e-12)
    assert f"Confusion matrix saved to {cfg.OUTPUT_DIR}/cmat.pt" in capsys.readouterr().out


def test_printed_block(cfg, capsys):
    evaluator = Classification(cfg)
    true = np.zeros(1234, dtype=int)
    pred = np.where(np.arange(1234) < 1100, 0, 1)
    _feed(evaluator, true, pred, 2, batch=100)
    evaluator.evaluate()
    # f1 = 2 * 1100 / (1234 + 1100)
    assert capsys.readouterr().out.splitlines() == [
        "=> result",
        "* total: 1,234",
        "* correct: 1,100",
        "* accuracy: 89.14%",
        "* error: 10.86%",
        "* macro_f1: 94.26%",
    ]


def test_printed_classes(cfg, capsys):
    cfg.TEST.PER_CLASS_RESULT = True
    evaluator = Classification(cfg, lab2cname={0: "red star", 1: "blue ring", 2: "unseen"})
    _feed(evaluator, [0, 1, 1, 1], [0, 1, 1, 2], 3)
    evaluator.evaluate()
    assert capsys.readouterr().out.splitlines()[6:] == [
        "=> per-class result",
        "* class: 0 (red star)\ttotal: 1\tcorrect: 1\tacc: 100.00%",
        "* class: 1 (blue ring)\ttotal: 3\tcorrect: 2\tacc: 66.67%",
        "* average: 83.33%",
    ]


def test_reset_forgets(cfg):
    evaluator = Classification(cfg)
    _feed(evaluator, [0, 0], [1, 1], 2)
    evaluator.reset()
    _feed(evaluator, [0, 1], [0, 1], 2)
    assert evaluator.evaluate()["accuracy"] == 100.0


def test_evaluating_twice_gives_the_same(cfg):
    evaluator = Classification(cfg)
    _feed(evaluator, [0, 1, 1], [0, 1, 0], 2)
    assert evaluator.evaluate() == evaluator.evaluate()


def test_no_number_is_read_while_processing(cfg):
    class CountReads(TorchDispatchMode):
        reads = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten._to_copy.default):
                self.reads += 1
            return func(*args, **(kwargs or {}))

    cfg.TEST.PER_CLASS_RESULT = True
    evaluator = Classification(cfg, lab2cname={})
    logits, label = torch.randn(5, 3), torch.zeros(5, dtype=torch.long)
    with CountReads() as mode:
        evaluator.process(logits, label)
        assert mode.reads == 0
        logits[0, 0].item()
        assert mode.reads == 1  # the counter counts


def test_gradients_are_not_kept(cfg):
    evaluator = Classification(cfg)
    evaluator.process(torch.randn(4, 3, requires_grad=True), torch.zeros(4, dtype=torch.long))
    assert not any(batch.requires_grad for batch in evaluator._y_pred)


def test_nothing_to_evaluate(cfg):
    with pytest.raises(ValueError, match="There is nothing to evaluate: no sample was processed; check the split"):
        Classification(cfg).evaluate()


def test_shapes_must_match(cfg):
    with pytest.raises(ValueError, match=r"expected logits \[B, C\] and labels \[B\], got \[4, 3\] and \[3\]"):
        Classification(cfg).process(torch.zeros(4, 3), torch.zeros(3))


def test_names_are_needed_for_classes(cfg):
    cfg.TEST.PER_CLASS_RESULT = True
    with pytest.raises(ValueError, match=r"TEST.PER_CLASS_RESULT needs the class names; pass lab2cname"):
        Classification(cfg)


def test_build_evaluator(cfg, capsys):
    cfg.VERBOSE = True
    assert isinstance(build_evaluator(cfg, lab2cname={}), Classification)
    assert capsys.readouterr().out == "Loading evaluator: Classification\n"
    assert "Classification" in EVALUATOR_REGISTRY
    cfg.TEST.EVALUATOR = "Clasification"
    with pytest.raises(ValueError, match="'Clasification' does not exist; expected one of"):
        build_evaluator(cfg)


def test_base_is_abstract(cfg):
    base = EvaluatorBase(cfg)
    for call in (base.reset, lambda: base.process(None, None), base.evaluate):
        with pytest.raises(NotImplementedError):
            call()
