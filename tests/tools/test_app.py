"""The command line of the explorer, and what becomes of uploads; the page itself is in test_app_browser.py."""

import dataclasses
import os
import re
import signal
import stat
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import tools.explorer
from tests.conftest import NAMES
from tests.tools.explorer.conftest import toy  # noqa: F401
from tools import app
from tools.explorer.limits import Limits, flag_of
from tools.explorer.uploads import keep_sweeping, private_folder, sweep


@pytest.fixture
def refused(toy, capsys, monkeypatch):  # noqa: F811
    """Start the explorer with flags that it refuses; gives its sentence."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())  # gradio is there

    def go(*flags):
        code = app.main(["--model-dir", str(toy / "coop"), "--set", "DEVICE", "cpu", *map(str, flags)])
        out, err = capsys.readouterr()
        assert (code, out) == (1, "")
        assert "Traceback" not in err
        (line,) = [line for line in err.splitlines() if line.startswith("Error: ")]
        return line.removeprefix("Error: ")

    return go


def test_wrong_commands(refused, toy, tmp_path):  # noqa: F811
    names = tmp_path / "names.txt"
    names.write_text("x" * 300)
    for flags, told in {
        ("--port", "0"): "--port must be in 1..65535, got 0.",
        ("--top", "11"): "--top must be in 1..10, got 11.",
        ("--max-pictures", "0"): "--max-pictures must be at least 1, got 0.",
        ("--cache", "0"): "--cache must be at least 1, got 0.",
        ("--model-dir", tmp_path): "holds no metrics.json",
        ("--model-dir", toy / "coop"): "coop is named twice; name each run once.",
        ("--classnames", names): "The class names can't stand on the page: This class name is too long, at most 100",
        ("--load-epoch", "7"): "model.pth.tar-7",
    }.items():
        assert told in refused(*flags)
    with pytest.raises(SystemExit, match="2"):
        app.main([])


def test_without_gradio(toy, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert app.main(["--model-dir", str(toy / "coop")]) == 1
    told = "Error: The explorer needs gradio; install it: pip install -r requirements-app.txt\n"
    assert capsys.readouterr().err == told


def test_what_is_served_and_the_warning_for_others(toy, capsys, monkeypatch, tmp_path):  # noqa: F811
    served = []
    page = SimpleNamespace(build=lambda *given: given, serve=lambda *given: served.append(given))
    monkeypatch.setitem(sys.modules, "tools.explorer.page", page)
    monkeypatch.setattr(tools.explorer, "page", page, raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "GRADIO_RUN_HISTORY", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "before")  # so that they are as they were after this test
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\n")
    start = ["--model-dir", str(toy / "coop"), "--set", "DEVICE", "cpu", "--port", "8001"]
    assert app.main([*start, "--max-pictures", "3"]) == 0
    assert "Warning" not in capsys.readouterr().err
    assert app.main([*start, "--host", "0.0.0.0", "--classnames", str(names), "--top", "2", "--cache", "1"]) == 0
    assert (
        "Warning: 0.0.0.0 can be reached from other machines, and whoever reaches it can use the page, which has no "
        "password; do this only on a network that you trust.\n"
    ) in capsys.readouterr().err
    for given, host, first, top, pictures, cached in zip(
        served, ("127.0.0.1", "0.0.0.0"), (NAMES[:2], ("cat", "dog")), (5, 2), (3, 12), (2, 1), strict=True
    ):
        (explorer, shown, best), limits, where, port, uploads, *_ = given
        assert (where, port, tuple(shown), best) == (host, 8001, first, top)
        assert (list(explorer.presets), len(explorer.predictors)) == (["zero-shot tiny.pt", "CoOp"], cached)
        assert limits.max_pictures == explorer.limits.max_pictures == pictures
        assert not uploads.exists()


def test_the_docs_tell_all_limits_and_their_defaults():
    page = (Path(__file__).parent.parent.parent / "docs" / "app.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `(--[a-z-]+)` \| ([\d.]+) \|", page, re.MULTILINE))
    assert told == {flag_of(limit.name): f"{limit.default:g}" for limit in dataclasses.fields(Limits)}


def test_who_can_reach_it():
    assert all(map(app.is_loopback, ("127.0.0.1", "127.3.2.1", "localhost", "::1")))
    assert not any(map(app.is_loopback, ("0.0.0.0", "::", "192.168.1.2", "example.org")))


def test_told_to_end():
    before, stop = signal.getsignal(signal.SIGTERM), threading.Event()
    with app.until_told(stop):
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(5)
    assert signal.getsignal(signal.SIGTERM) is before


def test_uploads_lie_in_a_private_folder(monkeypatch):
    for name in ("GRADIO_SHARE", "GRADIO_ALLOWED_PATHS", "GRADIO_SERVER_NAME"):
        monkeypatch.setenv(name, "something")
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "GRADIO_RUN_HISTORY", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "before")  # so that they are as they were after this test
    with private_folder() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        told = {name: value for name, value in os.environ.items() if name.startswith("GRADIO_")}
        off = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False"}
        assert told == {"GRADIO_TEMP_DIR": str(folder)} | off
        with tempfile.NamedTemporaryFile(delete=False) as file:
            assert os.path.dirname(file.name) == str(folder)
    assert not folder.exists()
    assert tempfile.gettempdir() != str(folder)


def test_old_uploads_are_deleted(tmp_path):
    for name, age in (("a/old.png", 100), ("a/b/old.png", 100), ("c/new.png", 10), ("old", 61)):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        os.utime(path, (time.time() - age,) * 2)
    sweep(tmp_path, 60)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == ["c", "c/new.png"]
    stop = threading.Event()
    thread = threading.Thread(target=keep_sweeping, args=(tmp_path, 0.05, stop))
    thread.start()
    for _ in range(100):
        if not list(tmp_path.iterdir()):
            break
        time.sleep(0.05)
    stop.set()
    thread.join()
    assert list(tmp_path.iterdir()) == []
