"""`vmctl compare` with real guests, a real container and the host; and the page in a browser."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import jsonschema
import libvirt
import pytest

from tests.vm.conftest import PATIENCE, Site
from vmctl.lab import compare, results, schema, summary
from vmctl.lab import domain as lab_domain
from vmctl.lab.page import page
from vmctl.lab.results import State

pytestmark = [pytest.mark.long, pytest.mark.vm]

MODES = ["full", "tcg-virtio", "container", "host"]
QUICK = ("compare", "--quick", "-y")


def leftovers(site: Site, token: str = "") -> list[str]:
    """Return what a comparison should have cleared away; `token` is that of one with a container.

    Network namespaces and cgroups are the host's: others may compare at the same time.
    """
    connection = libvirt.open(site.uri)
    with contextlib.closing(connection):
        domains = [each.name() for each in connection.listAllDomains()]
    found = [name for name in domains if name.startswith("lab-")]
    found += [path.name for path in (site.home / "lab").glob("*")]
    if token:
        places = (pathlib.Path("/run/netns"), pathlib.Path("/sys/fs/cgroup"))
        found += [str(path) for place in places for path in place.glob(f"**/vmctl-lab-{token}*")]
    return found


@pytest.fixture(scope="module")
def compared(site: Site, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One quick comparison of everything that needs no KVM, one round after the warm-up."""
    place = tmp_path_factory.mktemp("compared")
    if not (shutil.which("runc") or shutil.which("crun")):
        pytest.fail("setup/packages.txt installs an OCI runtime")
    result = site.run(
        *QUICK,
        *("--modes", ",".join(MODES), "--rounds", "1", "--seed", "3"),
        *("--json", str(place / "r.json"), "--html", str(place / "r.html")),
    )
    data = json.loads((place / "r.json").read_text())
    return {"out": result.out, "err": result.err, "data": data, "place": place}


def test_every_mode_ran_and_said_so(compared: dict[str, Any]) -> None:
    data = compared["data"]
    jsonschema.validate(data, schema.SCHEMA)
    assert data["state"] == "complete"
    assert [each["name"] for each in data["contenders"]] == [
        "host",
        "container",
        "tcg-virtio",
        "full",
    ]
    assert {run["state"] for run in data["runs"]} == {"ok"}
    assert len(data["runs"]) == 2 * len(MODES)
    for mode in MODES:
        assert mode in compared["out"]
    assert max(map(len, compared["out"].splitlines())) <= 80


def test_every_workload_has_samples_or_a_reason(compared: dict[str, Any]) -> None:
    data = compared["data"]
    for run in data["runs"]:
        measured = {sample["workload"] for sample in run["samples"]}
        assert measured | set(run["missing"]) >= set(data["workloads"]), run["contender"]
    virtual = [run for run in data["runs"] if run["contender"] in ("full", "tcg-virtio")]
    for run in virtual:
        # On a busy host libvirt's call returns when the guest's kernel has begun already.
        assert set(run["missing"]) <= {"start-firmware"}


def test_what_executed_each_guest_was_read_back(compared: dict[str, Any]) -> None:
    for run in compared["data"]["runs"]:
        if run["contender"] in ("full", "tcg-virtio"):
            assert run["proof"]["domain_type"] == "qemu"
            assert run["proof"]["query_kvm"] is False
            assert run["facts"]["hypervisor"] == "TCGTCGTCGTCG"


def test_all_ran_the_same_job_on_what_they_say(compared: dict[str, Any]) -> None:
    data = compared["data"]
    assert len(data["probe"]["sha256"]) == 64
    by_name = {each["name"]: each for each in data["contenders"]}
    assert '<model type="e1000e"' in by_name["full"]["xml"]
    assert '<model type="virtio"' in by_name["tcg-virtio"]["xml"]
    for name in ("full", "tcg-virtio"):
        argv = by_name[name]["argv"]
        assert argv[0].endswith("qemu-system-x86_64")
        assert any(word.startswith("tcg") for word in argv)
    assert "own namespaces: pid, net" in " ".join(by_name["container"]["isolation"])


def test_nothing_is_left(site: Site, compared: dict[str, Any]) -> None:
    container = next(each for each in compared["data"]["contenders"] if each["name"] == "container")
    token = container["argv"][-1].removeprefix("vmctl-lab-").partition("-")[0]
    assert len(token) == 8
    assert leftovers(site, token) == []


def test_its_file_is_shown_again_without_measuring(site: Site, compared: dict[str, Any]) -> None:
    path = str(compared["place"] / "r.json")
    alone = site.run("compare", "--from", path)
    assert "cpu-integer" in alone.out
    both = site.run("compare", "--from", path, path)
    assert "1.00×" in both.out or "1.00x" in both.out


