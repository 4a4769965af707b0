"""Requests: the answers are those of the library, and what goes wrong is told in a sentence."""

import threading

import numpy as np
import pytest

from tests.conftest import NAMES
from tests.tools.explorer.conftest import CPU
from tools.explorer.explore import Explorer, sentence
from tools.explorer.limits import Limits, Refused
from tools.explorer.presets import Predictors, distinct, find_presets
from trainers.predictor import Predictor

ALL = ("zero-shot tiny.pt", "CoOp", "CoOp w/ Spotlighter", "LinearProbe")
BASE = "\n".join(NAMES[:2])


@pytest.fixture
def explorer(toy):
    runs = [toy / name for name in ("coop", "spotlighter", "probe")]
    return Explorer(find_presets(runs, opts=CPU), Limits(), cached=4)


def expected(run, path, names=None):
    (prediction,) = Predictor.load(run, names, opts=CPU).predict(path)
    return prediction


# --- presets


def test_presets(toy, explorer):
    assert tuple(explorer.presets) == ALL
    assert [preset.title for preset in find_presets([toy / "coop", toy / "zero"])] == ["CoOp", "ZeroshotCLIP"]
    with pytest.raises(ValueError, match=r"coop is named twice; name each run once"):
        find_presets([toy / "coop", f"{toy}/zero/../coop"])
    with pytest.raises(FileNotFoundError, match="No run folder at"):
        find_presets([toy / "nowhere"])


def test_titles_tell_runs_apart(tmp_path):
    places = [tmp_path / "a" / "seed1", tmp_path / "b" / "seed1", tmp_path / "c"]
    assert distinct(["CoOp", "CoOp", "VPT"], places) == ["CoOp (a/seed1)", "CoOp (b/seed1)", "VPT"]
    assert distinct(["CoOp", "CoOp"], [tmp_path / "x" / "seed1", tmp_path / "x" / "seed2"]) == [
        "CoOp (seed1)",
        "CoOp (seed2)",
    ]


def test_predictors_are_kept_within_a_bound(explorer, monkeypatch):
    loaded = []
    load = type(next(iter(explorer.presets.values()))).load
    monkeypatch.setattr(
        "tools.explorer.presets.Preset.load",
        lambda self, names: loaded.append((self.title, names)) or load(self, names),
    )
    kept, (zero, coop, *_) = Predictors(2), explorer.presets.values()
    a, b = ("red square", "blue square"), ("blue square", "red square")
    first = kept.get(zero, a)
    assert kept.get(zero, a) is first
    kept.get(zero, b)
    kept.get(zero, a)
    kept.get(coop, a)  # in the place of (zero, b)
    assert kept.get(zero, a) is first
    assert len(kept) == 2
    kept.get(zero, b)
    assert loaded == [(zero.title, a), (zero.title, b), (coop.title, a), (zero.title, b)]
    with pytest.raises(ValueError, match="--cache must be at least 1, got 0"):
        Predictors(0)


# --- answers


def test_answers_are_the_librarys(toy, explorer, pictures):
    answer = explorer.answer(pictures, BASE, ALL)
    assert (answer.problems, answer.notes) == ([], [])
    assert [looked.name for looked in answer.pictures] == ["a_0_0.png", "a_1_1.png", "a_2_2.png"]
    for looked, path in zip(answer.pictures, pictures, strict=True):
        assert [one.title for one in looked.seen] == list(ALL)
        for one, run in zip(looked.seen, ("zero", "coop", "spotlighter", "probe"), strict=True):
            told = expected(toy / run, path)
            assert one.prediction.names == told.names
            np.testing.assert_allclose(one.prediction.probabilities, told.probabilities, atol=1e-6)
            assert one.picture.size == (32, 32)
            assert (one.prediction.tokens is None) == (run != "spotlighter")
        tokens = expected(toy / "spotlighter", path).tokens
        assert looked.seen[2].prediction.tokens.tokens.tolist() == tokens.tokens.tolist()


