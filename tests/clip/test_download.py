"""Downloads against a server on this machine that misbehaves in every way we know."""

import email.utils
import errno
import hashlib
import io
import json
import logging
import ssl
import threading
import time
import urllib.error
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest

from clip import transfer
from clip.download import (
    DownloadError,
    Expected,
    Source,
    WrongFileError,
    fetch,
    fetch_any,
    may_download,
    no_downloads,
    sha256,
)

CONTENT = bytes(range(256)) * 400  # 100 kB
DIGEST = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """The first part of the path says how to behave; the server notes each request's range."""

    def do_GET(self):
        server, mode = self.server, self.path.split("/")[1]
        start = self.headers.get("Range")
        server.requests.append(start)
        server.marks.append(self.headers.get("If-Range"))
        first = len(server.requests) == 1
        if mode == "missing":
            return self.send_error(404)
        if mode == "moved":
            self.send_response(302)
            self.send_header("Location", "/ok/file.pt")
            return self.end_headers()
        if mode == "down" or (mode in ("503", "429") and first):
            self.send_response(int(mode) if mode.isdecimal() else 503)
            if server.retry_after is not None:
                self.send_header("Retry-After", server.retry_after)
            return self.end_headers()
        body = b"x" * len(CONTENT) if mode == "wrong" else server.page if mode == "page" else server.content
        begin = int(start.removeprefix("bytes=").rstrip("-")) if start and mode != "norange" else 0
        if self.headers.get("If-Range") not in (None, server.etag, server.modified):
            begin = 0
        if begin and begin >= len(body):
            self.send_response(416)
            if mode == "exact":
                self.send_header("Content-Range", f"bytes */{len(body)}")
            return self.end_headers()
        self.send_response(206 if begin else 200)
        if mode != "chunks":
            self.send_header("Content-Length", str(len(body) - begin))
        if begin and mode != "bare":
            self.send_header("Content-Range", f"bytes {begin + (mode == 'shifted')}-{len(body) - 1}/{len(body)}")
        for name, value in (("ETag", server.etag), ("Last-Modified", server.modified), ("Content-Type", server.kind)):
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        once = ("once", "norange", "bare", "exact", "shifted")
        stop = (begin + len(body)) // 2 if mode == "cut" or (mode in once and first) else len(body)
        self.wfile.write(body[begin:stop])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(transfer, "PAUSE", 0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests, server.marks = [], []
        server.content, server.page = CONTENT, b""
        server.etag = server.modified = server.kind = server.retry_after = None
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
        (
            "wrong",
            1,
            rf"/wrong/file.pt sent a file with SHA-256 [0-9a-f]{{64}} where {DIGEST} was expected; it is kept as ",
        ),
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
    monkeypatch.setattr(transfer, "TRIES", 2)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as gone:
        port = gone.server_port
    with pytest.raises(RuntimeError, match=r"could not be downloaded: .*[Rr]efused"):
        fetch(f"http://127.0.0.1:{port}/file.pt", tmp_path / "file.pt")


def test_sha256(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_redirect_is_followed(server, tmp_path):
    fetch(f"{server.url}/moved/file.pt", tmp_path / "file.pt", DIGEST)
    assert len(server.requests) == 2


@pytest.mark.parametrize(("etag", "modified"), [('"v1"', None), (None, "Tue, 01 Jan 2030 10:00:00 GMT")])
def test_a_rest_is_asked_for_only_of_the_same_version(server, tmp_path, etag, modified):
    server.etag, server.modified = etag, modified
    fetch(f"{server.url}/once/file.pt", tmp_path / "file.pt")
    assert (tmp_path / "file.pt").read_bytes() == CONTENT
    assert server.requests == [None, f"bytes={len(CONTENT) // 2}-"]
    assert server.marks == [None, etag or modified]
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == ["file.pt"]


def test_a_weak_mark_is_no_mark(server, tmp_path):
    server.etag = 'W/"v1"'
    fetch(f"{server.url}/once/file.pt", tmp_path / "file.pt")
    assert server.marks == [None, None]


def interrupted(server, tmp_path, monkeypatch):
    """Half of the file is there, from a server that then changes its version."""
    monkeypatch.setattr(transfer, "TRIES", 1)
    server.etag = '"v1"'
    with pytest.raises(DownloadError, match="the connection ended after 51200 of 102400 bytes"):
        fetch(f"{server.url}/once/file.pt", tmp_path / "file.pt")
    monkeypatch.setattr(transfer, "TRIES", 4)
    note = json.loads((tmp_path / "file.pt.part.json").read_text())
    assert note == {"address": f"{server.url}/once/file.pt", "mark": '"v1"', "total": 102400}


def test_another_version_begins_again(server, tmp_path, monkeypatch):
    interrupted(server, tmp_path, monkeypatch)
    server.etag, server.content = '"v2"', CONTENT[::-1]
    fetch(f"{server.url}/once/file.pt", tmp_path / "file.pt")
    assert (tmp_path / "file.pt").read_bytes() == CONTENT[::-1]
    assert server.requests == [None, "bytes=51200-"]


def test_another_length_begins_again_even_without_marks(server, tmp_path, monkeypatch):
    interrupted(server, tmp_path, monkeypatch)
    note = tmp_path / "file.pt.part.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"mark": None}))
    server.content = CONTENT[::-1] * 2
    fetch(f"{server.url}/once/file.pt", tmp_path / "file.pt")
    assert (tmp_path / "file.pt").read_bytes() == CONTENT[::-1] * 2
    assert server.requests == [None, "bytes=51200-", None]


def test_a_part_from_elsewhere_is_used_only_if_a_digest_will_tell(server, tmp_path):
    part = tmp_path / "file.pt.part"
    part.write_bytes(CONTENT[:70_000])
    fetch(f"{server.url}/ok/file.pt", tmp_path / "file.pt")
    assert server.requests == [None]


def test_an_answer_that_begins_elsewhere_is_given_up(server, tmp_path):
    fetch(f"{server.url}/shifted/file.pt", tmp_path / "file.pt", DIGEST)
    assert server.requests == [None, f"bytes={len(CONTENT) // 2}-", None]


@pytest.mark.parametrize("mode", ["bare", "chunks"])
def test_servers_that_say_little(server, tmp_path, mode):
    fetch(f"{server.url}/{mode}/file.pt", tmp_path / "file.pt", DIGEST)
    assert (tmp_path / "file.pt").read_bytes() == CONTENT


@pytest.mark.parametrize(("size", "requests"), [(len(CONTENT), 1), (150_000, 2)])
def test_the_server_says_how_long_the_file_is(server, tmp_path, size, requests):
    """416 with the length: an equal part is complete, a longer one is of another file; no digest is needed."""
    part = tmp_path / "file.pt.part"
    part.write_bytes(CONTENT.ljust(size, b"y"))
    address = f"{server.url}/exact/file.pt"
    (tmp_path / "file.pt.part.json").write_text(json.dumps({"address": address, "mark": None, "total": size}))
    server.requests.append("not the first")
    fetch(address, tmp_path / "file.pt")
    assert (tmp_path / "file.pt").read_bytes() == CONTENT
    assert len(server.requests) == 1 + requests


def test_a_complete_part_of_known_size_needs_no_server(tmp_path):
    (tmp_path / "file.pt.part").write_bytes(CONTENT)
    source = Source("http://127.0.0.1:9/file.pt", Expected(DIGEST, size=len(CONTENT)))
    assert fetch_any([source], tmp_path / "file.pt").read_bytes() == CONTENT


def test_tries_begin_anew_after_progress(server, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "FRESH", 100)
    monkeypatch.setattr(transfer, "TRIES", 2)
    with pytest.raises(DownloadError, match="the connection ended"):
        fetch(f"{server.url}/cut/file.pt", tmp_path / "file.pt", DIGEST)
    assert len(server.requests) > 6  # halves of what is left, down to less than 100 bytes


@pytest.mark.parametrize(("retry_after", "waits"), [("7", [7.0]), (None, [0]), ("soon", [0])])
def test_the_pause_that_a_server_asks_for(server, tmp_path, monkeypatch, retry_after, waits):
    paused = []
    monkeypatch.setattr(transfer.time, "sleep", paused.append)
    server.retry_after = retry_after
    fetch(f"{server.url}/503/file.pt", tmp_path / "file.pt", DIGEST)
    assert paused == waits


def test_a_pause_until_a_date(server, tmp_path, monkeypatch):
    paused = []
    monkeypatch.setattr(transfer.time, "sleep", paused.append)
    server.retry_after = email.utils.formatdate(time.time() + 30, usegmt=True)
    fetch(f"{server.url}/429/file.pt", tmp_path / "file.pt", DIGEST)
    assert paused[0] == pytest.approx(30, abs=2)


def test_a_pause_that_is_too_long(server, tmp_path):
    server.retry_after = "86400"
    with pytest.raises(DownloadError, match=r"HTTP status 503 .*, and the server asks to wait 86400 s\."):
        fetch(f"{server.url}/down/file.pt", tmp_path / "file.pt", DIGEST)
    assert len(server.requests) == 1


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><title>Sign in</title>", b"\xef\xbb\xbf\n <HTML>quota exceeded"])
def test_a_web_page_is_no_file(server, tmp_path, page):
    server.page = page
    message = (
        r"/page/file.pt sent a web page instead of the file; it may have moved, want a login, or be over its quota\."
    )
    with pytest.raises(DownloadError, match=message):
        fetch(f"{server.url}/page/file.pt", tmp_path / "file.pt")
    assert not (tmp_path / "file.pt.part").exists()


def test_a_web_page_does_not_cost_what_has_arrived(server, tmp_path, monkeypatch):
    interrupted(server, tmp_path, monkeypatch)
    server.kind, server.etag = "text/html; charset=utf-8", '"v2"'
    with pytest.raises(DownloadError, match="sent a web page"):
        fetch(f"{server.url}/ok/file.pt", tmp_path / "file.pt", DIGEST)
    assert (tmp_path / "file.pt.part").stat().st_size == 51200


def test_the_next_address_is_tried(server, tmp_path, caplog):
    target = tmp_path / "file.pt"
    addresses = [f"{server.url}/{mode}/file.pt" for mode in ("missing", "wrong", "ok")]
    fetch_any([Source(address, Expected(md5=MD5)) for address in addresses], target)
    assert target.read_bytes() == CONTENT
    assert (tmp_path / "file.pt.bad").read_bytes() == b"x" * len(CONTENT)
    assert f"{addresses[0]} could not be downloaded: HTTP status 404 Not Found. Trying the next address." in caplog.text
    assert f"where {MD5} was expected; it is kept as {target}.bad. Trying the next address." in caplog.text


def test_no_address_gives_the_file(server, tmp_path):
    addresses = [f"{server.url}/{mode}/file.pt" for mode in ("missing", "wrong")]
    with pytest.raises(WrongFileError, match=r"None of 2 addresses gave file\.pt: http.*404 Not Found\. http.* sent a"):
        fetch_any([Source(address, Expected(DIGEST)) for address in addresses], tmp_path / "file.pt")
    with pytest.raises(DownloadError) as caught:
        fetch_any([Source(addresses[0]), Source(addresses[0])], tmp_path / "file.pt")
    assert not isinstance(caught.value, WrongFileError)


def test_a_wrong_size_is_seen_before_the_download(server, tmp_path):
    source = Source(f"{server.url}/ok/file.pt", Expected(size=5))
    with pytest.raises(WrongFileError, match=r"/ok/file\.pt announces 102400 bytes where 5 were expected\."):
        fetch_any([source], tmp_path / "file.pt")
    assert not (tmp_path / "file.pt.part").exists()


def test_other_schemes(server, tmp_path):
    def receiver(address: str, part: Path, quiet: bool) -> None:
        if address != "drive:right":
            raise RuntimeError("it is not there")
        part.write_bytes(CONTENT)

    sources = [Source("drive:wrong", Expected(DIGEST)), Source("drive:right", Expected(DIGEST))]
    assert fetch_any(sources, tmp_path / "file.pt", {"drive": receiver}).read_bytes() == CONTENT
    with pytest.raises(DownloadError, match=r"^drive:wrong could not be downloaded: it is not there\.$"):
        fetch_any(sources[:1], tmp_path / "other.pt", {"drive": receiver})


def test_a_full_disk_is_said_at_once(server, tmp_path, monkeypatch):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    real = Path.open
    monkeypatch.setattr(Path, "open", lambda path, mode="r", **kw: Full() if mode == "wb" else real(path, mode, **kw))
    with pytest.raises(RuntimeError, match=r"Cannot write .*\.part \(No space left on device\); what is there is kept"):
        fetch_any([Source(f"{server.url}/ok/file.pt")] * 2, tmp_path / "file.pt")
    assert len(server.requests) == 1


def test_a_certificate_that_does_not_hold_ends_it(tmp_path, monkeypatch):
    asked = []

    def refuse(request, timeout):
        asked.append(request.full_url)
        raise urllib.error.URLError(ssl.SSLCertVerificationError(1, "certificate verify failed"))

    monkeypatch.setattr(transfer.urllib.request, "urlopen", refuse)
    with pytest.raises(DownloadError, match="certificate verify failed"):
        fetch("https://127.0.0.1/file.pt", tmp_path / "file.pt")
    assert len(asked) == 1


def test_what_is_expected():
    path = Path(__file__)
    content = path.read_bytes()
    assert Expected().fault(path) is None
    assert Expected(size=3).fault(path) == f"{len(content)} bytes where 3 were expected"
    assert Expected(md5=hashlib.md5(content).hexdigest(), size=len(content)).fault(path) is None
    assert Expected(md5="0").fault(path) == f"MD5 {hashlib.md5(content).hexdigest()} where 0 was expected"
    assert Expected(sha256(path), md5="not asked").fault(path) is None
    assert [Expected("a", "b").digest, Expected(md5="b").digest, Expected().digest] == ["SHA-256 a", "MD5 b", ""]


def test_lines_where_there_is_no_terminal(server, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("clip.progress.SHORTEST", 0)
    caplog.set_level(logging.INFO)
    fetch(f"{server.url}/ok/file.pt", tmp_path / "file.pt")
    assert "file.pt: 100% of 102.4 kB, " in caplog.text
    caplog.clear()
    fetch_any([Source(f"{server.url}/ok/file.pt")], tmp_path / "quiet.pt", quiet=True)
    assert caplog.text == ""


def test_inside_no_downloads_only_what_is_here_is_taken(tmp_path, server):
    target = tmp_path / "folder" / "file.pt"
    with no_downloads():
        assert not may_download()
        assert huggingface_hub.constants.HF_HUB_OFFLINE
        with pytest.raises(DownloadError, match=r"file.pt is not there, or not as expected, and nothing is downloaded"):
            fetch(f"{server.url}/ok/file.pt", target, DIGEST)
        assert not target.parent.exists()
        target.parent.mkdir()
        target.write_bytes(CONTENT)
        assert fetch(f"{server.url}/ok/file.pt", target, DIGEST) == target
        target.write_bytes(b"other")
        with pytest.raises(DownloadError, match="nothing is downloaded now"):
            fetch(f"{server.url}/ok/file.pt", target, DIGEST)
    assert server.requests == []
    assert may_download()
    assert not huggingface_hub.constants.HF_HUB_OFFLINE
