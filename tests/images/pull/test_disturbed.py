"""Pulls that are killed, stalled, or made by many at once."""

from __future__ import annotations

import concurrent.futures
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from tests.images.publisher import File, Handler, Publisher
from tests.images.pull import trial
from tests.images.pull.trial import DISK, NAME, SUMS
from vmctl import errors
from vmctl.images import partial, web
from vmctl.store.layout import Layout


def test_pieces_of_two_files_are_fetched_once_more(
    layout: Layout, publisher: Publisher, disks: list[bytes]
) -> None:
    """A publisher replaces the file and keeps its times and tag."""
    trial.recipe(publisher)
    trial.offer(publisher, disks[0], etag='"same"', pace=0.02)
    with pytest.raises(RuntimeError):
        trial.ensure(layout, trial.stop_at(1 << 20))
    trial.offer(publisher, disks[1], etag='"same"')
    assert pathlib.Path(trial.ensure(layout).disk).read_bytes() == disks[1]
    assert [bool(seen.range) for seen in publisher.asked(DISK)] == [False, True, False]


def test_one_download_for_sixteen_who_ask(
    layout: Layout, publisher: Publisher, disks: list[bytes]
) -> None:
    trial.recipe(publisher)
    trial.offer(publisher, disks[0], pace=0.01)
    words = [sys.executable, "-c", trial.ASK, NAME]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        done = list(
            pool.map(
                lambda _: subprocess.run(words, check=False, capture_output=True, timeout=180),
                range(16),
            )
        )
    assert [each.returncode for each in done] == [0] * 16, done[0].stderr
    assert len({each.stdout for each in done}) == 1
    assert [seen.sent for seen in publisher.asked(DISK)] == [len(disks[0])]
    assert len(publisher.asked(SUMS)) == 1
    assert len(os.listdir(layout.images)) == 1


def test_a_killed_pull_goes_on_where_it_was(
    layout: Layout, publisher: Publisher, disks: list[bytes]
) -> None:
    trial.recipe(publisher)
    trial.offer(publisher, disks[0], pace=0.05)
    with subprocess.Popen([sys.executable, "-c", trial.ASK, NAME]) as child:
        deadline = time.monotonic() + 60
        while publisher.sent(DISK) < 1 << 20 and time.monotonic() < deadline:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
    (part,) = partial.directory().glob("*.part")
    kept = part.stat().st_size
    assert 0 < kept < len(disks[0])
    publisher.files[DISK].pace = 0
    assert pathlib.Path(trial.ensure(layout).disk).read_bytes() == disks[0]
    again = publisher.asked(DISK)[-1]
    assert (again.range, again.sent) == (f"bytes={kept}-", len(disks[0]) - kept)
    assert len(os.listdir(layout.images)) == 1


@pytest.mark.parametrize("when", range(6))
def test_killed_anywhere_the_same_command_ends_well(
    layout: Layout, publisher: Publisher, disks: list[bytes], when: int
) -> None:
    """Die at the n-th word of what is going on after the download."""
    script = trial.ASK.replace(
        "lambda *_: None",
        "lambda what, *_: words.append(what) or len(words) == int(sys.argv[2]) and "
        "os.kill(os.getpid(), 9)",
    ).replace("import sys", "import os, sys\nwords = []")
    trial.recipe(publisher)
    trial.offer(publisher, disks[0])
    subprocess.run([sys.executable, "-c", script, NAME, str(when + 1)], timeout=60, check=False)
    image = trial.ensure(layout)
    assert pathlib.Path(image.disk).read_bytes() == disks[0]
    assert os.listdir(layout.images) == [image.digest]


def test_a_cache_on_another_disk(
    layout: Layout, publisher: Publisher, disks: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = pathlib.Path("/dev/shm") / f"vmctl-test-{os.getpid()}"
    if not os.access(place.parent, os.W_OK) or place.parent.stat().st_dev == os.stat("/").st_dev:
        pytest.skip("this host has no second file system to write to")
    monkeypatch.setenv("XDG_CACHE_HOME", str(place))
    try:
        trial.recipe(publisher)
        trial.offer(publisher, disks[0])
        assert pathlib.Path(trial.ensure(layout).disk).read_bytes() == disks[0]
        assert not list(partial.directory().glob("*.part"))
    finally:
        subprocess.run(["rm", "-rf", place], check=True)


def test_a_server_that_stalls_ends_the_command(
    layout: Layout, publisher: Publisher, disks: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def behave(handler: Handler, file: File) -> None:
        handler.answer(200, file.content[:1000], {"ETag": file.etag}, length=len(file.content))
        time.sleep(15)

    monkeypatch.setattr(web, "STALL_SECONDS", 1.0)
    trial.recipe(publisher)
    trial.offer(publisher, disks[0])
    publisher.files[DISK].behave = behave
    with pytest.raises(errors.WaitTimeoutError, match="has stalled"):
        trial.ensure(layout)
    publisher.files[DISK].behave = None
    assert trial.ensure(layout).present
    assert publisher.asked(DISK)[-1].range == "bytes=1000-"
