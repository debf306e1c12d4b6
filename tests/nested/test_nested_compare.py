"""`vmctl compare --nested`: from a host without KVM to figures of KVM, and nothing left."""

from __future__ import annotations

import json
import pathlib
import re
import signal
import subprocess
import time

import jsonschema
import libvirt
import pytest

from tests.nested.conftest import BUILD_SECONDS, COMMAND_SECONDS, build
from tests.vm.conftest import Site
from vmctl.lab import caveat, nested, results, schema

WORDS = ("compare", "--nested", "-y", "--quick", "--workloads", "cpu-integer,system-call")


@pytest.fixture(scope="module")
def ready(site: Site) -> Site:
    build(site)
    site.claim(nested.MACHINE)
    return site


def there(site: Site) -> bool:
    connection = libvirt.open(site.uri)
    names = {domain.name() for domain in connection.listAllDomains()}
    connection.close()
    return nested.MACHINE in names or (site.home / "machines" / nested.MACHINE).exists()


def test_results_come_back_and_say_what_they_are(ready: Site, tmp_path: pathlib.Path) -> None:
    file, page = tmp_path / "r.json", tmp_path / "r.html"
    words = (*WORDS, "--modes", "host,hardware", "--rounds", "1")
    done = subprocess.run(
        ready.command(*words, "--json", str(file), "--html", str(page)),
        env=ready.env,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    data = json.loads(file.read_text())
    jsonschema.validate(data, schema.SCHEMA)
    assert data["state"] == "complete"
    runs = [run for run in data["runs"] if run["contender"] == "hardware"]
    assert runs
    for run in runs:
        assert (run["state"], run["proof"]["query_kvm"]) == ("ok", True)
        assert run["proof"]["domain_type"] == "kvm"
    assert data["host"]["kvm"] == "usable"
    assert data["host"][caveat.OUTER]["name"]
    said = " ".join(done.stdout.split())
    for sentence in caveat.sentences(results.load(file)):
        assert sentence in said
        assert re.sub(r"'", "&#x27;", sentence) in page.read_text()
    assert not there(ready)


def test_an_interruption_keeps_what_there_is_and_removes_the_machine(
    ready: Site, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "r.json"
    words = (*WORDS, "--modes", "host", "--rounds", "500", "--json", str(file))
    process = ready.start(*words)
    assert process.stderr is not None
    said = ""
    end = time.monotonic() + COMMAND_SECONDS
    while "round 1 of 500: host" not in said and time.monotonic() < end:
        line = process.stderr.readline()
        assert line, said
        said += line
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=BUILD_SECONDS)
    assert process.returncode == 130
    found = json.loads(file.read_text())
    assert found["state"] == "partial"
    assert found["host"][caveat.MARK] is True
    assert found["runs"]
    assert not there(ready)
