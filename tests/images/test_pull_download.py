"""Downloads from servers that truncate, lie, stall, redirect and change their minds."""

from __future__ import annotations

import contextlib
import gc
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import trustme

from tests.images import publisher as publishing
from tests.images.publisher import File, Handler, Publisher
from vmctl import errors
from vmctl.images import download, partial, web

CONTENT = os.urandom(3 << 20)
PATH = "/images/disk.qcow2"
SLOW = 0.02
"""Seconds between two pieces of 64 KiB: 3 MiB take one second."""


@pytest.fixture(autouse=True)
def surroundings(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(download, "_POLL", 0.02)


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with publishing.published() as made:
        yield made


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure(authority: trustme.CA) -> Iterator[Publisher]:
    with publishing.published(authority) as made:
        yield made


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))


def quiet(*_: object) -> None:
    """Follow no progress."""


def fetch(url: str, *, secure: bool = False, most: int = download.MOST) -> bytes:
    """Fetch a file and take it out of the cache."""
    with download.turn(url, quiet) as turn:
        fetched = turn.fetch(secure=secure, most=most)
        content = fetched.path.read_bytes()
        assert fetched.size == len(content)
        fetched.path.unlink()
        return content


def left() -> int:
    """Return how much of unfinished downloads is in the cache."""
    return sum(path.stat().st_size for path in partial.directory().glob("*.part"))


def test_a_file_comes_whole_and_leaves_nothing(publisher: Publisher) -> None:
    seen: list[tuple[int, int]] = []
    url = publisher.put(PATH, CONTENT)
    with download.turn(url, lambda _, done, total: seen.append((done, total))) as turn:
        fetched = turn.fetch(secure=False)
        assert fetched.path.read_bytes() == CONTENT
        assert not fetched.resumed
        assert fetched.path.stat().st_mode & 0o777 == 0o600
        fetched.path.rename(fetched.path.with_name("taken"))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    rest = {path.suffix for path in partial.directory().iterdir()} - {""}
    assert rest == {".lock"}


def test_a_file_that_nobody_took_does_not_come_again(publisher: Publisher) -> None:
    url = publisher.put(PATH, CONTENT)
    for _ in range(2):
        with download.turn(url, quiet) as turn:
            assert turn.fetch(secure=False).path.read_bytes() == CONTENT
    assert publisher.sent(PATH) == len(CONTENT)


