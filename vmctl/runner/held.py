"""A machine that a program of Python's holds for as long as it needs one: commands and copies."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence

from vmctl import errors
from vmctl.guest import console_log, ssh
from vmctl.guest.remote import Streams
from vmctl.guest.ssh import Access
from vmctl.hypervisor import connection as connections
from vmctl.lifecycle.steps import Site
from vmctl.runner import berth, cold, wanted
from vmctl.runner.job import Copy, Guard, Job, Outcome, carry_out
from vmctl.runner.timings import Timings
from vmctl.runner.wanted import Wanted
from vmctl.store import home, records
from vmctl.store.layout import Layout


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """How a command ended; text that is not UTF-8 is shown with backslashes.

    `status` is 124 where its timeout ended it, 128 + n where signal n did.
    """

    status: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        """True where it ended with status 0."""
        return self.status == 0


class Held:
    """A running machine; made by `machine` and `of_pool`.

    Its console belongs to whoever holds it from the byte `since` on.
    """

    def __init__(
        self, layout: Layout, name: str, way: Access, guard: Guard, *, since: int = 0
    ) -> None:
        place = layout.machine(name)
        record = records.read(place)
        self.name = name
        self.mode = record.mode if record is not None else ""
        self.image = record.image if record is not None else ""
        self._log = place.console_log
        self._since = since
        self._way = way
        self._guard = guard

    def run(
        self,
        command: str | Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        workdir: str = "",
        user: str = "",
        timeout: float | None = None,
        check: bool = False,
    ) -> Result:
        """Run a command to its end; a text is read by the guest's sh, words are taken as they are.

        `timeout` in seconds. Raises VmctlError where the machine failed and not the command;
        GuestError for a status other than 0 where `check` is on.
        """
        words = ("sh", "-c", command) if isinstance(command, str) else tuple(command)
        out, err = bytearray(), bytearray()
        job = Job(argv=words, env=env or {}, workdir=workdir, user=user, timeout=timeout)
        outcome = self._carry_out(job, Streams(stdin=None, stdout=out.extend, stderr=err.extend))
        result = Result(outcome.status, _text(out), _text(err))
        if check and not result.ok:
            raise errors.GuestError(
                f"The command ended with status {result.status} in machine '{self.name}'.",
                details=result.stderr or result.stdout,
            )
        return result

    def copy_in(self, source: str | pathlib.Path, target: str) -> None:
        """Copy a file or a directory of this host into the machine, as `vmctl cp` does."""
        self._copy(copies_in=(Copy(str(source), target),))

    def copy_out(self, source: str, target: str | pathlib.Path) -> None:
        """Copy a file or a directory of the machine to this host, as `vmctl cp` does."""
        self._copy(copies_out=(Copy(source, str(target)),))

    def _copy(self, *, copies_in: tuple[Copy, ...] = (), copies_out: tuple[Copy, ...] = ()) -> None:
        job = Job(argv=("true",), copies_in=copies_in, copies_out=copies_out)
        job.require_sources()
        self._carry_out(job, Streams(stdin=None, stdout=_nowhere, stderr=_nowhere))

    def _carry_out(self, job: Job, streams: Streams) -> Outcome:
        outcome = carry_out(self._way, job, streams, guard=self._guard)
        if outcome.failed and outcome.problem is not None:
            raise outcome.problem
        return outcome

    @property
    def console_log(self) -> pathlib.Path:
        """The file with what the guest wrote to its serial port; gone with the machine."""
        return self._log

    def console(self, lines: int = 100) -> str:
        """Return the end of what the guest wrote to its serial port."""
        return console_log.last_lines(self._log, lines, since=self._since)


def _text(data: bytearray) -> str:
    return data.decode("utf-8", "backslashreplace")


def _nowhere(_data: bytes) -> None:
    """Take what is of no interest."""


@contextlib.contextmanager
def machine(
    what: str, settings: Mapping[str, str | int | bool | None], *, uri: str | None = None
) -> Iterator[Held]:
    """Have a fresh machine of an image or a spec for the length of the block.

    It dies with this process, however that ends. `settings` are laid over the spec, as by `--set`.
    Raises what `wanted.find` and `cold.reach` raise.
    """
    layout = Layout.default()
    home.opened(layout)
    asked = Wanted(what=what, sets=tuple(wanted.sets(settings)), allow_outside=True)
    quiet, clock = cold.quietly(what), Timings()
    with contextlib.ExitStack() as stack:
        site = Site(stack.enter_context(connections.opened(uri, layout)), layout)
        berth.clear(site, quiet)
        name = stack.enter_context(berth.held(site, quiet))
        found = wanted.find(asked, site, name, quiet)
        stack.callback(cold.remove, site, name)
        cold.start(site, found, quiet, clock)
        way = cold.reach(site, found.machine, quiet, clock)
        stack.callback(ssh.disconnect, way)
        yield Held(layout, name, way, cold.guard(site, found.machine))


@contextlib.contextmanager
def of_pool(name: str) -> Iterator[Held]:
    """Have a warm machine of a pool for the length of the block; it is reset afterwards.

    Raises what `pool_client.claimed` raises.
    """
    from vmctl.runner.pooling import pool_client

    with pool_client.claimed(name) as claim:
        try:
            yield Held(Layout.default(), claim.machine, claim.access, claim, since=claim.offset)
        finally:
            ssh.disconnect(claim.access)
