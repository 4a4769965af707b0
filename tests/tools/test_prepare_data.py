"""The command line: what is printed, exit codes, and that a plan touches neither disk nor network."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from clip import transfer
from tests.datasets.preparation import official
from tests.datasets.preparation.official import split, tree, write_sources
from tests.datasets.preparation.server import serving
from tools.prepare_data import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A server on this machine with two data sets, and a catalogue that points at it."""
    monkeypatch.setattr(transfer, "PAUSE", 0)
    monkeypatch.delenv("DATA", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving() as server:
        files = {"split_zhou_EuroSAT.json": split(), "EuroSAT.zip": [official.eurosat("2750")]}
        other = {"imagenet-a.tar": official.pack_tar(official.pictures("imagenet-a/n01498041/a.jpg"))}
        server.files = {"split_zhou_EuroSAT.json": split(), "EuroSAT.zip": files["EuroSAT.zip"][0], **other}
        paths = [
            write_sources(tmp_path / f"{name}.yaml", name, content, server.url)
            for name, content in (("EuroSAT", files), ("ImageNetA", other))
        ]
        server.sources = tmp_path / "sources.yaml"
        server.sources.write_text("".join(path.read_text() for path in paths))
        yield server


@pytest.fixture
def run(sources, tmp_path, capsys):
    def run(*argv: str) -> tuple[int, str, str]:
        code = main([*argv, "--sources", str(sources.sources)])
        out, err = capsys.readouterr()
        return code, out, err

    run.root = tmp_path / "data"
    return run


def test_list(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    for words in (
        "ImageNet             imagenet                154.6 GB   153.7 GB  by hand (login), terms  image-net.org",
        "EuroSAT              eurosat                  97.3 MB   103.0 MB  automatically           huggingface.co",
        "MIT; Copernicus Sentinel data terms",
    ):
        assert words in out
    assert len([line for line in out.splitlines() if not line.startswith(" ")]) == 15 + 2


def test_download_and_again(run, sources):
    code, out, _ = run("download", "eurosat", "imagenet_a", "--root", str(run.root))
    assert code == 0
    assert "EuroSAT: MIT; Copernicus Sentinel data terms (https://github.com/phelber/EuroSAT)\n" in out
    assert f"  EuroSAT is in {run.root}/eurosat.\n" in out
    assert out.endswith(
        "data set    folder                state\n"
        "----------  --------------------  -------\n"
        "EuroSAT     eurosat               ready\n"
        "ImageNetA   imagenet-adversarial  ready\n"
    )
    assert tree(run.root / "imagenet-adversarial/imagenet-a") == ["n01498041/a.jpg"]
    asked = len(sources.requests)
    code, out, _ = run("download", "all", "--root", str(run.root), "--quiet")
    assert (code, len(sources.requests)) == (0, asked)
    assert out.count("already there") == 2


def test_one_failure_does_not_stop_the_next(run, sources):
    sources.faults = {"EuroSAT.zip": [404], "imagenet-a.tar": []}
    code, out, _ = run("download", "EuroSAT", "ImageNetA", "--root", str(run.root))
    assert code == 3
    assert "EuroSAT     eurosat               incomplete\nImageNetA   imagenet-adversarial  ready" in out
    assert "You can get it with a browser from" in out


def test_the_highest_code_counts(run, sources):
    sources.faults = {"EuroSAT.zip": ["wrong"], "imagenet-a.tar": [404]}
    assert run("download", "all", "--root", str(run.root))[0] == 4


def test_a_plan_touches_nothing(run, sources, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a plan opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    code, out, _ = run("download", "all", "--root", str(run.root), "--dry-run")
    size = len(sources.files["EuroSAT.zip"])
    assert code == 0
    assert out.startswith(
        f"EuroSAT: {run.root}/eurosat\n"
        "  terms: MIT; Copernicus Sentinel data terms (https://github.com/phelber/EuroSAT)\n"
        f"  download split_zhou_EuroSAT.json ({len(split())} B) for split_zhou_EuroSAT.json\n"
        f"    from {sources.url}/split_zhou_EuroSAT.json\n"
        f"  download EuroSAT.zip ({size / 1000:.1f} kB) for 2750\n"
        f"    from {sources.url}/EuroSAT.zip\n"
        f"  needs: {(size + len(split())) / 1000:.1f} kB to download, about 1.0 MB unpacked; "
    )
    assert "\n\nall together: " in out
    assert not run.root.exists()
    assert sources.requests == []


def test_a_plan_of_what_is_there(run):
    folder = run.root / "eurosat"
    folder.mkdir(parents=True)
    (folder / "split_zhou_EuroSAT.json").write_bytes(split("mine"))
    (folder / "EuroSAT.zip").write_bytes(b"PK")
    _, out, _ = run("download", "eurosat", "--root", str(run.root), "--dry-run")
    assert f"  cannot go on: {folder}/split_zhou_EuroSAT.json is not the published file (SHA-256 " in out
    assert f"  use {folder}/EuroSAT.zip for 2750\n" in out
    (folder / "split_zhou_EuroSAT.json").write_bytes(split())
    (folder / "2750").mkdir()
    (folder / "2750/x.jpg").write_bytes(b"1")
    _, out, _ = run("download", "eurosat", "--root", str(run.root), "--dry-run")
    assert "  there: split_zhou_EuroSAT.json\n  there: 2750\n  nothing is left to do\n" in out


def test_a_plan_for_imagenet(capsys, tmp_path):
    assert main(["download", "imagenet", "--root", str(tmp_path), "--dry-run"]) == 0
    out = capsys.readouterr().out
    place = tmp_path / "imagenet"
    assert "  write classnames.txt\n" in out
    assert (
        f"  Bring ILSVRC2012_img_val.tar of 6.7 GB to {place}/ILSVRC2012_img_val.tar (SHA-256 "
        "c7e06a6c0baccf06d8dbeb6577d71efff84673a5dbdd50633ab44f8ea0456ae0).\n"
    ) in out
    assert "  needs: 0 B to download, about 153.7 GB unpacked; " in out


@pytest.mark.parametrize("way", ["flag", "variable"])
def test_offline(run, sources, monkeypatch, way):
    if way == "variable":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, out, _ = run("download", "imageneta", "--root", str(run.root), *(["--offline"] if way == "flag" else []))
    assert code == 1
    assert f"  Bring imagenet-a.tar of 10.2 kB from {sources.url}/imagenet-a.tar to " in out
    assert sources.requests == []


def test_the_root_of_the_scripts(run, sources, monkeypatch, tmp_path):
    monkeypatch.setenv("DATA", str(tmp_path / "elsewhere"))
    assert run("download", "imageneta")[0] == 0
    assert (tmp_path / "elsewhere/imagenet-adversarial/imagenet-a").is_dir()


def test_own_archives(run, sources, tmp_path):
    (tmp_path / "imagenet-a.tar").write_bytes(sources.files["imagenet-a.tar"])
    assert run("download", "imageneta", "--root", str(run.root), "--archives", str(tmp_path))[0] == 0
    assert sources.requests == []


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("download", "eurosa"), "Error: 'eurosa' is no data set; did you mean 'eurosat'?"),
        (
            ("download", "eurosat", "--archives", "/nowhere"),
            "Error: --archives must be a folder, but there is none at /now",
        ),
    ],
)
def test_wrong_command_lines(run, argv, message):
    code, out, err = run(*argv)
    assert (code, out) == (2, "")
    assert err.startswith(message)


