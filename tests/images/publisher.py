"""A publisher of images: a web server of this host that can be told to misbehave."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.server
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Self

import trustme

Behaviour = Callable[["Handler", "File"], None]

MODIFIED = "Mon, 02 Jun 2025 10:00:00 GMT"


@dataclasses.dataclass
class File:
    """What is at one path; `behave` may answer in its own way."""

    content: bytes
    etag: str = '"one"'
    modified: str = MODIFIED
    kind: str = "application/octet-stream"
    behave: Behaviour | None = None
    pace: float = 0.0


@dataclasses.dataclass
class Seen:
    """One request and how many bytes of a body were sent for it."""

    path: str
    range: str
    if_range: str
    sent: int = 0
    status: int = 0


class Server(http.server.ThreadingHTTPServer):
    """Wraps each connection by itself: an SSLSocket that accepts loses those that end at once."""

    daemon_threads = True
    context: ssl.SSLContext | None = None

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        if self.context is None:
            return connection, address
        try:
            wrapped = self.context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        except OSError:
            connection.close()
            raise
        return wrapped, address


class Publisher:
    """The server; `requests` are all that came, in order."""

    def __init__(self, authority: trustme.CA | None = None) -> None:
        self.files: dict[str, File] = {}
        self.requests: list[Seen] = []
        publisher = self

        class Bound(Handler):
            owner = publisher

        self._server = Server(("127.0.0.1", 0), Bound)
        self.scheme = "http"
        if authority is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
            self._server.context = context
            self.scheme = "https"
        self.port = self._server.server_address[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def url(self, path: str) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}{path}"

    def put(self, path: str, content: bytes, **how: object) -> str:
        """Offer a file and return its address."""
        self.files[path] = File(content, **how)  # type: ignore[arg-type]
        return self.url(path)

    def asked(self, path: str) -> list[Seen]:
        return [seen for seen in self.requests if seen.path == path]

    def sent(self, path: str) -> int:
        return sum(seen.sent for seen in self.asked(path))


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves whole files and ranges of them, as web servers do."""

    protocol_version = "HTTP/1.1"
    owner: Publisher
    seen: Seen

    def do_GET(self) -> None:
        self.seen = Seen(self.path, self.headers.get("Range", ""), self.headers.get("If-Range", ""))
        self.owner.requests.append(self.seen)
        file = self.owner.files.get(self.path.partition("?")[0])
        with contextlib.suppress(OSError):
            if file is None:
                self.answer(404, b"no", {})
            elif file.behave is not None:
                file.behave(self, file)
            else:
                self.serve(file)

    def do_CONNECT(self) -> None:
        """Be a proxy: join the two ends."""
        self.owner.requests.append(Seen(f"CONNECT {self.path}", "", ""))
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port))) as far:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=_copy, args=(far, self.connection), daemon=True)
            back.start()
            _copy(self.connection, far)
            back.join(5)
        self.close_connection = True

    def serve(self, file: File, *, ranges: bool = True) -> None:
        """Answer as a good server does."""
        total = len(file.content)
        headers = {"ETag": file.etag, "Last-Modified": file.modified, "Content-Type": file.kind}
        headers = {key: value for key, value in headers.items() if value}
        unchanged = self.seen.if_range in ("", file.etag, file.modified)
        if ranges and self.seen.range and unchanged:
            begin = int(self.seen.range.removeprefix("bytes=").partition("-")[0])
            if begin >= total:
                self.answer(416, b"", headers | {"Content-Range": f"bytes */{total}"})
                return
            headers["Content-Range"] = f"bytes {begin}-{total - 1}/{total}"
            self.answer(206, file.content[begin:], headers, file.pace)
            return
        self.answer(200, file.content, headers, file.pace)

    def answer(
        self,
        status: int,
        content: bytes,
        headers: dict[str, str],
        pace: float = 0.0,
        *,
        length: int | None = None,
    ) -> None:
        """Send an answer; `length` is what is announced, `pace` seconds between two pieces."""
        self.seen.status = status
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.write(content, pace)
        if length is not None and length != len(content):
            self.close_connection = True

    def write(self, content: bytes, pace: float = 0.0, piece: int = 1 << 16) -> None:
        for begin in range(0, len(content), piece):
            self.wfile.write(content[begin : begin + piece])
            self.wfile.flush()
            self.seen.sent += len(content[begin : begin + piece])
            time.sleep(pace)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while content := source.recv(1 << 16):
            target.sendall(content)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def published(authority: trustme.CA | None = None) -> Iterator[Publisher]:
    with Publisher(authority) as publisher:
        yield publisher


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
