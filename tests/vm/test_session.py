"""As an ordinary user: libvirt's daemon of the user's own, and no right that only root has."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import pathlib
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator

import pytest

from tests.images import containers
from tests.vm.conftest import PATIENCE, Result, Site
from tests.vm.test_image_store import BUSYBOX
from vmctl.images import cache

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an ordinary user"),
]

CHECKOUT = pathlib.Path(__file__).parents[2]
SESSION = "qemu:///session"
NOBODY = 65534
BECOME = (
    "setpriv",
    f"--reuid={NOBODY}",
    f"--regid={NOBODY}",
    "--clear-groups",
    "--inh-caps=-all",
    "--no-new-privs",
)
"""Words that put a command under an account without any rights."""


class User(Site):
    """Runs vmctl as nobody, from directories of nobody's own."""

    def __init__(self, place: pathlib.Path) -> None:
        self.place = place
        self.runtime = place / "run"
        self.code = place / "code"
        super().__init__(place / "h", SESSION)
        chosen = ("PATH", "LANG", "LC_ALL")
        self.env = {
            **{key: os.environ[key] for key in chosen if key in os.environ},
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "XDG_CACHE_HOME": str(place / "cache"),
            "PYTHONPATH": str(self.code),
            "NO_COLOR": "1",
            "COLUMNS": "80",
        }
        self.python = self._python()

    @property
    def store(self) -> pathlib.Path:
        return self.home / ".local/share/vmctl"

    def command(self, *words: str) -> list[str]:
        return [*BECOME, self.python, "-m", "vmctl", *words]

    def _python(self) -> str:
        """Return an interpreter that this user can run: the tests' own may lie in root's home."""
        for candidate in (sys.executable, "/usr/bin/python3"):
            done = subprocess.run(
                [*BECOME, candidate, "-c", "import vmctl.cli, libvirt, pydantic, rich, yaml"],
                env=self.env,
                cwd="/",
                capture_output=True,
                check=False,
            )
            if done.returncode == 0:
                return candidate
        pytest.skip("no Python that an ordinary user can run fits the libraries")

    def own(self) -> None:
        """Give all files of the place to the user."""
        for directory, _, files in os.walk(self.place):
            for path in (directory, *(os.path.join(directory, file) for file in files)):
                os.lchown(path, NOBODY, NOBODY)

    def daemons(self) -> dict[str, int]:
        """Return the user's own daemons that run, by name."""
        found = {}
        for name in ("libvirtd", "virtlogd"):
            with contextlib.suppress(OSError, ValueError):
                pid = int((self.runtime / f"libvirt/{name}.pid").read_text())
                words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if owner_of(pid) == NOBODY and words[0].endswith(name.encode()):
                    found[name] = pid
        return found

    def qemu(self, name: str) -> int:
        return int((self.runtime / f"libvirt/qemu/run/{name}.pid").read_text())

    def end(self) -> None:
        """End what is left: guests, then the daemons that libvirt started for the user."""
        for name in self._names:
            with contextlib.suppress(OSError, ValueError):
                os.kill(self.qemu(name), signal.SIGKILL)
        for pid in self.daemons().values():
            os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + PATIENCE
        while self.daemons() and time.monotonic() < end:
            time.sleep(0.05)


def owner_of(pid: int) -> int:
    return os.stat(f"/proc/{pid}").st_uid


