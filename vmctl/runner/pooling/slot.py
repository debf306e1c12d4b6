"""Works on the machines behind the slots of a pool: makes them, resets them, makes them fresh.

Every method opens its own connection to libvirt, whose daemon may be started anew meanwhile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from vmctl import errors, interruption
from vmctl.deadline import Deadline
from vmctl.guest import script, ssh
from vmctl.guest.ssh import Access
from vmctl.hypervisor import connection as connections
from vmctl.hypervisor import domains
from vmctl.lifecycle import (
    access as accesses,
)
from vmctl.lifecycle import (
    execute,
    first_boot,
    observe,
    removal,
    restore,
    schedule,
    settle,
    snapshots,
    steps,
    taking,
)
from vmctl.lifecycle.events import Event, Step
from vmctl.lifecycle.schedule import Worker
from vmctl.lifecycle.steps import Site
from vmctl.machine.observed import Observed
from vmctl.machine.state import State
from vmctl.runner.pooling import fresh, reseed, template
from vmctl.runner.pooling.pool import Pool
from vmctl.runner.pooling.ready import Ready, stamp
from vmctl.runner.pooling.template import Template
from vmctl.store import files, records
from vmctl.store import snapshots as trees
from vmctl.store.layout import Layout
from vmctl.store.snapshots import Kind

WARM = "warm"
"""The name of the snapshot that jobs begin from."""

_GUEST_SECONDS = 30.0
_SETTLE_SECONDS = 0.5
"""How long the guest has for the end of our login before its memory is kept."""

_TEMPLATE_SECONDS = 60.0
"""How long a spec that was resolved counts, unless its file changed."""


class ForeignError(errors.ConflictError):
    """The machine behind a slot's name is not the pool's; nothing is done to it."""

    def __init__(self, pool: Pool, machine: str) -> None:
        super().__init__(
            f"There is a machine '{machine}' already, which is not of pool '{pool.name}'.",
            hint=f"Choose another name for the pool, or remove that machine: vmctl down {machine}; "
            f"one that vmctl did not make, or let go of: virsh undefine {machine}",
        )
        self.machine = machine


def owns(
    pool: Pool, observed: Observed, record: records.Record | None, intent: Mapping[str, Any]
) -> bool:
    """Tell whether a machine was made for a pool, and not by others under the same name.

    The project alone does not tell: that of a spec is by default the name of its directory.
    """
    current = observed.current
    if current is not None and not (current.owned and current.machine.project == pool.name):
        return False
    if record is not None:
        made_from = (record.project, record.spec) == (pool.name, os.path.abspath(pool.spec))
        return made_from and not record.adopted
    # Killed while it was half made, or half removed. A pool's machines keep no disks.
    return intent.get("verb") in ("up", "down") and not intent.get("keep")


class Workshop:
    """Works on the slots of one pool; `say` is told what is being done, by the slot's number."""

    def __init__(self, layout: Layout, pool: Pool, say: Callable[[int, str], None]) -> None:
        self._layout = layout
        self._place = layout.pool(pool.name)
        self._say = say
        self._crew = schedule.Crew()
        self._known: dict[int, tuple[float, tuple[int, int], Template, str]] = {}
        self.pool = pool

    def stop(self) -> None:
        """Have what is under way end soon."""
        self._crew.cancelled.set()

    @contextlib.contextmanager
    def _working(self, number: int) -> Iterator[tuple[Site, Worker]]:
        def say(event: Event) -> None:
            if isinstance(event, Step):
                self._say(number, event.step)

        worker = Worker(self.pool.machine(number), say, self._crew)
        with (
            connections.opened(self.pool.uri, self._layout) as connection,
            interruption.asked(self._crew.cancelled.is_set),
        ):
            yield Site(connection, self._layout), worker

    def adopt(self, number: int) -> Ready | None:
        """Return a slot that an earlier supervisor left ready, if it still is; else None."""
        with self._working(number) as (site, _worker):
            try:
                data = files.read_json(self._place.slot(number)) or {}
                ready = Ready.from_dict(data)
            except (KeyError, TypeError):
                return None
            _, key = self._template(site, number)
            observed = observe.observe(site.connection, self._layout, ready.machine)
            if ready.key != key or observed.state is not State.RUNNING or observed.intent:
                return None
            if not self._owns(observed) or not ready.untouched(self._layout):
                return None
            ssh.connect(ready.access, self._deadline(ready.access))
            return ready

    def renew(self, number: int) -> Ready:
        """Give a slot a guest that no job has seen: from its saved memory, else made anew."""
        with self._working(number) as (site, worker):
            self._forget(number)
            wanted, key = self._template(site, number)
            if not self._returned(site, number, wanted, key, worker):
                wanted, key = self._built(site, number, worker)
            return self._made_fresh(site, number, key, worker)

    def remove(self, number: int) -> str:
        """Remove a slot with its machine; what is not the pool's own is left alone.

        Returns why the machine under its name stays; nothing where it does not.
        """
        stays = ""
        with self._working(number) as (site, worker):
            self._forget(number)
            if self._place.lease(number).exists():
                try:
                    self._take_away(site, number, worker)
                except ForeignError as problem:
                    stays = f"Machine '{problem.machine}' stays: it is not of pool "
                    stays += f"'{self.pool.name}', or not any more."
                files.remove(self._place.lease(number))
        return stays

    def rest(self, number: int) -> None:
        """Pull the plug of a slot's guest; its saved state stays."""
        with self._working(number) as (site, _worker):
            self._forget(number)
            with execute.locked(site, self.pool.machine(number)) as observed:
                if observed.state.active:
                    domains.force_off(domains.get(site.connection, observed.name))

    def _forget(self, number: int) -> None:
        """Say that a slot is not ready, and end what the last job left open."""
        path = self._place.slot(number)
        data = files.read_json(path)
        files.remove(path)
        with contextlib.suppress(KeyError, TypeError):
            ssh.disconnect(Ready.from_dict(data or {}).access)

    def _template(self, site: Site, number: int) -> tuple[Template, str]:
        """Return what a slot is made from and the key of its state; looked up now and then."""
        found = os.stat(self.pool.spec) if os.path.exists(self.pool.spec) else None
        stamp = (found.st_mtime_ns, found.st_size) if found else (0, 0)
        known = self._known.get(number)
        now = time.monotonic()
        if known is not None and known[1] == stamp and now - known[0] < _TEMPLATE_SECONDS:
            return known[2], known[3]
        wanted = template.of(self.pool, number)
        key = template.key(wanted.machine, site.connection)
        self._known[number] = (now, stamp, wanted, key)
        return wanted, key

    def _returned(
        self, site: Site, number: int, wanted: Template, key: str, worker: Worker
    ) -> bool:
        """Put a slot's machine back to its saved state; False where it must be made anew."""
        name = wanted.machine.name
        kept = trees.read(self._layout.machine(name)).find(WARM)
        if not wanted.warm or kept is None or kept.comment != _comment(key):
            return False
        try:
            with execute.locked(site, name) as observed:
                # Under the lock: others may have removed it.
                snapshots.require(observed)
                if self._in_place(site, observed):
                    with worker.step("reset"):
                        self._load(site, observed)
                    return True
            asked = snapshots.Request(names=[name], snapshot=WARM, uri=site.connection.uri)
            for event in restore.restore(dataclasses.replace(asked, safety=False)):
                if isinstance(event, Step):
                    self._say(number, event.step)
        except errors.InterruptError:
            raise
        except errors.VmctlError:
            # Whatever it was: what is made anew is whole.
            return False
        return True

    def _in_place(self, site: Site, observed: Observed) -> bool:
        """Tell whether the QEMU that runs can take the memory back."""
        place = self._layout.machine(observed.name)
        detail = trees.read_detail(place, WARM)
        return (
            detail is not None
            and observed.state in (State.RUNNING, State.PAUSED)
            and observed.intent in ("", settle.RESTORE)
            and taking.hardware(site, observed.name) == detail.hardware
        )

    def _load(self, site: Site, observed: Observed) -> None:
        """Load memory and disks into the running QEMU. Half of a memory never runs."""
        machine = taking.machine_of(observed)
        place = self._layout.machine(observed.name)
        domain = domains.get(site.connection, observed.name)
        records.begin(place, settle.RESTORE, snapshot=WARM)
        if observed.state is State.RUNNING:
            domains.pause(domain)
        try:
            taking.load(site, machine, WARM)
        except errors.VmctlError:
            with contextlib.suppress(errors.VmctlError):
                domains.force_off(domain)
            raise
        first_boot.before_start(self._layout, machine)
        steps.forward(site, machine)
        domains.resume(domain)
        records.finish(place)

    def _built(self, site: Site, number: int, worker: Worker) -> tuple[Template, str]:
        """Make a slot's machine, boot it until it is ready, and keep that state."""
        wanted = template.of(self.pool, number)
        self._own(site, number, wanted)
        self._take_away(site, number, worker)
        if wanted.image is not None and not (wanted.machine.image and wanted.machine.image.present):
            with worker.step("image", patient=True) as progress:
                steps.build_image(site, wanted.image, progress)
            wanted = template.of(self.pool, number)
        # The spec may have changed since the pool was made.
        template.require_within_limit(self.pool, wanted.machine, self.pool.slots)
        template.require_room(self.pool, wanted.machine, 1)
        machine = wanted.machine
        execute.bring_up(site, machine, (wanted.path, wanted.text), worker)
        access = accesses.find(site.connection, self._layout, machine.name)
        ssh.connect(access, self._deadline(access))
        if machine.nested:
            self._refuse_nested(access)
        ssh.disconnect(access)
        key = template.key(machine, site.connection)
        if wanted.warm:
            Deadline.after(_SETTLE_SECONDS * access.patience / 2).pause(_SETTLE_SECONDS)
            asked = snapshots.Request(
                names=[machine.name], snapshot=WARM, wish=Kind.MEMORY, comment=_comment(key)
            )
            with execute.locked(site, machine.name) as observed:
                snapshots.take_one(site, snapshots.require(observed), asked, worker)
        self._known.pop(number, None)
        return wanted, key

    def _own(self, site: Site, number: int, wanted: Template) -> None:
        """Claim a slot's name for the pool; raises ForeignError where others have it."""
        lease = self._place.lease(number)
        if lease.exists():
            return
        seen = observe.observe(site.connection, self._layout, wanted.machine.name)
        if seen.exists or seen.files:
            raise ForeignError(self.pool, seen.name)
        files.write(lease, b"")

    def _take_away(self, site: Site, number: int, worker: Worker) -> None:
        """Remove a slot's machine; raises ForeignError where it is not the pool's."""
        with execute.locked(site, self.pool.machine(number)) as observed:
            if observed.exists or observed.files:
                if not self._owns(observed):
                    raise ForeignError(self.pool, observed.name)
                removal.remove(site, observed, worker)

    def _owns(self, observed: Observed) -> bool:
        place = self._layout.machine(observed.name)
        return owns(self.pool, observed, records.read(place), records.intent(place))

    def _refuse_nested(self, access: Access) -> None:
        if fresh.runs_guests(self._run(access, fresh.NESTED_PROBE)[1]):
            raise errors.RefusedError(
                f"Machine '{access.name}' runs guests of its own already, and their state would be "
                "part of what every job begins with.",
                hint="Have them started by the jobs, not when the machine boots.",
            )

    def _made_fresh(self, site: Site, number: int, key: str, worker: Worker) -> Ready:
        """Give the guest an identity of its own, and log in for the job."""
        name = self.pool.machine(number)
        found = accesses.find(site.connection, self._layout, name)
        generation = uuid.uuid4().hex
        before_all = stamp(self._layout, name)
        # No connection is ever taken for one to another life of the guest.
        before = dataclasses.replace(found, run=f"{found.run}-{generation}-before")
        ssh.connect(before, self._deadline(before))
        identity = fresh.Identity(
            hostname=f"{name}-{generation[:6]}",
            machine_id=uuid.uuid4().hex,
            seed=os.urandom(reseed.SEED_BYTES),
            now=round(time.time()),
        )
        with worker.step("fresh", patient=True):
            status, said = self._run(before, fresh.script(identity))
            ssh.disconnect(before)
            if status != 0:
                raise errors.GuestError(
                    f"The guest of machine '{name}' could not be given an identity of its own: "
                    f"{said.strip() or f'status {status}'}.",
                    hint="Jobs that share random numbers or keys are not safe; see what it lacks: "
                    f"vmctl logs {name}",
                )
            self._pin(name, found, fresh.host_key(said))
            access = dataclasses.replace(found, run=f"{found.run}-{generation}")
            ssh.connect(access, self._deadline(access))
        ready = Ready(machine=name, access=access, generation=generation, key=key, stamp=before_all)
        files.write_json(self._place.slot(number), ready.as_dict())
        return ready

    def _pin(self, name: str, access: Access, key: str) -> None:
        """Have ssh know the guest's new host key; where it told none, none is known any more."""
        line = f"{access.alias} {key}\n" if key else ""
        files.write(self._layout.machine(name).known_hosts, line.encode())

    def _run(self, access: Access, content: bytes) -> tuple[int, str]:
        heard = bytearray()
        status = script.run(
            access,
            script.Script(content=content),
            self._deadline(access),
            heard.extend,
            self._crew.cancelled.is_set,
        )
        return status, heard.decode("utf-8", "replace")

    @staticmethod
    def _deadline(access: Access) -> Deadline:
        return Deadline.after(_GUEST_SECONDS * access.patience)


def _comment(key: str) -> str:
    return f"what jobs of the pool begin with ({key[:16]})"
