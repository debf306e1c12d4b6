"""The external provider, called as GARM calls it: environment, standard input, statuses."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import pathlib
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from tests.vm.conftest import PATIENCE, Result, Site

pytestmark = pytest.mark.vm

TOKEN = "instance-token-marker-5b7e"
NOT_FOUND, DUPLICATE = 30, 31


class Controller:
    """GARM: its providers' caller, and what its runners talk to."""

    def __init__(self, site: Site, place: pathlib.Path, name: str) -> None:
        self.site = site
        self.name = name
        self.config = place / f"{name}.toml"
        self.config.write_text(
            'images = ["tiny"]\nallow_tcg = true\nrunner_user = "root"\n'
            f'store = "{site.home}"\n[flavors.small]\nmemory = "128MiB"\n'
        )
        self.files: dict[str, bytes] = {}
        self.heard: list[tuple[str, str, str]] = []
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        # Where user networking has the host's loopback.
        self.url = f"http://10.0.2.2:{self._server.server_port}/api/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def call(
        self,
        command: str,
        *,
        status: int = 0,
        stdin: Any = None,
        version: str = "v0.1.1",
        **more: str,
    ) -> Result:
        """Call the provider with nothing but GARM's own environment."""
        env = {
            "GARM_COMMAND": command,
            "GARM_CONTROLLER_ID": self.name,
            "GARM_POOL_ID": "pool-1",
            "GARM_PROVIDER_CONFIG_FILE": str(self.config),
            "GARM_INTERFACE_VERSION": version,
            "GARM_POOL_EXTRASPECS": base64.b64encode(b"null").decode(),
            **{key: value for key, value in os.environ.items() if key == "PYTHONPATH"},
            **more,
        }
        done = subprocess.run(
            self.site.command("garm"),
            env=env,
            input=json.dumps(stdin).encode() if stdin is not None else b"",
            capture_output=True,
            timeout=PATIENCE * 2,
            check=False,
        )
        result = Result(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert "Traceback" not in result.err
        assert result.status == status, (command, result)
        return result

    def bootstrap(self, name: str, **more: Any) -> dict[str, Any]:
        """Return what GARM says of an instance to be made."""
        tool = {
            "os": "linux",
            "architecture": "x64",
            "download_url": "http://127.0.0.1:9/runner.tar.gz",
            "filename": "runner.tar.gz",
        }
        return {
            "name": name,
            "tools": [{**tool, "os": "win"}, tool],
            "repo_url": "https://git.test/group/project",
            "callback-url": f"{self.url}/callbacks",
            "metadata-url": f"{self.url}/metadata",
            "instance-token": TOKEN,
            "ssh-keys": None,
            "extra_specs": {},
            "ca-cert-bundle": None,
            "github-runner-group": "",
            "os_type": "linux",
            "arch": "amd64",
            "flavor": "small",
            "image": "tiny",
            "labels": ["linux", "kvm"],
            "pool_id": "pool-1",
            "user_data_options": {"disable_updates_on_boot": True, "extra_packages": None},
            "jit_config_enabled": True,
            **more,
        }

    def machine(self, key: str) -> str:
        """Return the name of an instance's machine."""
        return str(
            json.loads((self.site.home / "executors" / f"{key}.json").read_text())["machine"]
        )

    def until_told(self, status: str) -> None:
        """Wait until a runner has told its status."""
        end = time.monotonic() + PATIENCE
        while not any(f'"{status}"' in text for _, _, text in self.heard):
            assert time.monotonic() < end, self.heard
            time.sleep(0.05)


def _handler(controller: Controller) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(controller.files.get(self.path.removeprefix("/api/v1/metadata/")))

        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self._answer(b"", text)

        def _answer(self, content: bytes | None, text: str = "") -> None:
            authorization = self.headers.get("Authorization", "")
            controller.heard.append((self.path, authorization, text))
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *args: object) -> None:
            """Be quiet."""

    return Handler


@pytest.fixture
def controller(site: Site, tmp_path: pathlib.Path) -> Iterator[Controller]:
    found = Controller(site, tmp_path, f"controller-{os.getpid()}")
    yield found
    found.call("RemoveAllInstances")
    found.close()


def said_by(controller: Controller, machine: str, *words: str) -> str:
    return controller.site.run("exec", machine, "--", *words).out


