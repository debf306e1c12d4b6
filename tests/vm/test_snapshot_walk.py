"""A long walk over snapshots, against a simple model of what a guest must hold."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
from collections.abc import Iterator

import hypothesis
import libvirt
import pytest
from hypothesis import stateful
from hypothesis import strategies as st

from tests.vm.conftest import Site
from tests.vm.test_clone import content
from tests.vm.test_snapshots import Guest, boot, check, digest

pytestmark = [pytest.mark.long, pytest.mark.vm, pytest.mark.timeout(1500)]

NAMES = st.sampled_from(["a", "b", "c"])
_PIDS = pathlib.Path("/run/libvirt/qemu")


@pytest.fixture(scope="module")
def guest(site: Site, libvirt_daemon: str) -> Iterator[Guest]:
    connection = libvirt.open(libvirt_daemon)
    path, guest = boot(site, connection)
    yield guest
    site.run("down", "-y", path)
    connection.close()


class Walk(stateful.RuleBasedStateMachine):
    """`now` is what disk and memory hold, `kept` what each snapshot does."""

    guest: Guest
    scratch: pathlib.Path

    def __init__(self) -> None:
        super().__init__()
        self.guest.site.run("start", self.guest.name)
        self.guest.write("0")
        self.now: tuple[str, str] = ("0", "0")
        self.running = True
        self.kept: dict[str, tuple[tuple[str, str], bool]] = {}
        self.number = 0

    @stateful.precondition(lambda self: self.running)
    @stateful.rule()
    def write(self) -> None:
        self.number += 1
        self.guest.write(str(self.number))
        self.now = (str(self.number), str(self.number))

    @stateful.rule(name=NAMES, disks=st.booleans())
    def create(self, name: str, disks: bool) -> None:
        known = name in self.kept
        how = ["--disks"] if disks else []
        self.guest.snapshot("create", *how, self.guest.name, name, status=4 if known else 0)
        if not known:
            memory = self.running and not disks
            held = (self.now[0], self.now[1] if memory else "")
            self.kept[name] = (held, self.running)

    @stateful.rule(name=NAMES)
    def restore(self, name: str) -> None:
        known = name in self.kept
        words = ("restore", "-y", "--no-safety", self.guest.name, name)
        self.guest.snapshot(*words, status=0 if known else 3)
        if known:
            self.now, self.running = self.kept[name]

    @stateful.rule(name=NAMES)
    def delete(self, name: str) -> None:
        known = self.kept.pop(name, None)
        self.guest.snapshot("delete", "-y", self.guest.name, name, status=0 if known else 3)

    @stateful.rule(how=st.sampled_from(["stop", "force", "kill"]))
    def end(self, how: str) -> None:
        if how == "kill" and self.running:
            os.kill(int((_PIDS / f"{self.guest.name}.pid").read_text()), signal.SIGKILL)
            while self.guest.domain.isActive():
                pass
        else:
            self.guest.site.run("stop", *(["--force"] if how == "force" else []), self.guest.name)
        self.now, self.running = (self.now[0], ""), False

    @stateful.rule()
    def start(self) -> None:
        self.guest.site.run("start", self.guest.name)
        self.running = True

    @stateful.precondition(lambda self: not self.running)
    @stateful.rule(name=st.none() | NAMES)
    def clone(self, name: str | None) -> None:
        """What a copy holds is what the disk held then; the machine itself does not change."""
        site, copy, held = self.guest.site, self.guest.site.name("c"), digest(self.guest.disk)
        known = name is None or name in self.kept
        how = ["--snapshot", name] if name else []
        site.run("clone", *how, self.guest.name, copy, status=0 if known else 3)
        assert digest(self.guest.disk) == held
        if known:
            disk = self.kept[name][0][0] if name else self.now[0]
            assert content(site, copy, self.scratch) == f"{disk}\n"
            site.run("down", "-y", copy)

    @stateful.invariant()
    def holds(self) -> None:
        assert sorted(self.guest.names()) == sorted(self.kept)
        assert self.guest.domain.isActive() == self.running
        if self.running:
            assert self.guest.read() == self.now

    def teardown(self) -> None:
        for name in self.guest.names():
            self.guest.snapshot("delete", "-y", self.guest.name, name)
        with contextlib.suppress(libvirt.libvirtError):
            self.guest.domain.destroy()
        # A killed QEMU may have lost clusters; nothing else may be wrong.
        self.guest.snapshot("create", self.guest.name, "end")
        self.guest.snapshot("delete", "-y", self.guest.name, "end")
        check(self.guest.disk)


@pytest.mark.parametrize(
    "count", [pytest.param(40, id="short"), pytest.param(200, id="soak", marks=pytest.mark.soak)]
)
def test_walk(guest: Guest, count: int, tmp_path: pathlib.Path) -> None:
    settings = hypothesis.settings(
        # The first example is always the simplest one: nearly nothing.
        max_examples=2,
        stateful_step_count=count,
        deadline=None,
        derandomize=count < 100,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
        print_blob=True,
    )
    Walk.guest, Walk.scratch = guest, tmp_path
    stateful.run_state_machine_as_test(Walk, settings=settings)
