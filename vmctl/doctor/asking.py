"""Asks libvirt what the doctor wants to know, beside everything else and never for long."""

from __future__ import annotations

import threading

from vmctl import errors
from vmctl.deadline import TCG_PATIENCE, Deadline
from vmctl.doctor.model import LibvirtFacts
from vmctl.store.layout import Layout

_SECONDS = 10.0


class Inquiry:
    """A question to libvirt under way in a thread: a daemon that hangs must not hang the doctor."""

    def __init__(self, uri: str | None, layout: Layout, deadline: Deadline) -> None:
        self._uri = uri or ""
        self._deadline = deadline.within(_SECONDS)
        self._patient = deadline.within(_SECONDS * TCG_PATIENCE)
        self._answer: LibvirtFacts | None = None
        self._thread = threading.Thread(target=self._run, args=(layout,), daemon=True)
        self._thread.start()

    def answer(self, *, emulated: bool = False) -> LibvirtFacts:
        """Wait for the answer; what does not come in time is an answer, too.

        On a host whose own processor is `emulated`, everything takes its time.
        """
        deadline = self._patient if emulated else self._deadline
        self._thread.join(deadline.remaining)
        if self._answer is not None:
            return self._answer
        return LibvirtFacts(
            reachable=False,
            uri=self._uri,
            error=f"Libvirt did not answer within {deadline.seconds:.0f} s.",
            hint="See what it is busy with, or restart it: sudo systemctl restart libvirtd",
        )

    def _run(self, layout: Layout) -> None:
        try:
            self._answer = self._ask(layout)
        except errors.VmctlError as problem:
            self._answer = LibvirtFacts(
                reachable=False, uri=self._uri, error=problem.message, hint=problem.hint
            )
        except ImportError as problem:
            self._answer = LibvirtFacts(
                reachable=False,
                uri=self._uri,
                error=f"Python cannot load libvirt's binding: {problem}.",
                hint="Install it into vmctl's environment: pip install libvirt-python",
            )
        except Exception as problem:  # noqa: BLE001  (the doctor tells, whatever it is)
            self._answer = LibvirtFacts(reachable=False, uri=self._uri, error=repr(problem))

    def _ask(self, layout: Layout) -> LibvirtFacts:
        from vmctl.hypervisor import connection

        self._uri = self._uri or connection.default_uri()
        with connection.opened(self._uri, layout, deadline=self._patient) as libvirt:
            versions = libvirt.versions()
            return LibvirtFacts(
                reachable=True,
                uri=libvirt.uri,
                libvirt_version=_dotted(versions.libvirt),
                qemu_version=_dotted(versions.qemu) if any(versions.qemu) else "",
                kvm_in_capabilities=libvirt.offers_kvm(),
            )


def _dotted(version: tuple[int, int, int]) -> str:
    return ".".join(str(number) for number in version)
