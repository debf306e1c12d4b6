"""Snapshots of running guests, through QEMU's own monitor.

QEMU puts them into the qcow2 images and loads them into the same process, which libvirt 9.0 does
not: it starts a new QEMU for each, and refuses UEFI. Libvirt ignores jobs that are not its own, and
learns of the guest's pause from QEMU's events.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import libvirt
import libvirt_qemu

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.hypervisor import domains, failures
from vmctl.machine.state import State

JOB = "vmctl-snapshot"
VMSTATE = "vmctl-vmstate"
"""QEMU's name of the image that takes the memory of a machine without disks."""

_POLL = 0.01
_FREEZE_SECONDS = 30
_AGENT_POLL = 0.1


def nodes(domain: libvirt.virDomain) -> dict[str, str]:
    """Return QEMU's name of every qcow2 image that the guest can write, by its file."""
    found = _ask(domain, "query-named-block-nodes", flat=True)
    return {
        str(item["file"]): str(item["node-name"])
        for item in found
        if item.get("drv") == "qcow2" and not item.get("ro")
    }


def tags(domain: libvirt.virDomain) -> dict[str, list[dict[str, object]]]:
    """Return what QEMU says of the snapshots in every image, by its file."""
    found = _ask(domain, "query-named-block-nodes", flat=True)
    return {
        str(item["file"]): list(item.get("image", {}).get("snapshots", ()))
        for item in found
        if item.get("drv") == "qcow2"
    }


def save(domain: libvirt.virDomain, name: str, where: Sequence[str], deadline: Deadline) -> None:
    """Keep disks and memory under a name; the memory goes into the first of the nodes.

    The guest stands still meanwhile. Raises HypervisorError where QEMU refuses.
    """
    _job(domain, "snapshot-save", _where(name, where, memory=True), deadline)


def load(domain: libvirt.virDomain, name: str, where: Sequence[str], deadline: Deadline) -> None:
    """Put disks and memory back into the QEMU process; a paused guest stays paused.

    Raises HypervisorError where QEMU refuses: then the guest must not go on.
    """
    _job(domain, "snapshot-load", _where(name, where, memory=True), deadline)


def delete(domain: libvirt.virDomain, name: str, where: Sequence[str], deadline: Deadline) -> None:
    """Forget what is kept under a name; fine if it is gone."""
    _job(domain, "snapshot-delete", _where(name, where, memory=False), deadline)


def take_disks(domain: libvirt.virDomain, name: str, where: Sequence[str]) -> None:
    """Keep the disks under a name, all at the same moment or none."""
    actions = [
        {"type": "blockdev-snapshot-internal-sync", "data": {"device": node, "name": name}}
        for node in where
    ]
    _ask(domain, "transaction", actions=actions)


@contextlib.contextmanager
def standing_still(domain: libvirt.virDomain) -> Iterator[None]:
    """Hold a running guest for the block; the intent must say that it goes on afterwards.

    While a guest runs, its disks belong to a thread of their own. Under load, QEMU 7.2 once never
    came back from a snapshot that it took there; while the guest stands still, all is one thread.
    """
    running = domains.state(domain)[0] is State.RUNNING
    if running:
        domains.pause(domain)
    try:
        yield
    finally:
        if running:
            domains.resume(domain)


def attach(domain: libvirt.virDomain, path: str) -> str:
    """Have QEMU open the image for the memory of a machine without disks; returns its node."""
    known = nodes(domain).get(path)
    if known:
        return known
    node = {
        "driver": "qcow2",
        "node-name": VMSTATE,
        "discard": "unmap",
        "file": {"driver": "file", "filename": path, "discard": "unmap"},
    }
    _ask(domain, "blockdev-add", **node)
    return VMSTATE


def detach(domain: libvirt.virDomain) -> None:
    """Have QEMU close that image again; fine if it is closed."""
    with contextlib.suppress(errors.HypervisorError):
        _ask(domain, "blockdev-del", **{"node-name": VMSTATE})


def finish_job(domain: libvirt.virDomain, deadline: Deadline) -> None:
    """Wait for a job that a killed vmctl began, and forget it."""
    while any(item.get("id") == JOB for item in _ask(domain, "query-jobs")):
        with contextlib.suppress(errors.HypervisorError):
            _ask(domain, "job-dismiss", id=JOB)
        _wait(deadline, "a snapshot that was begun before")


def start_paused(domain: libvirt.virDomain) -> None:
    """Start QEMU and do not let the guest begin."""
    with failures.translated(f"start machine '{domain.name()}'"):
        domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)


