"""What the bench reads: QEMU's command line, domain XML, import times, /proc."""

from __future__ import annotations

import importlib
import xml.etree.ElementTree as ET

import pytest

from bench import argv, domains, host, importtime, staged
from bench.domains import Place
from bench.spans import Spans
from tests import replay
from vmctl.machine.xml import domain

QEMU = [
    *("/usr/bin/qemu-system-x86_64", "-name", "guest=g,debug-threads=on", "-S"),
    *("-object", '{"qom-type":"secret","id":"masterKey0","format":"raw","file":"/k.aes"}'),
    *("-machine", "pc-q35-7.2,usb=off,memory-backend=pc.ram", "-accel", "tcg,tb-size=256"),
    *("-object", '{"qom-type":"memory-backend-ram","id":"pc.ram","size":134217728}'),
    *("-no-user-config", "-nodefaults"),
    *("-chardev", "socket,id=charmonitor,fd=39,server=on,wait=off"),
    *("-mon", "chardev=charmonitor,id=monitor,mode=control", "-no-shutdown"),
    *("-append", "console=ttyS0 quiet", "-netdev", '{"type":"user","id":"hostua-net0"}'),
    *("-add-fd", "set=0,fd=40,opaque=serial0-log"),
    *("-chardev", "pty,id=charserial0,logfile=/dev/fdset/0,logappend=on"),
    *("-device", '{"driver":"isa-serial","chardev":"charserial0","id":"serial0","index":0}'),
]


def test_options_keep_their_values() -> None:
    assert argv.options(["-S", "-m", "128", "-nodefaults"]) == [
        ("-S", None),
        ("-m", "128"),
        ("-nodefaults", None),
    ]


def test_a_standalone_command_line_needs_nothing_of_libvirt() -> None:
    words = argv.standalone(QEMU, "/var/tmp/g.log")
    text = " ".join(words)
    for gone in ("-S", "masterKey0", "charmonitor", "-mon", "-add-fd", "/dev/fdset", "fd="):
        assert gone not in words
        assert f"{gone} " not in text
        assert f"{gone}=" not in text
    assert words[words.index("-chardev") + 1] == "file,id=charserial0,path=/var/tmp/g.log"


def test_a_standalone_command_line_is_the_same_machine() -> None:
    kept = argv.options(argv.standalone(QEMU, "/l")[1:])
    dropped = [pair for pair in argv.options(QEMU[1:]) if pair not in kept]
    assert [name for name, _ in dropped] == [
        *("-S", "-object", "-chardev", "-mon", "-add-fd", "-chardev")
    ]


def test_a_socket_that_libvirt_had_opened_gets_a_path() -> None:
    agent = ["-chardev", "socket,id=charchannel0,fd=39,server=on,wait=off"]
    words = argv.standalone([*QEMU, *agent], "/d/l")
    assert words[-1] == "socket,id=charchannel0,path=/d/l.charchannel0,server=on,wait=off"


def test_a_machine_without_serial_port_is_refused() -> None:
    with pytest.raises(argv.NoConsoleError):
        argv.standalone(["qemu", "-m", "128"], "/l")


@pytest.fixture(params=["full", "tcg-virtio"])
def rendered(request: pytest.FixtureRequest) -> str:
    spec = replay.TEMPLATES / f"{request.param}.yaml"
    (machine,) = replay.machines(spec, replay.surroundings(replay.host("no-flag-bare-metal")))
    return domain.write(machine).text()


def test_renamed_xml_differs_in_what_must_differ_only(rendered: str) -> None:
    place = Place(name="other", console="/l")
    lines = domains.renamed(rendered, place).splitlines()
    before = domains.renamed(rendered, Place(name="first", console="/k")).splitlines()
    changed = [line.strip() for old, line in zip(before, lines, strict=True) if old != line]
    assert changed[0] == "<name>other</name>"
    assert changed[1].startswith("<uuid>")
    assert set(changed[2:]) == {'<log file="/l" append="on" />'}


def test_handwritten_xml_is_the_same_guest_without_the_leanness(rendered: str) -> None:
    text = domains.handwritten(rendered, Place(name="other", console="/l", kernel="/k"))
    root = ET.fromstring(text)
    lean, stock = domains.guest(rendered), domains.guest(text)
    assert stock.kernel == "/k"
    for field in ("type", "machine", "cpu", "cpus", "memory", "initrd", "cmdline", "nic"):
        assert getattr(stock, field) == getattr(lean, field) != ""
    devices = root.find("devices")
    assert devices is not None
    assert devices.find("controller") is None
    assert devices.find("interface/rom") is None
    assert devices.find("video/model[@type='vga']") is not None
    assert devices.find("graphics[@listen='127.0.0.1']") is not None
    assert root.find("metadata") is None
    assert root.find("seclabel") is None


def test_handwritten_xml_of_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="devices"):
        domains.handwritten("<domain><name>x</name></domain>", Place(name="n", console="/l"))


IMPORTS = """\
import time: self [us] | cumulative | imported package
import time:       100 |        100 |     click._compat
import time:       400 |        500 |   click
something else on standard error
import time:        50 |         50 | json
import time: self | odd |
"""


def test_import_times_are_added_up_by_package() -> None:
    found = importtime.by_package(importtime.parse(IMPORTS))
    assert found == {"click": pytest.approx(0.0005), "json": pytest.approx(0.00005)}


def test_the_header_of_import_times_is_no_import() -> None:
    assert [each.module for each in importtime.parse(IMPORTS)] == [
        *("click._compat", "click", "json")
    ]


def test_a_span_has_its_own_time_without_that_of_spans_inside() -> None:
    now = iter([0.0, 1.0, 3.0, 10.0, 20.0, 24.0])
    spans = Spans(lambda: next(now))
    with spans.span("outer"), spans.span("inner"):
        pass
    with spans.span("outer"):
        pass
    assert spans.own == {"inner": 2.0, "outer": 8.0 + 4.0}


@pytest.mark.parametrize(("module", "function"), list(staged.STAGES))
def test_a_watched_function_is_there(module: str, function: str) -> None:
    """A stage whose function was renamed would silently count as another's time."""
    assert callable(getattr(importlib.import_module(module), function))


def test_the_cpu_is_named() -> None:
    text = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t: svm\n"
    assert host.cpu_model(text) == "AMD EPYC"
    assert host.cpu_model("") == "unknown"
