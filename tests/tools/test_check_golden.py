"""The released codes' numbers, redrawn and recomputed; and the checker itself must notice a deviation."""

import json
from pathlib import Path

import pytest

from tools import check_golden

GOLDEN = Path(__file__).parent.parent / "golden" / "baselines.json"


@pytest.mark.parametrize("method", check_golden.METHODS)
def test_released_numbers_are_reproduced(method, capsys):
    assert check_golden.main([str(GOLDEN), "--method", method]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "FAILED" not in "".join(lines)
    assert any("step3.eval_logits" in line for line in lines) == ("Zeroshot" not in method)


def test_a_deviation_fails(tmp_path, capsys):
    data = json.loads(GOLDEN.read_text())
    data["cases"] = {"CoOp/csc_front": data["cases"]["CoOp/csc_front"]}
    data["cases"]["CoOp/csc_front"]["step0"]["grad_norms"]["ctx"] *= 1.001
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(data))
    assert check_golden.main([str(path), "--method", "CoOp"]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if "FAILED" in line]
    assert len(failed) == 1
    assert "step0.grad_norms.ctx" in failed[0]


def test_what_ours_lacks_fails(tmp_path, capsys):
    data = json.loads(GOLDEN.read_text())
    data["cases"] = {"CoOp/csc_front": data["cases"]["CoOp/csc_front"]}
    data["cases"]["CoOp/csc_front"]["step0"]["grad_norms"]["meta_net"] = 1.0
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(data))
    assert check_golden.main([str(path), "--method", "CoOp"]) == 1
    (failed,) = [line for line in capsys.readouterr().out.splitlines() if "FAILED" in line]
    assert "step0.grad_norms.meta_net" in failed


@pytest.mark.parametrize("text", [None, "{", "{}"])
def test_a_file_that_is_none_is_named(tmp_path, capsys, text):
    path = tmp_path / "file.json"
    if text is not None:
        path.write_text(text)
    assert check_golden.main([str(path)]) == 1
    assert f"{path} is no golden file" in capsys.readouterr().err


def test_a_file_without_the_method_is_an_error(tmp_path, capsys):
    data = {"seed": 1, "B": 1, "C": 1, "classnames": ["x"], "labels": [0], "logit_scale": 20.0, "cases": {}}
    path = tmp_path / "empty.json"
    path.write_text(json.dumps(data))
    assert check_golden.main([str(path), "--method", "CoOp"]) == 1
    assert "has no case of CoOp" in capsys.readouterr().err
