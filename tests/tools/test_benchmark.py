import pytest

from clip.model import CLIPSpec
from tools import benchmark


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(benchmark.SPECS, "ViT-B/16", CLIPSpec(32, 32, 2, 64, 8, 77, 49408, 64, 1, 2))


def run(capsys, *argv):
    code = benchmark.main(["--repeats", "2", "--batch", "3", "--classes", "7", *argv])
    return code, capsys.readouterr()


def test_both_steps_and_the_bank_are_reported(tiny, capsys):
    code, printed = run(capsys)
    assert code == 0
    lines = printed.out.splitlines()
    assert lines[0] == "ViT-B/16, 7 classes, batch 3, fp32, cpu"
    (training,) = [line.split() for line in lines if line.startswith("training step")]
    (inference,) = [line.split() for line in lines if line.startswith("inference")]
    for words in (training, inference):
        assert words[-1].endswith("%")
        assert float(words[-1].strip("+%")) > 0  # the head does count as work
        assert float(words[-6]) > 0
    assert lines[-1] == "memory bank: 0.0 MiB"  # 7 · 5 · 64 numbers


def test_pruning_saves_operations(tiny, capsys):
    def operations(*opts):
        _, printed = run(capsys, *opts)
        (line,) = [line.split() for line in printed.out.splitlines() if line.startswith("inference")]
        return float(line[-1].rstrip("%"))

    assert operations("TRAINER.SPOTLIGHTER.PRUNE", "[[1, 0.5]]") < operations()


def test_release_preset_and_profile(tiny, capsys):
    code, printed = run(capsys, "--profile", "TRAINER.SPOTLIGHTER.PRESET", "release")
    assert code == 0
    assert "memory bank" not in printed.out
    assert "aten::" in printed.out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--prec", "fp8"), "fp8"),
        (("TRAINER.SPOTLIGHTER.TOP_K", "99"), "TOP_K must be less than the 16 patches"),
    ],
)
def test_bad_values_are_named(tiny, capsys, argv, message):
    code, printed = run(capsys, *argv)
    assert code == 1
    assert message in printed.err