def test_other_names_and_who_refuses_them(toy, explorer, pictures):
    text = "green square\n purple   square\ngreen_square"
    answer = explorer.answer(pictures[:2], text, ALL)
    (problem,) = answer.problems
    assert problem.startswith("LinearProbe: ")
    with pytest.raises((ValueError, RuntimeError)) as caught:
        expected(toy / "probe", pictures[0], ["green square", "purple square"])
    assert str(toy) not in problem  # where runs lie is nobody's business
    assert problem == f"LinearProbe: {caught.value}".replace(str(toy / "probe"), "…")
    assert answer.notes == ["Left out, because they came twice: “green_square”."]
    for looked, path in zip(answer.pictures, pictures[:2], strict=True):
        assert [one.title for one in looked.seen] == list(ALL[:3])
        told = expected(toy / "coop", path, ["green square", "purple square"])
        assert looked.seen[1].prediction.names == ("green square", "purple square")
        np.testing.assert_allclose(looked.seen[1].prediction.probabilities, told.probabilities, atol=1e-6)


def test_a_damaged_picture_does_not_spoil_the_others(explorer, pictures, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not a picture")
    answer = explorer.answer([pictures[0], str(bad), pictures[1]], BASE, ["CoOp"])
    assert [len(looked.seen) for looked in answer.pictures] == [1, 0, 1]
    assert answer.pictures[1].problem.startswith("“bad.png” is no picture that can be read")
    assert answer.problems == []


def test_nothing_to_do(explorer, pictures):
    for given, told in {
        ((), BASE, ()): "No preset is chosen; tick at least one.",
        ((), BASE, ("CoOp",)): "There is no picture; drop one or more",
        (tuple(pictures), "", ("CoOp",)): "There are no class names",
        (tuple(pictures), BASE, ("unknown",)): "No preset is chosen",
    }.items():
        with pytest.raises(Refused, match=told):
            explorer.answer(*given)


def test_when_no_preset_can_be_used(explorer, pictures):
    answer = explorer.answer(pictures, "green square\nblue square", ["LinearProbe"])
    assert len(answer.problems) == 1
    assert [len(looked.seen) for looked in answer.pictures] in ([], [0])


# --- time, threads, surprises


def test_time_runs_out_between_pictures(toy, pictures):
    now = iter(range(0, 1000, 10))
    explorer = Explorer(find_presets([toy / "zero"], opts=CPU), Limits(max_seconds=55), 1, clock=lambda: next(now))
    # asked at 0; loads at 10; pictures and their one preset at 20, 30 and 40, 50; late at 60
    answer = explorer.answer(pictures, BASE, ["ZeroshotCLIP"])
    assert len(answer.pictures) == 2
    assert answer.problems == [
        "Stopped after 55 seconds with 2 of 3 pictures done; ask again with fewer pictures, class names or presets."
    ]
    assert not explorer.lock.locked()


def test_others_who_ask_at_the_same_time(toy, pictures):
    explorer = Explorer(find_presets([toy / "coop"], opts=CPU), Limits(), 1)
    texts, answers = (BASE, "blue square\nred square\ngreen square"), {}

    def ask(i):
        answers[i] = explorer.answer(pictures, texts[i % 2], ["CoOp"])

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(6):
        told = [expected(toy / "coop", path, texts[i % 2].splitlines()) for path in pictures]
        got = [looked.seen[0].prediction for looked in answers[i].pictures]
        assert [one.names for one in got] == [one.names for one in told]
        np.testing.assert_allclose([o.logits for o in got], [o.logits for o in told], atol=1e-4)


def test_waiting_ends(toy, pictures):
    explorer = Explorer(find_presets([toy / "coop"], opts=CPU), Limits(max_seconds=0.01), 1)
    with explorer.lock, pytest.raises(Refused, match=r"Others were asking for 0\.01 seconds; try again in a moment\."):
        explorer.answer(pictures, BASE, ["CoOp"])


def test_surprises_are_not_shown(explorer, pictures, monkeypatch, capsys):
    monkeypatch.setattr(Predictor, "seen", lambda *_: {}["secret"])
    answer = explorer.answer(pictures, BASE, ["CoOp"])
    told = "Something went wrong that should not; the terminal in which the explorer runs has the details."
    assert answer.problems == [f"CoOp: {told}"]
    assert "KeyError: 'secret'" in capsys.readouterr().err
    assert sentence(RuntimeError("two\n  lines.")) == "two lines."
