"""A file server on this machine with ranges and ETags, and with faults that are told per path."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = b"<!DOCTYPE html><html><title>Too many users have viewed this file recently</title></html>"


class FileServer(ThreadingHTTPServer):
    """`files` are served by name. `faults[name]` is a list with one entry a request, used up from the front:

    a status; "cut" (half of what is left); "page" (a web page); "wrong" (other bytes); "no range" (the whole file,
    whatever was asked); "moved" (a redirect to /there/<name>); None: as it should be.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[object]] = {}
        self.requests: list[tuple[str, str | None]] = []  # name, range

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def asked(self, name: str) -> list[str | None]:
        """The ranges of the requests for a file."""
        return [asked for path, asked in self.requests if path == name]


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        name = self.path.removeprefix("/there/").removeprefix("/")
        asked = self.headers.get("Range")
        self.server.requests.append((self.path.removeprefix("/"), asked))
        faults = self.server.faults.get(name, [])
        fault = faults.pop(0) if faults and not self.path.startswith("/there/") else None
        if isinstance(fault, int) or name not in self.server.files:
            return self.send_error(fault if isinstance(fault, int) else 404)
        if fault == "moved":
            self.send_response(302)
            self.send_header("Location", f"/there/{name}")
            return self.end_headers()
        content = self.server.files[name]
        content = PAGE if fault == "page" else content[::-1] if fault == "wrong" else content
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked and fault != "no range" else 0
        if self.headers.get("If-Range", etag) != etag:
            begin = 0
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(content) - begin))
        self.send_header("ETag", etag)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(content[begin : (begin + len(content)) // 2 if fault == "cut" else len(content)])
        return None

    def log_message(self, *args: object) -> None:
        pass


@contextlib.contextmanager
def serving() -> Iterator[FileServer]:
    with FileServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
