import io
import os
import subprocess
import sys
import textwrap

import pytest

from dassl.utils import Logger, setup_logger


@pytest.fixture
def take_console(monkeypatch):
    """Called inside a test, since pytest itself replaces sys.stdout between a fixture and its test."""

    def take():
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stdout", stream)
        return stream

    return take


def test_writes_to_both_and_a_line_is_on_disk_at_once(take_console, tmp_path):
    console = take_console()
    logger = Logger(tmp_path / "deep" / "log.txt")
    assert logger.write("finished line\n") == 14
    assert (tmp_path / "deep" / "log.txt").read_text() == "finished line\n"
    logger.writelines(["a", "b\n"])
    logger.flush()
    assert console.getvalue() == "finished line\nab\n"
    logger.close()


def test_closing_leaves_the_console_open(take_console, tmp_path):
    console = take_console()
    with Logger(tmp_path / "log.txt") as logger:
        assert isinstance(logger, Logger)
        print("one", file=logger)
    logger.close()
    print("two", file=logger)
    del logger
    assert not console.closed
    assert console.getvalue() == "one\ntwo\n"
    assert (tmp_path / "log.txt").read_text() == "one\n"


def test_is_a_stream_like_the_console(tmp_path, monkeypatch):
    with open(tmp_path / "console", "w", encoding="ascii") as console:
        monkeypatch.setattr(sys, "stdout", console)
        logger = Logger(tmp_path / "log.txt")
        assert logger.isatty() is False
        assert logger.fileno() == console.fileno()
        assert logger.encoding == "ascii"
        assert logger.buffer is console.buffer
        with pytest.raises(AttributeError):
            logger.nonsense  # noqa: B018
        print("β = 0.8", file=logger)  # a console that cannot show it must not stop a run
        logger.close()
    assert (tmp_path / "log.txt").read_bytes() == "β = 0.8\n".encode()
    assert (tmp_path / "console").read_bytes() == b"\\u03b2 = 0.8\n"


def test_without_file_it_is_the_console(take_console):
    console = take_console()
    logger = Logger()
    logger.write("x")
    logger.flush()
    logger.close()
    assert console.getvalue() == "x"


@pytest.mark.parametrize("name", ["run", "run/out.txt", "run/out.log"])
def test_setup_logger_names_the_file(take_console, tmp_path, name):
    take_console()
    setup_logger(str(tmp_path / name))
    print("hello")
    expected = tmp_path / (name if "." in name else f"{name}/log.txt")
    sys.stdout.close()
    assert expected.read_text() == "hello\n"


@pytest.mark.parametrize("output", [None, ""])
def test_setup_logger_without_output_does_nothing(take_console, output):
    console = take_console()
    setup_logger(output)
    assert sys.stdout is console


def test_setup_logger_overwrites_nothing_and_does_not_nest(take_console, tmp_path):
    console = take_console()
    for i in range(3):
        setup_logger(str(tmp_path))
        print(f"run {i}")
    sys.stdout.close()
    names = sorted(os.listdir(tmp_path))
    assert len(names) == 3
    assert names[0] == "log.txt"
    assert (tmp_path / "log.txt").read_text() == "run 0\n"
    assert sorted((tmp_path / name).read_text() for name in names) == ["run 0\n", "run 1\n", "run 2\n"]
    stamped = names[1]
    assert len(stamped) >= len("log.txt-2026-01-02-03-04-05")
    assert [len(part) for part in stamped.split("-")[1:7]] == [4, 2, 2, 2, 2, 2]
    assert console.getvalue() == "run 0\nrun 1\nrun 2\n"


def test_setup_logger_in_a_place_that_cannot_be_written(take_console, tmp_path):
    console = take_console()
    (tmp_path / "file").write_text("")
    with pytest.raises(RuntimeError, match=r"Cannot write the log .*file/log.txt: .* Choose an output folder"):
        setup_logger(str(tmp_path / "file"))
    assert sys.stdout is console


def test_killed_run_keeps_every_line(tmp_path):
    code = f"""
        import importlib.util, os, sys, types
        # the module alone: importing torch would take seconds
        tools = types.ModuleType("stub.tools"); tools.mkdir_if_missing = os.makedirs
        sys.modules["stub"] = types.ModuleType("stub"); sys.modules["stub.tools"] = tools
        import dassl
        spec = importlib.util.spec_from_file_location("stub.logger", os.path.join(dassl.__path__[0], "utils/logger.py"))
        logger = importlib.util.module_from_spec(spec); spec.loader.exec_module(logger)
        logger.setup_logger({str(tmp_path / "run")!r})
        for i in range(100): print("line", i)
        os.kill(os.getpid(), 9)
    """
    root = os.path.join(os.path.dirname(__file__), "../../../Dassl.pytorch")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=60,
    )
    assert done.returncode == -9, done.stderr.decode()
    assert (tmp_path / "run" / "log.txt").read_text().splitlines() == [f"line {i}" for i in range(100)]
