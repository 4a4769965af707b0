"""Checkpoints in which something, anywhere, is another value or missing: refused with a sentence, or harmless."""

import copy
import shutil

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.dassl.engine.conftest import Killed
from tests.faults.test_fuzz_readers import OURS, refused

fuzzed = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
others = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 5),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=6),
    st.just([]),
    st.just({}),
    st.just((1, 2)),
    st.sampled_from([torch.zeros(0), torch.zeros(3, dtype=torch.int64), torch.tensor(1j)]),
)


def spoilt(draw, tree):
    """A copy of the tree in which one entry is replaced or taken out."""
    tree = copy.deepcopy(tree)
    node, parent, key = tree, None, None
    while isinstance(node, (dict, list)) and node and (parent is None or draw(st.integers(0, 3))):
        parent = node
        key = draw(st.sampled_from(sorted(node, key=str) if isinstance(node, dict) else range(len(node))))
        node = node[key]
    if parent is None:
        return draw(others)
    if draw(st.booleans()):
        parent[key] = draw(others)
    else:
        del parent[key]
    return tree


EVERY_EPOCH = {"TRAIN__CHECKPOINT_FREQ": 1}


class Begun:
    """A run that was stopped after five steps: its folder, its resume file's content and its model's."""

    def __init__(self, folder):
        self.folder = folder
        self.state = torch.load(folder / "run" / "resume.pth.tar")
        self.model = torch.load(folder / "run" / "linear" / "model.pth.tar-1")

    def __repr__(self):
        return "begun"  # hypothesis would print all tensors


@pytest.fixture(scope="module")
def begun(toys, tmp_path_factory):
    folder = tmp_path_factory.mktemp("begun")

    def stop(step):
        if step == 5:
            raise Killed

    trainer = toys.toy_trainer(folder / "pictures", folder / "run", TRAIN__CHECKPOINT_SECONDS=1e-9, **EVERY_EPOCH)
    trainer.interrupt = stop
    with pytest.raises(Killed):
        trainer.train()
    return Begun(folder)


@fuzzed
@given(data=st.data())
def test_resume_files(toys, begun, tmp_path, data):
    path = tmp_path / "run" / "resume.pth.tar"
    shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.mkdir()
    torch.save(spoilt(data.draw, begun.state), path)
    trainer = toys.toy_trainer(begun.folder / "pictures", path.parent, **EVERY_EPOCH)
    trainer.load_extra_state = lambda state: None  # what a trainer keeps there it must check itself
    refused(trainer.train, (*OURS, FloatingPointError))


@fuzzed
@given(data=st.data())
def test_models(toys, begun, tmp_path, data):
    path = tmp_path / "run" / "linear" / "model.pth.tar-1"
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    path.parent.mkdir(parents=True)
    torch.save(spoilt(data.draw, begun.model), path)
    trainer = toys.toy_trainer(begun.folder / "pictures", tmp_path / "run", **EVERY_EPOCH)
    refused(lambda: trainer.load_model(str(tmp_path / "run"), epoch=1))
    refused(trainer.train, (*OURS, FloatingPointError))
