"""Whether a guest can really run guests of its own: the probe of `doctor`, carried out inside."""

from __future__ import annotations

import json

from vmctl import errors, process
from vmctl.deadline import Deadline
from vmctl.guest import ssh
from vmctl.guest.ssh import Access
from vmctl.host import decode, probe
from vmctl.host.facts import ProbeResult

_SECONDS = 30.0
_OPENED = "opened"

_SCRIPT = r"""
as=; [ "$(id -u)" = 0 ] || as='sudo -n'
if [ ! -e /dev/kvm ]; then
    $as modprobe kvm_amd 2> /dev/null || $as modprobe kvm_intel 2> /dev/null
fi
[ -c /dev/kvm ] || { echo missing; exit; }
# One job has this machine for itself.
[ -w /dev/kvm ] || $as chmod 0666 /dev/kvm 2> /dev/null
( : <> /dev/kvm ) 2> /dev/null || { echo closed; exit; }
if command -v python3 > /dev/null; then exec python3 -I - /dev/kvm; fi
echo opened
"""


def require(access: Access) -> None:
    """Let the login use /dev/kvm in a guest, and run code on it there.

    Where the guest has no Python, that it opens has to do. Raises GuestError, WaitTimeoutError.
    """
    deadline = Deadline.after(_SECONDS * access.patience)
    argv = ssh.command(access, [f"exec sh -c {_quoted(_SCRIPT)}"], shared=True)
    done = process.run(argv, deadline, stdin=probe.CHILD.read_bytes(), check=False)
    said = done.text.strip()
    reason = _objection(said)
    if reason:
        raise errors.GuestError(
            f"The guest of '{access.name}' cannot run guests of its own, although it has nested: "
            f"true: {reason}.",
            hint="See what this host offers: vmctl doctor",
            details=done.complaint,
        )


def _quoted(text: str) -> str:
    import shlex

    return shlex.quote(text)


def _objection(said: str) -> str:
    """Return what is wrong with /dev/kvm, by what the script printed; nothing where all is well."""
    known = {
        _OPENED: "",
        "missing": "it has no /dev/kvm, and its kernel loads neither kvm_amd nor kvm_intel",
        "closed": "its login may not open /dev/kvm",
    }
    if said in known:
        return known[said]
    try:
        result = decode.decode(ProbeResult, json.loads(said))
    except ValueError:
        return f"the probe printed nonsense ({said[:80]!r})"
    failed = [f"{case.name}: {case.detail}" for case in result.cases if not case.passed]
    return result.error or "; ".join(failed)
