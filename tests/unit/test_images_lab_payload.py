"""What is put into the lab host, and how it is written into its disk."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import pathlib
import re
import sys

import pytest

from vmctl import errors
from vmctl.images import catalog, lab_payload, recipes
from vmctl.images.lab_payload import Entry, Payload
from vmctl.machine.model import Image
from vmctl.store import files
from vmctl.store.layout import Layout

DIGEST = "4" * 64


@pytest.fixture
def stored(tmp_path: pathlib.Path) -> tuple[Layout, Image]:
    """A store with an image of the guest's."""
    layout = Layout(tmp_path / "store")
    place = layout.image(DIGEST)
    place.mkdir(parents=True)
    layout.image_names.mkdir()
    for name in (catalog.KERNEL, catalog.INITRD, catalog.FACTS):
        (place / name).write_text(name)
    files.write_json(layout.image_names / "tiny.json", {"digest": DIGEST, "recipe": "r"})
    return layout, Image(name="tiny", digest=DIGEST)


def test_all_of_vmctl_is_in(stored: tuple[Layout, Image]) -> None:
    entries = lab_payload.collect(*stored).entries
    assert "opt/vmctl/vmctl/cli/__init__.py" in entries
    assert "opt/vmctl/vmctl/lab/probe/probe.c" in entries
    assert "opt/vmctl/vmctl/shipped/images/lab-host.yaml" in entries
    assert "opt/vmctl/vmctl/shipped/templates/hello.yaml" in entries
    assert not any("__pycache__" in path for path in entries)
    assert entries["usr/local/bin/vmctl"].mode == 0o755


def test_the_libraries_are_in_with_their_licences(stored: tuple[Layout, Image]) -> None:
    paths = set(lab_payload.collect(*stored).entries)
    assert {"opt/vmctl/pydantic/__init__.py", "opt/vmctl/click/__init__.py"} <= paths
    assert any(path.startswith("opt/vmctl/pydantic_core/_pydantic_core.") for path in paths)
    assert any("pydantic-" in path and "LICENSE" in path for path in paths)
    # It goes with the system's own libvirt.
    assert not any(path.startswith("opt/vmctl/libvirt") for path in paths)


def test_every_requirement_is_there() -> None:
    wanted = importlib.metadata.requires("vmctl") or []
    names = {re.split("[<>=,;]", each)[0].lower() for each in wanted if "extra" not in each}
    assert names - {"libvirt-python"} <= set(lab_payload._distributions())


def test_the_guests_image_is_in_its_store(stored: tuple[Layout, Image]) -> None:
    entries = lab_payload.collect(*stored).entries
    assert f"var/lib/vmctl/images/{DIGEST}/kernel" in entries
    record = entries["var/lib/vmctl/image-names/tiny.json"].content
    assert record == f'{{"digest": "{DIGEST}", "recipe": "r"}}'.encode()


def test_another_python_is_refused(
    stored: tuple[Layout, Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab_payload, "PYTHON", (3, 99))
    with pytest.raises(errors.HostError, match=r"Python is 3\.99") as caught:
        lab_payload.collect(*stored)
    assert f"3.{sys.version_info[1]}" in caught.value.message


def test_the_digest_is_of_paths_modes_and_contents() -> None:
    payload = Payload({"a": Entry(b"x")}, 1)
    same = dataclasses.replace(payload, moment=2)
    others = [
        Payload({"b": Entry(b"x")}, 1),
        Payload({"a": Entry(b"y")}, 1),
        Payload({"a": Entry(b"x", 0o755)}, 1),
    ]
    assert payload.digest == same.digest
    assert len({payload.digest, *(each.digest for each in others)}) == 4


def test_the_commands_make_directories_before_files(tmp_path: pathlib.Path) -> None:
    payload = Payload({"opt/vmctl/m/a.py": Entry(b"x = 1\n"), "opt/vmctl/n": Entry(b"")}, 1)
    lines = list(payload.commands(tmp_path))
    made = [line for line in lines if line.startswith("mkdir")]
    assert made == [
        'mkdir "/opt/vmctl"',
        'mkdir "/opt/vmctl/m"',
        'mkdir "/opt/vmctl/m/__pycache__"',
    ]
    written = [line.split('"')[3] for line in lines if line.startswith("write")]
    assert written == [
        "/opt/vmctl/m/a.py",
        "/opt/vmctl/m/__pycache__/a.cpython-311.pyc",
        "/opt/vmctl/n",
    ]
    assert 'sif "/opt/vmctl/n" mode 0100644' in lines
    compiled = tmp_path / "0.pyc"
    # Flag 1: by digest, never compared with the source.
    assert compiled.read_bytes()[4:8] == b"\x01\0\0\0"


def test_an_edit_changes_the_image_and_not_its_system(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = ("debian-12-min", "lab-host")
    before = recipes.fingerprint("lab-host"), recipes.system_fingerprint(layers)
    own = recipes.own_sources()
    monkeypatch.setattr(recipes, "own_sources", lambda: [*own, ("new.py", b"")])
    assert recipes.fingerprint("lab-host") != before[0]
    assert recipes.system_fingerprint(layers) == before[1]
    assert recipes.fingerprint("tiny") == recipes.fingerprint("tiny")
