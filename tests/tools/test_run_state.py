"""tools/run_state.py: the answers that the shell scripts act on."""

import pytest

from tools.run_state import main


@pytest.fixture
def ask(capsys):
    def run(*argv: object) -> tuple[int, str, str]:
        code = main([str(arg) for arg in argv])
        out, err = capsys.readouterr()
        return code, out.strip(), err

    return run


def test_state(runs, ask):
    folder = runs.root / "seed1"
    assert ask("state", folder) == (0, "absent", "")
    runs.metrics(folder, finished=False)
    assert ask("state", folder) == (0, "unfinished", "")
    runs.metrics(folder)
    assert ask("state", folder) == (0, "finished", "")


def test_stale(runs, ask):
    runs.pair(1, 60.0, 90.0)
    trained, tested = runs.folder("train_base", 1), runs.folder("test_new", 1)
    assert ask("state", tested, "--after", trained)[1] == "finished"
    runs.metrics(trained, started="2030-01-01T11:00:01")
    assert ask("state", tested, "--after", trained)[1] == "stale"
    runs.metrics(trained, started="2030-01-01T11:00:01", finished=False)
    assert ask("state", tested, "--after", trained)[1] == "finished"


def test_other_options_than_those_of_a_finished_run(runs, ask):
    folder = runs.metrics(runs.root / "seed1")
    assert ask("state", folder, "--options", "OPTIM.LR", "0.02")[:2] == (0, "finished")
    code, out, err = ask("state", folder, "--options", "OPTIM.LR", "0.1")
    assert (code, out) == (3, "")
    assert err == (
        f"error: {folder} holds a finished run with another config (OPTIM.LR: the run has 0.02, now 0.1). "
        "Set OUTPUT to another folder, or delete this one to run again.\n"
    )


def test_epoch(runs, ask):
    folder = runs.metrics(runs.root / "seed1")
    assert ask("epoch", folder) == (0, "20", "")
    runs.metrics(folder, config={"TEST": {"FINAL_MODEL": "best_val"}})
    assert ask("epoch", folder) == (0, "best", "")
    (folder / "metrics.json").unlink()
    assert ask("epoch", folder) == (
        1,
        "",
        f"error: {folder}: it has no metrics.json, which would tell the trained epoch\n",
    )


def test_result(runs, ask):
    folder = runs.metrics(runs.root / "seed1", 77.086)
    assert ask("result", folder) == (0, "77.09% (12 s)", "")
    runs.metrics(folder, finished=False)
    assert ask("result", folder)[0] == 1