def test_the_life_of_an_instance(controller: Controller, tmp_path: pathlib.Path) -> None:
    controller.files["install-script/"] = (
        b'#!/bin/sh\necho "$PWD by $(id -un)" > /root/proof\nenv > /root/env\n'
        b'wget -q -O /dev/null --post-data \'{"status": "idle"}\' '
        + controller.url.encode()
        + b"/x\n"
    )
    first = base64.b64encode(b"#!/bin/sh\necho first > /root/first\n").decode()
    asked = controller.bootstrap(
        "garm-Ny9HeeQYw2rl", extra_specs={"pre_install_scripts": {"a": first}}
    )
    made = json.loads(controller.call("CreateInstance", stdin=asked).out)
    key = made["provider_id"]
    machine = controller.machine(key)
    controller.site.claim(machine)
    assert (made["name"], made["status"]) == ("garm-Ny9HeeQYw2rl", "running")
    assert (made["os_type"], made["os_arch"]) == ("linux", "amd64")

    controller.until_told("idle")
    assert (
        said_by(controller, machine, "cat", "/root/proof", "/root/first")
        == "/root by root\nfirst\n"
    )
    own = [each for each in controller.heard if not each[0].endswith("/x")]
    assert {authorization for _, authorization, _ in own} == {f"Bearer {TOKEN}"}
    # The runner and its jobs inherit nothing of it, and nothing of it is left on this host.
    assert TOKEN not in said_by(controller, machine, "cat", "/root/env")
    for path in controller.site.home.rglob("*"):
        if path.is_file() and "images" not in path.parts and path.stat().st_size < 1 << 22:
            assert TOKEN.encode() not in path.read_bytes(), path
    for words in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            assert TOKEN.encode() not in words.read_bytes()

    controller.call("CreateInstance", stdin=asked, status=DUPLICATE)
    assert json.loads(controller.call("ListInstances").out) == [made]
    assert json.loads(controller.call("ListInstances", GARM_POOL_ID="pool-2").out) == []
    for name in (key, "garm-Ny9HeeQYw2rl"):
        assert json.loads(controller.call("GetInstance", GARM_INSTANCE_ID=name).out) == made

    other = Controller(controller.site, tmp_path, "another")
    try:
        other.call("RemoveAllInstances")
        other.call("DeleteInstance", GARM_INSTANCE_ID=key)
        other.call("GetInstance", GARM_INSTANCE_ID=key, status=NOT_FOUND)
    finally:
        other.close()
    controller.call("StopInstance", GARM_INSTANCE_ID=key, version="v0.1.0")
    stopped = json.loads(controller.call("GetInstance", GARM_INSTANCE_ID=key).out)
    assert stopped["status"] == "stopped"
    controller.call("DeleteInstance", GARM_INSTANCE_ID="garm-Ny9HeeQYw2rl")
    controller.call("DeleteInstance", GARM_INSTANCE_ID=key)
    controller.call("GetInstance", GARM_INSTANCE_ID=key, status=NOT_FOUND)
    assert not (controller.site.home / "machines" / machine).exists()


def test_what_cannot_be_made_leaves_nothing(controller: Controller) -> None:
    before = sorted((controller.site.home / "machines").iterdir())
    for more, words in (
        ({"image": "debian-12"}, "The image 'debian-12' is not offered here."),
        ({"flavor": "huge"}, "There is no flavour 'huge'."),
        ({"os_type": "windows"}, "wants os_type 'windows'"),
        ({"extra_specs": {"runner_install_template": "e30="}}, "'runner_install_template'"),
    ):
        stdin = controller.bootstrap("garm-none", **more)
        assert words in controller.call("CreateInstance", stdin=stdin, status=1).err
    assert "not JSON" in controller.call("CreateInstance", status=1).err
    controller.config.write_text('images = ["tiny"]\n[flavors.small]\nmode = "full"\n')
    stdin = controller.bootstrap("garm-none")
    said = controller.call(
        "CreateInstance", stdin=stdin, status=1, VMCTL_HOME=str(controller.site.home)
    )
    assert "no security boundary" in said.err
    assert sorted((controller.site.home / "machines").iterdir()) == before
    for name in ("GetInstance", "StartInstance", "StopInstance"):
        controller.call(name, GARM_INSTANCE_ID="garm-none", status=NOT_FOUND)
    controller.call("DeleteInstance", GARM_INSTANCE_ID="garm-none")


def test_both_interface_versions(controller: Controller) -> None:
    for version in ("", "v0.1.1"):
        assert controller.call("GetVersion", version=version).out.startswith("v")
    found = controller.call("GetSupportedInterfaceVersions")
    assert json.loads(found.out) == ["v0.1.0", "v0.1.1"]
    for name in ("GetConfigJSONSchema", "GetExtraSpecsJSONSchema"):
        jsonschema.Draft202012Validator.check_schema(json.loads(controller.call(name).out))
    said = controller.call("GetConfigJSONSchema", version="v0.1.0", status=1)
    assert "Interface v0.1.0 has no command" in said.err
    controller.call("ValidatePoolInfo")
    wrong = base64.b64encode(b'{"disk_size": 5}').decode()
    said = controller.call("ValidatePoolInfo", GARM_POOL_EXTRASPECS=wrong, status=1)
    assert "'disk_size', which this provider does not know" in said.err


@pytest.mark.long
def test_a_garm_without_an_install_script(controller: Controller) -> None:
    for name in ("runner", "credentials", "credentials_rsaparams"):
        controller.files[f"credentials/{name}"] = name.encode()
    cached = b"#!/bin/sh\nmkdir -p /root/actions-runner\ncd /root/actions-runner\n"
    cached += b"echo 'cat .runner .credentials .credentials_rsaparams > /root/proof' > run.sh\n"
    scripts = {"cached": base64.b64encode(cached + b"chmod +x run.sh\n").decode()}
    asked = controller.bootstrap("garm-jit", extra_specs={"pre_install_scripts": scripts})
    key = json.loads(controller.call("CreateInstance", stdin=asked).out)["provider_id"]
    machine = controller.machine(key)
    controller.site.claim(machine)
    controller.until_told("idle")
    end = time.monotonic() + PATIENCE
    while "rsaparams" not in said_by(controller, machine, "sh", "-c", "cat /root/proof || :"):
        assert time.monotonic() < end
    controller.call("StopInstance", GARM_INSTANCE_ID=key)
    controller.call("StartInstance", GARM_INSTANCE_ID=key)
    running = json.loads(controller.call("GetInstance", GARM_INSTANCE_ID=key).out)
    assert running["status"] == "running"
