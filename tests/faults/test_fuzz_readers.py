"""Readers of what others wrote, on trees and bytes that nobody would write: one sentence of our own, or a value."""

import json
import warnings

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dassl.config import get_cfg_default, merge_file, merge_opts
from dassl.engine.record import read_record
from datasets.descriptions import Descriptions
from datasets.image_folder import class_names
from datasets.imagenet_classes import read_classnames
from datasets.samples import few_shot
from datasets.splits import Item, Split, read_split
from tools import run_state
from tools.run_reader import RunProblem, load_metrics, read_run
from tools.sweeps import lock, record
from trainers.feature_store import check_manifest, open_store

OURS = (ValueError, RuntimeError, FileNotFoundError)
# subclasses of ours, but somebody else's: what Python says of bytes and of JSON is no sentence
FOREIGN = (UnicodeError, json.JSONDecodeError, RecursionError, NotImplementedError)
fuzzed = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 9),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["../a", "/a", "a\0b", "\ud800", "c/1.png", "train", "fp32", "2031-01-01T00:00:00+00:00"]),
)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
DEEP = b"[" * 100_000
bytes_of_files = st.one_of(st.binary(max_size=60), trees.map(lambda tree: json.dumps(tree).encode()))


def spoilt(valid):
    """A valid tree in which one entry, anywhere, is another one or missing."""

    def places(tree, path=()):
        yield path
        inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
        for key, value in inner:
            yield from places(value, (*path, key))

    def spoil(path, value, missing):
        tree = json.loads(json.dumps(valid))
        if not path:
            return value
        node = tree
        for key in path[:-1]:
            node = node[key]
        if missing:
            del node[path[-1]]
        else:
            node[path[-1]] = value
        return tree

    return st.builds(spoil, st.sampled_from(list(places(valid))), trees, st.booleans())


def refused(read, kinds=OURS):
    """What a reader gives, or its sentence; any other error fails the test."""
    caught = None
    try:
        value = read()
    except kinds as error:
        caught = error
    if caught is None:
        return value, None
    assert not isinstance(caught, FOREIGN), repr(caught)
    sentence = str(caught.args[0]) if isinstance(caught, KeyError) else str(caught)
    assert sentence.strip(), repr(caught)
    assert "\n" not in sentence, sentence
    return None, sentence


# --- splits, descriptions, lists

SPLIT = {
    part: [[f"c{label}/{part}{i}.png", label, f"class {label}"] for label in range(2) for i in range(2)]
    for part in ("train", "val", "test")
}


@fuzzed
@given(content=bytes_of_files | spoilt(SPLIT).map(lambda tree: json.dumps(tree).encode()))
@example(DEEP)
@example(json.dumps({**SPLIT, "test": [["a.png", 10**18, "x"]]}).encode())
@example(json.dumps({**SPLIT, "test": [["a\0.png", 0, "x"]]}).encode())
@example(json.dumps({**SPLIT, "test": [["a\ud800.png", 0, "x"]]}).encode())
@example(b"[1" + b"0" * 5000 + b"]")
def test_splits(tmp_path, content):
    path = tmp_path / "split.json"
    path.write_bytes(content)
    split, sentence = refused(lambda: read_split(path))
    assert (split is None) or all(isinstance(item, Item) for part in split for item in part)
    assert sentence is None or str(path) in sentence


@fuzzed
@given(content=bytes_of_files | spoilt({"a": ["x", "y"], "b c": ["z"]}).map(lambda tree: json.dumps(tree).encode()))
@example(DEEP)
def test_descriptions(tmp_path, content):
    path = tmp_path / "texts.json"
    path.write_bytes(content)
    found, sentence = refused(lambda: Descriptions(path))
    assert sentence is None or str(path) in sentence
    if found is not None:
        refused(lambda: found.of(["a", "b_c"]))


@fuzzed
@given(content=st.binary(max_size=80) | st.text(max_size=80).map(lambda t: t.encode("utf-8", "surrogatepass")))
@example(b"n01440764 tench\n")
@example(b"n01440764\n\n")
def test_lists_of_classes(tmp_path, content):
    path = tmp_path / "classnames.txt"
    path.write_bytes(content)
    for read in (lambda: read_classnames(tmp_path, "ImageNet"), lambda: class_names(path, ["a", "a b"])):
        names, sentence = refused(read)
        assert names is None or all(isinstance(text, str) for pair in names.items() for text in pair)
        assert sentence is None or str(path) in sentence


