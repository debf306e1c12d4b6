"""Commands in a guest: word for word, their streams and their ends, over ssh."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pathlib
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import libvirt
import pytest

from tests.vm.conftest import PATIENCE, Site
from tests.vm.executing import MODES, WORDS, execute, sh, wait_for_none

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module", params=list(MODES))
def machine(request: pytest.FixtureRequest, site: Site) -> str:
    """Every test of ssh in full too, which has no agent."""
    return site.up(MODES[request.param])


def test_words(site: Site, machine: str) -> None:
    done = execute(site, machine, "printf", "%s\\0", *WORDS)
    assert done.stdout.split(b"\0")[:-1] == [os.fsencode(word) for word in WORDS]
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 1", 1), ("exit 255", 255), ("kill -9 $$", 137), ("kill -INT $$", 130)],
)
def test_status(site: Site, machine: str, script: str, status: int) -> None:
    done = execute(site, machine, "sh", "-c", script)
    assert (done.returncode, done.stderr) == (status, b"")


def test_no_such_program(site: Site, machine: str) -> None:
    assert execute(site, machine, "no-such-program").returncode == 127
    assert execute(site, machine, "/etc/passwd").returncode == 126
    assert execute(site, machine, "exit", "3").returncode == 127


def test_streams_apart_and_place_and_variables(site: Site, machine: str) -> None:
    done = execute(
        site,
        machine,
        *("sh", "-c", 'cat; pwd; printf "%s" "$A|$PASSED" >&2'),
        options=("-w", "/etc", "-e", "A=x y\nz", "-e", "PASSED"),
        stdin=b"in\n",
        PASSED="from here",
    )
    assert done.stdout == b"in\n/etc\n"
    assert done.stderr == b"x y\nz|from here"
    missing = execute(site, machine, "true", options=("-w", "/no/such"))
    assert missing.returncode == 125
    assert b"/no/such" in missing.stderr


def test_input_that_is_none(site: Site, machine: str) -> None:
    assert execute(site, machine, "cat").stdout == b""
    assert execute(site, machine, "cat", options=("-n",), stdin=b"unread").stdout == b""
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *site.command("exec", machine, "--", "cat")],
        env=site.env,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (closed.returncode, closed.stdout) == (0, b"")


def test_output_comes_as_it_is_written(site: Site, machine: str) -> None:
    with site.start("exec", machine, "--", "sh", "-c", "echo first; read x; echo $x") as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "first\n"
        process.stdin.write("second\n")
        process.stdin.flush()
        assert process.stdout.readline() == "second\n"
        assert process.wait(PATIENCE) == 0


def test_much_of_it(site: Site, machine: str) -> None:
    """50 MB each way, where the network card is fast enough."""
    count = 50_000_000 if site.status(machine)["machine"]["mode"] == "tcg-virtio" else 3_000_000
    data = os.urandom(count)
    done = execute(site, machine, "sha256sum", stdin=data)
    assert done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()
    done = execute(site, machine, "head", "-c", str(count), "/dev/zero")
    assert done.stdout == bytes(count)
    part = data[:3_000_000]
    done = execute(site, machine, "tee", "/proc/self/fd/2", stdin=part)
    assert (done.stdout == part, done.stderr == part) == (True, True)


def test_a_timeout_ends_what_runs_inside(site: Site, machine: str) -> None:
    began = time.monotonic()
    script = "trap '' TERM; echo begun; sleep 7771 & sleep 7772; sleep 7773"
    done = execute(site, machine, "sh", "-c", script, options=("--timeout", "3s"))
    assert done.returncode == 124
    assert done.stdout == b"begun\n"
    assert b"within 3 s. It was ended" in done.stderr
    assert time.monotonic() - began < PATIENCE / 2
    wait_for_none(site, machine, "sleep 777")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_what_runs_inside(
    site: Site, machine: str, number: signal.Signals
) -> None:
    with site.start("exec", machine, "--", "sh", "-c", "echo up; sleep 8881") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        assert process.wait(PATIENCE) == 130
    wait_for_none(site, machine, "sleep 8881")


def test_whoever_reads_may_leave(site: Site, machine: str) -> None:
    line = " ".join([*site.command("exec", machine, "--", "yes", "9991")])
    done = subprocess.run(
        ["sh", "-c", f"{line} | head -1"],
        env=site.env,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stdout == b"9991\n"
    assert b"Traceback" not in done.stderr
    wait_for_none(site, machine, "yes 9991")


def test_children_left_behind_do_not_hold_us(site: Site, machine: str) -> None:
    began = time.monotonic()
    assert sh(site, machine, "sleep 300 & echo done") == "done"
    assert time.monotonic() - began < 120


def on_terminal(site: Site, *words: str, typed: bytes = b"", until: bytes = b"") -> tuple[int, str]:
    """Run vmctl on a terminal; type when `until` is there; return the status and what was shown."""
    pid, main = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        os.execve(sys.executable, site.command(*words), site.env)
    shown, sent = b"", not typed
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if not select.select([main], [], [], 1)[0]:
            continue
        try:
            data = os.read(main, 4096)
        except OSError:
            break
        shown += data
        if not sent and until in shown:
            os.write(main, typed)
            sent = True
        if not data:
            break
    else:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(main)
    return os.waitstatus_to_exitcode(status), shown.decode("utf-8", "replace")


def test_a_terminal_of_its_own(site: Site, machine: str) -> None:
    script = "tty; echo $A; stty size; read x; echo got $x; exit 7"
    status, shown = on_terminal(
        *(site, "exec", "-t", "-e", "A=sec'ret", machine, "--", "sh", "-c", script),
        typed=b"typed\n",
        until=b"30 100",
    )
    assert status == 7
    assert "/dev/pts/" in shown
    assert "30 100" in shown
    assert "sec'ret" in shown
    assert "got typed" in shown
    assert "vmctl" not in shown
    assert sh(site, machine, "ls -A /tmp") == ""


def test_ctrl_c_goes_to_the_command(site: Site, machine: str) -> None:
    script = "trap 'echo caught; exit 9' INT; echo up; while :; do sleep 0.1; done"
    words = ("exec", "-t", machine, "--", "sh", "-c", script)
    status, shown = on_terminal(site, *words, typed=b"\x03", until=b"up")
    assert status == 9
    assert "caught" in shown


def test_without_one_nothing_reaches_the_terminal_raw(site: Site, machine: str) -> None:
    words = ("exec", machine, "--", "printf", "\\033[31mred\\n")
    status, shown = on_terminal(site, *words)
    assert (status, shown) == (0, "\\x1b[31mred\r\n")


def processes() -> str:
    """Return the arguments of all processes of this host."""
    seen = ""
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            seen += path.read_text(errors="replace")
    return seen


@pytest.mark.parametrize("tty", [(), ("-t",)])
def test_secrets_are_in_no_list_of_processes(
    site: Site, machine: str, tty: tuple[str, ...]
) -> None:
    """Of the host; vmctl's own arguments are the user's business, hence -e NAME."""
    secret = f"hush-{os.urandom(6).hex()}"
    process = subprocess.Popen(
        site.command("exec", *tty, "-e", "S", machine, "--", "sh", "-c", "echo $S; sleep 4"),
        env={**site.env, "S": secret},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    seen = ""
    while process.poll() is None:
        seen += processes()
        time.sleep(0.1)
    assert process.communicate()[0].decode().strip() == secret
    assert machine in seen
    assert secret not in seen


def test_a_guest_that_was_started_anew(site: Site, machine: str) -> None:
    """The shared connection leads to what ran before; that is noticed."""
    before = sh(site, machine, "cat /proc/sys/kernel/random/boot_id")
    execute(site, machine, "reboot")
    end, after = time.monotonic() + PATIENCE, before
    while after == before and time.monotonic() < end:
        time.sleep(0.5)
        done = execute(site, machine, "cat", "/proc/sys/kernel/random/boot_id")
        after = done.stdout.decode().strip() or before
    assert after != before


def test_ssh(site: Site, machine: str) -> None:
    done = site.run("ssh", machine, "--", "echo $HOME; exit 42", status=42)
    assert done.out == "/root\n"
    status, shown = on_terminal(site, "ssh", machine, typed=b"echo in''side; exit 5\n", until=b"# ")
    assert status == 5
    assert "inside" in shown


def test_ssh_config(site: Site, machine: str, tmp_path: pathlib.Path) -> None:
    config = tmp_path / "config"
    config.write_text(site.run("ssh-config", machine).out)
    stored = tmp_path / "stored"
    stored.write_text(f'Include "{site.home}/machines/*/ssh.config"\n')
    for file in (config, stored):
        done = subprocess.run(
            ["ssh", "-F", file, "-o", "BatchMode=yes", machine, "hostname"],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
        assert done.stdout
    assert f"Host {machine}\n" in site.run("ssh-config").out
    site.run("ssh-config", "no-such-machine", status=3)


def test_another_host_key(site: Site, machine: str) -> None:
    """The tiny image has no key that lasts; with a pinned one it is an impostor."""
    place = site.home / "machines" / machine
    pinned, known = place / "ssh_host_ed25519_key", place / "known_hosts"
    other = (place / "id_ed25519.pub").read_text().split()[:2]
    pinned.touch()
    known.write_text(f"vmctl-{machine} {' '.join(other)}\n")
    try:
        env = {"XDG_RUNTIME_DIR": str(site.home)}  # no connection is open there
        done = execute(site, machine, "true", **env)
        assert done.returncode == 125
        assert b"another ssh host key" in done.stderr
        assert site.run("ssh", machine, "--", "true", status=7, **env).err
        assert site.run("cp", f"{machine}:/etc/group", "/dev/null", status=7, **env).err
    finally:
        pinned.unlink()
        known.write_text("")


def test_a_key_that_is_gone(site: Site, machine: str) -> None:
    key = site.home / "machines" / machine / "id_ed25519"
    content = key.read_bytes()
    key.unlink()
    try:
        assert "vmctl restart" in site.run("ssh", machine, "--", "true", status=3).err
    finally:
        key.write_bytes(content)
        key.chmod(0o600)


def test_a_machine_without_an_agent(site: Site, machine: str) -> None:
    if site.status(machine)["machine"]["mode"] == "full":
        done = execute(site, machine, "true", options=("--agent",))
        assert done.returncode == 125
        assert b"no guest agent" in done.stderr


def test_without_a_network(site: Site) -> None:
    name = site.up("accel: tcg\ndevices: virtio\nnetworks: []\n")
    done = execute(site, name, "hostname")
    assert (done.returncode, done.stderr) == (0, b"")
    refused = site.run("ssh", name, status=2)
    assert "networks: []" in refused.err
    assert "vmctl console" in refused.err
    assert site.run("cp", f"{name}:/etc/group", "/dev/null", status=2).err
    terminal = execute(site, name, "true", options=("-t",))
    assert terminal.returncode == 125
    site.run("down", "-y", name)


def test_machines_nobody_can_get_into(site: Site, guest_uri: libvirt.virConnect) -> None:
    path, name = site.spec("mode: full\n")
    site.run("up", "--no-wait", path)
    early = execute(site, name, "true")
    assert early.returncode in (0, 125)
    if early.returncode:
        assert b"vmctl wait" in early.stderr
    site.run("wait", name)
    assert execute(site, name, "true").returncode == 0
    site.run("pause", name)
    assert "vmctl resume" in site.run("ssh", name, status=4).err
    site.run("resume", name)
    site.run("stop", "--force", name)
    assert "vmctl start" in site.run("ssh", name, status=4).err
    assert execute(site, name, "true").returncode == 125
    place = str(site.home / "machines" / name)
    site.run("down", "-y", name)
    end = time.monotonic() + PATIENCE
    while place in processes():
        assert time.monotonic() < end, "a connection outlives its machine"
        time.sleep(0.1)
    assert site.run("ssh", name, status=3).err
    assert execute(site, name, "true").returncode == 125


def test_following_a_log_over_a_restart(site: Site) -> None:
    name = site.up(MODES["tcg-virtio"])
    process = site.start("logs", "-f", "-n", "0", name)
    site.run("restart", name)
    assert process.stdout is not None
    text = ""
    while "vmctl-tiny: ready" not in text:
        text += process.stdout.readline()
    assert "\r\n" not in text
    booted = site.run("logs", "--since-boot", name).out
    assert booted.count("vmctl-tiny: ready") == 1
    assert site.run("logs", name).out.count("vmctl-tiny: ready") == 2
    site.run("down", "-y", name)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