def redefine(domain: libvirt.virDomain, xml: str) -> None:
    """Define a domain as it was once, by libvirt's own XML."""
    with failures.translated(f"define machine '{domain.name()}'"):
        domain.connect().defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)


def definition(domain: libvirt.virDomain) -> str:
    """Return the definition with the password of the display, for our own private files."""
    flags = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
    with failures.translated(f"read machine '{domain.name()}'"):
        return str(domain.XMLDesc(flags))


def managed_save(domain: libvirt.virDomain) -> None:
    """Have libvirt write the memory to its own directory and end QEMU."""
    with failures.translated(f"save machine '{domain.name()}'"):
        domain.managedSave(0)


def drop_saved(domain: libvirt.virDomain) -> None:
    """Throw the memory of a saved machine away; fine if there is none."""
    with failures.translated(f"drop the saved memory of machine '{domain.name()}'"):
        if domain.hasManagedSaveImage():
            domain.managedSaveRemove()


def foreign(domain: libvirt.virDomain) -> list[str]:
    """Return the names of snapshots that libvirt keeps itself: those of other hands."""
    with failures.translated(f"list the snapshots of machine '{domain.name()}'"):
        return sorted(str(name) for name in domain.snapshotListNames(0))


def freeze(domain: libvirt.virDomain) -> bool:
    """Have the guest's agent freeze its file systems; False where nobody answers."""
    try:
        # An agent that hangs would hold us for ever.
        domain.agentSetResponseTimeout(_FREEZE_SECONDS)
        domain.fsFreeze()
    except libvirt.libvirtError:
        # It may have frozen some of them.
        thaw(domain)
        return False
    finally:
        with contextlib.suppress(libvirt.libvirtError):
            domain.agentSetResponseTimeout(libvirt.VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK)
    return True


def thaw(domain: libvirt.virDomain) -> None:
    """Have the guest's agent thaw its file systems; fine if it cannot."""
    with contextlib.suppress(libvirt.libvirtError):
        domain.fsThaw()


def set_clock(domain: libvirt.virDomain, deadline: Deadline, cancelled: Callable[[], bool]) -> bool:
    """Give the guest the time of now, through its agent; False where nobody answers in time."""
    while not cancelled():
        now = time.time()
        try:
            domain.setTime({"seconds": int(now), "nseconds": int(now % 1 * 1e9)}, 0)
        except libvirt.libvirtError as problem:
            configured = failures.code(problem) == libvirt.VIR_ERR_AGENT_UNRESPONSIVE
            if not configured or deadline.passed:
                return False
            deadline.pause(_AGENT_POLL)
        else:
            return True
    return False


def _where(name: str, where: Sequence[str], *, memory: bool) -> dict[str, Any]:
    first = {"vmstate": where[0]} if memory else {}
    return {"tag": name, "devices": list(where), **first}


def _job(
    domain: libvirt.virDomain, command: str, arguments: dict[str, Any], deadline: Deadline
) -> None:
    finish_job(domain, deadline)
    _ask(domain, command, **{"job-id": JOB, **arguments})
    while True:
        jobs: list[dict[str, Any]] = _ask(domain, "query-jobs")
        job = next((item for item in jobs if item.get("id") == JOB), {})
        if job.get("status") in (None, "concluded"):
            break
        _wait(deadline, f"QEMU's {command}")
    with contextlib.suppress(errors.HypervisorError):
        _ask(domain, "job-dismiss", id=JOB)
    if job.get("error"):
        raise _refusal(domain.name(), command, str(job["error"]))


def _wait(deadline: Deadline, what: str) -> None:
    if deadline.passed:
        raise errors.WaitTimeoutError(f"{what} did not end within {deadline.seconds:.0f} s.")
    deadline.pause(_POLL)


def _ask(domain: libvirt.virDomain, command: str, **arguments: Any) -> Any:
    text = json.dumps({"execute": command, "arguments": arguments})
    with failures.translated(f"reach QEMU's monitor of machine '{domain.name()}'"):
        answer = json.loads(libvirt_qemu.qemuMonitorCommand(domain, text, 0))
    if "error" in answer:
        raise _refusal(domain.name(), command, str(answer["error"].get("desc", "")))
    return answer["return"]


def _refusal(name: str, command: str, why: str) -> errors.VmctlError:
    # A full disk shows as an I/O error where the memory is written.
    if "No space left" in why or "writing VM state" in why:
        return errors.HostError(
            f"There is no room for a snapshot of machine '{name}' ({why}).",
            hint=f"Free some disk space, or delete snapshots: vmctl snapshot list {name}",
        )
    return errors.HypervisorError(f"QEMU refused {command} for machine '{name}': {why}.")
