import os
import random
import subprocess

import numpy as np
import pytest
import torch

from dassl.utils import (
    check_isfile,
    collect_env_info,
    download_url,
    listdir_nohidden,
    mkdir_if_missing,
    read_json,
    set_random_seed,
    tolist_if_not,
    write_json,
)


def test_mkdir_if_missing(tmp_path):
    mkdir_if_missing(str(tmp_path / "a" / "b"))
    mkdir_if_missing(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    with pytest.raises(FileNotFoundError, match="folder with an empty name"):
        mkdir_if_missing("")


def test_check_isfile(tmp_path):
    (tmp_path / "here").write_text("")
    assert check_isfile(str(tmp_path / "here")) is True
    with pytest.warns(UserWarning, match="No file found at .*gone"):
        assert check_isfile(str(tmp_path / "gone")) is False


def test_json_round_trip_and_layout(tmp_path, monkeypatch):
    write_json({"b": [1, None], "a": "ü"}, str(tmp_path / "new" / "x.json"))
    text = (tmp_path / "new" / "x.json").read_text()
    assert text == '{\n    "b": [\n        1,\n        null\n    ],\n    "a": "\\u00fc"\n}'
    assert read_json(tmp_path / "new" / "x.json") == {"b": [1, None], "a": "ü"}
    monkeypatch.chdir(tmp_path)
    write_json([1], "bare.json")
    assert read_json("bare.json") == [1]


def test_write_json_keeps_the_old_file_when_it_fails(tmp_path):
    path = tmp_path / "x.json"
    write_json([1], path)
    with pytest.raises(TypeError):
        write_json([object()], path)
    assert read_json(path) == [1]
    assert os.listdir(tmp_path) == ["x.json"]


def test_read_json_of_a_damaged_file(tmp_path):
    (tmp_path / "x.json").write_text('{"a": ')
    with pytest.raises(ValueError, match=r"x.json is not a JSON file .* restore or remove it"):
        read_json(tmp_path / "x.json")


def test_listdir_nohidden(tmp_path):
    for name in ("b", "a", ".hidden", "c"):
        (tmp_path / name).write_text("")
    assert sorted(listdir_nohidden(tmp_path)) == ["a", "b", "c"]
    assert listdir_nohidden(str(tmp_path), sort=True) == ["a", "b", "c"]


def test_tolist_if_not():
    items = [1]
    assert tolist_if_not(items) is items
    assert tolist_if_not((1, 2)) == [(1, 2)]
    assert tolist_if_not("ab") == ["ab"]


def test_set_random_seed_equals_the_libraries_own():
    set_random_seed(7)
    got = random.random(), np.random.rand(), torch.rand(())
    assert got == (random.Random(7).random(), np.random.RandomState(7).rand(), torch.rand((), generator=_torch(7)))


def _torch(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_out_of_range(seed):
    with pytest.raises(ValueError, match=f"0..4294967295, got {seed}"):
        set_random_seed(seed)


def test_collect_env_info_starts_no_process(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    info = dict(line.split(": ", 1) for line in collect_env_info().splitlines())
    assert info["torch"] == torch.__version__
    assert info["numpy"] == np.__version__
    assert {"Python", "Platform", "CPUs", "torchvision", "Pillow", "CUDA build"} <= set(info)


def test_download_url(tmp_path, capsys):
    (tmp_path / "source").write_bytes(b"x" * 5000)
    download_url((tmp_path / "source").as_uri(), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"x" * 5000
    with pytest.raises(RuntimeError, match=r"Cannot download file:.*put the file at .*gone2 by hand"):
        download_url((tmp_path / "gone").as_uri(), tmp_path / "gone2")
    assert not (tmp_path / "gone2").exists()
