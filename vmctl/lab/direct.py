"""The baseline without any isolation: the probe as a plain process of this host."""

from __future__ import annotations

import dataclasses
import os
import pathlib

from vmctl.lab.job import PLACE, Job
from vmctl.lab.results import Contender, Run
from vmctl.lab.trial import Sheet, Voice, follow

MODE = "host"
_ISOLATION = (
    "nothing: an ordinary process among the others",
    "ring 3 of the host's own processor; system calls go to the host's kernel",
)


@dataclasses.dataclass(slots=True, kw_only=True)
class Host:
    """The probe on the host, on as many processors as the machines have."""

    name: str
    directory: pathlib.Path
    job: Job
    disk: pathlib.Path
    peer: str
    cpus: int

    @property
    def contender(self) -> Contender:
        """Who it is."""
        pinned = chosen_cpus(self.cpus)
        return Contender(
            name=self.name,
            mode=MODE,
            isolation=_ISOLATION,
            topology={"cpus": len(pinned), "pinned_to": pinned},
            argv=tuple(self._argv()),
        )

    def _argv(self) -> list[str]:
        pinned = ",".join(map(str, chosen_cpus(self.cpus)))
        script = os.fspath(self.directory / "run-host")
        words = [script, os.fspath(self.directory / PLACE), os.fspath(self.disk)]
        return ["taskset", "-c", pinned, "sh", *words]

    def run(self, number: int, place: int, voice: Voice) -> Run:
        """Run it once."""
        sheet = Sheet(self.name, number, place)
        without_vm(sheet)
        (self.directory / "run-host").write_bytes(self.job.script(self.peer))
        return sheet.finished(follow(self._argv(), sheet, self.job, voice, lambda: None))


def chosen_cpus(count: int) -> list[int]:
    """Return the processors that a baseline runs on: the last ones, which do less beside."""
    return sorted(os.sched_getaffinity(0))[-count:]


def without_vm(sheet: Sheet) -> None:
    """Say of the rows that only a VM has why they are empty."""
    for name in ("start-firmware", "start-kernel", "start-user-space"):
        sheet.missing[name] = "it starts no firmware, no kernel and no user space of its own"
    sheet.missing["host-memory"] = "it has no process beside it"
