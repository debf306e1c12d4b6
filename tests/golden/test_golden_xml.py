"""The domain XML of every template in every mode that it can have, compared to the letter.

What no template shows is in `specs` beside this file.

VMCTL_REGENERATE=1 rewrites the files; read the difference before you commit it.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import xml.etree.ElementTree as ET

import pytest

from tests import replay
from vmctl.host.facts import Cgroups, HostFacts
from vmctl.machine.model import Machine, Mode
from vmctl.machine.xml import domain

GOLDEN = pathlib.Path(__file__).parent / "xml"
SPECS = pathlib.Path(__file__).parent / "specs"
REGENERATE = os.environ.get("VMCTL_REGENERATE") == "1"
FIRMWARE = ("uefi", "uefi-secure")
NAMED = {"full", "hardware", "paravirt", "tcg-virtio", "nested", "lab-host"}
"""Templates that ask for one mode by name."""
NEEDS_VIRTIO = {"mounts"}
"""Templates that the modes with emulated devices refuse."""


def host_for(mode: Mode) -> HostFacts:
    """An Intel host with everything, or this one without a usable KVM for the TCG modes."""
    name = "kvm-intel-fine" if mode.accel == "kvm" else "software-kvm-no-flags"
    facts = replay.host(name)
    names = ("swtpm", "swtpm_setup", "virtiofsd")
    programs = {**facts.programs, **{name: f"/usr/bin/{name}" for name in names}}
    root = dataclasses.replace(facts.user, uid=0)
    return dataclasses.replace(
        facts,
        firmware=FIRMWARE,
        programs=programs,
        user=root,
        cgroups=cgroups_for(mode),
        memory_locking=True,
    )


def cgroups_for(mode: Mode) -> Cgroups:
    """Version 2 under KVM, version 1 else: their weights differ."""
    version = 2 if mode.accel == "kvm" else 1
    names = ("cpu", "cpuset", "memory", "blkio")
    return Cgroups(versions=dict.fromkeys(names, version), processors="0-7")


def settings(mode: Mode) -> tuple[str, ...]:
    if mode is Mode.TCG_VIRTIO:
        return ("mode=auto", "accel=tcg", "devices=virtio")
    return (f"mode={mode}",)


def cases() -> list[tuple[str, Mode]]:
    found = [
        (template.stem, mode)
        for template in (*sorted(replay.TEMPLATES.glob("*.yaml")), *sorted(SPECS.glob("*.yaml")))
        for mode in Mode
        if template.stem not in NAMED or template.stem == mode.value
        if template.stem not in NEEDS_VIRTIO or mode.devices == "virtio"
    ]
    return [*found, *(("nested", mode) for mode in Mode), ("lab-host", Mode.TCG_VIRTIO)]


def rendered(template: str, mode: Mode) -> tuple[tuple[Machine, ...], str]:
    sets = () if template in NAMED - {"nested"} else settings(mode)
    path = replay.TEMPLATES / f"{template}.yaml"
    if not path.exists():
        path = SPECS / path.name
    found = replay.machines(path, replay.surroundings(host_for(mode)), *sets)
    # Files beside a spec are absolute by now, and every checkout lies elsewhere.
    machines = tuple(
        dataclasses.replace(
            machine,
            cdroms=tuple(f"/specs/{pathlib.Path(file).name}" for file in machine.cdroms),
            mounts=tuple(
                dataclasses.replace(mount, host=f"/specs/{pathlib.Path(mount.host).name}")
                for mount in machine.mounts
            ),
        )
        for machine in found
    )
    return machines, "".join(domain.write(machine).text() for machine in machines)


@pytest.mark.parametrize(("template", "mode"), cases())
def test_template(template: str, mode: Mode) -> None:
    machines, text = rendered(template, mode)
    assert {machine.mode for machine in machines} == {mode}
    golden = GOLDEN / f"{template}.{mode}.xml"
    if REGENERATE:
        golden.write_text(text)
    assert golden.exists(), f"no {golden.name}: run with VMCTL_REGENERATE=1"
    assert text == golden.read_text()


@pytest.mark.parametrize(("template", "mode"), cases())
def test_round_trip(template: str, mode: Mode) -> None:
    for machine in rendered(template, mode)[0]:
        back = domain.read(domain.write(machine).text(), autostart=machine.autostart)
        assert back.machine == machine
        assert back.digest == machine.digest == back.machine.digest
        assert back.missing == ()
        assert back.unknown == ()


def test_nothing_is_left_uncovered() -> None:
    wanted = {f"{template}.{mode}.xml" for template, mode in cases()}
    assert {path.name for path in GOLDEN.glob("*.xml")} == wanted


@pytest.mark.parametrize("mode", list(Mode))
def test_every_element_that_a_mode_decides_is_explained(mode: Mode) -> None:
    machine = rendered("hello", mode)[0][0]
    writer = domain.write(machine)
    explained = {element.tag for element in writer.reasons}
    assert {"cpu", "memory", "vcpu", "controller", "serial", "memballoon"} <= explained
    text = writer.explained()
    # Still XML, with the same elements.
    tags = [element.tag for element in ET.fromstring(text).iter() if isinstance(element.tag, str)]
    assert tags == [element.tag for element in writer.root.iter()]
    assert f"mode {mode}" in text


def test_hardware_is_full_with_only_the_cpu_changed() -> None:
    """The claim that makes the modes comparable."""
    full, hardware = (rendered("hello", mode)[1] for mode in (Mode.FULL, Mode.HARDWARE))
    full_devices, hardware_devices = (
        text[text.index("<devices>") : text.index("</devices>")] for text in (full, hardware)
    )
    assert full_devices == hardware_devices


@pytest.mark.parametrize("mode", [Mode.FULL, Mode.HARDWARE])
def test_emulated_modes_have_no_virtio_device(mode: Mode) -> None:
    for template in ("hello", "disks", "forward", "uefi", "installer"):
        text = rendered(template, mode)[1]
        hardware = text[text.index("<devices>") :]
        assert "virtio" not in hardware
