"""`train.py --dry-run` for every trainer: it counts what is trained, measures, writes nothing and changes nothing."""

import pytest
import torch

import train
from tests.tools.dry_run.conftest import files_below, sections
from tests.trainers.every import NAMES, OPTIONS, STEPPED, TEACHER, UNTRAINED, WITH_TEXT


@pytest.mark.parametrize("name", NAMES)
def test_every_trainer(make_any, command, capsys, tmp_path, name):
    trainer = make_any(name)  # makes the pictures and, where one is needed, a teacher
    trained = [p.numel() for p in trainer.method.trainables().values()]
    opts = [str(tmp_path / "teacher") if opt == TEACHER else opt for opt in OPTIONS.get(name, ())]
    flags = ("--dry-run", *(["--eval-only"] if name in UNTRAINED else []))
    before, state = files_below(tmp_path), torch.get_rng_state()
    capsys.readouterr()
    argv = command("DATASET.SUBSAMPLE_CLASSES", "base", *opts, "SEED", "-1", trainer=name, flags=flags)
    train.main(train.parse_args(argv))
    found = sections(capsys.readouterr().out)
    assert files_below(tmp_path) == before
    assert torch.equal(torch.get_rng_state(), state)
    (tensors, scalars) = dict(found["Method"])["trained"].split(", ")
    assert [tensors.split(" ")[0], scalars.split(" ")[0]] == [f"{len(trained):,}", f"{sum(trained):,}"]
    (estimate,) = [dict(lines) for title, lines in found.items() if title.startswith("Estimate")]
    assert ("a step" in estimate) == (name in STEPPED)
    assert ("tokens" in dict(found["Text"])) == (name not in WITH_TEXT)
    assert ("teacher" in dict(found["Method"])) == (TEACHER in OPTIONS.get(name, ()))
    assert any(title.startswith("Published recipe") for title in found)
