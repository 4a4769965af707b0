"""The table of methods has a row each, with counts that the configs give; speeds are only looked at for being there."""

import re
from pathlib import Path

from tools import benchmark_methods

CONFIGS = Path(__file__).parents[2] / "configs/trainers"


def run(capsys, *names, **flags):
    argv = [str(CONFIGS / f"{name}.yaml") for name in names]
    argv += ["--classes", "3", "--batch", "2", "--repeats", "2"]
    code = benchmark_methods.main([*argv, *(part for flag in flags.items() for part in flag)])
    return code, capsys.readouterr()


def test_rows(capsys):
    names = ("ZeroshotCLIP/mini_vit8", "CoOp/mini_vit8_ep20", "Spotlighter/mini_vit8_ep5_maple_paper")
    code, printed = run(capsys, *names)
    assert code == 0
    lines = printed.out.splitlines()
    assert lines[0] == "3 classes, batch 2 in inference, fp32, cpu, images/s"
    rows = [re.split(r"\s{2,}", line) for line in lines[3:]]
    assert [cells[0] for cells in rows] == ["bare encoder", "ZeroshotCLIP", "CoOp", "MaPLe w/ Spotlighter"]
    assert rows[2][1:4] == ["1", "2,048", "32"]
    assert rows[0][-2:] == ["1.00", "1.00–1.00"]


def test_what_cannot_be_made_is_an_error(capsys):
    code, printed = run(capsys, "PromptKD/mini_vit8_ep6")
    assert code == 1
    assert printed.err.startswith("Error: PromptKD needs a trained teacher")
