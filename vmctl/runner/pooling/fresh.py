"""Makes a guest that came out of a saved state one of its own kind, before a job may have it. Pure.

All guests of a state are the same: their random numbers, clock, names and keys. The script below,
which runs as root in the guest, ends that. Tools that a guest lacks are no failure; entropy that
could not be renewed is one, and so are host keys.
"""

from __future__ import annotations

import base64
import dataclasses
import re
import shlex

from vmctl.runner.pooling import reseed

_HOST_KEY = re.compile(r"^vmctl-host-key (ssh-ed25519 [A-Za-z0-9+/=]{16,200})\s*$", re.MULTILINE)
_NESTED = re.compile(r"^vmctl-nested [1-9]", re.MULTILINE)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What one job's guest is given: `seed` is entropy, `now` the time (seconds of the epoch)."""

    hostname: str
    machine_id: str
    seed: bytes = dataclasses.field(repr=False)
    now: int


def script(identity: Identity) -> bytes:
    """Return the script; it prints the new ssh host key where the guest has OpenSSH."""
    values = {
        "hostname": identity.hostname,
        "machine_id": identity.machine_id,
        "now": str(identity.now),
        "program": base64.b64encode(reseed.program()).decode(),
        "seed": base64.b64encode(identity.seed).decode(),
    }
    lines = [f"{name}={shlex.quote(value)}" for name, value in values.items()]
    return ("#!/bin/sh\n" + "\n".join(lines) + _STEPS).encode()


_STEPS = r"""
fail() { echo "$*"; exit 1; }
date -u -s "@$now" > /dev/null 2>&1 || fail 'the clock could not be set'

# A directory whose files may be executed: /tmp is mounted noexec here and there.
for place in /run /dev/shm /tmp /root; do
    [ -d "$place" ] || continue
    file=$place/.vmctl-reseed-$$
    (umask 077; echo "$program" | base64 -d > "$file") 2> /dev/null && chmod 700 "$file"
    echo "$seed" | base64 -d | "$file" 2> /dev/null && reseeded=yes
    rm -f "$file"
    [ -z "${reseeded-}" ] || break
done
[ -n "${reseeded-}" ] || fail 'the kernel took no fresh entropy'
rm -f /var/lib/systemd/random-seed /var/lib/random-seed /var/lib/urandom/random-seed

if [ -e /etc/machine-id ]; then echo "$machine_id" > /etc/machine-id; fi
if [ -f /var/lib/dbus/machine-id ] && [ ! -L /var/lib/dbus/machine-id ]; then
    echo "$machine_id" > /var/lib/dbus/machine-id
fi
echo "$hostname" > /proc/sys/kernel/hostname
if [ -e /etc/hostname ]; then echo "$hostname" > /etc/hostname; fi
echo "127.0.1.1 $hostname" >> /etc/hosts

# Servers that were running hold keys, and random numbers of the saved state.
if [ -e /run/dropbear.pid ] && command -v dropbear > /dev/null; then
    kill "$(cat /run/dropbear.pid)" 2> /dev/null
    rm -f /etc/dropbear/dropbear_*_host_key
    tries=0
    until dropbear -R -s -P /run/dropbear.pid 2> /dev/null; do
        tries=$((tries + 1))
        [ "$tries" -lt 50 ] || fail 'dropbear did not start again'
        sleep 0.1
    done
elif command -v ssh-keygen > /dev/null && [ -d /etc/ssh ]; then
    rm -f /etc/ssh/ssh_host_*
    ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key < /dev/null ||
        fail 'no ssh host key could be made'
    if [ -d /run/systemd/system ]; then
        systemctl reload-or-restart ssh 2> /dev/null || systemctl reload-or-restart sshd ||
            fail 'sshd did not start again'
    else
        for file in /run/sshd.pid /var/run/sshd.pid; do
            if [ -e "$file" ]; then kill -HUP "$(cat "$file")"; break; fi
        done
    fi
    read -r kind key rest < /etc/ssh/ssh_host_ed25519_key.pub
    echo "vmctl-host-key $kind $key"
fi
exit 0
"""


def host_key(output: str) -> str:
    """Return the host key that the script told, as known_hosts has it; empty where it told none."""
    found = _HOST_KEY.search(output)
    return found[1] if found is not None else ""


NESTED_PROBE = b"""#!/bin/sh
for file in /sys/module/kvm_intel/refcnt /sys/module/kvm_amd/refcnt; do
    if [ -r "$file" ]; then read -r count < "$file"; echo "vmctl-nested $count"; fi
done
exit 0
"""
"""Tells how many handles of /dev/kvm are open in a guest."""


def runs_guests(output: str) -> bool:
    """Tell whether the probe found machines that run inside the guest."""
    return bool(_NESTED.search(output))
