"""A job that runs a job: `vmctl run` with KVM inside of `vmctl run`."""

from __future__ import annotations

import json

from tests.nested.conftest import build
from tests.vm.conftest import Site
from vmctl import shipped


def test_a_job_runs_a_job_with_kvm(site: Site) -> None:
    """/dev/kvm is tried with the real probe inside, before the outer job; then it carries one."""
    build(site)
    inner = "vmctl run tiny --mode paravirt --memory 128MiB --json -- dmesg 2> /tmp/said"
    done = site.run(
        *("run", "-q", str(shipped.directory("templates") / "lab-host.yaml"), "--user", "root"),
        *("--", "sh", "-c", f"systemctl start libvirt-ready.service && {inner}; cat /tmp/said >&2"),
    )
    (result,) = json.loads(done.out)["runs"]
    assert (result["status"], result["mode"]) == (0, "paravirt"), done.err
    assert "Hypervisor detected: KVM" in done.err
    assert not list((site.home / "machines").glob("run-*"))
