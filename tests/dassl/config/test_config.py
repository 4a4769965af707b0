"""The merge table of the interface, and the sentences of our own helpers."""

import ast
import pathlib
import re

import pytest
from yacs.config import CfgNode

import dassl.config.defaults
from dassl.config import cfg_default, clean_cfg, get_cfg_default, merge_file, merge_opts

# Every key the interface names, with its default, typed in from the reference.
REFERENCE = """
VERSION 1; OUTPUT_DIR "./output"; RESUME ""; SEED -1; USE_CUDA True; VERBOSE True
INPUT.SIZE (224, 224); INPUT.INTERPOLATION "bilinear"; INPUT.TRANSFORMS (); INPUT.NO_TRANSFORM False
INPUT.PIXEL_MEAN [0.485, 0.456, 0.406]; INPUT.PIXEL_STD [0.229, 0.224, 0.225]; INPUT.CROP_PADDING 4
INPUT.RRCROP_SCALE (0.08, 1.0); INPUT.CUTOUT_N 1; INPUT.CUTOUT_LEN 16; INPUT.GN_MEAN 0.0; INPUT.GN_STD 0.15
INPUT.RANDAUGMENT_N 2; INPUT.RANDAUGMENT_M 10; INPUT.COLORJITTER_B 0.4; INPUT.COLORJITTER_C 0.4
INPUT.COLORJITTER_S 0.4; INPUT.COLORJITTER_H 0.1; INPUT.RGS_P 0.2; INPUT.GB_P 0.5; INPUT.GB_K 21
DATASET.ROOT ""; DATASET.NAME ""; DATASET.SOURCE_DOMAINS (); DATASET.TARGET_DOMAINS (); DATASET.NUM_LABELED -1
DATASET.NUM_SHOTS -1; DATASET.VAL_PERCENT 0.1; DATASET.STL10_FOLD -1; DATASET.CIFAR_C_TYPE ""
DATASET.CIFAR_C_LEVEL 1; DATASET.ALL_AS_UNLABELED False
DATALOADER.NUM_WORKERS 4; DATALOADER.K_TRANSFORMS 1; DATALOADER.RETURN_IMG0 False
DATALOADER.TRAIN_X.SAMPLER "RandomSampler"; DATALOADER.TRAIN_X.BATCH_SIZE 32; DATALOADER.TRAIN_X.N_DOMAIN 0
DATALOADER.TRAIN_X.N_INS 16; DATALOADER.TRAIN_U.SAME_AS_X True; DATALOADER.TRAIN_U.SAMPLER "RandomSampler"
DATALOADER.TRAIN_U.BATCH_SIZE 32; DATALOADER.TRAIN_U.N_DOMAIN 0; DATALOADER.TRAIN_U.N_INS 16
DATALOADER.TEST.SAMPLER "SequentialSampler"; DATALOADER.TEST.BATCH_SIZE 32
MODEL.INIT_WEIGHTS ""; MODEL.BACKBONE.NAME ""; MODEL.BACKBONE.PRETRAINED True; MODEL.HEAD.NAME ""
MODEL.HEAD.HIDDEN_LAYERS (); MODEL.HEAD.ACTIVATION "relu"; MODEL.HEAD.BN True; MODEL.HEAD.DROPOUT 0.0
OPTIM.NAME "adam"; OPTIM.LR 0.0003; OPTIM.WEIGHT_DECAY 5e-4; OPTIM.MOMENTUM 0.9; OPTIM.SGD_DAMPNING 0
OPTIM.SGD_NESTEROV False; OPTIM.RMSPROP_ALPHA 0.99; OPTIM.ADAM_BETA1 0.9; OPTIM.ADAM_BETA2 0.999
OPTIM.STAGED_LR False; OPTIM.NEW_LAYERS (); OPTIM.BASE_LR_MULT 0.1; OPTIM.LR_SCHEDULER "single_step"
OPTIM.STEPSIZE (-1,); OPTIM.GAMMA 0.1; OPTIM.MAX_EPOCH 10; OPTIM.WARMUP_EPOCH -1; OPTIM.WARMUP_TYPE "linear"
OPTIM.WARMUP_CONS_LR 1e-5; OPTIM.WARMUP_MIN_LR 1e-5; OPTIM.WARMUP_RECOUNT True
TRAIN.CHECKPOINT_FREQ 0; TRAIN.PRINT_FREQ 10; TRAIN.COUNT_ITER "train_x"
TEST.EVALUATOR "Classification"; TEST.PER_CLASS_RESULT False; TEST.COMPUTE_CMAT False; TEST.NO_TEST False
TEST.SPLIT "test"; TEST.FINAL_MODEL "last_step"; TRAINER.NAME ""
"""
OURS = {
    **{"DEVICE": "auto", "INPUT.ON_ERROR": "stop", "TRAIN.CHECKPOINT_SECONDS": 600},
    **{"DATALOADER.CACHE": "", "DATALOADER.CACHE_DTYPE": "fp32"},
    **{"DATALOADER.CACHE_VIEWS": 0, "DATALOADER.CACHE_LIMIT": 20.0},
    **{"MODEL.BACKBONE.COMPILE": False, "CUDA_GRAPH": False},
}