def copy_libraries(place: pathlib.Path) -> None:
    """Copy what vmctl imports: the tests' own libraries may lie in root's home."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    left, done = [*project["dependencies"]], set()
    while left:
        match = re.match(r"[\w.-]+", requirement := left.pop())
        assert match is not None
        if "extra ==" in requirement or match[0] in done:
            continue
        done.add(match[0])
        try:
            library = importlib.metadata.distribution(match[0])
        except importlib.metadata.PackageNotFoundError:
            continue  # Only other versions of Python need it.
        left += library.requires or ()
        for file in library.files or ():
            if ".." not in file.parts and file.suffix != ".pyc":
                target = place / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(library.locate_file(file)), target)


@pytest.fixture(scope="module")
def user(site: Site) -> Iterator[User]:
    # Short names: libvirt puts sockets far below the home, and those paths end at 107 characters.
    place = pathlib.Path(tempfile.mkdtemp(prefix="vm-", dir="/var/tmp"))
    for part in ("h", "run", "cache", "code"):
        (place / part).mkdir()
    (place / "run").chmod(0o700)
    copy_libraries(place / "code")
    for part in ("vmctl", "images", "templates"):
        shutil.copytree(
            CHECKOUT / part, place / "code" / part, ignore=shutil.ignore_patterns("__pycache__")
        )
    for directory, _, files in os.walk(place / "code"):
        for name in (directory, *(os.path.join(directory, file) for file in files)):
            os.chmod(name, os.stat(name).st_mode | 0o555)
    place.chmod(0o755)
    user = User(place)
    for part in ("images", "image-names"):
        shutil.copytree(site.home / part, user.store / part)
    user.own()
    try:
        yield user
    finally:
        user.end()
        shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="module")
def port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


@pytest.fixture(scope="module")
def machine(user: User, port: int) -> str:
    """A running machine, made by a user who hides nothing from others by habit (umask 000)."""
    path, name = user.spec(
        "accel: tcg\ndevices: virtio\ndisplay: vnc\n"
        "disks: [{name: data, size: 16MiB}]\n"
        f"forwards: [{{host: {port}, guest: 22}}]\n"
    )
    words = user.command("up", path)
    done = subprocess.run(
        ["sh", "-c", 'umask 000; exec "$@"', "sh", *words],
        env=user.env,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
        check=False,
    )
    assert done.returncode == 0, done
    return name


def greeting(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        return client.recv(16)


def test_default_connection_is_the_users_own(user: User, machine: str) -> None:
    (row,) = user.run("ps", "--json").json
    assert (row["name"], row["state"], row["ready"]) == (machine, "running", True)
    assert set(user.daemons()) >= {"libvirtd"}
    assert user.run("-c", SESSION, "ps", "--json").json == [row]


def test_status(user: User, machine: str, port: int) -> None:
    status = user.status(machine)
    assert (status["state"], status["accel"], status["drift"]) == ("running", "tcg", [])
    assert status["forwards"] == [f"127.0.0.1:{port} -> 22/tcp"]
    assert status["machine"]["qemu_owner"] == ""


def test_guest_runs_as_the_user(user: User, machine: str) -> None:
    assert owner_of(user.qemu(machine)) == NOBODY


def test_files_are_the_users_and_private(user: User, machine: str) -> None:
    place = user.store / "machines" / machine
    names = {path.name for path in place.iterdir()}
    assert {"spec.yaml", "machine.json", "console.log", "data.qcow2", "vnc-password"} <= names
    for path in place.iterdir():
        found = path.stat()
        assert (path.name, found.st_uid) == (path.name, NOBODY)
        mode = "0o644" if path.suffix == ".pub" else "0o600"
        assert (path.name, oct(stat.S_IMODE(found.st_mode))) == (path.name, mode)
    for path in (user.store, *user.store.iterdir()):
        assert not path.stat().st_mode & 0o022, path


def test_forwarded_port_leads_to_the_guest(machine: str, port: int) -> None:
    assert greeting(port) == b"SSH-2.0-dropbear"


def test_console(user: User, machine: str) -> None:
    assert user.console(machine, "echo from in''side") == "from inside"
    assert "vmctl-tiny: ready" in user.run("logs", machine).out


def test_stop_and_start(user: User, machine: str, port: int) -> None:
    user.run("stop", machine)
    assert user.status(machine)["state"] == "stopped"
    user.run("start", machine)
    assert user.status(machine)["ready"] is True
    assert greeting(port) == b"SSH-2.0-dropbear"


def test_pause_and_resume(user: User, machine: str) -> None:
    user.run("pause", machine)
    assert user.status(machine)["state"] == "paused"
    user.run("resume", machine)
    assert user.status(machine)["state"] == "running"


def test_machine_outlives_the_users_daemon(user: User, machine: str) -> None:
    before = user.daemons()["libvirtd"]
    os.kill(before, signal.SIGKILL)
    assert user.status(machine)["state"] == "running"
    assert user.daemons()["libvirtd"] != before


@pytest.mark.parametrize("kind", ["nat", "isolated"])
def test_networks_that_need_root_are_refused(user: User, kind: str) -> None:
    path, name = user.spec(f"mode: full\nnetworks: [{{kind: {kind}}}]\n")
    result = user.run("up", path, status=5)
    assert f"network of kind '{kind}'" in flat(result)
    assert "kind: user" in result.err
    assert not (user.store / "machines" / name).exists()


def test_machines_of_root_are_not_seen(user: User, machine: str, site: Site) -> None:
    """Both stores and both connections are apart."""
    result = site.run("ps", "--all", "--json")
    assert machine not in [row["name"] for row in result.json]
    user.run("status", "no-such-machine", status=3)


def test_unusable_home_is_said(user: User) -> None:
    nowhere = dict.fromkeys(("HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME"), "/proc/nowhere")
    result = user.run("ps", status=5, **nowhere)
    assert "cannot be reached at 'qemu:///session'" in flat(result)
    assert "hint: HOME and XDG_RUNTIME_DIR must" in result.err


def test_down_leaves_nothing(user: User, machine: str, port: int) -> None:
    """The last test of the machine: it removes it."""
    pid = user.qemu(machine)
    user.run("down", "-y", machine)
    assert not pathlib.Path(f"/proc/{pid}").exists()
    assert list((user.store / "machines").iterdir()) == []
    assert user.run("ps", "--all", "--json").json == []
    kept = user.home / ".config/libvirt/qemu"
    assert not list(kept.rglob(f"*{machine}*"))
    with pytest.raises(ConnectionRefusedError):
        greeting(port)


@pytest.mark.long
def test_image_is_built_without_root(user: User) -> None:
    """The packages come out of root's cache, where they are: nobody's own is empty."""
    shutil.copytree(cache.directory(), user.place / "cache/vmctl", dirs_exist_ok=True)
    user.own()
    store = user.home / "other-store"
    user.run("image", "build", "tiny", VMCTL_HOME=str(store))
    assert {path.stat().st_uid for path in store.rglob("*")} == {NOBODY}
    path, name = user.spec("mode: full\n")
    user.run("up", path, VMCTL_HOME=str(store))
    user.run("down", "-y", name, VMCTL_HOME=str(store))


def flat(result: Result) -> str:
    return " ".join(result.err.split())


def test_mounts_are_9p_with_the_users_own_rights(user: User) -> None:
    """No virtiofs here: QEMU itself serves both kinds, as the user."""
    place = user.specs / "shared"
    for name in ("in", "out"):
        (place / name).mkdir(parents=True)
    (place / "in" / "private").write_text("mine\n")
    (place / "in" / "private").chmod(0o600)
    mounts = "[{host: ./shared/in, guest: /in}, {host: ./shared/out, guest: /out, writable: true}]"
    path, name = user.spec(
        f"accel: tcg\ndevices: virtio\nmounts: {mounts}\n"
        "provision: [{script: 'cp /in/private /out/copy; ln -s copy /out/link'}]\n"
    )
    user.own()
    user.run("up", path)
    copy = place / "out" / "copy"
    assert copy.read_text() == "mine\n"
    assert (copy.stat().st_uid, stat.S_IMODE(copy.stat().st_mode)) == (NOBODY, 0o600)
    assert os.readlink(place / "out" / "link") == "copy"
    attempt = "mount -o remount,rw /in; rm /in/private"
    said = user.run("exec", name, "--", "sh", "-c", attempt, status=1)
    assert "Read-only" in said.err
    assert (place / "in" / "private").exists()
    assert user.status(name)["provisioned"] == "yes"
    user.run("down", "-y", name)


def test_what_the_user_may_not_read_no_guest_gets(user: User) -> None:
    place = user.specs / "roots"
    place.mkdir()
    place.chmod(0o700)
    path, name = user.spec("accel: tcg\ndevices: virtio\nmounts: [{host: ./roots, guest: /x}]\n")
    assert "you may not read it yourself" in user.run("up", path, status=5).err
    assert not (user.store / "machines" / name).exists()


def test_a_container_image_becomes_a_machine(user: User) -> None:
    """The programs that write the disk's file system need no right that only root has."""
    archive = containers.saved(
        user.specs / "app.tar",
        containers.layer(
            containers.directory("bin"),
            containers.file("bin/busybox", BUSYBOX.read_bytes(), mode=0o755),
            containers.symlink("bin/sh", "busybox"),
            containers.file("owned", b"by somebody else\n", uid=1234, gid=4321, mode=0o640),
            containers.file(
                "program", b"#!/bin/sh\necho it runs\nwhile :; do read -r line; done\n", mode=0o755
            ),
        ),
        Entrypoint=["/program"],
        Cmd=None,
    )
    user.own()
    user.run("image", "import", "app", str(archive))
    assert {path.stat().st_uid for path in (user.store / "images").rglob("*")} == {NOBODY}
    name = user.name("box")
    path = user.specs / f"{name}.yaml"
    path.write_text(
        f"name: {name}\nproject: {name}\nimage: app\nmemory: 160MiB\n"
        "accel: tcg\ndevices: virtio\nboot: disk\n"
    )
    user.own()
    assert "no boot loader" in flat(user.run("up", str(path), status=2))
    assert not (user.store / "machines" / name).exists()
    path.write_text(path.read_text().replace("boot: disk\n", ""))
    user.run("up", str(path))
    look = "/bin/busybox stat -c '%u %g %a' /owned; /bin/busybox cat /owned"
    said = user.run("exec", name, "--", "sh", "-c", look).out
    assert said == "1234 4321 640\nby somebody else\n"
    assert "it runs" in user.run("logs", name).out
    user.run("down", "-y", name)


