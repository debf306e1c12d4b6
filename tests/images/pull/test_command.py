"""`vmctl image pull`: what it prints, its statuses, and Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

from tests.images import publisher as publishing
from tests.images.publisher import Publisher
from tests.images.pull import trial
from tests.images.pull.trial import DISK, NAME
from vmctl.images import partial


def test_the_command(publisher: Publisher, disks: list[bytes]) -> None:
    trial.recipe(publisher)
    trial.offer(publisher, disks[0])
    done = trial.vmctl("image", "pull", NAME)
    assert done.returncode == 0, done.stderr
    assert "pull image" in done.stderr
    done = trial.vmctl("image", "pull", NAME, "--json")
    assert json.loads(done.stdout)["pulled"] is False
    trial.offer(publisher, disks[1])
    done = trial.vmctl("image", "pull", NAME)
    assert done.returncode == 7
    assert (
        f"hint: If the publisher says that there is a new version: vmctl image pull --renew {NAME}"
        in " ".join(done.stderr.split())
    )
    assert trial.vmctl("image", "pull", "--renew", NAME).returncode == 0
    url = publisher.url(DISK)
    done = trial.vmctl("image", "pull", url)
    assert done.returncode == 0, done.stderr
    digest = publishing.sha256(disks[1])
    assert done.stdout == f"image: {{url: '{url}', sha256: {digest}, format: qcow2}}\n"
    for words, status in [
        (("tiny",), 2),
        (("nothing",), 3),
        ((NAME, "--format", "raw"), 2),
        (("https://127.0.0.1/x.img",), 2),
        (("file:///etc/passwd", "--format", "raw"), 2),
        ((url, "--sha256", "12"), 2),
        ((url, "--sha256", "0" * 64), 7),
        ((url + "x", "--format", "raw"), 3),
    ]:
        done = trial.vmctl("image", "pull", *words)
        assert done.returncode == status, (words, done.stderr)
        assert "Traceback" not in done.stderr


def test_ctrl_c_keeps_what_has_come(publisher: Publisher, disks: list[bytes]) -> None:
    trial.recipe(publisher)
    trial.offer(publisher, disks[0], pace=0.1)
    command = [sys.executable, "-m", "vmctl", "image", "pull", NAME]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        deadline = time.monotonic() + 60
        while publisher.sent(DISK) < 1 << 20 and time.monotonic() < deadline:
            time.sleep(0.01)
        begun = time.monotonic()
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=30)
    assert time.monotonic() - begun < 5
    assert child.returncode == 130, said
    (part,) = partial.directory().glob("*.part")
    kept = part.stat().st_size
    publisher.files[DISK].pace = 0
    assert trial.vmctl("image", "pull", NAME).returncode == 0
    assert publisher.asked(DISK)[-1].range == f"bytes={kept}-"