def _flat(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def test_default_tree_is_that_of_the_interface():
    items = [item.strip().split(" ", 1) for item in REFERENCE.replace("\n", ";").split(";") if item.strip()]
    expected = {key: ast.literal_eval(value) for key, value in items} | OURS
    actual = dict(_flat(get_cfg_default()))
    assert actual == expected
    assert {k: type(v) for k, v in actual.items()} == {k: type(v) for k, v in expected.items()}


def test_every_key_has_a_comment():
    for line in pathlib.Path(dassl.config.defaults.__file__).read_text().splitlines():
        if line.startswith("_C") and " = CN()" not in line:
            assert "  # " in line, line


def test_each_call_gives_a_fresh_tree():
    first, second = get_cfg_default(), get_cfg_default()
    first.OPTIM.LR = 1.0
    first.TRAINER.NEW = CfgNode()
    assert second.OPTIM.LR == cfg_default.OPTIM.LR == 0.0003
    assert "NEW" not in second.TRAINER


def test_clean_cfg_keeps_the_trainer_and_its_name():
    cfg = get_cfg_default()
    cfg.TRAINER.COOP = CfgNode({"N_CTX": 16})
    cfg.TRAINER.MAPLE = CfgNode({"N_CTX": 2})
    cfg.TRAINER.MODAL = "base2novel"
    clean_cfg(cfg, "CoOp")
    assert set(cfg.TRAINER) == {"NAME", "COOP"}


def _yaml(tmp_path, text):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    return str(path)


@pytest.fixture(params=["ours", "yacs"])
def merge_yaml(request, tmp_path):
    """Both ways to merge a file behave alike."""

    def merge(cfg, text):
        path = _yaml(tmp_path, text)
        merge_file(cfg, path) if request.param == "ours" else cfg.merge_from_file(path)

    return merge


@pytest.fixture(params=["ours", "yacs"])
def merge_list(request):
    def merge(cfg, opts):
        merge_opts(cfg, opts) if request.param == "ours" else cfg.merge_from_list(opts)

    return merge


def test_new_attribute_until_frozen():
    cfg = get_cfg_default()
    cfg.DATASET.SUBSAMPLE_CLASSES = "all"
    cfg.INPUT.TRANSFORMS = ["random_flip"]  # attribute assignment has no type check
    assert cfg.DATASET.SUBSAMPLE_CLASSES == "all"
    cfg.freeze()
    with pytest.raises(AttributeError):
        cfg.OPTIM.LR = 0.1
    with pytest.raises(AttributeError):
        cfg.OPTIM.NEW = 0.1


def test_yaml_strings_are_literals(merge_yaml):
    cfg = get_cfg_default()
    merge_yaml(cfg, "INPUT:\n  SIZE: (64, 32)\n  TRANSFORMS: [a, b]\nOPTIM:\n  WARMUP_CONS_LR: 1e-4\n")
    assert cfg.INPUT.SIZE == (64, 32)
    assert cfg.INPUT.TRANSFORMS == ("a", "b")  # a list becomes the default's tuple
    assert cfg.OPTIM.WARMUP_CONS_LR == 1e-4


def test_opts_are_literals(merge_list):
    cfg = get_cfg_default()
    merge_list(cfg, ["INPUT.PIXEL_MEAN", "(0.1, 0.2, 0.3)", "OPTIM.LR", "2e-3", "MODEL.BACKBONE.NAME", "ViT-B/16"])
    assert cfg.INPUT.PIXEL_MEAN == [0.1, 0.2, 0.3]
    assert cfg.OPTIM.LR == 2e-3
    assert cfg.MODEL.BACKBONE.NAME == "ViT-B/16"


def test_empty_value_is_none(merge_yaml):
    cfg = get_cfg_default()
    merge_yaml(cfg, "TRAIN:\n  PRINT_FREQ:\n")
    assert cfg.TRAIN.PRINT_FREQ is None


def test_empty_file_changes_nothing(tmp_path):
    cfg = get_cfg_default()
    merge_file(cfg, _yaml(tmp_path, "# nothing\n"))
    assert cfg == cfg_default


@pytest.mark.parametrize(
    "text", ["OPTIM: {LR: 1}", "OPTIM: {MAX_EPOCH: 1.5}", "DATASET: {NAME: 5}", "USE_CUDA: 1", "OPTIM: 3"]
)
def test_type_mismatch_in_yaml(merge_yaml, text):
    with pytest.raises(ValueError, match="mismatch"):
        merge_yaml(get_cfg_default(), text)


@pytest.mark.parametrize(
    "opts", [["OPTIM.LR", "1"], ["OPTIM.MAX_EPOCH", "1.5"], ["DATASET.NAME", "5"], ["USE_CUDA", "true"]]
)
def test_type_mismatch_in_opts(merge_list, opts):
    with pytest.raises(ValueError, match="mismatch"):
        merge_list(get_cfg_default(), opts)


def test_unknown_key_in_yaml(merge_yaml):
    with pytest.raises(KeyError):
        merge_yaml(get_cfg_default(), "OPTIM: {LEARNING_RATE: 0.1}")


@pytest.mark.parametrize(
    "opts", [["OPTIM.LRR", "0.1"], ["OPTIMM.LR", "0.1"], ["OPTIM.LR"], ["OPTIM.LR", "0.1", "SEED"]]
)
def test_unknown_key_or_odd_number_in_opts(merge_list, opts):
    with pytest.raises(AssertionError):
        merge_list(get_cfg_default(), opts)


def test_our_sentence_for_a_misspelt_key_in_yaml(tmp_path):
    path = _yaml(tmp_path, "INPUT:\n  SIZE: (64, 64)\nDATALOADER:\n  TRAIN_X:\n    BATCHSIZE: 4\n")
    cfg = get_cfg_default()
    with pytest.raises(KeyError) as caught:
        merge_file(cfg, path)
    assert str(caught.value) == (
        f"{path} sets DATALOADER.TRAIN_X.BATCHSIZE, which is no config key; do you mean DATALOADER.TRAIN_X.BATCH_SIZE?"
    )
    assert cfg == cfg_default  # nothing of the file was merged


def test_our_sentences_for_opts():
    with pytest.raises(AssertionError) as caught:
        merge_opts(get_cfg_default(), ["OPTIM.MAX_EPOCHS", "3"])
    assert str(caught.value) == (
        "the command line sets OPTIM.MAX_EPOCHS, which is no config key; do you mean OPTIM.MAX_EPOCH?"
    )
    with pytest.raises(AssertionError, match="expected KEY VALUE pairs, got 3 items: SEED 1 VERBOSE"):
        merge_opts(get_cfg_default(), ["SEED", "1", "VERBOSE"])
    with pytest.raises(AssertionError, match=r"OPTIM\.LR\.MAX, which is no config key"):  # deeper than a value
        merge_opts(get_cfg_default(), ["OPTIM.LR.MAX", "1"])


def test_our_sentences_for_files(tmp_path):
    cfg = get_cfg_default()
    with pytest.raises(FileNotFoundError, match=r"No config file at .*gone.yaml; check the name"):
        merge_file(cfg, tmp_path / "gone.yaml")
    with pytest.raises(ValueError, match=r"x.yaml is not valid yaml"):
        merge_file(cfg, _yaml(tmp_path, "a: [1"))
    with pytest.raises(ValueError, match=r"x.yaml must hold a mapping of config keys, got a list"):
        merge_file(cfg, _yaml(tmp_path, "- 1"))
    path = _yaml(tmp_path, "OPTIM: {LR: 1}")
    with pytest.raises(ValueError, match="type mismatch") as caught:
        merge_file(cfg, path)
    assert str(caught.value) == (
        f"{path} sets OPTIM.LR to 1, a type mismatch: expected float as in 0.0003, got int; write 1.0."
    )
    with pytest.raises(ValueError, match=r"sets SEED to 1\.5, a type mismatch: expected int as in -1"):
        merge_opts(cfg, ["SEED", "1.5"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("OPTIM: 5", "sets OPTIM, which is a group of keys; set the keys in it."),
        ("OPTIM.LR: 0.1", "has the key 'OPTIM.LR'; write words, each group of keys below its name."),
        ("SEED: !!bool x", "is not valid yaml: "),
        ("SEED: &a [*a]", "holds more than 100,000 values, or itself; write it without aliases."),
        ("SEED: 2001-01-01", "Key SEED with value <class 'datetime.date'> is not a valid type"),
    ],
)
def test_our_sentences_for_odd_files(tmp_path, text, message):
    path = _yaml(tmp_path, text)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        merge_file(get_cfg_default(), path)
    assert str(caught.value).startswith(str(path))


def test_our_sentences_for_odd_opts():
    with pytest.raises(
        ValueError, match=r"^the command line sets OPTIM, which is a group of keys; set the keys in it\.$"
    ):
        merge_opts(get_cfg_default(), ["OPTIM", "{'LR': 1.0}"])
    with pytest.raises(ValueError, match=r"^the command line: "):
        merge_opts(get_cfg_default(), ["SEED", "{[]: 1}"])
