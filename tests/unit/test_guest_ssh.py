"""How the OpenSSH client is called, and what its failures mean."""

from __future__ import annotations

import os
import pathlib
import subprocess

import pytest

from vmctl import errors
from vmctl.guest import ssh
from vmctl.guest.ssh import Access


def access(directory: pathlib.Path, **changes: object) -> Access:
    facts: dict[str, object] = {
        "name": "web",
        "host": "127.0.0.1",
        "port": 2222,
        "user": "dev",
        "key": directory / "id_ed25519",
        "known_hosts": directory / "known_hosts",
        "alias": "vmctl-web",
        "run": "1",
    }
    return Access(**{**facts, **changes})  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def runtime(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def parsed(argv: list[str]) -> dict[str, str]:
    """What the real client makes of a command line (ssh -G)."""
    done = subprocess.run(
        [argv[0], "-G", *argv[1:]], capture_output=True, text=True, check=True, timeout=60
    )
    return dict(line.partition(" ")[::2] for line in done.stdout.splitlines())


@pytest.mark.allow_process
@pytest.mark.parametrize("directory", ["/plain", "/with space", "/with%h", '/a"b', "/a\\b", "/é"])
def test_the_real_client_reads_the_options(directory: str) -> None:
    place = pathlib.Path(directory)
    got = parsed(ssh.command(access(place), ["true"]))
    assert got["port"] == "2222"
    assert got["user"] == "dev"
    assert got["hostkeyalias"] == "vmctl-web"
    assert got["stricthostkeychecking"] in ("true", "yes")
    assert got["globalknownhostsfile"] == "/dev/null"
    assert got["batchmode"] == "yes"
    assert got["controlpath" if "controlpath" in got else "batchmode"] in ("none", "yes")
    assert got["identityfile"].replace("%%", "%") == f"{directory}/id_ed25519"
    assert got["userknownhostsfile"].replace("%%", "%") == f"{directory}/known_hosts"


@pytest.mark.allow_process
def test_the_real_client_includes_the_configuration(tmp_path: pathlib.Path) -> None:
    machines = tmp_path / "machines with space"
    for name in ("web", "db"):
        place = machines / name
        place.mkdir(parents=True)
        text = ssh.config(access(place, name=name, port=len(name) + 4000))
        (place / "ssh.config").write_text(text)
    config = tmp_path / "config"
    config.write_text(f'Include "{machines}/*/ssh.config"\n')
    for name, port in (("web", "4003"), ("db", "4002")):
        got = parsed(["ssh", "-F", str(config), name])
        assert (got["hostname"], got["port"]) == ("127.0.0.1", port)
        assert got["identityfile"] == str(machines / name / "id_ed25519")


def test_the_first_value_counts_so_there_is_one_of_each(tmp_path: pathlib.Path) -> None:
    argv = ssh.command(access(tmp_path), ["true"], shared=True)
    keys = [word.partition("=")[0] for word in argv if "=" in word]
    assert len(keys) == len(set(keys))
    assert argv[-3:] == ["--", "127.0.0.1", "true"]


def test_how_host_keys_are_checked(tmp_path: pathlib.Path) -> None:
    """Pinned: the known one only. Else the first one, and any at QEMU's own port of this host."""
    pinned = ssh.options(access(tmp_path))
    assert pinned["StrictHostKeyChecking"] == "yes"
    first = ssh.options(access(tmp_path, pinned=False, host="192.168.150.2"))
    assert first["StrictHostKeyChecking"] == "accept-new"
    assert "known_hosts" in first["UserKnownHostsFile"]
    own = ssh.options(access(tmp_path, pinned=False))
    assert (own["StrictHostKeyChecking"], own["UserKnownHostsFile"]) == ("no", "/dev/null")


def test_a_person_may_be_asked(tmp_path: pathlib.Path) -> None:
    argv = ssh.command(access(tmp_path), batch=False)
    assert "BatchMode=no" in argv
    assert not any(word.startswith("PreferredAuthentications") for word in argv)


def test_sockets_are_private_and_of_one_run(
    runtime: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ssh.socket_path(access(runtime))
    assert first is not None
    assert first.parent == runtime / "vmctl"
    assert first.parent.stat().st_mode & 0o777 == 0o700
    assert first != ssh.socket_path(access(runtime, run="2"))
    assert first != ssh.socket_path(access(runtime, port=2223))
    assert ssh.socket_path(access(runtime, run="")) is None
    first.parent.chmod(0o755)
    elsewhere = ssh.socket_path(access(runtime))
    assert elsewhere is None or elsewhere.parent != first.parent
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime / ("x" * 100)))
    short = ssh.socket_path(access(runtime))
    assert short is None or len(os.fsencode(short)) <= 86


@pytest.mark.parametrize(
    ("said", "kind", "code"),
    [
        ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @", errors.RefusedError, 7),
        ("Host key verification failed.", errors.RefusedError, 7),
        ("dev@127.0.0.1: Permission denied (publickey).", errors.GuestError, 8),
        ("connect to host 127.0.0.1 port 2222: Connection refused", errors.WaitTimeoutError, 6),
        ("kex_exchange_identification: read: Connection reset by peer", errors.WaitTimeoutError, 6),
        ("no matching cipher found", errors.ProgramError, 1),
    ],
)
def test_failures(
    said: str, kind: type[errors.VmctlError], code: int, tmp_path: pathlib.Path
) -> None:
    problem = ssh.failure(access(tmp_path), said)
    assert type(problem) is kind
    assert problem.exit_code == code
    assert "'web'" in problem.message


def test_a_key_that_is_gone(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.NotFoundError, match="is gone"):
        ssh.connect(access(tmp_path))
