"""Servers that lie, flood, stall, are busy, or answer with something else."""

from __future__ import annotations

import contextlib
import gc
import time

import pytest

from tests.images import publisher as publishing
from tests.images.download import fetching
from tests.images.download.fetching import CONTENT, PATH
from tests.images.publisher import File, Handler, Publisher
from vmctl import errors
from vmctl.images import download, web


def test_what_comes_beyond_the_announced_length_is_left(publisher: Publisher) -> None:
    def behave(handler: Handler, file: File) -> None:
        handler.answer(200, file.content, {}, length=1000)

    url = publisher.put(PATH, CONTENT, behave=behave)
    assert fetching.fetch(url) == CONTENT[:1000]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("lie", ["-5", "1e9", "12, 13", "²", ""])
def test_a_length_that_is_no_number_is_not_believed(publisher: Publisher, lie: str) -> None:
    def behave(handler: Handler, file: File) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n")
        handler.wfile.write(f"Content-Length: {lie}\r\n\r\n".encode() + file.content[:5000])
        handler.close_connection = True

    url = publisher.put(PATH, CONTENT, behave=behave)
    with contextlib.suppress(errors.HostError):
        assert fetching.fetch(url) == CONTENT[:5000]
    # urllib3 leaves the connection to the garbage collector, which warns.
    gc.collect()


def test_an_announced_size_beyond_the_limit_is_refused_at_once(publisher: Publisher) -> None:
    url = publisher.put(PATH, CONTENT)
    with pytest.raises(errors.RefusedError, match="larger than 1000000 bytes"):
        fetching.fetch(url, most=1000000)
    assert fetching.left() == 0


def test_endless_data_ends_at_the_limit(publisher: Publisher) -> None:
    def behave(handler: Handler, file: File) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.write(bytes(1 << 16))

    url = publisher.put(PATH, b"", behave=behave)
    with pytest.raises(errors.RefusedError, match="larger than 5000000 bytes"):
        fetching.fetch(url, most=5000000)
    assert fetching.left() == 0


def test_more_than_the_disk_has_room_for_is_refused_at_once(publisher: Publisher) -> None:
    def behave(handler: Handler, file: File) -> None:
        handler.answer(200, b"x", {}, length=60 << 40)

    url = publisher.put(PATH, CONTENT, behave=behave)
    with pytest.raises(errors.HostError, match=r"is full, and .* MiB more are needed") as caught:
        fetching.fetch(url, most=1 << 60)
    assert "XDG_CACHE_HOME" in caught.value.hint


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("text/html; charset=utf-8", b"please log in"),
        ("application/octet-stream", b"\n <!DOCTYPE html><title>Portal"),
        ("application/octet-stream", b"<HTML>"),
    ],
)
def test_a_web_page_is_no_image(publisher: Publisher, kind: str, content: bytes) -> None:
    url = publisher.put(PATH, content * 100, kind=kind)
    with pytest.raises(errors.RefusedError, match="web page"):
        fetching.fetch(url)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, errors.NotFoundError), (403, errors.HostError), (206, errors.HostError)],
)
def test_other_answers_are_said(
    publisher: Publisher, status: int, kind: type[errors.VmctlError]
) -> None:
    def behave(handler: Handler, file: File) -> None:
        handler.answer(status, b"x", {})

    with pytest.raises(kind, match=str(status) if status != 206 else "206"):
        fetching.fetch(publisher.put(PATH, CONTENT, behave=behave))


def test_a_busy_server_is_asked_again(publisher: Publisher) -> None:
    states = [503, 429]

    def behave(handler: Handler, file: File) -> None:
        if states:
            handler.answer(states.pop(), b"busy", {})
        else:
            handler.serve(file)

    assert fetching.fetch(publisher.put(PATH, CONTENT, behave=behave)) == CONTENT


def say_nothing(handler: Handler, file: File) -> None:
    time.sleep(20)


def drip_headers(handler: Handler, file: File) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for _ in range(200):
        handler.wfile.write(b"X-A: b\r\n")
        time.sleep(0.1)


def drip_body(handler: Handler, file: File) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(file.content)))
    handler.end_headers()
    for index in range(200):
        handler.wfile.write(file.content[index : index + 1])
        time.sleep(0.1)


def drip_chunks(handler: Handler, file: File) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(200):
        handler.wfile.write(b"0")
        time.sleep(0.1)


@pytest.mark.parametrize("behave", [say_nothing, drip_headers, drip_body, drip_chunks])
def test_a_stall_ends_in_time(
    publisher: Publisher, behave: publishing.Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "STALL_SECONDS", 1.0)
    url = publisher.put(PATH, CONTENT, behave=behave)
    begun = time.monotonic()
    with pytest.raises(errors.WaitTimeoutError, match="stalled"):
        fetching.fetch(url)
    assert time.monotonic() - begun < 8


def test_a_slow_line_is_no_stall(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "STALL_SECONDS", 0.5)
    url = publisher.put(PATH, CONTENT, pace=0.05)
    begun = time.monotonic()
    assert fetching.fetch(url) == CONTENT
    assert time.monotonic() - begun > 1.5


def test_an_end_by_the_user_does_not_wait_for_the_server(publisher: Publisher) -> None:
    url = publisher.put(PATH, CONTENT, behave=say_nothing)
    begun = time.monotonic()

    def progress(*_: object) -> None:
        if time.monotonic() - begun > 0.5:
            raise errors.InterruptError("Interrupted.")

    with pytest.raises(errors.InterruptError), download.turn(url, progress) as turn:
        turn.fetch(secure=False)
    assert time.monotonic() - begun < 5


def test_small_files(publisher: Publisher) -> None:
    assert download.text(publisher.put("/SUMS", b"abc"), fetching.quiet, secure=False) == b"abc"
    long = publisher.put("/LONG", bytes(5 << 20))
    with pytest.raises(errors.RefusedError, match="too long"):
        download.text(long, fetching.quiet, secure=False)
