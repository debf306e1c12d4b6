"""A Debian guest with mounts and provision steps: cloud-init, sudo, fstab, restarts."""

from __future__ import annotations

import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import pytest

from tests.vm.conftest import Site

pytestmark = pytest.mark.vm

SPEC = """\
name: {name}
project: {name}
image: {image}
boot: kernel
accel: tcg
devices: virtio
memory: 512MiB
user: dev
cloud_init:
  runcmd:
    - [sh, -c, "cat /src/hello > /var/tmp/runcmd-saw"]
mounts:
  - {{host: ./src, guest: /src}}
  - {{host: "./out dir", guest: "/srv/out dir", writable: true}}
provision:
  - {{script: "id -un; pwd; cp /src/hello '/srv/out dir/copy'"}}
  - {{user: dev, env: {{TOKEN: "a b"}}, script: 'id -un; pwd; echo "[$TOKEN]"'}}
  - {{name: python, script: "#!/usr/bin/env python3\\nimport os\\nprint(os.getuid())\\n"}}
"""


class Machine:
    """The machine, and the directory that its spec and what it shares lie in."""

    def __init__(self, site: Site, place: pathlib.Path, image: str) -> None:
        self.site = site
        self.place = place
        self.name = site.name("share")
        self.spec = place / "vmctl.yaml"
        self.spec.write_text(SPEC.format(name=self.name, image=image))

    def inside(self, script: str) -> str:
        return self.site.run("exec", self.name, "--", "sh", "-c", script).out

    def log(self, number: int) -> str:
        path = self.site.home / "machines" / self.name / f"provision-{number}.log"
        return path.read_text()


@pytest.fixture(scope="module")
def machine(site: Site, debian: str) -> Iterator[Machine]:
    place = pathlib.Path(tempfile.mkdtemp(prefix="vmctl-share-", dir="/var/tmp"))
    place.chmod(0o755)
    (place / "src").mkdir()
    (place / "out dir").mkdir()
    (place / "src" / "hello").write_text("hello\n")
    made = Machine(site, place, debian)
    site.run("up", str(made.spec))
    yield made
    site.run("down", "-y", made.name)
    shutil.rmtree(place)


# The tests below go through the life of one machine, in their order.


def test_steps_run_as_root_and_as_the_user(machine: Machine) -> None:
    assert machine.log(1) == "root\n/root\n"
    assert machine.log(2) == "dev\n/home/dev\n[a b]\n"
    assert machine.log(3) == "0\n"
    copy = machine.place / "out dir" / "copy"
    assert copy.read_text() == "hello\n"
    assert copy.stat().st_uid == 0
    assert machine.site.status(machine.name)["provisioned"] == "yes"


def test_cloud_init_has_the_mounts_already(machine: Machine) -> None:
    assert machine.inside("cat /var/tmp/runcmd-saw") == "hello\n"


def test_fstab_has_them_once(machine: Machine) -> None:
    lines = machine.inside("cat /etc/fstab").splitlines()
    assert [line for line in lines if line.startswith("#")][-2:] == [
        "# vmctl: mounts",
        "# vmctl: end",
    ]
    assert sum(line.startswith("vmctl-") for line in lines) == 2


def test_a_restart_keeps_what_is_left_and_drops_what_went(machine: Machine) -> None:
    lines = machine.spec.read_text().splitlines(keepends=True)
    machine.spec.write_text("".join(line for line in lines if '"./out dir"' not in line))
    changed = machine.site.run("up", str(machine.spec)).err
    assert "mounts[/srv/out dir]" in changed
    assert "image:" not in changed
    machine.site.run("restart", machine.name)
    said = machine.inside("grep ^vmctl- /proc/mounts; echo; grep ^vmctl- /etc/fstab")
    mounted, _, written = said.partition("\n\n")
    assert [line.split()[1] for line in mounted.splitlines()] == ["/src"]
    assert [line.split()[1] for line in written.splitlines()] == ["/src"]
    # By fstab, in the guest's own start: vmctl found it done.
    assert machine.inside("systemctl is-active src.mount") == "active\n"
    assert machine.site.status(machine.name)["provisioned"] == "yes"
