"""A store of the tests' own with real machines in it, and the command line as users have it."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import libvirt
import pytest

PATIENCE = 180.0
"""Seconds for anything that a guest under TCG does on a busy machine; only a guard."""


@dataclasses.dataclass
class Result:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Site:
    """Runs vmctl on a store, and knows the names of its machines."""

    _numbers = itertools.count(1)
    made: ClassVar[list[Site]] = []

    def __init__(self, home: pathlib.Path, uri: str) -> None:
        self.home = home
        self.uri = uri
        self.env = {
            **os.environ,
            "VMCTL_HOME": str(home),
            "LIBVIRT_DEFAULT_URI": uri,
            "NO_COLOR": "1",
            "COLUMNS": "80",
        }
        self.specs = home / "specs"
        self.specs.mkdir(exist_ok=True)
        self._names: set[str] = set()
        Site.made.append(self)

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "vmctl", *words]

    def run(self, *words: str, status: int | None = 0, stdin: str = "", **env: str) -> Result:
        """Run vmctl; anything but the status that is expected fails the test with what it said."""
        done = subprocess.run(
            self.command(*words),
            input=stdin,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=PATIENCE * 2,
            check=False,
        )
        result = Result(done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in result.err
        assert "an error of its own" not in result.err, result.err
        if status is not None:
            assert result.status == status, f"{words}: {result}"
        return result

    def start(self, *words: str, **env: str) -> subprocess.Popen[str]:
        """Start vmctl and do not wait for it."""
        return subprocess.Popen(
            self.command(*words),
            env={**self.env, **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def name(self, stem: str = "m") -> str:
        """Return a name that no other test uses."""
        name = f"t-{stem}-{os.getpid()}-{next(self._numbers)}"
        self._names.add(name)
        return name

    def claim(self, *names: str) -> None:
        """Have machines removed in the end that vmctl named itself, as for `count:`."""
        self._names.update(names)

    def spec(self, text: str, name: str = "") -> tuple[str, str]:
        """Write a spec of one tiny machine; returns its path and the machine's name."""
        name = name or self.name()
        path = self.specs / f"{name}.yaml"
        path.write_text(f"name: {name}\nproject: {name}\nimage: tiny\nmemory: 128MiB\n{text}")
        return str(path), name

    def up(self, text: str = "mode: full\n") -> str:
        """Bring a tiny machine up."""
        path, name = self.spec(text)
        self.run("up", path)
        return name

    def status(self, name: str) -> Any:
        return self.run("status", name, "--json").json

    def console(self, name: str, command: str, seconds: float = PATIENCE) -> str:
        """Type a command at the guest's console and return what it printed."""
        mark = f"mark-{next(self._numbers)}"
        with subprocess.Popen(
            self.command("console", "--force", "-q", name),
            env=self.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            os.set_blocking(process.stdout.fileno(), False)
            # The typed line is echoed; the quotes keep the mark itself out of the echo.
            process.stdin.write(f"\n{command}; echo '{mark[:4]}''{mark[4:]}'\n".encode())
            process.stdin.flush()
            text, end = "", time.monotonic() + seconds
            while mark not in text and time.monotonic() < end:
                text += (process.stdout.read() or b"").decode("utf-8", "replace")
                time.sleep(0.05)
            process.stdin.close()
            process.kill()
        assert mark in text, f"no answer from {name}: {text!r}"
        answer = text[: text.rindex(mark)].replace("\r", "")
        return answer.partition(f"{mark[4:]}'\n")[2].strip()

    def leave(self) -> None:
        """Remove the machines that are there; idle guests take time from those that follow."""
        there = sorted(name for name in self._names if (self.home / "machines" / name).exists())
        if there:
            command = self.command("down", "-y", "--delete-kept", *there)
            subprocess.run(command, env=self.env, capture_output=True, timeout=300, check=False)
        self.clear()
        self._names.clear()

    def clear(self) -> None:
        """Remove what is left, with libvirt's own means: vmctl may be what is broken."""
        connection = libvirt.open(self.uri)
        for domain in connection.listAllDomains():
            if domain.name() in self._names or domain.name().startswith(f"t-{os.getpid()}"):
                with contextlib.suppress(libvirt.libvirtError):
                    domain.destroy()
                with contextlib.suppress(libvirt.libvirtError):
                    domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
        self._clear_networks(connection)
        connection.close()

    @staticmethod
    def _clear_networks(connection: libvirt.virConnect) -> None:
        """Remove vmctl's networks if no machine at all is left on them."""
        inside = "".join(definitions(connection).values())
        for network in connection.listAllNetworks():
            if network.name().startswith("vmctl-") and f"network='{network.name()}'" not in inside:
                with contextlib.suppress(libvirt.libvirtError):
                    network.destroy()
                with contextlib.suppress(libvirt.libvirtError):
                    network.undefine()


def definitions(connection: libvirt.virConnect) -> dict[str, str]:
    """Return the XML of all domains by name; those that vanish meanwhile are left out."""
    found = {}
    for domain in connection.listAllDomains():
        with contextlib.suppress(libvirt.libvirtError):
            found[domain.name()] = domain.XMLDesc()
    return found


@pytest.fixture(scope="session")
def shared_home() -> Iterator[pathlib.Path]:
    """One store for all tests, where QEMU's own account can reach it; the image is built once."""
    home = pathlib.Path(tempfile.mkdtemp(prefix="vmctl-test-", dir="/var/tmp"))
    home.chmod(0o711)
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def site(shared_home: pathlib.Path, libvirt_daemon: str) -> Iterator[Site]:
    site = Site(shared_home, libvirt_daemon)
    site.run("image", "build", "tiny")
    yield site
    site.clear()


@pytest.fixture(scope="module", autouse=True)
def left_tidy() -> Iterator[None]:
    """Remove a module's machines when it has ended."""
    yield
    for site in Site.made:
        site.leave()


@pytest.fixture(scope="session")
def debian(site: Site) -> str:
    """The name of a Debian image with cloud-init and sshd; built once."""
    command = site.command("image", "build", "debian-12-min")
    subprocess.run(command, env=site.env, check=True, timeout=PATIENCE * 10)
    return "debian-12-min"


@pytest.fixture(scope="session")
def thorough(request: pytest.FixtureRequest) -> bool:
    """Whether long tests are wanted: a walk over many points takes all of them then, not some."""
    return "not long" not in request.config.option.markexpr


@pytest.fixture(scope="module")
def connection(libvirt_daemon: str) -> Iterator[libvirt.virConnect]:
    """Libvirt itself, for a whole file of tests."""
    connection = libvirt.open(libvirt_daemon)
    yield connection
    connection.close()


@pytest.fixture
def guest_uri(libvirt_daemon: str) -> Iterator[libvirt.virConnect]:
    """Libvirt itself, to look at machines from outside vmctl and to do what others would do."""
    connection = libvirt.open(libvirt_daemon)
    yield connection
    connection.close()
