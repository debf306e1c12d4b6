"""The image `trial`: its recipe, how it is published, and how it is pulled."""

from __future__ import annotations

import hashlib
import subprocess
import sys

from tests.images import publisher as publishing
from tests.images.publisher import Publisher
from vmctl.deadline import Deadline
from vmctl.images import build, recipes
from vmctl.machine.model import DiskFormat, Image
from vmctl.store.layout import Layout

QCOW2 = DiskFormat.QCOW2
DISK = "/cloud/latest/trial-amd64.qcow2"
SUMS = "/cloud/latest/SHA512SUMS"
NAME = "trial"


def recipe(publisher: Publisher, **more: str) -> None:
    """Write a recipe of the user's own."""
    keys = {
        "name": NAME,
        "builder": "pull",
        "url": publisher.url(DISK),
        "checksums": publisher.url(SUMS),
        "format": "qcow2",
        "cloud_init": "true",
        "user": "trial",
        "drivers": "[virtio, ahci]",
        "ready": "{when: ssh, timeout: 2m}",
    } | more
    recipes.own_directory().mkdir(parents=True, exist_ok=True)
    text = "".join(f"{key}: {value}\n" for key, value in keys.items() if value)
    (recipes.own_directory() / f"{NAME}.yaml").write_text(text)


def offer(publisher: Publisher, disk: bytes, **how: object) -> None:
    """Publish a disk and its checksums."""
    how = {"etag": f'"{publishing.sha256(disk)[:8]}"', **how}
    publisher.put(DISK, disk, **how)
    other = "ab" * 64
    listed = f"{other}  trial-arm64.qcow2\n{hashlib.sha512(disk).hexdigest()}  trial-amd64.qcow2\n"
    publisher.put(SUMS, listed.encode(), kind="text/plain")


def ensure(layout: Layout, progress: build.Progress = lambda *_: None) -> Image:
    return build.ensure(layout, NAME, Deadline.after(60), progress)


def renew(layout: Layout, *, consent: bool = False, force: bool = False) -> tuple[Image, bool]:
    def quiet(*_: object) -> None:
        pass

    return build.renew(layout, NAME, Deadline.after(60), quiet, force=force, consent=consent)


def stop_at(count: int) -> build.Progress:
    def progress(_: str, done: int, __: int) -> None:
        if done >= count:
            raise RuntimeError("enough")

    return progress


ASK = """
import sys
from vmctl.deadline import Deadline
from vmctl.images import build
from vmctl.store.layout import Layout
image = build.ensure(Layout.default(), sys.argv[1], Deadline.after(120), lambda *_: None)
print(image.disk)
"""


def vmctl(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vmctl", *map(str, words)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
