"""The release's golden file, a second one of other sizes made by a naive NumPy version, and deviations of each kind."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from tests.trainers.spotlighter.release_oracle import difference_quotient, release, unit
from tools import check_release

FOLDER = Path(__file__).parent.parent / "golden"
GOLDEN = FOLDER / "release_head.json"
WIDTH = 4
RECIPE = [  # weights in the order of drawing: name in the file, ours, shape, scale, mean
    ("conv1.0.weight", "adapter.0.weight", (WIDTH, WIDTH), WIDTH**-0.5, 0),
    ("conv1.0.bias", "adapter.0.bias", (WIDTH,), 0.01, 0),
    ("conv1.1.weight", "adapter.1.weight", (WIDTH,), 0.1, 1),
    ("conv1.1.bias", "adapter.1.bias", (WIDTH,), 0.1, 0),
    ("conv1.3.weight", "adapter.3.weight", (WIDTH, WIDTH), WIDTH**-0.5, 0),
    ("conv1.3.bias", "adapter.3.bias", (WIDTH,), 0.01, 0),
    *(
        (f"mutitransformer.{name}.{kind}", f"image_read.{name}.{kind}", shape, scale, 0)
        for name in ("query", "key", "value", "out")
        for kind, shape, scale in (("weight", (WIDTH, WIDTH), WIDTH**-0.5), ("bias", (WIDTH,), 0.01))
    ),
    ("extractor.weight", "text_fuse.weight", (WIDTH, 2 * WIDTH), (2 * WIDTH) ** -0.5, 0),
]


@pytest.fixture(scope="module")
def small():
    """A golden file that no released code has seen: other sizes, options and scale, gradients by differences."""
    sizes = {"seed": 3, "B": 2, "N": 7, "C": 4, "M": 9, "d": WIDTH, "labels": [3, 1], "logit_scale": 15.0}
    options = {"alpha": 0.6, "momentum": 0.5, "balance": 4.0, "distill": 2.5}
    generator = np.random.default_rng(3)

    def draw(shape, scale=1.0, mean=0.0):
        return (mean + generator.standard_normal(shape) * scale).astype(np.float32).astype(np.float64)

    tokens, text, scores = draw((2, 8, WIDTH)), draw((4, WIDTH)), draw((2, 7))
    weights = {"prototypes": np.array([unit(row) for row in np.abs(draw((9, WIDTH)))])}
    weights |= {ours: draw(shape, scale, mean) for _, ours, shape, scale, mean in RECIPE}
    inputs = {
        "text": np.array([unit(row) for row in text]),
        "image": np.array([unit(row) for row in tokens[:, 0]]),
        "tokens": tokens,
        "attention": np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True),
        "label": [3, 1],
        "scale": 15.0,
    }
    first = release(weights, **inputs, **options)

    def gradient_norm(array):
        slopes = [
            difference_quotient(lambda: release(weights, **inputs, **options).total, array, where)
            for where in np.ndindex(array.shape)
        ]
        return float(np.linalg.norm(slopes))

    norms = {name: gradient_norm(weights[ours]) for name, ours, *_ in RECIPE}
    weights["prototypes"] = first.bank
    return {
        **sizes,
        **options,
        "losses": {"total": first.total, **first.terms},
        "train_logits": first.logits.tolist(),
        "eval_logits": release(weights, **inputs, **options, mix=0.1).logits.tolist(),
        "bank_after": {
            "sum": float(first.bank.sum()),
            "rows_changed": len(first.hit),
            "first_3x8": first.bank[:3, :8].tolist(),
        },
        "grad_norms": norms,
    }


@pytest.fixture
def check(tmp_path, capsys):
    """Runs the tool on changed contents; returns exit status, lines of stdout, stderr and the file's path."""

    def run(content, *flags):
        path = tmp_path / "file.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        status = check_release.main([str(path), *flags])
        out, err = capsys.readouterr()
        return status, out.splitlines(), err, path

    return run


