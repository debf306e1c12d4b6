"""QEMU's guest agent: a small program in the guest that answers over a virtio channel.

Libvirt sends guest-sync ahead of each command, so that an answer to an older one is never taken for
this one's. Every call has a time limit: an agent that hangs, or a guest that does, is only late.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Sequence
from typing import Any

import libvirt
import libvirt_qemu

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.hypervisor import domains, failures
from vmctl.hypervisor.connection import Connection

PIECE = 48 << 10
"""Bytes of a file for one call. Libvirt carries 4 MiB a message, and an answer of more than 10 MiB
makes it give the agent up until the guest's next start; agents themselves stall at a request of
256 KiB."""

_CALL_SECONDS = 60
_NOT_CONFIGURED = libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED
_NOT_CONNECTED = libvirt.VIR_ERR_AGENT_UNRESPONSIVE


def answers(connection: Connection, name: str, deadline: Deadline) -> bool:
    """Tell whether the agent answers (guest-ping)."""
    try:
        ask(connection, name, "guest-ping", {}, deadline)
    except errors.VmctlError:
        return False
    return True


def start(connection: Connection, name: str, argv: Sequence[str], deadline: Deadline) -> int:
    """Start a program by its path and return its process number; its output is not kept."""
    path, *words = argv
    arguments = {"path": path, "arg": words, "capture-output": False}
    return int(ask(connection, name, "guest-exec", arguments, deadline)["pid"])


def status(connection: Connection, name: str, number: int, deadline: Deadline) -> int | None:
    """Return the status of a program that was started, or None while it runs.

    128 + n stands for signal n. It can be asked once after the end.
    """
    answer = ask(connection, name, "guest-exec-status", {"pid": number}, deadline)
    if not answer.get("exited"):
        return None
    signal = int(answer.get("signal", 0))
    return 128 + signal if signal else int(answer.get("exitcode", 0))


class File:
    """A file of the guest, open through the agent."""

    def __init__(
        self, connection: Connection, name: str, path: str, mode: str, deadline: Deadline
    ) -> None:
        """Open a file; `mode` is that of fopen(3). Raises GuestError where the guest cannot."""
        self._connection = connection
        self._name = name
        arguments = {"path": path, "mode": mode}
        self._handle = ask(connection, name, "guest-file-open", arguments, deadline, plain=True)

    def read(self, deadline: Deadline) -> bytes:
        """Return the next piece, b"" at what is the end now."""
        answer = self._ask("read", {"count": PIECE * 8}, deadline)
        try:
            return base64.b64decode(answer.get("buf-b64", ""), validate=True)
        except (binascii.Error, TypeError, ValueError):
            return b""

    def write(self, data: bytes, deadline: Deadline) -> None:
        """Write all of `data`."""
        while data:
            piece = base64.b64encode(data[:PIECE]).decode()
            written = int(self._ask("write", {"buf-b64": piece}, deadline).get("count", 0))
            if written <= 0:
                raise errors.GuestError(f"The guest of machine '{self._name}' has no room left.")
            data = data[written:]

    def close(self, deadline: Deadline) -> None:
        """Close the file."""
        self._ask("close", {}, deadline)

    def _ask(self, verb: str, more: dict[str, Any], deadline: Deadline) -> dict[str, Any]:
        arguments = {"handle": self._handle, **more}
        found = ask(self._connection, self._name, f"guest-file-{verb}", arguments, deadline)
        return found if isinstance(found, dict) else {}


def ask(
    connection: Connection,
    name: str,
    command: str,
    arguments: dict[str, Any],
    deadline: Deadline,
    *,
    plain: bool = False,
) -> Any:
    """Send the agent a command and return its answer: an object, or, `plain`, a number.

    Raises UsageError for a machine that has no agent channel, ConflictError while nobody is
    connected to it, WaitTimeoutError for no answer, GuestError for a command it refuses.
    """
    domain = domains.get(connection, name)
    text = json.dumps({"execute": command, "arguments": arguments})
    seconds = max(1, min(_CALL_SECONDS, math.ceil(deadline.remaining)))
    try:
        answer = json.loads(libvirt_qemu.qemuAgentCommand(domain, text, seconds, 0))
    except libvirt.libvirtError as problem:
        raise _failure(name, command, seconds, problem) from None
    except ValueError:
        answer = {}
    found = answer.get("return") if isinstance(answer, dict) else None
    if not isinstance(found, int if plain else dict):
        raise errors.GuestError(f"The guest agent of machine '{name}' answered {command} oddly.")
    return found


def _failure(
    name: str, command: str, seconds: int, problem: libvirt.libvirtError
) -> errors.VmctlError:
    text = failures.first_line(str(problem.get_error_message() or problem))
    number = failures.code(problem)
    if number == _NOT_CONFIGURED:
        return errors.UsageError(
            f"Machine '{name}' has no guest agent: modes full and hardware have no channel for "
            "one, nor have images without it.",
            hint=f"Use ssh: vmctl exec {name} -- COMMAND; or the console: vmctl console {name}",
        )
    if number == _NOT_CONNECTED and "not connected" in text:
        return errors.ConflictError(
            f"The guest agent of machine '{name}' is not connected: the guest is still booting, or "
            "qemu-guest-agent does not run in it.",
            hint=f"Wait until it is ready: vmctl wait {name}; or use ssh: vmctl exec {name} -- "
            "systemctl start qemu-guest-agent",
        )
    if number == _NOT_CONNECTED:
        return errors.WaitTimeoutError(
            f"The guest agent of machine '{name}' did not answer {command} within {seconds} s: "
            f"{text}.",
            hint=f"Look inside: vmctl console {name}; the agent may have to be started anew there.",
        )
    if any(mark in text for mark in ("disabled", "blocked", "has not been found")):
        return errors.GuestError(
            f"The guest agent of machine '{name}' does not allow {command}: {text}.",
            hint="RHEL and its kin block it: take it out of BLACKLIST_RPC or FILTER_RPC_ARGS in "
            "the guest's /etc/sysconfig/qemu-ga and restart qemu-guest-agent there; or use ssh.",
        )
    if command.startswith("guest-file") or command == "guest-exec":
        return errors.GuestError(f"The guest agent of machine '{name}' failed: {text}.")
    return failures.translate(problem, f"ask the guest agent of machine '{name}' ({command})")