def test_a_broken_catalogue(run, sources):
    sources.sources.write_text("a: b")
    code, _, err = run("list")
    assert code == 2
    assert "must be a mapping with names as keys, got 'b'" in err


def test_a_plan_for_a_root_that_is_a_file(run):
    run.root.write_bytes(b"")
    code, _, err = run("download", "eurosat", "--root", str(run.root), "--dry-run")
    assert (code, err) == (
        1,
        f"Error: {run.root} should be a folder, but is none; move it away, or choose another --root.\n",
    )


def test_interrupted(run, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("tools.prepare_data.prepare", interrupt)
    code, _, err = run("download", "eurosat", "--root", str(run.root))
    assert (code, err) == (130, "Interrupted; the same command goes on from here.\n")


@pytest.mark.parametrize("argv", [["-h"], ["download", "-h"], ["list", "-h"]])
def test_help(capsys, argv):
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 0
    assert "usage:" in capsys.readouterr().out


@pytest.mark.slow
def test_as_a_program(sources, tmp_path):
    """From another folder, without the repository on the path."""
    command = [sys.executable, ROOT / "tools/prepare_data.py", "download", "eurosat"]
    command += ["--root", tmp_path / "d", "--sources", sources.sources]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("Fetching split_zhou_EuroSAT.json (")
    assert json.loads((tmp_path / "d/eurosat/split_zhou_EuroSAT.json").read_text())["train"]
