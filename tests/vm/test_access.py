"""How a person gets at a machine: console, display; and what an interruption leaves."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import socket
import struct
import termios
import time

import libvirt
import pytest

from tests.vm.conftest import PATIENCE, Site

pytestmark = pytest.mark.vm

ESCAPE = b"\x1d"


@pytest.fixture(scope="module")
def machine(site: Site) -> str:
    return site.up("accel: tcg\ndevices: virtio\ndisplay: vnc\nautostart: true\n")


def read_until(descriptor: int, wanted: bytes) -> bytes:
    text, end = b"", time.monotonic() + PATIENCE
    while wanted not in text and time.monotonic() < end:
        if not select.select([descriptor], [], [], 1.0)[0]:
            continue
        try:
            text += os.read(descriptor, 1024)
        except OSError:
            break
    return text


def test_console_on_a_terminal(site: Site, machine: str) -> None:
    """Ctrl-C goes to the guest, Ctrl-] leaves, and the terminal is as it was."""
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    before = termios.tcgetattr(side)
    pid = os.fork()
    if pid == 0:
        os.login_tty(side)
        os.execve(site.command("x")[0], site.command("console", machine), site.env)
    os.set_blocking(main, True)
    assert b"Ctrl-]" in read_until(main, b"Ctrl-]")
    os.write(main, b"\necho he''llo\n")
    assert b"hello" in read_until(main, b"hello")
    os.write(main, b"sleep 1000\n")
    time.sleep(1)
    os.write(main, b"\x03")
    os.write(main, b"echo inter''rupted\n")
    assert b"interrupted" in read_until(main, b"interrupted")
    os.write(main, ESCAPE)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert termios.tcgetattr(side)[:4] == before[:4]
    os.close(main)
    os.close(side)


def test_one_person_at_a_console(site: Site, machine: str) -> None:
    first = site.start("console", machine)
    assert first.stderr is not None
    assert "Connected" in first.stderr.readline()
    result = site.run("console", machine, status=4)
    assert "--force" in result.err
    taken = site.run("console", "--force", machine)
    assert taken.status == 0
    first.kill()
    first.communicate()


def test_display_is_local_and_wants_its_password(site: Site, machine: str) -> None:
    status = site.status(machine)
    address = re.fullmatch(r"vnc://127\.0\.0\.1:(\d+)", status["display"])
    assert address is not None
    password = site.home / "machines" / machine / "vnc-password"
    assert password.stat().st_mode & 0o777 == 0o600
    assert len(password.read_text()) == 8
    with socket.create_connection(("127.0.0.1", int(address[1])), timeout=PATIENCE) as client:
        assert client.recv(12).startswith(b"RFB 003.")
        client.sendall(b"RFB 003.008\n")
        count = client.recv(1)[0]
        assert client.recv(count) == b"\x02"  # VNC authentication and nothing weaker
    secret = password.read_text()
    for words in (("status", machine, "--json"), ("render", str(site.specs / f"{machine}.yaml"))):
        assert secret not in site.run(*words).out


def test_autostart_is_libvirts_own(site: Site, machine: str, guest_uri: libvirt.virConnect) -> None:
    assert guest_uri.lookupByName(machine).autostart() == 1
    site.run("up", str(site.specs / f"{machine}.yaml"), "--set", "autostart=false")
    assert guest_uri.lookupByName(machine).autostart() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("seconds", [0.2, 0.5, 0.8, 2.0])
def test_an_interruption_is_orderly(site: Site, number: signal.Signals, seconds: float) -> None:
    path, name = site.spec("accel: tcg\ndevices: virtio\n")
    process = site.start("up", path)
    time.sleep(seconds)
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    # An interruption inside exec(), which dataclasses call, makes CPython itself end by SIGINT
    # after everything was handled; a shell sees 130 either way.
    assert process.returncode in (130, 0, -signal.SIGINT), err
    assert "Traceback" not in err
    if seconds % 1:
        site.run("up", path)
        assert site.status(name)["ready"] is True
    site.run("down", "-y", path)
    assert not (site.home / "machines" / name).exists()
