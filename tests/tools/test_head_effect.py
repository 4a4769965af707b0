"""What the head changes, counted on predictions; a run that is not there is named."""

import torch

from tools.head_effect import Effect, main


def test_counts():
    effect = Effect()
    label = torch.tensor([0, 1, 2, 3, 0])
    effect.add(torch.tensor([0, 0, 2, 1, 1]), torch.tensor([0, 1, 0, 2, 1]), label)
    effect.add(torch.tensor([1]), torch.tensor([1]), torch.tensor([1]))
    # of six: right before 0, 2 and 5, with the head 0, 1 and 5; changed 1, 2 and 3, of which 1 is mended and 2 spoilt
    assert (effect.pictures, effect.host_right, effect.head_right) == (6, 3, 3)
    assert (effect.changed, effect.mended, effect.spoilt) == (3, 1, 1)
    assert effect.row() == ["50.00", "50.00", "50.00", "16.67", "16.67"]


def test_a_missing_run_is_named(tmp_path, capsys):
    assert main(["shapes", "--hosts", "MaPLe", "--seeds", "7", "--output", str(tmp_path)]) == 1
    assert "seed7" in capsys.readouterr().err
