"""What starts a runner in a guest, tried with the shells of this host and programs that tell."""

from __future__ import annotations

import base64
import json
import os
import pathlib
import shutil
import subprocess

import pytest

from vmctl.guest import script
from vmctl.runner.ci import garm_guest
from vmctl.runner.ci.garm_terms import Bootstrap

pytestmark = pytest.mark.allow_process

TOKEN = "instance-token-marker"
SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]
TOOLS = ("sh", "cat", "rm", "mv", "chmod", "chown", "grep", "touch")

TELLS = """#!/bin/sh
case $1 in --version) {version}; exit;; esac
echo "{name} $*" >> "$HOME/argv"
for word do
    case $word in --config=*) cat "${{word#*=}}" >> "$HOME/config";; esac
done
case $* in *install-script*)
    while [ $# -gt 0 ]; do
        if [ "$1" = -O ] || [ "$1" = -o ]; then printf '%s' "$INSTALL" > "$2"; fi
        shift
    done
esac
{rest}
"""
INSTALL = """#!/bin/sh
for name in bootstrap.json scripts token wgetrc; do
    [ ! -e "$PLACE/$name" ] || echo "$name" >> "$HOME/left"
done
echo > "$HOME/installed"
"""


class Guest:
    """A directory that stands for a guest: its tools, root's home, and the place in its memory."""

    def __init__(self, directory: pathlib.Path, shell: str) -> None:
        self.tools = directory / "bin"
        self.home = directory / "home"
        self.place = directory / "place"
        for each in (self.tools, self.home, self.place / "scripts"):
            each.mkdir(parents=True)
        for name in TOOLS:
            found = shutil.which(shell if name == "sh" else name)
            assert found is not None
            (self.tools / name).symlink_to(found)
        self.tool("id", "exit 0")
        # Who asks for a user's home in /etc/passwd gets this one.
        self.tool("sed", f"echo '{self.home}'")
        self.tool("su", 'PATH=$PATH sh -c "$4"')
        (self.place / "bootstrap.json").write_text(TOKEN)
        (self.place / "token").write_text(TOKEN)
        (self.place / "tools-token").write_text("")
        (self.place / "start").write_text(garm_guest._START)

    def tool(self, name: str, body: str) -> None:
        path = self.tools / name
        path.write_text(body if body.startswith("#!") else f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def start(self) -> None:
        env = {
            "PATH": str(self.tools),
            "HOME": str(self.home),
            "PLACE": str(self.place),
            "INSTALL": INSTALL,
            "GARM_RUNNER_USER": "root",
            "GARM_START": "",
            "GARM_JIT": "",
            "GARM_CALLBACK_URL": "http://garm/callbacks",
            "GARM_METADATA_URL": "http://garm/metadata",
        }
        words = [str(self.tools / "sh"), "./start"]
        done = subprocess.run(
            words, cwd=self.place, env=env, capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 0, (done.stdout, done.stderr)

    def said(self, name: str) -> str:
        path = self.home / name
        return path.read_text() if path.exists() else ""


@pytest.mark.parametrize("shell", SHELLS)
def test_wget_is_told_the_token_by_a_file(shell: str, tmp_path: pathlib.Path) -> None:
    guest = Guest(tmp_path, shell)
    guest.tool("wget", TELLS.format(name="wget", version="echo GNU Wget 1.21", rest=""))
    guest.start()
    assert "install-script" in guest.said("argv")
    assert "callbacks/status" in guest.said("argv")
    assert TOKEN not in guest.said("argv")
    assert f"header = Authorization: Bearer {TOKEN}\n" in guest.said("config")
    assert guest.said("installed") and not guest.said("left")


def test_curl_is_told_the_token_by_its_input(tmp_path: pathlib.Path) -> None:
    guest = Guest(tmp_path, SHELLS[0])
    text = TELLS.format(name="curl", version="echo curl", rest='cat >> "$HOME/config"')
    guest.tool("curl", text)
    guest.start()
    assert TOKEN not in guest.said("argv")
    assert TOKEN in guest.said("config")
    assert guest.said("installed") and not guest.said("left")


def test_a_wget_without_a_configuration_works_too(tmp_path: pathlib.Path) -> None:
    guest = Guest(tmp_path, SHELLS[0])
    guest.tool("wget", TELLS.format(name="wget", version="exit 1", rest=""))
    guest.start()
    assert f"Authorization: Bearer {TOKEN}" in guest.said("argv")
    assert guest.said("installed") and not guest.said("left")


def bootstrap(**more: object) -> Bootstrap:
    return Bootstrap.of(json.dumps({"name": "garm-A", "image": "tiny", **more}).encode())


@pytest.mark.parametrize("shell", SHELLS)
def test_certificates_of_any_length_arrive(
    shell: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are longer than what one variable or one argument may be."""
    place = tmp_path / "place"
    monkeypatch.setattr(garm_guest, "PLACE", str(place))
    monkeypatch.setattr(garm_guest, "_START", "exit\n")
    certificates = b"-----BEGIN CERTIFICATE-----\n" * 20_000
    asked = bootstrap(**{"ca-cert-bundle": base64.b64encode(certificates).decode()})
    task = script.Script(
        content=garm_guest.script(asked),
        env={**asked.values, "GARM_TOKEN": TOKEN},
        place=str(tmp_path),
    )
    # Standard input stays open: its end would end the script.
    with subprocess.Popen(
        [shell, "-s"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    ) as process:
        assert process.stdin is not None
        process.stdin.write(script._program(task, "vmctl-0123456789abcdef"))
        process.stdin.flush()
        assert process.wait(60) == 0
    assert (place / "ca.pem").read_bytes() == certificates
    assert (place / "token").read_text() == TOKEN
