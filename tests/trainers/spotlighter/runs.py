"""Names that the tests of whole Spotlighter runs share."""

NODE = "TRAINER.SPOTLIGHTER."
SMALL = ("TRAINER.COOP.N_CTX", "2")
BASE, NEW = ("DATASET.SUBSAMPLE_CLASSES", "base"), ("DATASET.SUBSAMPLE_CLASSES", "new")
RELEASE = (NODE + "PRESET", "release", NODE + "RELEASE.DISTILL", "1.0")


def flags_to_test(tmp_path):
    """Test what a run in `run` has trained."""
    return ("--eval-only", "--model-dir", str(tmp_path / "run"), "--load-epoch", "2")


def sentence(result):
    """The one sentence a failed run ends with."""
    code, _, err = result
    assert code == 1, err
    (line,) = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert "Traceback" not in err
    return line
