"""Downloads that break off and go on where they stopped, or begin anew where they must."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.images import publisher as publishing
from tests.images.download import fetching
from tests.images.download.fetching import CONTENT, PATH, SLOW
from tests.images.publisher import File, Handler, Publisher
from vmctl import errors
from vmctl.images import download, partial


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
        with download.turn(url, fetching.quiet) as turn:
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
    assert fetching.fetch(url) == CONTENT
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
        fetching.fetch(url)
    assert "goes on where this one stopped" in caught.value.hint
    assert 1 <= len(publisher.asked(PATH)) <= 6
    assert fetching.left() == 1000 * len(publisher.asked(PATH))
    assert time.monotonic() - begun < 30
    publisher.files[PATH].behave = None
    before = publisher.sent(PATH)
    assert fetching.fetch(url) == CONTENT
    assert publisher.sent(PATH) - before == len(CONTENT) - before


def test_without_a_validator_nothing_is_resumed(publisher: Publisher) -> None:
    url = publisher.put(PATH, CONTENT, etag="", modified="")
    with pytest.raises(RuntimeError):
        fetching.stop_at(url, 1 << 20, publisher)
    assert fetching.left() > 0
    publisher.files[PATH].pace = 0
    assert fetching.fetch(url) == CONTENT
    assert publisher.asked(PATH)[-1].range == ""


def test_a_weak_tag_is_no_validator(publisher: Publisher) -> None:
    url = publisher.put(PATH, CONTENT, etag='W/"one"', modified="")
    with pytest.raises(RuntimeError):
        fetching.stop_at(url, 1 << 20, publisher)
    publisher.files[PATH].pace = 0
    assert fetching.fetch(url) == CONTENT
    assert publisher.asked(PATH)[-1].range == ""


def test_an_end_by_the_user_is_quick_and_keeps_what_has_come(publisher: Publisher) -> None:
    url = publisher.put(PATH, CONTENT)
    begun = time.monotonic()
    with pytest.raises(RuntimeError, match="enough"):
        fetching.stop_at(url, 1 << 20, publisher)
    assert time.monotonic() - begun < 5
    kept = fetching.left()
    assert 1 << 20 <= kept < len(CONTENT)
    publisher.files[PATH].pace = 0
    assert fetching.fetch(url) == CONTENT
    again = publisher.asked(PATH)[-1]
    assert again.range == f"bytes={kept}-"
    assert again.if_range == '"one"'
    assert again.sent == len(CONTENT) - kept


def test_kill_9_is_resumed(publisher: Publisher) -> None:
    url = publisher.put(PATH, CONTENT, pace=SLOW)
    with subprocess.Popen([sys.executable, "-c", fetching.SCRIPT, url]) as child:
        deadline = time.monotonic() + 30
        while fetching.left() < 1 << 20 and time.monotonic() < deadline:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
    kept = fetching.left()
    assert 1 << 20 <= kept < len(CONTENT)
    publisher.files[PATH].pace = 0
    assert fetching.fetch(url) == CONTENT
    again = publisher.asked(PATH)[-1]
    assert (again.range, again.sent) == (f"bytes={kept}-", len(CONTENT) - kept)


def test_a_file_that_changed_meanwhile_begins_anew(publisher: Publisher) -> None:
    url = publisher.put(PATH, CONTENT)
    with pytest.raises(RuntimeError):
        fetching.stop_at(url, 1 << 20, publisher)
    other = os.urandom(2 << 20)
    publisher.put(PATH, other, etag='"two"', modified="Tue, 03 Jun 2025 10:00:00 GMT")
    assert fetching.fetch(url) == other
    assert publisher.asked(PATH)[-1].status == 200


def test_a_file_that_shrank_begins_anew(publisher: Publisher) -> None:
    url = publisher.put(PATH, CONTENT)
    with pytest.raises(RuntimeError):
        fetching.stop_at(url, 1 << 20, publisher)
    publisher.put(PATH, CONTENT[:1000])
    assert fetching.fetch(url) == CONTENT[:1000]
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
        fetching.stop_at(url, 1 << 20, publisher)
    publisher.files[PATH].pace = 0
    publisher.files[PATH].behave = behave
    assert fetching.fetch(url) == CONTENT


def test_others_wait_and_see_how_far_it_is(publisher: Publisher) -> None:
    url = publisher.put(PATH, CONTENT, pace=SLOW)
    said: list[tuple[str, int, int]] = []
    with subprocess.Popen(
        [sys.executable, "-c", fetching.SCRIPT, url], stdout=subprocess.PIPE
    ) as child:
        deadline = time.monotonic() + 30
        while not fetching.left() and time.monotonic() < deadline:
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
    fetching.fetch(url)
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
            fetching.fetch(url)
        assert "goes on" in caught.value.hint
        kept = fetching.left()
        assert kept > 1 << 20
        subprocess.run(["mount", "-o", "remount,size=16m", place], check=True)
        publisher.files[PATH].behave = None
        assert fetching.fetch(url) == CONTENT
        assert publisher.asked(PATH)[-1].range == f"bytes={kept}-"

    on_small_disk(tmp_path, "2m", use)
