"""Whose backup job is ended, and whose is not."""

from __future__ import annotations

from typing import Any

import libvirt
import pytest

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.hypervisor import backups

OURS = "/backups/web/.tmp-20260101-000001-01234567"
PUSH = (
    "<domainbackup mode='push'><disks><disk name='vda' backup='yes' type='file'>"
    "<driver type='qcow2'/><target file='{}/data.qcow2'/></disk>"
    "<disk name='vdb' backup='no'/></disks></domainbackup>"
)
BLOCK = (
    "<domainbackup mode='push'><disks><disk name='vda' backup='yes' type='block'>"
    "<target dev='/dev/sdx'/></disk></disks></domainbackup>"
)
PULL = (
    "<domainbackup mode='pull'><server transport='unix' socket='/s'/><disks>"
    f"<disk name='vda' backup='yes' type='file'><scratch file='{OURS}/s'/></disk></disks>"
    "</domainbackup>"
)


class Domain:
    """A domain with a backup that runs until it is ended; untold at first for a while."""

    def __init__(self, xml: str = "", untold: int = 0) -> None:
        self.xml = xml
        self.untold = untold
        self.aborted = 0

    def name(self) -> str:
        return "web"

    def jobStats(self, _flags: int = 0) -> dict[str, Any]:
        return {"operation": libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP} if self.xml else {}

    def backupGetXMLDesc(self) -> str:
        self.untold -= 1
        if self.untold < 0:
            return self.xml
        problem = libvirt.libvirtError("none")
        problem.err = (libvirt.VIR_ERR_NO_DOMAIN_BACKUP, 10, "none", 2, None, None, None, 0, 0)
        raise problem

    def abortJob(self) -> None:
        self.aborted += 1
        self.xml = ""


@pytest.mark.parametrize("untold", [0, 2])
def test_our_backup_is_ended(untold: int) -> None:
    domain = Domain(PUSH.format(OURS), untold)
    backups.abort(domain, OURS, Deadline.after(10))
    assert domain.aborted == 1


@pytest.mark.parametrize(
    "xml",
    [PUSH.format("/elsewhere"), PUSH.format(f"{OURS}/deeper"), PULL, BLOCK],
    ids=["other", "deeper", "pull", "block"],
)
@pytest.mark.parametrize("directory", [OURS, ""])
def test_the_backup_of_somebody_else_goes_on(xml: str, directory: str) -> None:
    domain = Domain(xml, untold=1)
    backups.abort(domain, directory, Deadline.after(10))
    assert domain.aborted == 0


def test_what_is_never_told_is_not_ended() -> None:
    domain = Domain(PUSH.format(OURS), untold=1 << 30)
    with pytest.raises(errors.WaitTimeoutError):
        backups.abort(domain, OURS, Deadline.after(0.05))
    assert domain.aborted == 0


def test_none_is_begun_beside_another() -> None:
    backups.require_none(Domain())
    with pytest.raises(errors.ConflictError, match="another job of machine 'web'"):
        backups.require_none(Domain(PUSH.format("/elsewhere")))
