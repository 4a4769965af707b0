"""Runs on the toy data, trained once for all tests of the explorer; tests must not change them."""

import sys

import pytest

import train
from tests.conftest import command_below, square

CPU = ("DEVICE", "cpu")


@pytest.fixture(scope="session")
def toy(tmp_path_factory, tiny_weights):
    """A folder with the runs coop, spotlighter, probe (LinearProbe) and zero (zero-shot) on the two base classes, and
    three pictures.
    """
    folder = tmp_path_factory.mktemp("explorer")
    command = command_below(folder, tiny_weights)
    base = ("DATASET.SUBSAMPLE_CLASSES", "base", "TRAINER.COOP.N_CTX", "2")
    for arguments in (
        command(*base, trainer="CoOp", output="coop"),
        command(*base, "TRAINER.SPOTLIGHTER.TOP_K", "3", trainer="Spotlighter", output="spotlighter"),
        command(*base, "OPTIM.MAX_EPOCH", "1", trainer="LinearProbe", output="probe"),
        command(*base, trainer="ZeroshotCLIP", output="zero", flags=("--eval-only",)),
    ):
        stdout = sys.stdout
        try:
            assert train.run(arguments) == 0
        finally:
            sys.stdout = stdout  # the logger stands in its place after a run
    for colour in range(3):
        square(folder / "pictures", "a", colour, colour)
    return folder


@pytest.fixture
def pictures(toy):
    return sorted(str(path) for path in (toy / "pictures").iterdir())