ITEMS = Split(*([Item(f"{part}{label}{i}", label, "x") for label in range(2) for i in range(3)] for part in "abc"))
KEPT = {"schema": 1, "dataset": "Toy", "shots": 1, "seed": 3, "split_digest": "d", "train": ["a00", "a11"]}


@fuzzed
@given(content=bytes_of_files | spoilt({**KEPT, "val": ["b00", "b10"]}).map(lambda tree: json.dumps(tree).encode()))
@example(DEEP)
def test_kept_samples_are_used_or_drawn_anew(tmp_path, content):
    (tmp_path / "shot_1-seed_3.json").write_bytes(content)
    sample = few_shot(ITEMS, "d", 1, 3, "Toy", tmp_path)
    assert sorted(item.label for item in sample.train) == [0, 1]
    assert {item.path for item in sample.train} <= {item.path for item in ITEMS.train}


# --- records of runs

METRICS = {
    **{"schema": 1, "finished": True, "mode": "train", "trainer": "CoOp", "dataset": "Toy", "num_shots": 16, "seed": 1},
    "config": {"OPTIM": {"MAX_EPOCH": 2, "LR": 0.1}, "TEST": {"FINAL_MODEL": "last_step"}, "TRAINER": {"COOP": {}}},
    "epochs": [{"epoch": 1, "train": {"loss": 1.0}}, {"epoch": 2}],
    "final": {"epoch": 2, "metrics": {"accuracy": 61.5, "error_rate": 38.5}},
    **{"started": "2031-01-01T00:00:00+00:00", "wall_seconds": 3.5, "resumed": 0, "class_names": ["a", "b"]},
}


@fuzzed
@given(content=bytes_of_files | spoilt(METRICS).map(lambda tree: json.dumps(tree).encode()))
@example(DEEP)
def test_metrics(tmp_path, content):
    path = tmp_path / "seed1" / "metrics.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    tree, _ = refused(lambda: load_metrics(path), (RunProblem,))
    for keyword in ("accuracy", "error"):
        run, _ = refused(lambda keyword=keyword: read_run(path.parent, keyword), (RunProblem,))
        assert run is None or (isinstance(run.value, float) and run.method)
    assert run_state.state_of(path.parent) in ("finished", "unfinished")
    refused(lambda: run_state.current_state(path.parent, path.parent, 2, ("OPTIM.LR", "0.1"), {"OPTIM.LR": 0.1}))
    if tree is not None:
        refused(lambda: run_state.trained_epoch(tree), (RunProblem,))
        assert isinstance(run_state.is_older(tree, METRICS), bool)
        assert isinstance(run_state.tested_other_epoch(tree, 2), bool)
        assert isinstance(run_state.config_differences(tree, ("OPTIM.LR", "0.1")), list)
    kept = read_record(path.parent)  # None where it is damaged
    assert kept is None or all(isinstance(row["epoch"], int) for row in kept.get("epochs", []))


LOG = "Finish training\n=> result\n* total: 4\n* accuracy: 50.00%\n* error: 50.00%\n"


@fuzzed
@given(
    content=st.binary(max_size=80)
    | st.tuples(st.integers(0, len(LOG)), st.text(max_size=9)).map(
        lambda spot: (LOG[: spot[0]] + spot[1] + LOG[spot[0] :]).encode("utf-8", "surrogatepass")
    )
)
@example(LOG.replace("50.00", "1e999").encode())
@example(LOG.replace("50.00", "...").encode())
def test_logs(tmp_path, content):
    (tmp_path / "log.txt").write_bytes(content)
    for keyword in ("accuracy", "(", "\\"):
        run, _ = refused(lambda keyword=keyword: read_run(tmp_path, keyword), (RunProblem,))
        assert run is None or 0 <= abs(run.value) < float("inf")


@fuzzed
@given(content=bytes_of_files)
@example(DEEP)
def test_what_sweeps_note_beside_runs(tmp_path, content):
    for name in (record.FILE, lock.FILE):
        (tmp_path / name).write_bytes(content)
    record.failure(tmp_path)
    held = lock.look(tmp_path)
    assert isinstance(held.alive(), bool)
    assert str(held)


# --- configs

CONFIG_ERRORS = (*OURS, KeyError, AssertionError)  # as yacs' own are called; train.py prints all as sentences


