"""Provision steps in a real guest: in order, once, kept, resumed; failures are the guest's."""

from __future__ import annotations

import json
import pathlib
import signal
import stat
import time

import pytest

from tests.vm.conftest import PATIENCE, Site

pytestmark = pytest.mark.vm

SECRET = "s3cret value with 'quotes'\n and lines"


class Provisioned:
    """A tiny machine and the steps of its spec."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.name = site.name("steps")
        self.path = site.specs / f"{self.name}.yaml"

    def write(self, *steps: dict[str, object]) -> None:
        data = {
            "name": self.name,
            "project": self.name,
            "image": "tiny",
            "memory": "128MiB",
            "accel": "tcg",
            "devices": "virtio",
            "provision": list(steps),
        }
        self.path.write_text(json.dumps(data))

    def up(self, *options: str, status: int = 0) -> str:
        said = self.site.run("up", *options, str(self.path), status=status)
        return " ".join(said.err.split())

    def inside(self, script: str) -> str:
        return self.site.run("exec", self.name, "--", "sh", "-c", script).out

    @property
    def provisioned(self) -> str:
        status = self.site.status(self.name)
        assert isinstance(status["provisioned"], str)
        return status["provisioned"]

    def log(self, number: int) -> pathlib.Path:
        return self.site.home / "machines" / self.name / f"provision-{number}.log"


@pytest.fixture(scope="module")
def machine(site: Site) -> Provisioned:
    return Provisioned(site)


def note(word: str) -> str:
    """A step's script that leaves a word behind."""
    return f"echo {word} >> /root/done; echo did {word}\n"


def done(machine: Provisioned) -> list[str]:
    return machine.inside("cat /root/done").split()


# The tests below go through the life of one machine, in their order.


def test_steps_run_in_order_before_up_is_done(machine: Provisioned) -> None:
    script = machine.path.with_suffix(".sh")
    script.write_text('#!/bin/sh -eu\necho "$TOKEN" > /root/token; id -un >> /root/done\n')
    machine.write(
        {"script": note("one")},
        {"name": "from a file", "run": f"./{script.name}", "env": {"TOKEN": SECRET}},
        {"script": "echo out; echo err >&2; cat; " + note("three")},
    )
    said = machine.up()
    assert "provision 2/3 from a file" in said
    assert done(machine) == ["one", "root", "three"]
    assert machine.inside("cat /root/token") == f"{SECRET}\n"
    assert machine.provisioned == "yes"


def test_output_is_kept_and_private(machine: Provisioned) -> None:
    assert machine.log(3).read_text() == "out\nerr\ndid three\n"
    for number in (1, 2, 3):
        assert stat.S_IMODE(machine.log(number).stat().st_mode) == 0o600


def test_secrets_are_in_private_files_alone(machine: Provisioned) -> None:
    place = machine.log(1).parent
    for path in place.iterdir():
        if b"s3cret" in path.read_bytes():
            assert path.name in ("spec.yaml", "payload.json")
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for words in (("status", machine.name, "--json"), ("render", str(machine.path))):
        assert "s3cret" not in machine.site.run(*words).out


def test_up_again_carries_out_nothing(machine: Provisioned) -> None:
    assert "provision" not in machine.up()
    assert done(machine) == ["one", "root", "three"]


def test_a_changed_step_is_told_and_left(machine: Provisioned) -> None:
    machine.write({"script": note("one")}, {"script": note("two")}, {"script": note("three")})
    said = machine.up()
    assert "provision step 'step 2' is not the one that ran" in said
    assert "vmctl up --provision" in said
    assert done(machine) == ["one", "root", "three"]


def test_provision_carries_out_all_again(machine: Provisioned) -> None:
    machine.up("--provision")
    assert done(machine) == ["one", "root", "three", "one", "two", "three"]
    assert "is not the one that ran" not in machine.up()


def test_a_failure_says_which_and_shows_the_end(machine: Provisioned) -> None:
    lines = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do echo line $i; done"
    machine.write(
        {"script": "rm /root/done\n" + note("one")},
        {"name": "breaks", "script": f"{lines}\nexit 3\n"},
        {"script": note("three")},
    )
    said = machine.up("--provision", status=8)
    assert f"Provision step 'breaks' of machine '{machine.name}' failed with status 3." in said
    assert "line 20" in said
    assert "line 4 " not in said
    assert str(machine.log(2)) in said
    assert done(machine) == ["one"]
    assert machine.provisioned == "failed"


def test_it_goes_on_with_the_one_that_failed(machine: Provisioned) -> None:
    machine.write(
        {"script": "rm /root/done\n" + note("one")},
        {"name": "mended", "script": note("two")},
        {"script": note("three")},
    )
    said = machine.up()
    assert "provision 1/3" not in said
    assert done(machine) == ["one", "two", "three"]
    assert machine.provisioned == "yes"