def test_released_numbers_are_reproduced(capsys):
    assert check_release.main([str(GOLDEN)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "FAILED" not in "".join(lines)
    assert len(lines) == 7 + 2 + 3 + 15 + 1  # losses, logits, bank, gradients, summary
    assert lines[-1] == "27 of 27 quantities agree within 0.0001"


def test_a_file_of_other_sizes_is_reproduced(check, small):
    assert 0 < small["bank_after"]["rows_changed"] < small["M"]
    status, lines, _, _ = check(small)
    assert status == 0, "\n".join(lines)
    assert lines[-1] == "27 of 27 quantities agree within 0.0001"


@pytest.mark.parametrize(
    ("path", "change"),
    [
        *((("losses", name), lambda x: x * 1.001) for name in check_release.LOSSES),
        (("train_logits", 1, 2), lambda x: x + 0.01),
        (("eval_logits", 0, 3), lambda x: x + 0.01),
        (("bank_after", "sum"), lambda x: x * 1.001),
        (("bank_after", "rows_changed"), lambda x: x - 1),
        (("bank_after", "first_3x8", 2, 3), lambda x: x + 0.001),
        (("grad_norms", "conv1.1.weight"), lambda x: x * 1.001),
        (("grad_norms", "extractor.weight"), lambda x: x * 0.999),
        (("grad_norms", "conv1.0.bias"), lambda x: x + 2e-5),
        (("grad_norms", "mutitransformer.query.weight"), lambda x: 2e-5),
        (("grad_norms", "mutitransformer.value.bias"), lambda x: 0.0),
        (("losses", "image_l1"), lambda x: float("nan")),
    ],
)
def test_a_changed_number_fails(check, small, path, change):
    content = copy.deepcopy(small)
    *parents, last = path
    node = content
    for key in parents:
        node = node[key]
    node[last] = change(node[last])
    status, lines, _, _ = check(content)
    assert status == 1
    (failed,) = [line for line in lines if "FAILED" in line]
    named = [key for key in path if isinstance(key, str)]
    assert failed.split()[0] == ".".join(named)
    assert lines[-1] == "26 of 27 quantities agree within 0.0001"


def test_another_shape_fails(check, small):
    content = copy.deepcopy(small)
    content["eval_logits"].pop()
    status, lines, _, _ = check(content)
    assert status == 1
    (failed,) = [line for line in lines if "FAILED" in line]
    assert failed.split()[0] == "eval_logits"
    assert "shape (2, 4), golden (1, 4)" in failed


@pytest.mark.parametrize(("tolerance", "status"), [("1e-2", 0), ("1e-4", 1)])
def test_the_tolerance_is_the_callers(check, small, tolerance, status):
    content = copy.deepcopy(small)
    content["losses"]["total"] *= 1.001
    assert check(content, "--tolerance", tolerance)[0] == status


@pytest.mark.parametrize("key", ["seed", "alpha", "momentum", "balance", "distill", "logit_scale", "labels"])
def test_every_setting_of_the_file_counts(check, small, key):
    changed = [1, 3] if key == "labels" else small[key] * 2 if key != "momentum" else 0.6
    status, lines, _, _ = check(small | {key: changed})
    assert status == 1
    assert any("FAILED" in line for line in lines)


@pytest.mark.parametrize("text", ["{", "{}", "[]", "3", "null"])
def test_a_file_that_is_none_is_named(check, text):
    status, lines, err, path = check(text)
    assert status == 1
    assert not lines
    assert f"{path} is no golden file of the release head" in err


def test_a_missing_file_and_one_of_another_form_are_named(tmp_path, capsys):
    for path in (tmp_path / "none.json", FOLDER / "baselines.json"):
        assert check_release.main([str(path)]) == 1
        assert f"{path} is no golden file of the release head" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0]}, "'labels' must be 2 whole numbers from 0 to 3, got [0]"),
        ({"labels": [0, 4]}, "'labels' must be 2 whole numbers from 0 to 3, got [0, 4]"),
        ({"labels": [0, 0.5]}, "'labels' must be 2 whole numbers from 0 to 3, got [0, 0.5]"),
        ({"N": 5}, "'N' must be above 5, got 5"),
        ({"losses": {"total": 1.0}}, "'losses' must hold total, global_ce"),
        ({"grad_norms": 3}, "not iterable"),
        ({"momentum": 2}, "MOMENTUM must be in [0, 1]"),
        ({"train_logits": "many"}, "could not convert"),
    ],
)
def test_impossible_contents_are_named(check, small, change, message):
    status, lines, err, _ = check(small | change)
    assert status == 1
    assert not lines
    assert message in err