@pytest.mark.long
def test_debian(user: User, site: Site, debian: str) -> None:
    digest = site.run("image", "inspect", debian, "--json").json["digest"]
    # It is there already where another test had it built before this user's store was made.
    copy = user.store / "images" / digest
    shutil.copytree(site.home / "images" / digest, copy, dirs_exist_ok=True)
    record = f"image-names/{debian}.json"
    shutil.copyfile(site.home / record, user.store / record)
    name = user.name("deb")
    path = user.specs / f"{name}.yaml"
    path.write_text(
        f"name: {name}\nproject: {name}\nimage: {debian}\nmemory: 512MiB\n"
        "accel: tcg\ndevices: virtio\nuser: dev\n"
    )
    user.own()
    user.run("up", str(path))
    assert owner_of(user.qemu(name)) == NOBODY
    said = user.run(
        "exec", name, "--", "sh", "-c", "id -un; sudo -n id -u; hostname; exit 3", status=3
    )
    assert said.out.split() == ["dev", "0", name]
    over_ssh = subprocess.run(
        [*BECOME, "ssh", "-F", str(user.store / "machines" / name / "ssh.config"), name, "id -un"],
        env=user.env,
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (over_ssh.returncode, over_ssh.stdout) == (0, "dev\n"), over_ssh
    user.run("stop", name)
    user.run("down", "-y", name)
    assert not (user.store / "machines" / name).exists()