@fuzzed
@given(
    content=st.binary(max_size=60)
    | trees.map(lambda tree: yaml.safe_dump(tree).encode("utf-8", "surrogatepass"))
    | spoilt({"OPTIM": {"LR": 0.1, "STEPSIZE": [5]}, "SEED": 1, "DATASET": {"NAME": "x"}}).map(
        lambda tree: yaml.safe_dump(tree).encode("utf-8", "surrogatepass")
    )
)
@example(DEEP[:20_000])
@example(b"&a [*a]")
@example(b"OPTIM: &a {LR: *a}")
@example(
    b"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
    b"d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e]"
)
@example(b"SEED: !!bool x")
@example(b"SEED: !!timestamp x")
@example(b"SEED: 2001-99-99")
@example(b"SEED: 2001-01-01")
@example(b"SEED: !!python/object/apply:os.mkdir [was_here]")
@example(b"1: 2")
@example(b"? [a]\n: 1")
@example(b"OPTIM.LR: 0.1")
@example(b"OPTIM: 5")
@example(b"SEED: {A: 1}")
def test_config_files(tmp_path, content):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    cfg = get_cfg_default()
    _, sentence = refused(lambda: merge_file(cfg, path), CONFIG_ERRORS)
    assert sentence is None or str(path) in sentence
    assert set(cfg) == set(get_cfg_default())
    assert set(cfg.OPTIM) == set(get_cfg_default().OPTIM)


texts = st.text(max_size=12) | st.sampled_from(["OPTIM.LR", "OPTIM", "SEED", "(1,", "{[]: 1}", "{'A': 1}", "1e999"])


@fuzzed
@given(opts=st.lists(texts, max_size=4))
@example(["OPTIM", "{'A': 1}"])
@example(["SEED", "(" * 5000])
@example(["SEED", "-" * 50_000 + "1"])
@example(["SEED", "9" * 5000])
@example(["SEED", "{[]: 1}"])
@example(["SEED", "a\0b"])
@example(["OPTIM.LR.X", "1"])
@example(["OPTIM.LR"])
def test_opts(opts):
    cfg = get_cfg_default()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # of Python's own reader
        refused(lambda: merge_opts(cfg, opts), CONFIG_ERRORS)
    assert set(cfg.OPTIM) == set(get_cfg_default().OPTIM)


# --- the manifest of a feature cache

FACTS = {"images": "abc", "views": 0}
MANIFEST = {
    **{"facts": FACTS, "about": {"images": 3}, "rows": 3, "scalars": {"n_fused": 0}},
    "columns": {"pooled": {"shape": [2], "stored": "float32", "dtype": "bfloat16", "crc": 0}},
}


def test_a_manifest_that_is_as_it_should_be():
    check_manifest(MANIFEST)


@fuzzed
@given(content=bytes_of_files | spoilt(MANIFEST).map(lambda tree: json.dumps(tree).encode()))
@example(DEEP)
@example(json.dumps({**MANIFEST, "columns": {}}).encode())
@example(json.dumps({**MANIFEST, "columns": {"../x": MANIFEST["columns"]["pooled"]}}).encode())
@example(json.dumps({**MANIFEST, "columns": {"pooled": {**MANIFEST["columns"]["pooled"], "stored": "O"}}}).encode())
@example(json.dumps({**MANIFEST, "rows": 10**30}).encode())
def test_manifests_of_feature_caches(tmp_path, capsys, content):
    place = tmp_path / "Toy-plain-0"
    place.mkdir(exist_ok=True)
    (place / "manifest.json").write_bytes(content)
    assert open_store(place, FACTS) is None  # its files are not there
    assert f"Note: the feature cache {place} is damaged (" in capsys.readouterr().out


POOLED = MANIFEST["columns"]["pooled"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(
            ({"columns": {"pooled": {**POOLED, "stored": s}}}, "names the column 'pooled' of")
            for s in ("V8", "U4", "O")
        ),
        ({"columns": {"../x": POOLED}}, "names the column '../x' of 'float32'"),
        ({"columns": {}}, "counts with something else than whole numbers"),
        ({"rows": -1}, "counts with something else than whole numbers"),
        ({"facts": []}, "does not say whose features they are"),
    ],
)
def test_what_is_wrong_with_a_manifest(changes, message):
    with pytest.raises(ValueError, match=f"^manifest.json {message}"):
        check_manifest({**MANIFEST, **changes})


@pytest.mark.parametrize("stored", ["no type", 5, None])
def test_types_that_numpy_does_not_know(stored):
    with pytest.raises(TypeError):
        check_manifest({**MANIFEST, "columns": {"pooled": {**POOLED, "stored": stored}}})
