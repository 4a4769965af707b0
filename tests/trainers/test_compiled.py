"""MODEL.BACKBONE.COMPILE in whole runs; tests/clip/test_compiled.py has the towers by themselves."""

import pytest
import torch

from tests.trainers.every import logits_of


# weights that are swapped, texts of each image, prompts in both towers, a last block of its own
@pytest.mark.parametrize("name", ["CLIPFit", "CoCoOp", "MaPLe", "Spotlighter"])
def test_compiled_towers_train_the_same(make_any, traced, name):
    logits = []
    for compiled in (False, True):
        trainer = make_any(name, "MODEL.BACKBONE.COMPILE", compiled, output=f"compiled {compiled}")
        trainer.train()
        logits.append(logits_of(trainer, torch.ones(2, 3, 32, 32)))
    torch.testing.assert_close(logits[1], logits[0], atol=1e-3, rtol=1e-3)
    assert traced