def test_a_step_that_takes_too_long_is_ended(machine: Provisioned) -> None:
    machine.write(
        {"name": "waits", "timeout": "300ms", "script": "echo $$ > /root/pid; sleep 1000; true\n"}
    )
    said = machine.up("--provision", status=6)
    assert "'waits'" in said
    assert "did not end within 3 s" in said
    gone = (
        "for i in 1 2 3 4 5 6 7 8 9 10; do [ -e /proc/$(cat /root/pid) ] || exit 0; sleep 1; done"
    )
    machine.inside(f"{gone}; exit 1")


def test_a_killed_vmctl_takes_its_step_along_and_is_put_right(machine: Provisioned) -> None:
    slow = "rm -f /root/done; echo $$ > /root/slow; until [ -e /root/go ]; do sleep 0.2; done\n"
    machine.write({"script": note("one")}, {"script": slow + note("two")})
    process = machine.site.start("up", "--provision", str(machine.path))
    machine.inside("until [ -s /root/slow ]; do sleep 0.1; done")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    machine.inside("while [ -e /proc/$(cat /root/slow) ]; do sleep 0.2; done; touch /root/go")
    assert machine.provisioned == "failed"
    assert "provision 1/2" not in machine.up()
    assert done(machine) == ["two"]
    assert machine.provisioned == "yes"


def test_an_interruption_leaves_the_rest_for_later(machine: Provisioned) -> None:
    machine.write({"script": "rm /root/go /root/slow\n"}, {"script": "echo here\nsleep 1000\n"})
    process = machine.site.start("up", "--provision", str(machine.path))
    end = time.monotonic() + PATIENCE
    while b"here" not in (machine.log(2).read_bytes() if machine.log(2).exists() else b""):
        assert time.monotonic() < end
        time.sleep(0.05)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert time.monotonic() - begun < PATIENCE / 4
    assert machine.provisioned == "failed"


def test_two_at_once_do_not_mix(machine: Provisioned) -> None:
    machine.write({"script": "echo here\nsleep 2\n" + note("once")})
    first = machine.site.start("up", "--provision", str(machine.path))
    end = time.monotonic() + PATIENCE
    while not machine.log(1).exists() or b"here" not in machine.log(1).read_bytes():
        assert time.monotonic() < end
        time.sleep(0.05)
    assert "is being worked on by another vmctl" in machine.up("--provision", status=4)
    assert first.communicate(timeout=PATIENCE)
    assert first.returncode == 0


def test_a_daemon_does_not_hold_it_up(machine: Provisioned) -> None:
    """A server that a step leaves behind keeps the step's output open."""
    machine.write({"script": "setsid sleep 1000 & echo started\n"})
    begun = time.monotonic()
    machine.up("--provision")
    assert time.monotonic() - begun < PATIENCE / 2
    assert machine.log(1).read_text() == "started\n"


def test_status_255_is_the_steps_own(machine: Provisioned) -> None:
    machine.write({"name": "odd", "script": "exit 255\n"})
    assert "'odd'" in machine.up("--provision", status=8)


def test_a_guest_that_goes_away_is_told(machine: Provisioned) -> None:
    machine.write({"name": "leaves", "script": "echo bye; poweroff; sleep 100\n"})
    said = machine.up("--provision", status=8)
    assert f"Machine '{machine.name}' broke the ssh connection" in said


def test_a_guest_in_memory_begins_anew(machine: Provisioned) -> None:
    """All that the steps did is gone with the run; `start` carries out none, `up` does."""
    machine.write({"script": note("one")})
    machine.site.run("stop", "--force", machine.name)
    machine.site.run("start", machine.name)
    assert machine.provisioned == "no"
    machine.up("--no-provision")
    assert machine.provisioned == "no"
    machine.up()
    assert done(machine) == ["one"]
    assert machine.provisioned == "yes"


def test_options_that_exclude_each_other(machine: Provisioned) -> None:
    assert "exclude" in machine.up("--provision", "--no-provision", status=2)
    assert "--no-wait" in machine.up("--provision", "--no-wait", status=2)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"run": "./none.sh"}, "there is no file"),
        ({"run": "/etc/passwd"}, "outside"),
        ({"name": "nothing"}, "neither 'run' nor 'script'"),
    ],
)
def test_refused_before_anything_is_made(site: Site, step: dict[str, object], words: str) -> None:
    other = Provisioned(site)
    other.write(step)
    assert words in other.up(status=2)
    assert not other.log(1).parent.exists()