def test_a_mode_that_cannot_run_is_refused_before_anything(site: Site) -> None:
    if site.run("doctor", "--mode", "hardware", status=None).status == 0:
        pytest.skip("KVM works on this host")
    result = site.run(*QUICK, "--modes", "hardware,host", status=5)
    assert "Mode 'hardware' needs KVM" in result.err
    assert leftovers(site) == []


def test_left_to_itself_it_says_what_it_leaves_out(site: Site) -> None:
    if site.run("doctor", "--mode", "hardware", status=None).status == 0:
        pytest.skip("KVM works on this host")
    modes = _modes_of(site, monkey_rounds="1")
    assert modes["hardware"]["state"] == "refused"
    assert "KVM" in modes["hardware"]["why"]


def _modes_of(site: Site, *, monkey_rounds: str) -> dict[str, Any]:
    """Return the contenders of a comparison of all modes that measures next to nothing."""
    path = site.specs / "all.json"
    site.run(*QUICK, "--rounds", monkey_rounds, "--workloads", "start-total", "--json", str(path))
    return {each["name"]: each for each in json.loads(path.read_text())["contenders"]}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_keeps_what_there_is(
    site: Site, tmp_path: pathlib.Path, number: signal.Signals
) -> None:
    path = tmp_path / "r.json"
    child = site.start(
        *QUICK,
        "--modes",
        "full,host",
        "--rounds",
        "50",
        "--workloads",
        "timer",
        "--json",
        str(path),
    )
    _await(path.exists)
    _await(lambda: _guest_runs(site))
    child.send_signal(number)
    _out, err = child.communicate(timeout=PATIENCE)
    assert child.returncode == 130
    assert "partial" in err
    found = results.load(path)
    assert found.state is State.PARTIAL
    assert found.runs
    assert leftovers(site) == []


