"""The spec that `vmctl init` writes: short, commented, valid as it stands."""

from __future__ import annotations

_TEXT = """\
# One virtual machine. Check this file with: vmctl validate
# Run it with: vmctl up    All keys: docs/spec.md, or the schema of: vmctl schema
name: {name}

# What it starts from: a name that `vmctl image list` shows.
image: tiny

# full: all emulated; hardware: KVM with emulated devices; paravirt: KVM with virtio devices;
# auto: the fastest of them that this host can run.
mode: auto

cpus: 1
memory: 256MiB

# Out through the host; needs no rights. Others: nat, isolated, bridge.
networks:
  - {{kind: user}}

# Ports of this host that lead into the machine.
# forwards:
#   - {{host: 2222, guest: 22}}

# With an image that has cloud-init: who logs in, over ssh with the machine's own key, and a
# #cloud-config that is laid over what vmctl writes.
# user: dev
# cloud_init:
#   packages: [nginx]

# Steps in the guest, in order, once it is ready.
# provision:
#   - {{run: ./setup.sh}}

# More disks; with keep, a disk survives `vmctl down`.
# disks:
#   - {{name: data, size: 1GiB, keep: true}}

# Several machines: put the keys of each under its name.
# vms:
#   web: {{needs: [db]}}
#   db: {{memory: 512MiB}}
"""


def text(name: str) -> str:
    """Return the starter for a machine called `name`."""
    return _TEXT.format(name=name)
