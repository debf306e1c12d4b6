"""Runs a command in a machine, by the way that leads in."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.guest import remote
from vmctl.guest.remote import Streams
from vmctl.guest.session import NotBegunError
from vmctl.guest.shell import Request
from vmctl.lifecycle import remembered
from vmctl.store.layout import Layout

if TYPE_CHECKING:
    from vmctl.hypervisor.connection import Connection


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """The way: `timeout` in seconds, `terminal` gives the command one, `agent` wants the agent."""

    uri: str | None = None
    timeout: float | None = None
    terminal: bool = False
    agent: bool = False


def run(name: str, request: Request, how: How, streams: Streams) -> int:
    """Run a command in a machine and return its status.

    Over ssh; through the guest agent where that is asked for, or where there is no network. Raises
    CommandTimeoutError, and the errors of `access.find` and `remote.run`.
    """
    deadline = Deadline.after(how.timeout) if how.timeout is not None else None
    layout = Layout.default()
    known = None if how.agent else remembered.access(layout, name, how.uri)
    if known is not None:
        with contextlib.suppress(NotBegunError):
            return remote.run_shared(
                known, request, streams, timeout=deadline, terminal=how.terminal
            )
    # Dear to import, and often not needed.
    from vmctl.hypervisor import connection as connections
    from vmctl.lifecycle import access as accesses

    with connections.opened(how.uri, layout) as connection:
        _, machine = accesses.running(connection, layout, name)
        if how.agent or accesses.without_network(machine):
            return _through_agent(connection, name, request, how, streams, deadline)
        access = accesses.find(connection, layout, name)
    # Libvirt is not needed any more, and the command may run for days.
    return remote.run(access, request, streams, timeout=deadline, terminal=how.terminal)


def _through_agent(
    connection: Connection,
    name: str,
    request: Request,
    how: How,
    streams: Streams,
    deadline: Deadline | None,
) -> int:
    from vmctl.guest import agent

    if how.terminal:
        raise errors.UsageError(
            "The guest agent gives a command no terminal.",
            hint=f"Leave -t out, or use the console: vmctl console {name}",
        )
    return agent.run(connection, name, request, streams, timeout=deadline)
