"""Backups that others make, and vmctl as it would be slow or killed while it makes one."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator

import libvirt

from tests.vm.conftest import Site
from tests.vm.test_snapshots import Guest

SLOWLY = (
    "import json, sys, types, libvirt_qemu\n"
    "import vmctl.hypervisor.backups as jobs\n"
    "import vmctl.lifecycle.backup as making\n"
    "def ask(domain, c, **a):\n"
    "    text = json.dumps({'execute': c, 'arguments': a})\n"
    "    return json.loads(libvirt_qemu.qemuMonitorCommand(domain, text, 0)).get('return') or []\n"
    "def begin(domain, *words):\n"
    "    jobs.begin(domain, *words)\n"
    "    for job in ask(domain, 'query-block-jobs'):\n"
    "        ask(domain, 'block-job-set-speed', device=job['device'], speed=65536)\n"
    "    print('begun', flush=True)\n"
    "def progress(domain):\n"
    "    return jobs.Progress(0, 1, over=False)\n"
    "fakes = {'begin': begin, 'progress': progress}\n"
    "making.jobs = types.SimpleNamespace(**{**vars(jobs), **fakes})\n"
    "sys.argv = ['vmctl', *sys.argv[1:]]\n"
    "from vmctl.cli import main\n"
    "main()\n"
)
"""vmctl, with a backup that takes long once it has begun, and that it does not see the end of."""

DYING = (
    "import os, signal, sys\n"
    "import vmctl.hypervisor.backups as jobs\n"
    "jobs.begin = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
    "sys.argv = ['vmctl', *sys.argv[1:]]\n"
    "from vmctl.cli import main\n"
    "main()\n"
)
"""vmctl, killed when all is ready and no backup has begun."""


@contextlib.contextmanager
def of_somebody_else(site: Site, guest: Guest) -> Iterator[None]:
    """Have a backup run that others began (pull mode: it goes on until it is ended)."""
    place = site.home / f"theirs-{guest.name}"
    place.mkdir()
    place.chmod(0o777)
    words = ["qemu-img", "create", "-q", "-f", "qcow2", str(place / "scratch"), "64M"]
    subprocess.run(words, check=True)
    (place / "scratch").chmod(0o666)
    guest.domain.backupBegin(
        "<domainbackup mode='pull'>"
        f"<server transport='unix' socket='{place}/socket'/><disks>"
        f"<disk name='vda' backup='yes' type='file'><scratch file='{place}/scratch'/></disk>"
        "</disks></domainbackup>",
        None,
        libvirt.VIR_DOMAIN_BACKUP_BEGIN_REUSE_EXTERNAL,
    )
    try:
        yield
        assert f"{place}/scratch" in guest.domain.backupGetXMLDesc()
        guest.domain.abortJob()
    finally:
        shutil.rmtree(place)
