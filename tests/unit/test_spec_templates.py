"""The specs that come with vmctl are short, say what they show, and are valid."""

import pytest

from vmctl import shipped
from vmctl.spec import load, starter

TEMPLATES = sorted(shipped.directory("templates").glob("*.yaml"))


def test_there_are_templates():
    assert {"hello", "full", "hardware", "paravirt"} <= {path.stem for path in TEMPLATES}


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_template_is_short_and_valid(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    assert lines[0].endswith(".")
    assert len(lines) < 25
    machines = load.load(path).machines
    images = {machine.image.name for machine in machines if machine.image}
    others = {"installer": set(), "debian": {"debian-12-min"}, "lab-host": {"lab-host"}}
    assert images == others.get(path.stem, {"tiny"})


def test_the_names_of_all_templates_differ():
    names = [machine.name for path in TEMPLATES for machine in load.load(path).machines]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("commented", [False, True])
def test_the_starter_is_valid(tmp_path, commented):
    text = starter.text("web")
    if commented:  # what it offers in comments can be switched on
        text = text.replace("# forwards:", "forwards:").replace("#   - {host", "  - {host")
        text = text.replace("# disks:", "disks:").replace("#   - {name", "  - {name")
        text = text.replace("# user:", "user:").replace("# cloud_init:", "cloud_init:")
        text = text.replace("#   packages", "  packages")
        text = text.replace("# provision:", "provision:").replace("#   - {run", "  - {run")
    path = tmp_path / "vmctl.yaml"
    path.write_text(text)
    (machine,) = load.load(path).machines
    assert machine.name == "web"
    assert len(machine.disks) == len(machine.forwards) == int(commented)