def test_not_even_a_kill_leaves_a_guest(site: Site, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "r.json"
    workloads = "timer,iperf3-send"
    words = ("--modes", "full,host", "--rounds", "50", "--workloads", workloads)
    child = site.start(*QUICK, *words, "--json", str(path))
    _await(path.exists)
    _await(lambda: _guest_runs(site))
    child.kill()
    child.communicate(timeout=PATIENCE)
    _await(lambda: not _guest_runs(site))
    _await(lambda: not _servers(site))
    assert results.load(path).state is State.PARTIAL
    # Files that it had are cleared by the next one, or by gc.
    (left,) = garbage(site)
    assert left["size"] > 0
    site.run("gc", "-y", left["name"])
    assert leftovers(site) == []


def garbage(site: Site) -> list[dict[str, Any]]:
    """Return what gc sees of comparisons."""
    found = site.run("gc", "--dry-run", "--json").json
    return [each for each in found if each["kind"] == "rest of a comparison"]


def _await(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def _guest_runs(site: Site) -> bool:
    connection = libvirt.open(site.uri)
    with contextlib.closing(connection):
        return any(each.name().startswith("lab-") for each in connection.listAllDomains())


def _servers(site: Site) -> list[str]:
    """Return the processes of the lab: the other ends of the network workloads."""
    found = []
    for place in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = place.read_bytes().decode("utf-8", "replace")
            if str(site.home / "lab") in words and "probe" in words:
                found.append(words)
    return found


def test_two_at_once_are_refused(site: Site) -> None:
    child = site.start(*QUICK, "--modes", "full", "--rounds", "50", "--workloads", "timer")
    try:
        _await(lambda: _guest_runs(site))
        result = site.run(*QUICK, "--modes", "host", status=4)
        assert "The lab is being worked on" in result.err
    finally:
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=PATIENCE)


def test_a_sabotaged_mode_is_caught(
    site: Site, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that was to run on KVM, and is started with TCG by what is between."""
    from vmctl.lab import catalog, field
    from vmctl.machine.model import Mode

    monkeypatch.setenv("VMCTL_HOME", str(site.home))
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", site.uri)
    enter = field.enter

    def sabotaged(*args: Any, **kwargs: Any) -> field.Entries:
        entries = enter(*args, **kwargs)
        changed = [
            dataclasses.replace(
                entry,
                mode="hardware",
                machine=dataclasses.replace(entry.machine, mode=Mode.HARDWARE),
            )
            for entry in entries.accepted
            if entry.machine
        ]
        return field.Entries(changed, [])

    write = lab_domain.write

    def forced(machine: Any, places: Any) -> str:
        return write(dataclasses.replace(machine, mode=Mode.FULL), places)

    monkeypatch.setattr(field, "enter", sabotaged)
    monkeypatch.setattr(lab_domain, "write", forced)
    comparison = compare.Comparison(
        compare.Request(
            path=pathlib.Path("templates/lab.yaml").absolute(),
            modes=("full",),
            named=False,
            workloads=catalog.named(["timer"]),
            rounds=1,
            slice_seconds=0.01,
            slices=1,
            seed=1,
        ),
        lambda _results: None,
    )
    list(comparison.events())
    assert [run.state for run in comparison.results.runs] == [State.VOID] * 2
    assert "live XML says type 'qemu'" in comparison.results.runs[0].why
    row = summary.summarise(comparison.results).rows[0]
    assert not row.cells[0].present


def test_explain_goes_from_the_spec_to_the_guest(site: Site) -> None:
    told = site.run("explain", "full").out
    for word in ('<domain type="qemu">', "-accel tcg", "e1000e", "AuthenticAMD", "cpu.max"):
        assert word in told, word
    assert max(map(len, told.splitlines())) <= 80
    assert '<domain type="kvm">' in site.run("explain", "paravirt").out
    path, _name = site.spec("mode: full\n")
    assert "e1000e" in site.run("explain", path).out
    site.run("explain", "fast", status=2)


# The page in a real browser.

_WATCHER = """<!doctype html><meta charset=utf-8><body>
<iframe id=f width=%(width)d height=900 style="border:0"></iframe><pre id=said>waiting</pre><script>
const frame = document.getElementById('f');
frame.onload = () => {
  const page = frame.contentDocument, root = page.documentElement;
  const wide = [...page.querySelectorAll('body *')].filter(each => {
    const box = each.getBoundingClientRect();
    return !each.closest('svg') && !each.closest('pre') && box.right > %(width)d + 1;
  }).map(each => each.tagName + '.' + each.className);
  document.getElementById('said').textContent = JSON.stringify({
    scroll: root.scrollWidth, wide: wide.slice(0, 5), text: page.body.innerText.slice(0, 200000),
    background: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
    shapes: page.querySelectorAll('svg .dot').length,
    fetched: frame.contentWindow.performance.getEntriesByType('resource').length,
  });
};
frame.src = 'page.html';
</script>"""


@dataclasses.dataclass
class Browser:
    """Headless Chromium on a directory of its own."""

    program: str
    place: pathlib.Path

    def look(self, *, width: int, dark: bool = False) -> dict[str, Any]:
        """Return what the page is like in a window of this width."""
        (self.place / "watcher.html").write_text(_WATCHER % {"width": width})
        done = self.run(
            "--dump-dom",
            "--virtual-time-budget=5000",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            (self.place / "watcher.html").as_uri(),
        )
        text = done.stdout.partition('<pre id="said">')[2].partition("</pre>")[0]
        import html

        found: dict[str, Any] = json.loads(html.unescape(text))
        return found | {"log": done.stderr}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                self.program,
                *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
                *("--no-first-run", "--disable-background-networking", "--disable-sync"),
                *(
                    "--disable-extensions",
                    "--disable-component-update",
                    "--allow-file-access-from-files",
                ),
                *("--disable-features=NetworkTimeServiceQuerying",),
                *("--host-resolver-rules=MAP * ~NOTFOUND",),
                *("--enable-logging=stderr", f"--user-data-dir={self.place / 'profile'}"),
                f"--log-net-log={self.place / 'net.json'}",
                *words,
            ],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            env={**os.environ, "HOME": str(self.place)},
        )


@pytest.fixture
def browser(compared: dict[str, Any], tmp_path: pathlib.Path) -> Browser:
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("this distribution has no chromium")
    shutil.copy(compared["place"] / "r.html", tmp_path / "page.html")
    return Browser(program, tmp_path)


@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_is_whole_in_a_browser(browser: Browser, width: int) -> None:
    seen = browser.look(width=width)
    for word in ("What virtualization costs", "tcg-virtio", "What isolates each", "query-kvm"):
        assert word in seen["text"], word
    assert seen["scroll"] <= width
    assert seen["wide"] == []
    assert seen["shapes"] > 20
    assert seen["fetched"] == 0
    assert "CONSOLE" not in seen["log"]


def test_the_page_is_dark_where_the_reader_wants_it(browser: Browser) -> None:
    assert (
        browser.look(width=1280)["background"] != browser.look(width=1280, dark=True)["background"]
    )


def test_the_browser_asks_nobody(browser: Browser) -> None:
    browser.run("--dump-dom", (browser.place / "page.html").as_uri())
    log = (browser.place / "net.json").read_text()
    hosts = set(re.findall(r'"url":"https?://([^/":]+)', log))
    # The browser's own errands, which lead nowhere: no name is resolved.
    assert {
        host for host in hosts if not host.endswith((".google.com", ".googleapis.com"))
    } == set()


def test_the_page_of_a_partial_comparison(compared: dict[str, Any]) -> None:
    found = results.from_dict(compared["data"])
    found.state, found.why = State.PARTIAL, "it was interrupted"
    assert "partial: it was interrupted" in page.text([summary.summarise(found)])
