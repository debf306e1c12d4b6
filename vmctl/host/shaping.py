"""Whether the kernel can hold a network card to a rate: tried out where nobody sees it."""

from __future__ import annotations

import os

from vmctl import errors, process
from vmctl.deadline import Deadline

REMEDY = "Load the modules: sudo modprobe -a sch_htb sch_sfq sch_ingress cls_fw cls_u32 act_police"
"""What makes it work where the kernel has them."""

_SECONDS = 10.0
_TRIAL = """set -e
tc() { "$0" "$@"; }
tc qdisc add dev lo root handle 1: htb default 1
tc class add dev lo parent 1: classid 1:1 htb rate 1024kbps ceil 1024kbps
tc qdisc add dev lo parent 1:1 handle 2: sfq perturb 10
tc filter add dev lo parent 1:0 protocol all prio 1 handle 1 fw flowid 1
tc qdisc add dev lo ingress
tc filter add dev lo parent ffff: protocol all u32 match u32 0 0 \
police rate 1024kbps burst 1024kb mtu 64kb drop flowid :1
"""
"""What libvirt does to a tap device (virnetdevbandwidth.c), on the loopback of a namespace."""


def objection() -> str:
    """Return what is missing for `net_rate`, '' where it works or cannot be tried.

    Only root may make a network namespace; for others libvirt tries first, as root.
    """
    if os.geteuid() != 0:
        return ""
    program = process.find("tc")
    if program is None:
        return "the program tc is not installed (package iproute2)"
    trial = ["unshare", "--net", "sh", "-c", _TRIAL, program]
    try:
        done = process.run(trial, Deadline.after(_SECONDS), check=False)
    except errors.VmctlError:
        return ""
    words = done.complaint.splitlines()
    if done.status == 0 or not words or words[0].startswith("unshare:"):
        return ""
    reason = words[0].removeprefix("Error: ").rstrip(".")
    return f"its kernel refuses a queue or a police filter: {reason}"
