"""Starting libvirt where nobody does: no systemd, no daemon. Daemons of others are left alone.

Each test has a place of its own: namespaces with an empty /run and an empty /var/lib/libvirt, in
which no libvirt can be reached and from which none outside is seen.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import pytest

from tests.vm.conftest import PATIENCE, Result, Site

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a place without daemons"),
]

UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
CHECKOUT = pathlib.Path(__file__).parents[2]
SETUP = """
set -e
mount --make-rprivate /
for place in /run /var/lib/libvirt /var/log/libvirt; do
    mount -t tmpfs -o mode=755 tmpfs $place
done
# What libvirt knows of QEMU took it seconds to find out; it is kept, and written to no more.
cp -a /var/cache/libvirt /run/libvirt-cache
mount -t tmpfs -o mode=755 tmpfs /var/cache/libvirt
cp -a /run/libvirt-cache/. /var/cache/libvirt
mkdir -p /run/lock /var/lib/libvirt/qemu /var/lib/libvirt/images /var/lib/libvirt/boot \
    /var/lib/libvirt/network /var/lib/libvirt/dnsmasq /var/lib/libvirt/sanlock
if id libvirt-qemu > /dev/null 2>&1; then chown libvirt-qemu /var/lib/libvirt/qemu; fi
exec "$0" -c "$1"
"""
# The first process of the place: as a shell in a container, it looks after nobody.
FIRST = """
import sys
print("ready", flush=True)
sys.stdin.read()
"""
SOCKET = "/run/libvirt/libvirt-sock"


class Place:
    """Namespaces without daemons, and a store in them."""

    def __init__(self, home: pathlib.Path) -> None:
        self.home = home
        self.env = {
            **{key: value for key, value in os.environ.items() if key != "LIBVIRT_DEFAULT_URI"},
            "VMCTL_HOME": str(home),
            "XDG_RUNTIME_DIR": "/run/user-of-the-place",
            "NO_COLOR": "1",
            "COLUMNS": "80",
            "PYTHONPATH": str(CHECKOUT),
        }
        self.first = subprocess.Popen(
            [*UNSHARE, "sh", "-c", SETUP, sys.executable, FIRST],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.first.stdout is not None
        if self.first.stdout.readline() != "ready\n":
            pytest.skip("new namespaces are not allowed here")
        children = pathlib.Path(f"/proc/{self.first.pid}/task/{self.first.pid}/children")
        (self.leader,) = children.read_text().split()

    def command(self, *words: str) -> list[str]:
        return ["nsenter", f"--target={self.leader}", "--mount", "--pid", *words]

    def do(self, *words: str, check: bool = True) -> str:
        """Run any program in the place and return what it printed."""
        return subprocess.run(
            self.command(*words),
            env=self.env,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=check,
        ).stdout

    def start(self, *words: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(sys.executable, "-m", "vmctl", *words),
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def vmctl(self, *words: str, status: int = 0, **env: str) -> Result:
        with self.start(*words, **env) as process:
            return ended(process, status)

    def processes(self, name: str) -> dict[int, list[str]]:
        """Return the command lines of the place's processes of this name, by their number."""
        # Every process in the place descends from its first one.
        found = {}
        for line in self.do("ps", "-eo", "pid=,stat=,comm=,args=").splitlines():
            number, state, program, *words = line.split()
            if program == name and not state.startswith("Z"):
                found[int(number)] = words
        return found

    def kill(self, number: int, how: signal.Signals = signal.SIGKILL) -> None:
        """End a process of the place, by its number in the place."""
        self.do("kill", f"-{how.value}", str(number))
        self.wait(lambda: number not in self.numbers())

    def numbers(self) -> set[int]:
        return {int(word) for word in self.do("ps", "-eo", "pid=").split()}

    @staticmethod
    def wait(condition: object) -> None:
        assert callable(condition)
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.05)

    def close(self) -> None:
        """End everything in the place: with the first process of it, all others go."""
        assert self.first.stdin is not None
        assert self.first.stdout is not None
        self.first.stdin.close()
        self.first.wait(PATIENCE)
        self.first.stdout.close()


def ended(process: subprocess.Popen[str], status: int = 0) -> Result:
    out, err = process.communicate(timeout=PATIENCE * 2)
    result = Result(process.returncode, out, err)
    assert "Traceback" not in err
    assert result.status == status, result
    return result


@pytest.fixture
def place(site: Site) -> Iterator[Place]:
    home = pathlib.Path(tempfile.mkdtemp(prefix="vmctl-place-", dir="/var/tmp"))
    home.chmod(0o711)
    for part in ("images", "image-names"):
        shutil.copytree(site.home / part, home / part)
    place = Place(home)
    try:
        yield place
    finally:
        place.close()
        shutil.rmtree(home, ignore_errors=True)