def truncate(times: int, at: int = 1 << 20) -> publishing.Behaviour:
    """Close the connection in the middle, so many times."""
    left = [times]

    def behave(handler: Handler, file: File) -> None:
        if not left[0]:
            handler.serve(file)
            return
        left[0] -= 1
        begin = int((handler.seen.range or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        total = len(file.content)
        headers = {"ETag": file.etag, "Content-Range": f"bytes {begin}-{total - 1}/{total}"}
        rest = file.content[begin:]
        handler.answer(206 if begin else 200, rest[:at], headers, length=len(rest))

    return behave


def test_a_connection_that_breaks_is_resumed(publisher: Publisher) -> None:
    url = publisher.put(PATH, CONTENT, behave=truncate(2))
    assert fetch(url) == CONTENT
    assert [seen.range for seen in publisher.asked(PATH)] == [
        "",
        f"bytes={1 << 20}-",
        f"bytes={2 << 20}-",
    ]
    assert publisher.sent(PATH) == len(CONTENT)


def test_a_connection_that_always_breaks_is_given_up(publisher: Publisher) -> None:
    url = publisher.put(PATH, CONTENT, behave=truncate(99, at=1000))
    begun = time.monotonic()
    with pytest.raises(errors.HostError, match="too early") as caught:
        fetch(url)
    assert "goes on where this one stopped" in caught.value.hint
    assert 1 <= len(publisher.asked(PATH)) <= 6
    assert left() == 1000 * len(publisher.asked(PATH))
    assert time.monotonic() - begun < 30
    publisher.files[PATH].behave = None
    before = publisher.sent(PATH)
    assert fetch(url) == CONTENT
    assert publisher.sent(PATH) - before == len(CONTENT) - before


def test_without_a_validator_nothing_is_resumed(publisher: Publisher) -> None:
    url = publisher.put(PATH, CONTENT, etag="", modified="")
    with pytest.raises(RuntimeError):
        stop_at(url, 1 << 20, publisher)
    assert left() > 0
    publisher.files[PATH].pace = 0
    assert fetch(url) == CONTENT
    assert publisher.asked(PATH)[-1].range == ""


def test_a_weak_tag_is_no_validator(publisher: Publisher) -> None:
    url = publisher.put(PATH, CONTENT, etag='W/"one"', modified="")
    with pytest.raises(RuntimeError):
        stop_at(url, 1 << 20, publisher)
    publisher.files[PATH].pace = 0
    assert fetch(url) == CONTENT
    assert publisher.asked(PATH)[-1].range == ""


def stop_at(url: str, count: int, publisher: Publisher) -> None:
    """Begin a download and end it after so many bytes, as Ctrl-C does."""
    publisher.files[PATH].pace = SLOW

    def progress(_: str, done: int, __: int) -> None:
        if done >= count:
            raise RuntimeError("enough")

    with download.turn(url, progress) as turn:
        turn.fetch(secure=False)


def test_an_end_by_the_user_is_quick_and_keeps_what_has_come(publisher: Publisher) -> None:
    url = publisher.put(PATH, CONTENT)
    begun = time.monotonic()
    with pytest.raises(RuntimeError, match="enough"):
        stop_at(url, 1 << 20, publisher)
    assert time.monotonic() - begun < 5
    kept = left()
    assert 1 << 20 <= kept < len(CONTENT)
    publisher.files[PATH].pace = 0
    assert fetch(url) == CONTENT
    again = publisher.asked(PATH)[-1]
    assert again.range == f"bytes={kept}-"
    assert again.if_range == '"one"'
    assert again.sent == len(CONTENT) - kept


SCRIPT = """
import sys
from vmctl.images import download
with download.turn(sys.argv[1], lambda *_: None) as turn:
    print(turn.fetch(secure=False).path, flush=True)
"""


def test_kill_9_is_resumed(publisher: Publisher) -> None:
    url = publisher.put(PATH, CONTENT, pace=SLOW)
    with subprocess.Popen([sys.executable, "-c", SCRIPT, url]) as child:
        deadline = time.monotonic() + 30
        while left() < 1 << 20 and time.monotonic() < deadline:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
    kept = left()
    assert 1 << 20 <= kept < len(CONTENT)
    publisher.files[PATH].pace = 0
    assert fetch(url) == CONTENT
    again = publisher.asked(PATH)[-1]
    assert (again.range, again.sent) == (f"bytes={kept}-", len(CONTENT) - kept)


def test_a_file_that_changed_meanwhile_begins_anew(publisher: Publisher) -> None:
    url = publisher.put(PATH, CONTENT)
    with pytest.raises(RuntimeError):
        stop_at(url, 1 << 20, publisher)
    other = os.urandom(2 << 20)
    publisher.put(PATH, other, etag='"two"', modified="Tue, 03 Jun 2025 10:00:00 GMT")
    assert fetch(url) == other
    assert publisher.asked(PATH)[-1].status == 200


def test_a_file_that_shrank_begins_anew(publisher: Publisher) -> None:
    url = publisher.put(PATH, CONTENT)
    with pytest.raises(RuntimeError):
        stop_at(url, 1 << 20, publisher)
    publisher.put(PATH, CONTENT[:1000])
    assert fetch(url) == CONTENT[:1000]
    assert [seen.status for seen in publisher.asked(PATH)][-2:] == [416, 200]


def wrong_range(handler: Handler, file: File) -> None:
    """Answer every range with another one."""
    if not handler.seen.range:
        handler.serve(file)
        return
    total = len(file.content)
    headers = {"ETag": file.etag, "Content-Range": f"bytes 5-{total - 1}/{total}"}
    handler.answer(206, file.content[5:], headers)


def other_tag(handler: Handler, file: File) -> None:
    """Ignore If-Range, and continue with what is another file by now."""
    if not handler.seen.range:
        handler.serve(file)
        return
    handler.seen.if_range = ""
    file.etag = '"two"'
    handler.serve(file)


def deaf(handler: Handler, file: File) -> None:
    """Know no ranges."""
    handler.serve(file, ranges=False)


@pytest.mark.parametrize("behave", [wrong_range, other_tag, deaf])
def test_a_continuation_that_does_not_fit_begins_anew(
    publisher: Publisher, behave: publishing.Behaviour
) -> None:
    url = publisher.put(PATH, CONTENT)
    with pytest.raises(RuntimeError):
        stop_at(url, 1 << 20, publisher)
    publisher.files[PATH].pace = 0
    publisher.files[PATH].behave = behave
    assert fetch(url) == CONTENT


def test_what_comes_beyond_the_announced_length_is_left(publisher: Publisher) -> None:
    def behave(handler: Handler, file: File) -> None:
        handler.answer(200, file.content, {}, length=1000)

    url = publisher.put(PATH, CONTENT, behave=behave)
    assert fetch(url) == CONTENT[:1000]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("lie", ["-5", "1e9", "12, 13", "²", ""])
def test_a_length_that_is_no_number_is_not_believed(publisher: Publisher, lie: str) -> None:
    def behave(handler: Handler, file: File) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n")
        handler.wfile.write(f"Content-Length: {lie}\r\n\r\n".encode() + file.content[:5000])
        handler.close_connection = True

    url = publisher.put(PATH, CONTENT, behave=behave)
    with contextlib.suppress(errors.HostError):
        assert fetch(url) == CONTENT[:5000]
    # urllib3 leaves the connection to the garbage collector, which warns.
    gc.collect()


def test_an_announced_size_beyond_the_limit_is_refused_at_once(publisher: Publisher) -> None:
    url = publisher.put(PATH, CONTENT)
    with pytest.raises(errors.RefusedError, match="larger than 1000000 bytes"):
        fetch(url, most=1000000)
    assert left() == 0


def test_endless_data_ends_at_the_limit(publisher: Publisher) -> None:
    def behave(handler: Handler, file: File) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.write(bytes(1 << 16))

    url = publisher.put(PATH, b"", behave=behave)
    with pytest.raises(errors.RefusedError, match="larger than 5000000 bytes"):
        fetch(url, most=5000000)
    assert left() == 0


def test_more_than_the_disk_has_room_for_is_refused_at_once(publisher: Publisher) -> None:
    def behave(handler: Handler, file: File) -> None:
        handler.answer(200, b"x", {}, length=60 << 40)

    url = publisher.put(PATH, CONTENT, behave=behave)
    with pytest.raises(errors.HostError, match=r"is full, and .* MiB more are needed") as caught:
        fetch(url, most=1 << 60)
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
        fetch(url)


def redirect(target: str, status: int = 302) -> publishing.Behaviour:
    def behave(handler: Handler, file: File) -> None:
        handler.answer(status, b"", {"Location": target} if target else {})

    return behave


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(publisher: Publisher, status: int) -> None:
    publisher.put(PATH, CONTENT)
    url = publisher.put("/old", b"", behave=redirect("images/disk.qcow2", status))
    assert fetch(url) == CONTENT


@pytest.mark.parametrize(
    "target",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "data:text/plain,x",
        "https://",
        "http://[::1/x",
        "gopher://x/",
        "",
    ],
)
def test_redirects_lead_to_the_web_only(publisher: Publisher, target: str) -> None:
    url = publisher.put("/old", b"", behave=redirect(target))
    with pytest.raises(errors.RefusedError, match="no web address"):
        fetch(url)


def test_redirects_in_a_circle_end(publisher: Publisher) -> None:
    url = publisher.put("/round", b"", behave=redirect("/round"))
    with pytest.raises(errors.RefusedError, match="more than 10 times"):
        fetch(url)
    assert len(publisher.asked("/round")) == 11


@pytest.mark.usefixtures("trusted")
def test_https_never_leads_to_http(secure: Publisher, publisher: Publisher) -> None:
    target = publisher.put(PATH, CONTENT)
    url = secure.put("/old", b"", behave=redirect(target))
    for only in (True, False):
        with pytest.raises(errors.RefusedError, match="not secure"):
            fetch(url, secure=only)
    assert not publisher.requests


def test_http_alone_is_refused_where_nothing_else_protects(publisher: Publisher) -> None:
    url = publisher.put(PATH, CONTENT)
    with pytest.raises(errors.RefusedError, match="not https"):
        fetch(url, secure=True)
    assert not publisher.requests


@pytest.mark.usefixtures("trusted")
def test_a_private_authority_is_trusted_by_name(secure: Publisher) -> None:
    url = secure.put(PATH, CONTENT)
    assert fetch(url, secure=True) == CONTENT


def test_a_private_authority_is_not_trusted_by_itself(secure: Publisher) -> None:
    url = secure.put(PATH, CONTENT)
    with pytest.raises(errors.RefusedError, match=r"certificate of .* is not trusted") as caught:
        fetch(url, secure=True)
    assert "SSL_CERT_FILE" in caught.value.hint
    assert not secure.requests


@pytest.mark.usefixtures("trusted")
def test_a_certificate_of_another_name_is_refused(authority: trustme.CA) -> None:
    with publishing.published() as made:
        # Reached as localhost.localdomain, which its certificate does not have.
        with publishing.published(authority) as secure:
            secure.put(PATH, CONTENT)
            url = f"https://127.0.0.2:{secure.port}{PATH}"
            listener = forwarded(secure.port)
            url = f"https://127.0.0.2:{listener.getsockname()[1]}{PATH}"
            with pytest.raises(errors.RefusedError, match="not trusted"):
                fetch(url, secure=True)
            listener.close()
        assert not made.requests


def forwarded(port: int) -> socket.socket:
    """Listen on another address and hand one connection on."""
    listener = socket.create_server(("127.0.0.2", 0))

    def serve() -> None:
        near, _ = listener.accept()
        with near, socket.create_connection(("127.0.0.1", port)) as far:
            back = threading.Thread(target=publishing._copy, args=(far, near), daemon=True)
            back.start()
            publishing._copy(near, far)
            back.join(5)

    threading.Thread(target=serve, daemon=True).start()
    return listener


def test_a_proxy_of_the_environment_is_used(
    publisher: Publisher, secure: Publisher, trusted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = secure.put(PATH, CONTENT)
    monkeypatch.setenv("https_proxy", f"127.0.0.1:{publisher.port}")
    assert fetch(url, secure=True) == CONTENT
    assert [seen.path for seen in publisher.requests] == [f"CONNECT 127.0.0.1:{secure.port}"]
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert fetch(url, secure=True) == CONTENT
    assert len(publisher.requests) == 1


def test_a_proxy_that_is_not_there_is_said(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_TRIES", 1)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port()}")
    with pytest.raises(errors.HostError, match="proxy") as caught:
        fetch(publisher.put(PATH, CONTENT))
    assert "https_proxy" in caught.value.hint
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
    with pytest.raises(errors.UsageError, match="kind that vmctl cannot use"):
        fetch(publisher.url(PATH))


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_server_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_TRIES", 1)
    with pytest.raises(errors.HostError, match="does not take connections"):
        fetch(f"http://127.0.0.1:{closed_port()}/x")
    with pytest.raises(errors.HostError, match="name of the server is not known"):
        fetch("http://nowhere.invalid/x")


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
        fetch(publisher.put(PATH, CONTENT, behave=behave))


def test_a_busy_server_is_asked_again(publisher: Publisher) -> None:
    states = [503, 429]

    def behave(handler: Handler, file: File) -> None:
        if states:
            handler.answer(states.pop(), b"busy", {})
        else:
            handler.serve(file)

    assert fetch(publisher.put(PATH, CONTENT, behave=behave)) == CONTENT


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
        fetch(url)
    assert time.monotonic() - begun < 8


def test_a_slow_line_is_no_stall(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "STALL_SECONDS", 0.5)
    url = publisher.put(PATH, CONTENT, pace=0.05)
    begun = time.monotonic()
    assert fetch(url) == CONTENT
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


def test_others_wait_and_see_how_far_it_is(publisher: Publisher) -> None:
    url = publisher.put(PATH, CONTENT, pace=SLOW)
    said: list[tuple[str, int, int]] = []
    with subprocess.Popen([sys.executable, "-c", SCRIPT, url], stdout=subprocess.PIPE) as child:
        deadline = time.monotonic() + 30
        while not left() and time.monotonic() < deadline:
            time.sleep(0.01)
        with download.turn(url, lambda *words: said.append(words)) as turn:
            assert turn.fetch(secure=False).path.read_bytes() == CONTENT
        child.wait(30)
    assert said[0][0] == "waiting for another vmctl that fetches it"
    assert any(0 < done < total == len(CONTENT) for _, done, total in said)
    assert publisher.sent(PATH) == len(CONTENT)


def test_what_was_left_long_ago_is_cleared(publisher: Publisher) -> None:
    url = publisher.put(PATH, CONTENT)
    partial.make_directory()
    old, young = (partial.Part.of(f"http://h/{name}").path for name in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    fetch(url)
    assert not old.exists()
    assert young.exists()


def on_small_disk(tmp_path: pathlib.Path, size: str, use: Callable[[pathlib.Path], None]) -> None:
    place = tmp_path / "small"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", place]
    if subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small file system here")
    try:
        use(place)
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_disk_that_fills_up_is_said_and_goes_on(
    publisher: Publisher, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def behave(handler: Handler, file: File) -> None:
        # Without a length, so that it cannot be known beforehand.
        handler.send_response(200)
        handler.send_header("ETag", file.etag)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.write(file.content)
        handler.close_connection = True

    def use(place: pathlib.Path) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(place))
        url = publisher.put(PATH, CONTENT, behave=behave)
        with pytest.raises(errors.HostError, match="is full") as caught:
            fetch(url)
        assert "goes on" in caught.value.hint
        kept = left()
        assert kept > 1 << 20
        subprocess.run(["mount", "-o", "remount,size=16m", place], check=True)
        publisher.files[PATH].behave = None
        assert fetch(url) == CONTENT
        assert publisher.asked(PATH)[-1].range == f"bytes={kept}-"

    on_small_disk(tmp_path, "2m", use)


def test_small_files(publisher: Publisher) -> None:
    assert download.text(publisher.put("/SUMS", b"abc"), quiet, secure=False) == b"abc"
    long = publisher.put("/LONG", bytes(5 << 20))
    with pytest.raises(errors.RefusedError, match="too long"):
        download.text(long, quiet, secure=False)
