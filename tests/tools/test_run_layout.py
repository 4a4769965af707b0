"""tools/run_layout.py: what folder names say, and that scripts write what tables read."""

import re
from pathlib import Path

import pytest

from tools.protocols import ProtocolError, Run, method_files, method_folders
from tools.run_layout import PROTOCOLS, Place, is_seed_folder, place_of

TAIL = "shots_4/CoOp/rn50/seed3"


@pytest.mark.parametrize(
    ("path", "protocol", "source", "dataset"),
    [
        (f"out/base2new/train_base/dtd/{TAIL}", "base2new_train", None, "dtd"),
        (f"out/base2new/test_new/dtd/{TAIL}", "base2new_test", None, "dtd"),
        (f"out/fewshot/dtd/{TAIL}", "fewshot", None, "dtd"),
        (f"fewshot/imagenet/{TAIL}", "fewshot", None, "imagenet"),
        (f"out/xd/imagenet/dtd/{TAIL}", "xd_test", "imagenet", "dtd"),
        # laid out otherwise
        (f"out/base2new/other/dtd/{TAIL}", None, None, "dtd"),
        (f"out/xd/dtd/{TAIL}", None, None, "dtd"),
        (f"out/xd/a/imagenet/dtd/{TAIL}", None, None, "dtd"),
        (f"out/ablation/train/dtd/{TAIL}", None, None, "dtd"),
        (f"out/myfewshot/dtd/{TAIL}", None, None, "dtd"),
    ],
)
def test_places(path, protocol, source, dataset):
    assert place_of(Path(path)) == Place(3, protocol, source, dataset, "CoOp", "rn50", 4)


def test_zero_shot_has_no_shots():
    place = place_of(Path("out/zeroshot/dtd/ZeroshotCLIP/vit_b16/seed1"))
    assert place == Place(1, "zeroshot", None, "dtd", "ZeroshotCLIP", "vit_b16", None)


def test_other_folders_say_less():
    assert place_of(Path("/a/notes")) == Place("notes")
    assert place_of(Path("/seed7")) == Place(7)
    assert place_of(Path("/a/b/cfg/seed_7")) == Place(7, config="cfg")
    assert place_of(Path("/a/b/dtd/shots_-1/CoOp/cfg/seed1")).shots == -1
    names = ("seed1", "seed_12", "seeds", "x/seed", "myseed1")
    assert [is_seed_folder(Path(name)) for name in names] == [True, True, False, False, False]


@pytest.mark.parametrize("method", method_folders())
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_runs_folder_tells_the_run(method, protocol):
    try:
        method_files(method).check_transfer(protocol)
    except ProtocolError as error:
        with pytest.raises(ProtocolError, match=re.escape(str(error))):
            Run(protocol, method, "dtd", config="any").resolved()
        return
    if PROTOCOLS[protocol].configs not in method_files(method).configs:
        with pytest.raises(ProtocolError, match="names no config for"):
            Run(protocol, method, "dtd", config="any").resolved()
        return
    for dataset, source in (("dtd", ""), ("shapes_a", ""), ("imagenet", ""), ("imagenet_r", "dtd")):
        for output in ("output", "/abs/my runs"):
            run = Run(protocol, method, dataset, 3, 4, source=source, output=output).resolved()
            said = place_of(run.folder)
            # training for other data sets is few-shot training
            assert said.protocol == ("fewshot" if protocol == "xd_train" else protocol)
            assert (said.trainer, said.config, said.seed) == (run.trainer, run.config, 3)
            assert said.dataset == run.dataset == (run.source if protocol == "xd_train" else dataset)
            assert said.source == (run.source if protocol == "xd_test" else None)
            assert said.shots == (None if protocol == "zeroshot" else 4)
            assert Path(output, said.folder) == run.folder
            model = run.model
            if model is not None:
                assert said.model is not None
                assert Path(output, said.model.folder) == model.folder
                assert (said.model.protocol, said.model.dataset) == (model.protocol, model.dataset)


def test_no_two_protocols_share_a_folder_but_the_one_that_says_so():
    folders = [Place(1, name, "a", "b", "CoOp", "cfg", 4).folder for name in PROTOCOLS if name != "xd_train"]
    assert len(set(folders)) == len(folders)
    assert Place(1, "fewshot").model is None
    assert Place(1).model is None
