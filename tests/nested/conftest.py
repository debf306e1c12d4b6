"""The lab host, booted once by vmctl itself, and vmctl inside it."""

from __future__ import annotations

import contextlib
import json
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from tests.vm.conftest import Result, Site, left_tidy, shared_home, site
from vmctl import shipped

__all__ = ["Lab", "build", "lab", "left_tidy", "shared_home", "site"]

BUILD_SECONDS = 1500
COMMAND_SECONDS = 900
"""Guards only, for a busy host: the build takes three minutes there, a command seconds."""

LOG = "/var/lib/vmctl/machines/{name}/console.log"


class Lab:
    """A running lab host."""

    def __init__(self, site: Site, name: str) -> None:
        self.site = site
        self.name = name

    def run(self, script: str, status: int | None = 0) -> Result:
        """Run a script of the shell's as root; any status but the expected one fails the test."""
        words = ("exec", "-n", "-u", "root", self.name, "--", "sh", "-c", script)
        done = subprocess.run(
            self.site.command(*words),
            env=self.site.env,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        result = Result(done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in result.err, result.err
        if status is not None:
            assert result.status == status, f"{script}: {result}"
        return result

    def up(self, name: str, text: str, *options: str) -> Result:
        """Bring a tiny machine up inside."""
        spec = f"name: {name}\nimage: tiny\nmemory: 128MiB\n{text}"
        self.run(f"printf '%s' '{spec}' > /root/{name}.yaml")
        return self.run(f"vmctl up {' '.join(options)} /root/{name}.yaml")

    def boot_seconds(self, name: str) -> float:
        """Start a machine that is off, and return how long its guest takes until it is ready."""
        log = LOG.format(name=name)
        script = f"""
            before=$(grep -c 'vmctl-tiny: ready' {log})
            virsh -q start {name} > /dev/null || exit
            began=$(date +%s%N)
            until [ "$(grep -c 'vmctl-tiny: ready' {log})" -gt "$before" ]; do sleep 0.1; done
            echo $(($(date +%s%N) - began))
            virsh -q destroy {name} > /dev/null
        """
        return int(self.run(script).out) / 1e9


def build(site: Site) -> None:
    """Build the image, or take its slow part from the cache."""
    words = site.command("image", "build", "lab-host")
    subprocess.run(words, env=site.env, check=True, timeout=BUILD_SECONDS)


@pytest.fixture(scope="module")
def lab(site: Site) -> Iterator[Lab]:
    build(site)
    name = site.name("lab")
    template = shipped.directory("templates") / "lab-host.yaml"
    site.run("up", str(template), "--set", f"name={name}", "--set", "project=nested")
    found = Lab(site, name)
    # libvirt is asked when it knows QEMU; see images/lab-host.
    found.run("systemctl start libvirt-ready.service")
    yield found
    with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
        found.run("vmctl ps; journalctl --no-pager -n 50 -p warning >&2", status=None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of it boots guests, takes long, and may take longer than other tests."""
    here = pathlib.Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            for mark in (pytest.mark.vm, pytest.mark.long, pytest.mark.nested):
                item.add_marker(mark)
            item.add_marker(pytest.mark.timeout(BUILD_SECONDS + COMMAND_SECONDS))


def json_of(result: Result) -> dict[str, object]:
    """Return what a command printed as JSON."""
    found = json.loads(result.out)
    assert isinstance(found, dict)
    return found
