"""`top` and its metrics, against a guest that is made to work."""

import pytest
from prometheus_client import parser

from tests.vm.conftest import Site


@pytest.fixture(scope="module")
def busy(site: Site) -> str:
    path, name = site.spec("mode: full\ndisks: [{name: data, size: 64MiB}]\n", site.name("top"))
    site.run("up", path)
    site.console(name, "(while :; do :; done) >/dev/null 2>&1 & true")
    return name


def test_a_guest_in_a_loop_takes_a_cpu(site: Site, busy: str) -> None:
    found = {row["name"]: row for row in site.run("top", "--json", "--interval", "2s").json}
    assert 10 < found[busy]["cpu"] < 150
    assert found[busy]["resident"] > 32 << 20
    assert found[busy]["memory"] == 128 << 20
    assert found[busy]["receive_rate"] is None


def test_writing_is_seen(site: Site, busy: str) -> None:
    before = _total(site, busy, "disk_written_bytes")
    site.console(busy, "dd if=/dev/zero of=/data/file bs=1M count=8; sync")
    assert _total(site, busy, "disk_written_bytes") >= before + (8 << 20)


def _total(site: Site, name: str, counter: str) -> float:
    text = site.run("top", "--prometheus").out
    return sum(
        sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"vmctl_machine_{counter}_total" and sample.labels["machine"] == name
    )


def test_a_pipe_gets_one_table(site: Site, busy: str) -> None:
    lines = site.run("top", busy, "--interval", "200ms").out.splitlines()
    assert lines[0].split()[:3] == ["NAME", "STATE", "CPU"]
    assert len(lines) == 2
    assert lines[1].startswith(busy)


def test_a_name_that_is_not_there(site: Site) -> None:
    assert "There is no machine 'nobody'." in site.run("top", "nobody", status=3).err
