"""Commands in a guest, as tests give them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence

from tests.vm.conftest import PATIENCE, Site

MODES = {"full": "mode: full\n", "tcg-virtio": "accel: tcg\ndevices: virtio\n"}


WORDS = ("", "two  words", "'", '"', "$HOME `id` *", "a\nb\n", "-n", os.fsdecode(b"\xff\xfe"), "é;")


def execute(
    site: Site, name: str, *words: str, options: Sequence[str] = (), stdin: bytes = b"", **env: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        site.command("exec", *options, name, "--", *words),
        input=stdin,
        env={**site.env, **env},
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )


def sh(site: Site, name: str, script: str) -> str:
    done = execute(site, name, "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().strip()


def wait_for_none(site: Site, name: str, mark: str) -> None:
    """Wait until no process in the guest has `mark` in its arguments."""
    end = time.monotonic() + PATIENCE
    while mark in sh(site, name, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").replace("tr", ""):
        assert time.monotonic() < end, f"'{mark}' still runs in the guest"
        time.sleep(0.2)