def one(found: dict[int, list[str]]) -> int:
    (number,) = found
    return number


def test_daemons_are_started_once_by_many_at_the_same_time(place: Place) -> None:
    processes = [place.start("ps", "--all", "--json") for _ in range(4)]
    assert [ended(process).json for process in processes] == [[]] * 4
    (words,) = place.processes("libvirtd").values()
    assert "--timeout" in words
    assert int(words[words.index("--timeout") + 1]) > 0
    assert len(place.processes("virtlogd")) == 1


def test_many_stores_at_the_same_time_share_one_daemon(place: Place) -> None:
    """Their locks lie in their stores, so that nothing of vmctl's own keeps them apart."""
    stores = [place.home, *(place.home / f"other{number}" for number in range(5))]
    processes = [place.start("ps", "--all", VMCTL_HOME=str(store)) for store in stores]
    for process in processes:
        ended(process)
    assert len(place.processes("libvirtd")) == 1


def test_daemon_of_others_is_used_and_left(place: Place) -> None:
    place.do("libvirtd", "-d")
    Place.wait(lambda: "libvirt-sock" in place.do("ls", "/run/libvirt", check=False))
    before = place.processes("libvirtd")
    place.vmctl("ps", "--all")
    assert place.processes("libvirtd") == before
    assert "--timeout" not in before[one(before)]


def test_reading_and_help_start_no_daemon(place: Place) -> None:
    place.vmctl("--help")
    spec = place.home / "spec.yaml"
    spec.write_text("name: quiet\nimage: tiny\nmode: full\n")
    place.vmctl("validate", str(spec))
    place.vmctl("render", str(spec))
    assert not place.processes("libvirtd")


def test_missing_libvirtd_is_said_with_its_package(place: Place) -> None:
    program = shutil.which("libvirtd", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program is not None
    place.do("mount", "--bind", "/dev/null", program)
    for uri in ("qemu:///system", "qemu:///session"):
        result = place.vmctl("-c", uri, "ps", "--all", status=5)
        assert "'libvirtd' is not installed" in result.err
        assert "libvirt" in result.err.partition("hint: Install it: ")[2]


def test_libvirtd_that_ends_at_once_is_said_with_its_reason(place: Place) -> None:
    place.do("mount", "-t", "tmpfs", "-o", "ro", "tmpfs", "/run")
    begun = time.monotonic()
    result = place.vmctl("ps", "--all", status=5)
    assert "does not come up" in result.err
    assert "Traceback" not in result.err
    assert time.monotonic() - begun < PATIENCE


def test_socket_of_a_killed_daemon_does_not_deceive(place: Place) -> None:
    place.vmctl("ps", "--all")
    first = one(place.processes("libvirtd"))
    place.kill(first)
    assert SOCKET in place.do("ls", SOCKET)
    place.vmctl("ps", "--all")
    assert one(place.processes("libvirtd")) != first


def test_machines_outlive_their_daemon(place: Place) -> None:
    spec = place.home / "spec.yaml"
    spec.write_text(
        "name: survivor\nproject: survivor\nimage: tiny\nmemory: 128MiB\n"
        "accel: tcg\ndevices: virtio\n"
    )
    place.vmctl("up", str(spec))
    guest = one(place.processes("qemu-system-x86"))
    place.kill(one(place.processes("libvirtd")))
    (row,) = place_json(place, "ps", "--all")
    assert (row["name"], row["state"], row["ready"]) == ("survivor", "running", True)
    assert one(place.processes("qemu-system-x86")) == guest
    assert len(place.processes("libvirtd")) == 1
    status = place_json(place, "status", "survivor")
    assert (status["accel"], status["drift"]) == ("tcg", [])
    place.vmctl("restart", "--force", "survivor")
    place.vmctl("down", "-y", "survivor")
    assert not place.processes("qemu-system-x86")


def test_a_guest_that_was_ended_leaves_no_process(place: Place) -> None:
    """Libvirt waits for that; in this place nobody but the keeper of the daemon sees to it."""
    spec = place.home / "spec.yaml"
    spec.write_text("name: brief\nproject: brief\nimage: tiny\nmemory: 128MiB\nmode: full\n")
    place.vmctl("up", "--no-wait", str(spec))
    guest = one(place.processes("qemu-system-x86"))
    place.vmctl("down", "-y", "brief")
    assert guest not in place.numbers()


def test_logger_that_was_killed_comes_back_with_the_daemon(place: Place) -> None:
    place.vmctl("ps", "--all")
    for name in ("libvirtd", "virtlogd"):
        place.kill(one(place.processes(name)))
    place.vmctl("ps", "--all")
    assert len(place.processes("virtlogd")) == 1


def place_json(place: Place, *words: str) -> object:
    return place.vmctl(*words, "--json").json
