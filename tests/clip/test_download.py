"""Downloads against a server on this machine that misbehaves in every way we know."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from clip import download
from clip.download import fetch, sha256

CONTENT = bytes(range(256)) * 400  # 100 kB
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """The first part of the path says how to behave; the server notes each request's range."""

    def do_GET(self):
        server, mode = self.server, self.path.split("/")[1]
        start = self.headers.get("Range")
        server.requests.append(start)
        first = len(server.requests) == 1
        if mode == "missing":
            return self.send_error(404)
        if mode == "down" or (mode in ("503", "429") and first):
            return self.send_error(int(mode) if mode.isdecimal() else 503)
        body = b"x" * len(CONTENT) if mode == "wrong" else CONTENT
        begin = int(start.removeprefix("bytes=").rstrip("-")) if start and mode != "norange" else 0
        if begin >= len(body):
            return self.send_error(416)
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(body) - begin))
        self.end_headers()
        stop = (begin + len(body)) // 2 if mode == "cut" or (mode in ("once", "norange") and first) else len(body)
        self.wfile.write(body[begin:stop])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests = []
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_file_arrives_once(server, tmp_path):
    target = tmp_path / "new" / "file.pt"
    assert fetch(f"{server.url}/ok/file.pt", target, DIGEST) == target
    assert target.read_bytes() == CONTENT
    assert not list(tmp_path.glob("**/*.part"))
    fetch(f"{server.url}/ok/file.pt", target, DIGEST)
    fetch(f"{server.url}/ok/file.pt", target)
    assert server.requests == [None]


def test_a_cut_connection_is_taken_up_where_it_ended(server, tmp_path):
    target = tmp_path / "file.pt"
    fetch(f"{server.url}/once/file.pt", target, DIGEST)
    assert target.read_bytes() == CONTENT
    assert server.requests == [None, f"bytes={len(CONTENT) // 2}-"]


def test_a_server_without_ranges_sends_the_whole_file_again(server, tmp_path):
    target = tmp_path / "file.pt"
    fetch(f"{server.url}/norange/file.pt", target, DIGEST)
    assert target.read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_a_part_of_an_earlier_process_is_used(server, tmp_path):
    target, part = tmp_path / "file.pt", tmp_path / "file.pt.part"
    part.write_bytes(CONTENT[:70_000])
    fetch(f"{server.url}/ok/file.pt", target, DIGEST)
    assert target.read_bytes() == CONTENT
    assert server.requests == ["bytes=70000-"]


def test_a_complete_part_only_needs_its_name(server, tmp_path):
    target, part = tmp_path / "file.pt", tmp_path / "file.pt.part"
    part.write_bytes(CONTENT)
    fetch(f"{server.url}/ok/file.pt", target, DIGEST)
    assert target.read_bytes() == CONTENT
    assert not part.exists()


@pytest.mark.parametrize("size", [50_000, 200_000])
def test_a_part_of_another_file_is_given_up(server, tmp_path, size):
    target, part = tmp_path / "file.pt", tmp_path / "file.pt.part"
    part.write_bytes(b"y" * size)
    fetch(f"{server.url}/ok/file.pt", target, DIGEST)
    assert target.read_bytes() == CONTENT


def test_a_damaged_file_is_replaced(server, tmp_path, caplog):
    target = tmp_path / "file.pt"
    target.write_bytes(CONTENT[:-1])
    fetch(f"{server.url}/ok/file.pt", target, DIGEST)
    assert target.read_bytes() == CONTENT
    assert "does not have the SHA-256" in caplog.text


@pytest.mark.parametrize("status", [503, 429])
def test_a_busy_server_is_asked_again(server, tmp_path, status):
    fetch(f"{server.url}/{status}/file.pt", tmp_path / "file.pt", DIGEST)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("mode", "requests", "message"),
    [
        ("missing", 1, r"/missing/file.pt could not be downloaded: HTTP status 404 Not Found\."),
        ("down", 4, r"/down/file.pt could not be downloaded: HTTP status 503 Service Unavailable\."),
        ("cut", 4, r"/cut/file.pt could not be downloaded: the connection ended after \d+ of 102400 bytes\."),
        ("wrong", 1, rf"/wrong/file.pt sent a file with SHA-256 [0-9a-f]{{64}} where {DIGEST} was expected\."),
    ],
)
def test_errors(server, tmp_path, mode, requests, message):
    target = tmp_path / "file.pt"
    with pytest.raises(RuntimeError, match=message):
        fetch(f"{server.url}/{mode}/file.pt", target, DIGEST)
    assert not target.exists()
    assert len(server.requests) == requests
    assert (tmp_path / "file.pt.part").exists() == (mode == "cut")  # what is right so far is kept


def test_no_server_at_all(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TRIES", 2)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as gone:
        port = gone.server_port
    with pytest.raises(RuntimeError, match=r"could not be downloaded: .*[Rr]efused"):
        fetch(f"http://127.0.0.1:{port}/file.pt", tmp_path / "file.pt")


def test_sha256(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
